"""Requests of a run, and sums over them."""

import pytest

from kvplan.plan.requests import Request, alike_requests, over_requests
from kvplan.units import Unit


def test_equal_requests_are_one_part():
    several = alike_requests([Request(5, 3), Request(7, 1), Request(5, 3), Request(5, 4)])
    assert [alike.name for alike in several] == ["requests_1_3", "request_2", "request_4"]
    assert [alike.count.number for alike in several] == [2, 1, 1]
    assert [alike.prompt.number for alike in several] == [5, 7, 5]
    assert [alike.decoded.number for alike in several] == [2, 0, 3]
    # The last token of the output is never stored.
    assert [alike.cached.number for alike in several] == [7, 7, 8]
    summed = over_requests("cached", several, lambda alike: alike.cached)
    assert (summed.number, summed.unit) == (2 * 7 + 7 + 8, Unit.TOKENS)
    assert [part.number for part in summed.parts] == [14, 7, 8]
    assert all(part.unit is Unit.TOKENS for part in summed.parts)


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0), (-1, 5)])
def test_lengths_that_cannot_be(lengths):
    with pytest.raises(ValueError, match="at least one prompt and one output token"):
        Request(*lengths)


def test_a_run_of_nothing():
    with pytest.raises(ValueError, match="at least one request"):
        alike_requests([])
