"""Weights against the description they are to be run by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvplan.arch.weight import Weight
from kvplan.engine.arrays import Float


def require_shapes(described: Iterable[Weight], weights: Mapping[str, Float]) -> None:
    """Check that each described weight has its shape; others are not looked at.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight has another shape.
    """
    for weight in described:
        shape = weights[weight.name].shape
        if shape != weight.shape:
            raise ValueError(f"{weight.name} must be {weight.shape}, not {shape}")
