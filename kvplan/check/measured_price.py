"""What cache formats cost a real model: the results file of ``kvplan quality``, read strictly.

One such file comes with kvplan; another, of a model of one's own, may stand in for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, nextafter
from pathlib import Path
from typing import NoReturn

from kvplan.errors import SpecError
from kvplan.specs.catalog import Found
from kvplan.specs.document import Document, NodePath, dotted, printable, quoted, shortened, shown
from kvplan.specs.strict_json import read_json

SHIPPED = Path(__file__).resolve().parent / "measured" / "smollm2-135m-instruct.json"
SCHEMA_VERSION = 1
# A perplexity is above 0.
_LEAST_CHANGE = nextafter(-1.0, 0.0)
_HINT = "kvplan quality MODEL --text FILE --json -o FILE makes one"


@dataclass(frozen=True, slots=True)
class MeasuredPrice:
    """What keys and values in one format cost, against a float32 cache.

    Args:
        name: the format.
        model: the model it was measured on.
        perplexity_change: by how much perplexity rises, as a share of the float32 cache's.
        low, high: its 95% confidence interval.
        kl_divergence: from the float32 cache's distribution of the next token, in nats a token.
        same_top1: share of tokens for which the largest logit is the float32 cache's.
    """

    name: str
    model: str
    perplexity_change: float
    low: float
    high: float
    kl_divergence: float
    same_top1: float


@dataclass(frozen=True, slots=True)
class MeasuredPrices:
    """Prices of several formats, all measured in one run.

    Args:
        model: the model, as the run names it.
        text: the text it read.
        tokens: tokens of the text that were scored.
        context: tokens that are read before the first of each window is scored.
        when: whether tokens were stored in a format as they came, ``append``, or after a prompt, ``prefill``.
        date: the day of the run.
        command: what was typed.
        formats: in the order of the run.
    """

    model: str
    text: str
    tokens: int
    context: int
    when: str
    date: str
    command: str
    formats: tuple[MeasuredPrice, ...]

    def of(self, name: str) -> MeasuredPrice | None:
        """Return the price of a format, ``None`` where it was not measured."""
        return next((price for price in self.formats if price.name == name), None)


def results_file(path: str | os.PathLike[str] | None = None) -> Found:
    """Return a results file, the one that comes with kvplan if none is named."""
    if path is None:
        return Found(f"bundled:measured/{SHIPPED.name}", SHIPPED)
    return Found(printable(shortened(Path(path))), Path(path))


def read_prices(path: Path) -> MeasuredPrices:
    """Return the prices of a results file.

    Raises:
        SpecError: it is no JSON, no whole answer of ``kvplan quality``, or says what cannot be.
        FileError: it cannot be read.
    """
    return _Reader(read_json(path)).read()


class _Reader:
    """Takes one document apart; the first mistake ends it."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def read(self) -> MeasuredPrices:
        """Return all of it."""
        self._refuse_others()
        model = self._text(("inputs", "model"))
        return MeasuredPrices(
            model,
            self._text(("inputs", "text")),
            self._count(("inputs", "tokens")),
            self._count(("inputs", "context")),
            self._when(),
            self._text(("inputs", "date")),
            self._text(("inputs", "command")),
            tuple(self._formats(model)),
        )

    def _refuse_others(self) -> None:
        """Refuse another command's answer, one of another layout, and a part of one."""
        if (command := self._text(("command",))) != "quality":
            self._fail(("command",), f"this is an answer of kvplan {command[:40]}, not of kvplan quality")
        if (version := self._at(("schema_version",))) != SCHEMA_VERSION:
            self._fail(("schema_version",), f"layout {shown(version)} is not {SCHEMA_VERSION}, which is read")
        partial = self._at(("inputs", "partial"))
        if partial is True:
            self._fail(("inputs", "partial"), "the run was stopped before its end: no price is final")
        if partial is not False:
            self._fail(("inputs", "partial"), f"expected true or false, not {shown(partial)}")

    def _formats(self, model: str) -> Iterator[MeasuredPrice]:
        rows = self._at(("formats",))
        names: set[str] = set()
        if not isinstance(rows, list) or not rows:
            self._fail(("formats",), f"expected a list of formats, not {shown(rows or None)}")
        for index in range(len(rows)):
            row = ("formats", index)
            name = self._text((*row, "name"))
            if name in names:
                self._fail((*row, "name"), f"{quoted(name)} is there twice")
            names.add(name)
            yield self._format(row, name, model)

    def _format(self, row: NodePath, name: str, model: str) -> MeasuredPrice:
        change = self._number((*row, "perplexity_change"), _LEAST_CHANGE)
        if self._at(low_path := (*row, "perplexity_change_low")) is None:
            self._fail(low_path, "too few tokens were scored to tell what a format costs")
        low = self._number(low_path, _LEAST_CHANGE, change)
        high = self._number((*row, "perplexity_change_high"), change)
        divergence = self._number((*row, "kl_divergence"), 0.0)
        return MeasuredPrice(
            name, model, change, low, high, divergence, self._number((*row, "same_top1"), 0.0, 1.0)
        )

    def _text(self, path: NodePath) -> str:
        value = self._at(path)
        if not isinstance(value, str) or not value.strip():
            self._fail(path, f"expected text, not {shown(value)}")
        return value

    def _when(self) -> str:
        when = self._text(path := ("inputs", "when"))
        if when not in ("append", "prefill"):
            self._fail(path, f"{quoted(when)} is neither append nor prefill")
        return when

    def _count(self, path: NodePath) -> int:
        value = self._at(path)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._fail(path, f"expected a whole number from 1, not {shown(value)}")
        return value

    def _number(self, path: NodePath, least: float, most: float = float("inf")) -> float:
        value = self._at(path)
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            self._fail(path, f"expected a number, not {shown(value)}")
        if not least <= value <= most:
            limit = f"at least {least:g}" if value < least else f"at most {most:g}"
            self._fail(path, f"must be {limit}, not {shown(value)}")
        return float(value)

    def _at(self, path: NodePath) -> object:
        """Return the value at a path of keys and known places in lists."""
        found = self._document.data
        for depth, step in enumerate(path):
            if isinstance(step, str):
                if not isinstance(found, dict):
                    self._fail(path[:depth], f"expected a mapping, not {shown(found)}")
                if step not in found:
                    self._fail(path[:depth], f"'{step}' is required")
                found = found[step]
            else:
                assert isinstance(found, list)
                found = found[step]
        return found

    def _fail(self, path: NodePath, message: str) -> NoReturn:
        raise SpecError([self._document.problem(path, f"{dotted(path)}{message}")], hint=_HINT)
