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
        # Expert parallel: as many ranks as a pipeline stage has GPUs, which takes none of its own.
        ((8, None, None, None, 8), (8, 1, 1, 8)),
        ((8, 1, None, None, 8), (1, 1, 8, 8)),
        ((8, None, None, 2, 8), (4, 1, 2, 8)),
        ((16, None, 2, None, 8), (8, 2, 1, 8)),
        ((None, None, None, None, 8), (8, 1, 1, 8)),
        ((None, None, None, 8, 8), (1, 1, 8, 8)),
        ((None, 2, None, None, 8), (2, 1, 4, 8)),
        ((None, 2, 3, None, 8), (2, 3, 4, 8)),
        ((None, 2, None, 4, 8), (2, 1, 4, 8)),
        ((None, 4, None, None, 1), (4, 1, 1, 1)),
        # Context parallel: ranks of its own.
        ((None, None, None, None, None, 4), (1, 1, 1, 1, 4)),
        ((8, None, None, None, None, 2), (4, 1, 1, 1, 2)),
        ((8, 2, None, None, None, 2), (2, 1, 2, 1, 2)),
        ((None, None, None, 2, 8, 2), (2, 1, 2, 8, 2)),
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
        ((8, None, None, None, None, 3), "8 GPUs cannot be cut into pp 1 x dp 1 x cp 3"),
        ((8, 2, 2, None, None, 3), "tp 2 x pp 2 x dp 1 x cp 3 is 12 GPUs, not the 8 of --gpus"),
    ],
)
def test_degrees_that_do_not_multiply_are_refused(asked, message):
    with pytest.raises(UsageError) as error:
        parallelism(*asked)
    assert error.value.message == message


@pytest.mark.parametrize(
    ("asked", "needed", "hint"),
    [
        ((8, None, None, None, 4), "4 GPUs in each pipeline stage: tp 8 x pp 1 x dp 1 has 8", "1 or --ep 8"),
        ((8, 4, None, None, 4), "4 GPUs in each pipeline stage: tp 4 x pp 1 x dp 2 has 8", "1 or --ep 8"),
        ((8, None, 2, None, 8), "8 GPUs in each pipeline stage: tp 4 x pp 2 x dp 1 has 4", "1 or --ep 4"),
        ((None, 3, None, None, 8), "8 GPUs in each pipeline stage: tp 3 x pp 1 x dp 1 has 3", "1 or --ep 3"),
        ((None, 1, None, 1, 8), "8 GPUs in each pipeline stage: tp 1 x pp 1 x dp 1 has 1", "1"),
        (
            (None, 2, None, 1, 2, 2),
            "2 GPUs in each pipeline stage: tp 2 x pp 1 x dp 1 x cp 2 has 4",
            "1 or --ep 4",
        ),
    ],
)
def test_experts_are_shared_by_all_gpus_of_a_stage_or_by_none(asked, needed, hint):
    with pytest.raises(UsageError) as error:
        parallelism(*asked)
    assert error.value.message == f"expert parallel {asked[4]} needs {needed}"
    assert error.value.hint == f"--ep {hint}"


def test_gpus():
    cut = Parallelism(4, 2, 3)
    assert (cut.gpus, cut.gpus_per_replica, cut.gpus_per_stage, cut.gpus_that_talk) == (24, 8, 12, 8)
    shared = Parallelism(4, 2, 3, expert=60, context=5)
    assert (shared.gpus, shared.gpus_per_replica, shared.gpus_per_stage) == (120, 40, 60)
    assert shared.gpus_that_talk == 120
    assert shared.degrees == "tp 4 x pp 2 x dp 3 x cp 5"
