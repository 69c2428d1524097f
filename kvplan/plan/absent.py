"""Figures that may have no value, because something they need is not known."""

from __future__ import annotations

from typing import Any

from kvplan.formula import Formula
from kvplan.results import Quantity, computed
from kvplan.units import Unit


def absent(name: str, reason: str, unit: Unit = Unit.NONE, label: str = "") -> Quantity:
    """Return a figure without a value, and why it has none."""
    return Quantity(name, None, unit, label, note=reason)


def known(name: str, formula: Formula[Any, Any], *inputs: Quantity, label: str = "") -> Quantity:
    """Run a formula as :func:`kvplan.results.computed` does; without a value where an input has none."""
    missing = next((one for one in inputs if one.value is None), None)
    if missing is not None:
        return absent(name, missing.note, formula.unit, label)
    return computed(name, formula, *inputs, label=label)
