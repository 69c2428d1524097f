"""What is read in every step lies in pieces of memory that are large enough for huge pages."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.engine.huge_pages import HugePages
from kvplan.engine.linear import Linear
from kvplan.storage import kv_format

# From here on NumPy asks for huge pages.
LARGE_NBYTES = 4 << 20


def test_small_arrays_share_a_large_piece_without_touching_each_other():
    memory = HugePages()
    taken = [memory.zeros(shape) for shape in [(3, 5), (), (0, 7), (1,), (2, 3, 4)]]
    assert [array.shape for array in taken] == [(3, 5), (), (0, 7), (1,), (2, 3, 4)]
    assert {id(array.base) for array in taken} == {id(taken[0].base)}
    assert taken[0].base.nbytes >= LARGE_NBYTES
    assert all(array.dtype == np.float32 for array in taken)
    assert all(array.ctypes.data % 64 == 0 for array in taken if array.size)
    places = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in taken if array.size]
    assert all(stop <= start for (_, stop), (start, _) in pairwise(places))


def test_what_does_not_fit_the_piece_begins_another():
    memory = HugePages()
    first, large, after = memory.zeros((3,)), memory.zeros((40 << 18,)), memory.zeros((3,))
    assert large.base is not first.base
    assert after.base is not large.base or after.ctypes.data >= large.ctypes.data + large.nbytes
    large[...] = 1
    first[...], after[...] = 2, 3
    assert large.min() == large.max() == 1


def test_a_piece_goes_with_the_last_of_its_arrays():
    memory = HugePages()
    one, other = memory.zeros((3,)), memory.zeros((3,))
    piece = weakref.ref(one.base)
    memory.zeros((40 << 18,))
    del one
    gc.collect()
    assert piece() is not None
    del other
    gc.collect()
    assert piece() is None


def test_arrays_are_zeros_of_the_type_asked_for():
    memory = HugePages()
    for dtype, itemsize in [(np.uint8, 1), (np.int16, 2), (np.float32, 4), (np.uint32, 4)]:
        taken = memory.zeros((3, 7), dtype)
        assert (taken.dtype, taken.nbytes) == (dtype, 21 * itemsize)
        assert taken.ctypes.data % 64 == 0
        assert not taken.any()
        taken[...] = 1


@pytest.mark.parametrize("kv", ["fp32", "int8"])
def test_keys_and_values_of_all_layers_lie_in_them(runner_of, kv):
    cache = runner_of("gqa").cache(kv_format(kv), Paged(16))
    planes = [plane for tiles in cache._stores for plane in (tiles.keys, tiles.values)]
    arrays = [array for plane in planes for array in plane.arrays.values()]
    assert len(arrays) > 2
    assert {id(array.base) for array in arrays} == {id(arrays[0].base)}
    assert arrays[0].base.nbytes >= LARGE_NBYTES


def test_weights_of_layers_lie_in_them():
    linear = Linear(np.ones((70, 3), np.float32))
    assert all(part.base.nbytes >= LARGE_NBYTES for part in (linear._panels, linear._rest))
