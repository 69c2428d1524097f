"""Names and shapes of the tensors that transformers saves, with equal ones in one line: read without it.

A line is a name with ``{}`` for each number in it, a shape, and the numbers of each place: ``0-2,5``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).parents[1] / "checkpoint" / "data" / "saved_tensors.json"
# How the name of a checkpoint ends that is a class with encoders around a text model.
WITH_ENCODERS = "-with-encoders"

Shape = tuple[int, ...]


class Saved(NamedTuple):
    """What transformers has saved: the family whose names it has, the case its text model is, its tensors."""

    text_type: str
    case: str
    tensors: dict[str, Shape]


class Line(NamedTuple):
    """Tensors of one shape whose names differ in numbers only."""

    name: str
    shape: Shape
    numbers: tuple[str, ...]


def lines(tensors: Mapping[str, Shape]) -> Iterator[Line]:
    """Iterate over the lines that say all tensors."""
    alike: dict[tuple[str, Shape], set[Shape]] = {}
    for name, shape in tensors.items():
        words = name.split(".")
        numbers = tuple(int(word) for word in words if word.isdecimal())
        template = ".".join("{}" if word.isdecimal() else word for word in words)
        alike.setdefault((template, shape), set()).add(numbers)
    for (template, shape), found in alike.items():
        for places in _products(found):
            yield Line(template, shape, tuple(map(_ranges, places)))


def _products(found: set[Shape]) -> list[tuple[tuple[int, ...], ...]]:
    """Return numbers of names as products: the numbers of each place."""
    if found == {()}:
        return [()]
    rests: dict[int, set[Shape]] = {}
    for first, *rest in found:
        rests.setdefault(first, set()).add(tuple(rest))
    firsts: dict[frozenset[Shape], list[int]] = {}
    for first, of_first in sorted(rests.items()):
        firsts.setdefault(frozenset(of_first), []).append(first)
    return [(tuple(own), *places) for rest, own in firsts.items() for places in _products(set(rest))]


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _numbers(text: str) -> list[int]:
    runs = [run.partition("-") for run in text.split(",")]
    return [number for low, _, high in runs for number in range(int(low), int(high or low) + 1)]


def tensors_of(found: Iterable[Line]) -> dict[str, Shape]:
    """Return all tensors that lines say."""
    return {
        line.name.format(*chosen): tuple(line.shape)
        for line in found
        for chosen in product(*map(_numbers, line.numbers))
    }


def write(saved: Mapping[str, Saved]) -> None:
    """Write the tensors of checkpoints, a line for each checkpoint."""
    rows = [
        f" {json.dumps(name)}: {json.dumps([of.text_type, of.case, [*lines(of.tensors)]])}"
        for name, of in sorted(saved.items())
    ]
    PATH.write_text("{\n" + ",\n".join(rows).replace(", ", ",") + "\n}\n", encoding="utf-8")


def read() -> dict[str, Saved]:
    """Return the tensors of every checkpoint by its name."""
    stored = json.loads(PATH.read_text(encoding="utf-8"))
    return {
        name: Saved(text_type, case, tensors_of(Line(*line) for line in found))
        for name, (text_type, case, found) in stored.items()
    }
