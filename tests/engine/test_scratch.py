"""Work areas grow with their largest use, and one name never means two areas at once."""

import numpy as np

from kvplan.engine.scratch import Scratch


def test_every_shape_of_a_name_is_the_same_area_after_it_has_grown():
    scratch = Scratch()
    small = scratch.take("rows", 2, 3)
    assert scratch.take("rows", 2, 3) is small
    large, other = scratch.take("rows", 4, 5), scratch.take("other", 2, 3)
    again = scratch.take("rows", 2, 3)
    assert (again.shape, large.shape) == ((2, 3), (4, 5))
    assert np.shares_memory(again, large)
    assert not np.shares_memory(again, small)
    assert not np.shares_memory(again, other)
    assert scratch.nbytes == 4 * (20 + 6)


def test_many_shapes_take_no_more_memory_than_the_largest():
    scratch = Scratch()
    areas = [scratch.take("rows", count, 2) for count in range(600, 0, -1)]
    assert scratch.nbytes == 4 * 1200
    assert all(np.shares_memory(area, areas[0]) for area in areas)
    scratch.clear()
    assert scratch.nbytes == 0
    assert not np.shares_memory(scratch.take("rows", 1, 2), areas[0])
