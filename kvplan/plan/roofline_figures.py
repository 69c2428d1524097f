"""Figures of operators with their derivations: each a sum over equal layers, steps and pipeline stages."""

from __future__ import annotations

from dataclasses import fields, replace

from kvplan.arch.work import Work
from kvplan.formula import formula
from kvplan.plan.law import Law
from kvplan.plan.roofline import Part, Timed
from kvplan.results import Quantity, computed, fact, total
from kvplan.units import Amount, Unit

AMOUNTS = tuple(field.name for field in fields(Work))
_UNITS = {"matmul_flops": Unit.FLOPS, "attention_flops": Unit.FLOPS}


@formula(Unit.NONE, "steps that are alike")
def of_alike_steps(steps: int, each: Amount) -> Amount:
    """An amount of several equal steps."""
    return steps * each


@formula(
    Unit.FLOPS_PER_BYTE, "operations for each byte of weights and cache: activations can stay on the chip"
)
def intensity(flops: Amount, moved_bytes: Amount) -> Amount:
    """Arithmetic intensity."""
    return flops / moved_bytes


@formula(Unit.FLOPS_PER_BYTE, "the intensity at which multiplying takes as long as reading")
def ridge(flops_per_s: float, bytes_per_s: float) -> float:
    """Arithmetic intensity at the ridge of a roofline."""
    return flops_per_s / bytes_per_s


@formula(Unit.SHARE, "of the estimate of all operators")
def share_of(estimate_s: Amount, all_estimate_s: Amount) -> Amount:
    """An operator's share of the expected time."""
    return estimate_s / all_estimate_s


@formula(Unit.TOKENS_PER_SECOND, "tokens of the step over its estimate")
def tokens_over_time(tokens: Amount, estimate_s: Amount) -> Amount:
    """Tokens in a second."""
    return tokens / estimate_s


@formula(Unit.TOKENS_PER_SECOND, "an equal part each")
def equal_part(tokens_per_s: Amount, count: int) -> Amount:
    """One GPU's, or one request's, tokens in a second."""
    return tokens_per_s / count


def amount(timed: Timed, name: str) -> Quantity:
    """Return one amount of an operator's work, named as in :class:`~kvplan.arch.work.Work`."""
    laws = ((part, getattr(part.operator, name)) for part in timed.parts)
    parts = tuple(_of_steps(part, law) for part, law in laws if law is not None)
    return _sum(name, _UNITS.get(name, Unit.BYTES), parts)


def flops(timed: Timed) -> Quantity:
    """Return an operator's operations: of products with weights, or of attention."""
    parts = tuple(amount(timed, name) for name in ("matmul_flops", "attention_flops"))
    return _sum("flops", Unit.FLOPS, tuple(part for part in parts if part.value))


def memory_bytes(timed: Timed) -> Quantity:
    """Return what an operator must read from memory and write there."""
    parts = tuple(amount(timed, name) for name in ("weight_bytes", "kv_read_bytes", "kv_write_bytes"))
    return _sum("memory_bytes", Unit.BYTES, tuple(part for part in parts if part.value))


def bound_s(timed: Timed) -> Quantity:
    """Return the least time of an operator."""
    parts = ((part, part.timing.bound) for part in timed.parts)
    return _sum("bound_s", Unit.SECONDS, tuple(_of_steps(p, law) for p, law in parts if law is not None))


def estimate_s(timed: Timed) -> Quantity:
    """Return the expected time of an operator."""
    parts = (_of_steps(part, law) for part in timed.parts for law in part.timing.estimated(part.step))
    return _sum("estimate_s", Unit.SECONDS, tuple(parts))


def arithmetic_intensity(done: Quantity, moved: Quantity) -> Quantity:
    """Return operations for each byte that must be moved; none where nothing is."""
    if not moved.value or not done.value:
        note = "nothing is multiplied" if moved.value else "nothing is read from memory"
        return Quantity("arithmetic_intensity", None, Unit.FLOPS_PER_BYTE, note=note)
    return computed("arithmetic_intensity", intensity, done, moved)


def over_all(name: str, figures: tuple[Quantity, ...], label: str = "") -> Quantity:
    """Return a figure summed over operators."""
    return replace(_sum(name, figures[0].unit, tuple(f for f in figures if f.value)), label=label)


def _of_steps(part: Part, law: Law) -> Quantity:
    each = law.explained(part.step)
    if part.count == 1:
        return each
    steps = fact("steps", part.count, "the chunks of the prompts", Unit.STEPS)
    return replace(computed(each.name, of_alike_steps, steps, each), unit=each.unit)


def _sum(name: str, unit: Unit, parts: tuple[Quantity, ...]) -> Quantity:
    if not parts:
        return Quantity(name, 0, unit, note="none")
    if len(parts) == 1:
        return replace(parts[0], name=name, unit=unit)
    return total(name, unit, parts)
