"""The steps that ``kvplan roofline`` tells of: what is asked for, and each batch's operators."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.work import Step
from kvplan.hardware.runtime_fits import RuntimeFit
from kvplan.plan.roofline import Roofline, Timed
from kvplan.plan.roofline_figures import tokens_over_time
from kvplan.plan.step_time import Times
from kvplan.results import Quantity, computed, fact
from kvplan.units import Unit


@dataclass(frozen=True, slots=True)
class Asked:
    """The steps to tell of.

    Args:
        decoding: decode steps; else the reading of whole prompts.
        batches: requests at once; the verdict is about the last.
        context: tokens in the cache before a decode step, or tokens of each prompt.
        new_tokens: tokens a decode step adds to each request: more than one verifies speculated ones.
        cached: tokens of each prompt that a shared prefix has in the cache already.
        usd_per_hour: price of one GPU; ``None`` where no cost is asked for.
        output: tokens each request makes, where a closed loop of such requests is asked for.
        runtime: constants of a runtime with kernels of its own, where its times are asked for.
    """

    decoding: bool
    batches: tuple[int, ...]
    context: int
    new_tokens: int = 1
    cached: int = 0
    usd_per_hour: float | None = None
    output: int | None = None
    runtime: RuntimeFit | None = None

    def held_tokens(self, limit: int) -> int:
        """Return the tokens of a request when the step, or its part in the closed loop, is done."""
        if self.output is not None:
            return self.context + self.output
        if not self.decoding:
            return self.context
        # A step stores its own token too; a context of just the limit is what was asked for.
        one_more = self.new_tokens == 1 and self.context == limit
        return self.context if one_more else self.context + self.new_tokens


@dataclass(frozen=True, slots=True)
class Told:
    """One batch's step, or its prompts, as operators with their times."""

    batch: int
    operators: tuple[Timed, ...]
    times: Times
    tokens: int


def tell(roofline: Roofline, asked: Asked, batch: int) -> Told:
    """Return one batch's step, or the steps that read its prompts."""
    steps: tuple[tuple[Step, int], ...]
    if asked.decoding:
        steps = (roofline.decode(batch, asked.context, asked.new_tokens),)
        times, tokens = roofline.times(*steps), batch * asked.new_tokens
    else:
        steps = roofline.prefill(batch, asked.context, asked.cached)
        times, tokens = (
            roofline.prefill_times(batch, asked.context, asked.cached),
            batch * (asked.context - asked.cached),
        )
    return Told(batch, roofline.timed(*steps), times, tokens)


def rate(one: Told) -> Quantity:
    """Return the tokens of a second, as estimated."""
    return computed("tokens_per_s", tokens_over_time, tokens(one), whole_estimate(one))


def tokens(one: Told) -> Quantity:
    """Return the tokens of the step, or of the prompts."""
    return fact("tokens", one.tokens, "new tokens of all requests", Unit.TOKENS)


def whole_estimate(one: Told) -> Quantity:
    """Return the expected time of all of it."""
    return fact("estimate_s", float(one.times.estimate_s), "the estimate of all of it", Unit.SECONDS)
