"""Requirements of a plan judged: what is required, what there is, and the room between the two.

What there is, is what ``kvplan capacity`` and ``kvplan roofline`` print of it, from the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import assert_never

from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.plan.capacity import Capacity
from kvplan.plan.capacity_figures import fits, longest_context, most_requests
from kvplan.plan.roofline import Roofline
from kvplan.plan.roofline_report import step_estimate
from kvplan.plan.roofline_serving import serving_sections
from kvplan.plan.roofline_steps import Asked, rate, tell
from kvplan.plan.verdict import verdict
from kvplan.requirement import Metric, Requirement
from kvplan.results import Quantity, computed, fact
from kvplan.units import Amount, Unit


@formula(Unit.NONE, "how far what there is passes what is required")
def room_above(got: Amount, required: Amount) -> Amount:
    """What is left of a figure that must be at least what is required."""
    return got - required


@formula(Unit.NONE, "how far what there is stays below what is required")
def room_below(got: Amount, required: Amount) -> Amount:
    """What is left of a figure that must be at most what is required."""
    return required - got


@formula(Unit.SHARE, "of what is required")
def share_of_required(margin: Amount, required: Amount) -> Amount:
    """A margin as a share."""
    return margin / required


@dataclass(frozen=True, slots=True)
class Subject:
    """A plan on one kind of accelerator: what requirements are judged on.

    Args:
        capacity: its memory.
        roofline: its times; ``None`` where nothing is asked of them.
        price: US dollars for an accelerator and hour; ``None`` where none is known.
        output_tokens: tokens each request makes, where requests follow each other in a closed loop.
    """

    capacity: Capacity
    roofline: Roofline | None = None
    price: float | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A requirement and what came of it.

    Args:
        requirement: the requirement.
        required: the value to keep to.
        got: what there is; no value where requests do not fit that would have to.
        margin: the room between the two, below 0 where it is not met; no value for yes or no.
        margin_share: the margin as a share of what is required.
        met: whether it holds.
        reason: why it does not, where no number says it.
    """

    requirement: Requirement
    required: Quantity
    got: Quantity
    margin: Quantity
    margin_share: Quantity
    met: bool
    reason: str = ""


def judge(requirements: Iterable[Requirement], subject: Subject) -> Iterator[Judged]:
    """Iterate over requirements, each with what came of it.

    Raises:
        UsageError: what is required cannot be known; the message has the sentence.
    """
    for requirement in requirements:
        try:
            got, reason = _figure(requirement, subject)
        except UsageError as error:
            raise UsageError(f"{requirement.text!r}: {error.message}", hint=error.hint) from None
        yield _judged(requirement, replace(got, name="got", label="got"), reason)


def _judged(requirement: Requirement, got: Quantity, reason: str) -> Judged:
    unit, side = requirement.metric.kind.unit, requirement.metric.kind.side
    if not side:
        required = fact("required", True, "asked for")
        return Judged(
            requirement, required, got, *_no_margin(unit, "it is yes or no"), got.value is True, reason
        )
    required = fact("required", requirement.required, "asked for", unit)
    if got.value is None:
        return Judged(requirement, required, got, *_no_margin(unit, reason), False, reason)
    room = room_above if side == ">=" else room_below
    margin = replace(computed("margin", room, got, required), unit=unit)
    share = computed("margin_share", share_of_required, margin, required)
    return Judged(requirement, required, got, margin, share, margin.amount >= 0)


def _no_margin(unit: Unit, note: str) -> tuple[Quantity, Quantity]:
    return Quantity("margin", None, unit, note=note), Quantity("margin_share", None, Unit.SHARE, note=note)


def _figure(requirement: Requirement, subject: Subject) -> tuple[Quantity, str]:
    """Return what there is, and why it is nothing where it is."""
    capacity, batch, context = subject.capacity, requirement.batch, requirement.context
    match requirement.metric:
        case Metric.FITS:
            assert batch is not None
            assert context is not None
            held = context + (subject.output_tokens or 0)
            said = verdict(capacity, held, batch)
            return fits(capacity, batch, held), "" if said.yes else said.text
        case Metric.MAX_CONTEXT:
            assert batch is not None
            return longest_context(capacity, batch), ""
        case Metric.MAX_BATCH:
            assert context is not None
            return most_requests(capacity, context, "batch"), ""
        case Metric.KV_POOL:
            return capacity.most_loaded.pool, ""
        case Metric.WEIGHTS:
            return capacity.most_loaded.weights, ""
        case Metric.TTFT:
            assert context is not None
            return _timed(requirement.metric, subject, Asked(True, (1,), context), context)
        case Metric.TPOT | Metric.TOKENS_PER_S | Metric.COST:
            assert batch is not None
            assert context is not None
            asked = Asked(True, (batch,), context, usd_per_hour=subject.price, output=subject.output_tokens)
            held = asked.held_tokens(capacity.deployment.max_tokens)
            return _timed(requirement.metric, subject, asked, held)
        case _ as never:
            assert_never(never)


def _timed(metric: Metric, subject: Subject, asked: Asked, held: int) -> tuple[Quantity, str]:
    """Return a figure of time; nothing where the requests do not fit, as no time is theirs then."""
    (batch,) = asked.batches
    if not subject.capacity.fits(batch, held):
        reason = verdict(subject.capacity, held, batch).text
        return Quantity("got", None, metric.kind.unit, note=reason), reason
    assert subject.roofline is not None
    return _of_steps(metric, subject.roofline, asked, batch), ""


def _of_steps(metric: Metric, roofline: Roofline, asked: Asked, batch: int) -> Quantity:
    """Return a figure as the report on these steps has it: of the closed loop, where one is asked for."""
    one = tell(roofline, asked, batch)
    sections = {section.key: section for section in serving_sections(roofline, asked, one)}
    serving, loop = sections["serving"], sections.get("closed_loop")
    match metric:
        case Metric.TTFT:
            return serving["ttft_estimate_s"]
        case Metric.TPOT:
            return loop["tpot_estimate_s"] if loop else step_estimate(one)
        case Metric.TOKENS_PER_S:
            return loop["tokens_per_s"] if loop else rate(one)
        case Metric.COST:
            return (loop or serving)["usd_per_million_tokens"]
        case _:
            raise AssertionError(f"{metric} is not of steps")
