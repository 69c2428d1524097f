"""A formula of a step: evaluated over numbers or whole grids, or over one step and explained."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from kvplan.arch.work import Step
from kvplan.formula import Formula
from kvplan.results import Quantity, computed, fact
from kvplan.units import Amount, Unit


class Of(Enum):
    """A number of the step itself; the value is its name there."""

    BATCH = "batch"
    NEW_TOKENS = "new_tokens"
    CONTEXT = "context"
    TOKENS = "tokens"
    LOGIT_ROWS = "logit_rows"
    REPLICA_SHARE = "replica_share"


_UNITS = {Of.BATCH: Unit.REQUESTS, Of.REPLICA_SHARE: Unit.NONE}


@dataclass(frozen=True, slots=True)
class Law:
    """A formula and what goes into it: figures known beforehand, numbers of the step, or other laws."""

    name: str
    formula: Formula[Any, Any]
    inputs: tuple[Law | Quantity | Of, ...]

    def at(self, step: Step) -> Amount:
        """Evaluate the law on a step, or on a grid of them."""
        amount: Amount = self.formula(*(_amount(one, step) for one in self.inputs))
        return amount

    def explained(self, step: Step) -> Quantity:
        """Evaluate the law on one step and remember how."""
        return computed(self.name, self.formula, *(_explained(one, step) for one in self.inputs))


def law(name: str, formula: Formula[Any, Any], *inputs: Law | Quantity | Of) -> Law:
    """Return a formula with what goes into it."""
    return Law(name, formula, inputs)


def _amount(one: Law | Quantity | Of, step: Step) -> Amount:
    match one:
        case Law():
            return one.at(step)
        case Quantity():
            return one.amount
        case Of():
            amount: Amount = getattr(step, one.value)
            return amount


def _explained(one: Law | Quantity | Of, step: Step) -> Quantity:
    match one:
        case Law():
            return one.explained(step)
        case Quantity():
            return one
        case Of():
            return fact(one.value, getattr(step, one.value), "the step", _UNITS.get(one, Unit.TOKENS))
