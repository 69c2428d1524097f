"""Names side by side: none on another, in their order, within the range where they fit, moved least."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.report.plots.labels import apart

PLACES = st.lists(st.tuples(st.floats(-50, 150), st.floats(0.5, 30)), min_size=1, max_size=9)
LOW, HIGH = 0.0, 100.0


def edges(places, sizes):
    return sorted((place - size / 2, place + size / 2) for place, size in zip(places, sizes, strict=True))


@given(PLACES)
def test_none_lies_on_another(labels):
    wanted, sizes = zip(*labels, strict=True)
    found = edges(apart(wanted, sizes, LOW, HIGH), sizes)
    assert all(low[1] <= high[0] + 1e-6 for low, high in pairwise(found))


@given(PLACES)
def test_they_keep_their_order(labels):
    wanted, sizes = zip(*labels, strict=True)
    found = apart(wanted, sizes, LOW, HIGH)
    ranked = sorted(range(len(wanted)), key=lambda index: wanted[index])
    assert all(found[low] < found[high] for low, high in pairwise(ranked))


@given(PLACES)
def test_they_are_within_the_range_where_they_fit(labels):
    wanted, sizes = zip(*labels, strict=True)
    found = edges(apart(wanted, sizes, LOW, HIGH), sizes)
    if sum(sizes) <= HIGH - LOW:
        assert found[0][0] >= LOW - 1e-6
        assert found[-1][1] <= HIGH + 1e-6


@given(st.lists(st.floats(20, 80), min_size=1, max_size=6))
def test_none_moves_where_there_is_room(wanted):
    spread = [place + 10 * index for index, place in enumerate(sorted(wanted))]
    assert apart(spread, [1.0] * len(spread), -100, 300) == pytest.approx(spread)


def test_two_at_one_place_move_by_half_each():
    assert apart([10, 10], [4, 4], 0, 100) == [8, 12]


def test_three_move_as_little_as_they_can():
    # Squares of 3, 1 and 4: any other three places that are 4 apart have a larger sum.
    assert apart([10, 12, 13], [4, 4, 4], 0, 100) == pytest.approx([35 / 3 - 4, 35 / 3, 35 / 3 + 4])


def test_a_group_at_the_edge_pushes_the_next():
    assert apart([99, 98, 93], [4, 4, 4], 0, 100) == [98, 94, 90]
