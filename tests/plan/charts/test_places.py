"""Places along an axis: both ends, whole, rising, and as many to a doubling as asked for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvplan.plan.charts.places import between, contexts, doublings


@given(st.integers(1, 1 << 21), st.integers(0, 1 << 21), st.integers(1, 5))
def test_both_ends_are_among_rising_whole_numbers(least, more, per_doubling):
    places = between(least, least + more, per_doubling)
    assert places[0] == least
    assert places[-1] == least + more
    assert all(low < high for low, high in pairwise(places))
    assert all(high <= 2 * low for low, high in pairwise(places))


def test_places_of_usual_models():
    assert contexts(8192, per_doubling=1) == [1024, 2048, 4096, 8192]
    assert contexts(40960)[-2:] == [38968, 40960]
    assert contexts(1024, per_doubling=1) == [128, 256, 512, 1024]
    assert contexts(1) == [1]
    assert doublings(13) == [1, 2, 4, 8, 13]
