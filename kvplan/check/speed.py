"""How fast a run was, beside the least time this machine could have taken for it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from kvplan.check.measurement import Measurement
from kvplan.engine.generation import Phase, StepRecord
from kvplan.engine.machine import Machine, measure_machine


@dataclass(frozen=True, slots=True)
class Speed:
    """A run's steps on a machine.

    Args:
        machine: what it can do at most.
        steps: the steps whose speed is told: decode steps where there are any.
        first_token_s: the time of all prefill steps: of one request, its time to first token.
    """

    machine: Machine
    steps: tuple[StepRecord, ...]
    first_token_s: float

    @property
    def decoding(self) -> bool:
        """Whether the steps are decode steps."""
        return self.steps[0].phase is Phase.DECODE

    @property
    def fraction_of_bound(self) -> float:
        """The machine's least time for a step over the time it took, in the middle of all steps."""
        return median(self.bound_s(step) / step.seconds for step in self.steps)

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second over all the steps."""
        return sum(step.new_tokens for step in self.steps) / sum(step.seconds for step in self.steps)

    def bound_s(self, step: StepRecord) -> float:
        """Return the least time for what a step counted: products with weights, then attention."""
        counted, machine = step.counted, self.machine
        products = machine.bound_s(counted.matmul_flops, counted.weights_read_bytes)
        return products + machine.bound_s(counted.attention_flops, counted.cache_read_bytes)


def measure_speed(measurement: Measurement) -> Speed:
    """Measure this machine on as many bytes as one of the run's steps touches."""
    decode = tuple(step for step in measurement.steps if step.phase is Phase.DECODE)
    steps = decode or measurement.steps
    counted = steps[-1].counted
    prefill = sum(step.seconds for step in measurement.steps if step.phase is Phase.PREFILL)
    return Speed(measure_machine(counted.weights_read_bytes + counted.cache_read_bytes), steps, prefill)
