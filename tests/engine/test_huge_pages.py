"""What is read in every step lies in pieces of memory that are large enough for huge pages."""

import gc
import weakref
from itertools import pairwise

import numpy as np

from kvplan.engine.huge_pages import HugePages
from kvplan.engine.linear import Linear

# From here on NumPy asks for huge pages.
LARGE_NBYTES = 4 << 20


def test_small_arrays_share_a_large_piece_without_touching_each_other():
    memory = HugePages()
    taken = [memory.take(*shape) for shape in [(3, 5), (), (0, 7), (1,), (2, 3, 4)]]
    assert [array.shape for array in taken] == [(3, 5), (), (0, 7), (1,), (2, 3, 4)]
    assert {id(array.base) for array in taken} == {id(taken[0].base)}
    assert taken[0].base.nbytes >= LARGE_NBYTES
    assert all(array.dtype == np.float32 for array in taken)
    assert all(array.ctypes.data % 64 == 0 for array in taken if array.size)
    places = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in taken if array.size]
    assert all(stop <= start for (_, stop), (start, _) in pairwise(places))


def test_what_does_not_fit_the_piece_begins_another():
    memory = HugePages()
    first, large, after = memory.take(3), memory.take(40 << 18), memory.take(3)
    assert large.base is not first.base
    assert after.base is not large.base or after.ctypes.data >= large.ctypes.data + large.nbytes
    large[...] = 1
    first[...], after[...] = 2, 3
    assert large.min() == large.max() == 1


def test_a_piece_goes_with_the_last_of_its_arrays():
    memory = HugePages()
    one, other = memory.take(3), memory.take(3)
    piece = weakref.ref(one.base)
    memory.take(40 << 18)
    del one
    gc.collect()
    assert piece() is not None
    del other
    gc.collect()
    assert piece() is None


def test_weights_of_layers_lie_in_them():
    linear = Linear(np.ones((70, 3), np.float32))
    assert all(part.base.nbytes >= LARGE_NBYTES for part in (linear._panels, linear._rest))
