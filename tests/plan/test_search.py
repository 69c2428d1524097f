"""The search for the largest number that fits, against trying them all."""

from hypothesis import given
from hypothesis import strategies as st

from kvplan.plan.search import largest


@given(st.integers(-3, 300), st.integers(-3, 300))
def test_equals_trying_them_all(threshold, limit):
    expected = max((n for n in range(1, limit + 1) if n <= threshold), default=0)
    assert largest(lambda n: n <= threshold, limit) == expected


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 40))
def test_asks_little_and_never_past_the_limit(threshold, limit):
    asked = []

    def fits(number):
        asked.append(number)
        return number <= threshold

    assert largest(fits, limit) == min(threshold, limit)
    assert len(asked) <= 2 * limit.bit_length() + 1
    assert max(asked) <= limit


def test_nothing_fits():
    assert largest(lambda _: False, 100) == 0
    assert largest(lambda _: True, 0) == 0
    assert largest(lambda _: True, 1) == 1
