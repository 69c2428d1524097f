"""How fast a run is said to be: by hand, on a machine of round numbers."""

from dataclasses import replace

import pytest

from kvplan.check import speed
from kvplan.check.measurement import LogitErrors, Measurement
from kvplan.check.speed import Speed, measure_speed
from kvplan.engine.counter import Counter
from kvplan.engine.generation import Phase, StepRecord
from kvplan.engine.machine import Machine

MACHINE = Machine(read_bytes_per_s=100.0, read_bytes=1, sgemm_flops_per_s=1000.0)
COUNTED = Counter(matmul_flops=3000, attention_flops=500, weights_read_bytes=200, cache_read_bytes=100)
STEP = StepRecord(Phase.DECODE, 2, 2, 9, 8.0, COUNTED, 0, 0)


def measurement(*steps):
    return Measurement(0, (), 0, 0, Counter(), Counter(), steps, (), LogitErrors(0.0, 0.0, 1.0))


def test_products_and_attention_each_take_their_own_bound():
    """Weights: 3 s to multiply, 2 to read. Cache: 0.5 s to multiply, 1 to read. Four in all."""
    assert Speed(MACHINE, (STEP,), 0.0).bound_s(STEP) == 4


def test_a_run_is_as_fast_as_its_middle_step():
    steps = tuple(replace(STEP, seconds=seconds) for seconds in (40.0, 8.0, 5.0))
    found = Speed(MACHINE, steps, 0.0)
    assert found.fraction_of_bound == 0.5
    assert found.tokens_per_s == 6 / 53
    assert found.decoding


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ([Phase.PREFILL, Phase.DECODE, Phase.DECODE], [1, 2]),
        ([Phase.PREFILL, Phase.PREFILL], [0, 1]),
    ],
)
def test_decode_steps_are_told_where_there_are_any(phases, told, monkeypatch):
    """The machine is measured on the bytes of the last of them."""
    asked = []
    monkeypatch.setattr(speed, "measure_machine", lambda size: asked.append(size) or MACHINE)
    steps = [
        replace(STEP, phase=phase, counted=Counter(weights_read_bytes=10 * n, cache_read_bytes=n))
        for n, phase in enumerate(phases)
    ]
    found = measure_speed(measurement(*steps))
    assert found.steps == tuple(steps[n] for n in told)
    assert found.decoding == (Phase.DECODE in phases)
    assert asked == [11 * told[-1]]
    assert found.first_token_s == 8 * phases.count(Phase.PREFILL)
