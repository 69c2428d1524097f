"""What released files store in a format of its own, beside the format a model names for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kvplan.arch.weight import Weight
from kvplan.checks import FieldError
from kvplan.storage import WEIGHT_FORMATS


@dataclass(frozen=True, slots=True)
class StoredAs:
    """Tensors whose released files have them in another format than the model's.

    Args:
        format: the name of a weight format, or of a dtype.
        tensors: their names, as the layer (or, outside layers, the model) calls them.
    """

    format: str
    tensors: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.format not in {known.name for known in WEIGHT_FORMATS}:
            raise FieldError((("format",), f"{self.format[:40]!r} is no weight format"))
        if not self.tensors:
            raise FieldError((("tensors",), "names no tensor"))


def as_released(weights: Iterable[Weight], stored: tuple[StoredAs, ...]) -> tuple[Weight, ...]:
    """Return tensors, each with the format of its own where there is one."""
    if not stored:
        return tuple(weights)
    formats = {name: group.format for group in stored for name in group.tensors}
    return tuple(replace(weight, released_in=formats.get(weight.name, "")) for weight in weights)


def strange_tensors(weights: Iterable[Weight], stored: tuple[StoredAs, ...]) -> list[str]:
    """Return the names in ``stored`` that are of no tensor, or of one that was named before."""
    unused, found = {weight.name for weight in weights}, []
    for name in (name for group in stored for name in group.tensors):
        if name not in unused:
            found.append(name)
        unused.discard(name)
    return found
