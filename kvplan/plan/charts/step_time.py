"""Where the time of a decode step goes as requests, or their context, grow."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.arch.work import Step
from kvplan.charts import Axis, Band, Chart, Hue, Spacing, Stack
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.charts.places import between, contexts
from kvplan.plan.charts.words import requests, subject, upper_first
from kvplan.plan.operator import Collective, Operator
from kvplan.plan.roofline import Roofline
from kvplan.units import Unit, short_count

WEIGHTS, EXPERTS, CACHE, STATE = "weights", "experts", "KV cache", "states"
EXCHANGE, LAUNCHES = "exchange", "small kernels, host"
# From the ground up.
_BANDS = (
    (WEIGHTS, Hue.WEIGHTS),
    (EXPERTS, Hue.EXPERTS),
    (CACHE, Hue.KV),
    (STATE, Hue.STATE),
    (EXCHANGE, Hue.COLLECTIVES),
    (LAUNCHES, Hue.LAUNCH),
)
# Each as the beginning of a sentence, with its verb.
_TAKE = {
    WEIGHTS: "weights take",
    EXPERTS: "experts take",
    CACHE: "the KV cache takes",
    STATE: "recurrent states take",
    EXCHANGE: "exchange between GPUs takes",
    LAUNCHES: "small kernels and the host take",
}
_ATTENTION = (Kernel.DECODE_ATTENTION, Kernel.PREFILL_ATTENTION, Kernel.LATENT_ATTENTION)


def step_time_chart(roofline: Roofline, batch: int, context: int, most_batch: int, longest: int) -> Chart:
    """Return two stacks: by batch at ``context``, and by context at ``batch``, up to what fits.

    Args:
        roofline: the operators and their times.
        batch, context: what each stack keeps while the other grows.
        most_batch: requests of that context that fit; 0 for none.
        longest: context that so many requests can have; 0 for none.
    """
    batches = between(1, max(2, most_batch or batch))
    places = contexts(max(2, longest or context))
    by_batch = [roofline.decode(one, context)[0] for one in batches]
    by_context = [roofline.decode(batch, one)[0] for one in places]
    across = Axis(f"requests of {short_count(context)} at once", Unit.REQUESTS, Spacing.DOUBLING)
    along = Axis(f"context of {requests(batch)}", Unit.TOKENS, Spacing.DOUBLING)
    stacks = (
        _stack(roofline, across, batches, by_batch),
        _stack(roofline, along, places, by_context),
    )
    fits = most_batch >= 2 and longest >= 2
    return Chart(
        kind="step-time",
        title=_title(stacks[0], batches, context),
        subject=subject([(roofline.model, roofline.deployment)], "one decode step"),
        panels=stacks,
        notes=(
            "expected times, from measured constants (docs/accuracy.md)",
            *(() if fits else ("fewer requests fit than are drawn: times as if there were room",)),
        ),
    )


def _stack(roofline: Roofline, axis: Axis, places: Sequence[int], steps: Sequence[Step]) -> Stack:
    heights: dict[str, list[float]] = {name: [0.0] * len(steps) for name, _ in _BANDS}
    for index, step in enumerate(steps):
        for timed in roofline.timed((step, 1)):
            for part in timed.parts:
                heights[_band(part.operator)][index] += float(part.times.estimate_s)
    bands = tuple(Band(name, hue, tuple(heights[name])) for name, hue in _BANDS if any(heights[name]))
    return Stack(axis, Axis("time of a step", Unit.SECONDS), tuple(map(float, places)), bands)


def _band(operator: Operator) -> str:
    """Return the band an operator belongs to."""
    kind = operator.runs_as
    if isinstance(kind, Collective):
        return EXCHANGE
    if kind is Kernel.EXPERTS:
        return EXPERTS
    if kind in _ATTENTION:
        return STATE if operator.name == "recurrence" else CACHE
    return WEIGHTS if kind is Kernel.GEMM else LAUNCHES


def _title(stack: Stack, batches: Sequence[int], context: int) -> str:
    """Say what takes the largest part of a step, and from which batch on something else does."""
    last, least = _largest(stack, len(batches) - 1), len(batches) - 1
    while least and _largest(stack, least - 1) == last:
        least -= 1
    share = _share(stack, last, len(batches) - 1)
    if least:
        from_batch = f"from {requests(batches[least])} of {short_count(context)} on"
        return upper_first(f"{from_batch}, {_TAKE[last]} the largest part of a decode step")
    upto = f"with {requests(batches[-1])} of {short_count(context)}"
    return upper_first(f"{_TAKE[last]} the largest part of every decode step, {share:.0%} {upto}")


def _share(stack: Stack, name: str, index: int) -> float:
    """Return a band's share of the whole at one place."""
    whole = sum(band.heights[index] for band in stack.bands)
    return sum(band.heights[index] for band in stack.bands if band.name == name) / whole


def _largest(stack: Stack, index: int) -> str:
    return max(stack.bands, key=lambda band: band.heights[index]).name
