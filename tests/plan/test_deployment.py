"""Completing the degrees a user gave."""

import pytest

from kvplan.errors import UsageError
from kvplan.plan.deployment import Parallelism, parallelism


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((None, None, None, None), (1, 1, 1)),
        ((8, None, None, None), (8, 1, 1)),
        ((8, 4, None, None), (4, 1, 2)),
        ((8, None, 2, None), (4, 2, 1)),
        ((8, None, None, 2), (4, 1, 2)),
        ((8, 2, 2, 2), (2, 2, 2)),
        ((None, 4, 2, None), (4, 2, 1)),
        ((None, None, 3, 2), (1, 3, 2)),
    ],
)
def test_degrees(asked, expected):
    assert parallelism(*asked) == Parallelism(*expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((8, None, 3, None), "8 GPUs cannot be cut into pp 3 x dp 1"),
        ((8, 4, 4, None), "tp 4 x pp 4 x dp 1 is 16 GPUs, not the 8 of --gpus"),
        ((8, 3, None, None), "tp 3 x pp 1 x dp 1 is 3 GPUs, not the 8 of --gpus"),
    ],
)
def test_degrees_that_do_not_multiply_are_refused(asked, message):
    with pytest.raises(UsageError) as error:
        parallelism(*asked)
    assert error.value.message == message


def test_gpus():
    cut = Parallelism(4, 2, 3)
    assert (cut.gpus, cut.gpus_per_replica) == (24, 8)
