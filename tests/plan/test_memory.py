"""The memory of one GPU: what is planned, spent and left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.plan.memory import planned_bytes, pool_bytes, short_bytes

MIB = 1 << 20
sizes = st.integers(0, 1 << 45)


def test_llama_on_an_h100(plan):
    (stage,) = plan("llama-3.1-8b").stages
    # The driver reports 81,559 MiB = 85,520,809,984 bytes; 90 % of it, rounded down.
    assert stage.total.number == 76_968_728_985
    assert stage.weights.number == 16_060_522_496
    assert stage.activations.number == 905_969_664
    assert stage.overhead.number == 256 * MIB + 512 * MIB
    assert stage.pool.number == 76_968_728_985 - 16_060_522_496 - 905_969_664 - 805_306_368
    assert stage.shortfall.number == 0


def test_planned_bytes_round_down():
    assert planned_bytes(10_001, 9_000) == 9_000
    assert planned_bytes(10_009, 9_999) == 10_007
    assert planned_bytes(10_001, 10_000) == 10_001


@given(sizes, sizes, sizes, sizes)
def test_parts_and_what_is_short_sum_to_the_total(total, weights, activations, overhead):
    pool = pool_bytes(total, weights, activations, overhead)
    short = short_bytes(total, weights, activations, overhead)
    assert weights + activations + overhead + pool - short == total
    assert pool >= 0
    assert short >= 0
    assert 0 in (pool, short)


@pytest.mark.parametrize(("device", "cut"), [("rtx4090", {"pipeline": 2}), ("mi300x", {})])
def test_every_stage_sums_to_its_total(representative, device, cut, plan):
    for stage in plan(representative, device, **cut).stages:
        spent = stage.weights.number + stage.activations.number + stage.overhead.number
        assert spent + stage.pool.number - stage.shortfall.number == stage.total.number


def test_nothing_fits_where_something_is_short(plan):
    capacity = plan("llama-3.1-70b", "rtx4090")
    (stage,) = capacity.stages
    # 2 x 70,553,706,496 bytes of weights on 24,564 MiB x 0.9.
    assert stage.pool.number == 0
    assert stage.shortfall.number > 141_107_412_992 - 23_181_734_707
    assert not capacity.fits(1, 1)
    assert (capacity.max_batch(1), capacity.max_context(1)) == (0, 0)


@pytest.mark.parametrize(
    ("cut", "mib"),
    [
        ({}, 768),
        ({"data": 8}, 768),  # replicas do not talk to each other
        ({"tensor": 2}, 1_024),
        ({"tensor": 2, "pipeline": 2}, 1_024),
        ({"tensor": 8}, 1_792),
    ],
)
def test_overhead(cut, mib, plan):
    for stage in plan("llama-3.1-8b", **cut).stages:
        assert stage.overhead.number == mib * MIB


def test_a_measured_overhead_replaces_the_typical_one(plan):
    (stage,) = plan("llama-3.1-8b", overhead=123).stages
    assert stage.overhead.number == 123
