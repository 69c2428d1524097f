"""What must hold of a plan, as people write it: ``max_context >= 32k at batch 16``, ``tpot <= 30 ms``.

A sentence is a metric, the side and the value it must keep to, and the load it is asked at. A mistake is told
with the place of the word that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from kvplan.errors import did_you_mean
from kvplan.units import Unit, parse_bytes, parse_count

Value: TypeAlias = int | float

MOST_SHOWN = 40
CONDITIONS = ("batch", "context")

_PIECE = re.compile(r"[<>=!]+|[^\s<>=!]+")
_NUMBER = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(\S*)", re.ASCII)
_SECONDS = {"s": 1, "ms": 10**3, "us": 10**6}


class SentenceError(ValueError):
    """A requirement that cannot be read: what is wrong, and the offset of the word it is wrong in."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


# ------------------------------------------------------------------ values


def _tokens(text: str) -> int:
    return parse_count(_without_word(text, "tokens"))


def _requests(text: str) -> int:
    return parse_count(_without_word(text, "requests"))


def _without_word(text: str, word: str) -> str:
    """Return a count without the word behind it that says what is counted."""
    count, _, behind = text.partition(" ")
    return count if behind in (word, word.removesuffix("s")) else text


def _bytes(text: str) -> int:
    number, unit = _number_and_unit(text, "a size such as 40 GiB")
    if not unit:
        raise ValueError(f"{text[:MOST_SHOWN]!r} has no unit: expected a size such as 40 GiB")
    return parse_bytes(number + unit)


def _seconds(text: str) -> float:
    number, unit = _number_and_unit(text, "a time such as 30 ms")
    if unit not in _SECONDS:
        wrong = f"{unit[:MOST_SHOWN]!r} is no unit of time" if unit else "the unit is missing"
        raise ValueError(f"{wrong}: expected s, ms or us")
    return float(number) / _SECONDS[unit]


def _rate(text: str) -> float:
    number, unit = _number_and_unit(text, "a rate such as 1000 tokens/s")
    if unit not in ("", "tokens/s"):
        raise ValueError(f"{unit[:MOST_SHOWN]!r} is no unit of a rate: expected tokens/s")
    return float(number)


def _usd(text: str) -> float:
    number, unit = _number_and_unit(text, "a cost such as 0.5 USD/Mtok")
    if unit != "USD/Mtok":
        wrong = f"{unit[:MOST_SHOWN]!r} is no unit of cost" if unit else "the unit is missing"
        raise ValueError(f"{wrong}: expected USD/Mtok, US dollars for a million tokens")
    return float(number)


def _number_and_unit(text: str, expected: str) -> tuple[str, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:MOST_SHOWN]!r} is not {expected}")
    return match[1], match[2]


# ------------------------------------------------------------------ metrics


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a metric.

    Args:
        word: how it is written.
        side: ``>=`` where more is better, ``<=`` where less is; empty where it is yes or no.
        unit: what its value counts.
        read: the value that is meant by a text; raises ValueError where there is none.
        loads: what it is asked at, of ``batch`` and ``context``.
        example: a value, for messages.
        timed: a roofline tells it, not memory.
    """

    word: str
    side: str
    unit: Unit
    read: Callable[[str], Value]
    loads: tuple[str, ...]
    example: str
    timed: bool = False


class Metric(Enum):
    """What can be required of a plan."""

    FITS = Kind("fits", "", Unit.NONE, int, CONDITIONS, "")
    MAX_CONTEXT = Kind("max_context", ">=", Unit.TOKENS, _tokens, ("batch",), "32k")
    MAX_BATCH = Kind("max_batch", ">=", Unit.REQUESTS, _requests, ("context",), "64")
    KV_POOL = Kind("kv_pool", ">=", Unit.BYTES, _bytes, (), "40 GiB")
    WEIGHTS = Kind("weights", "<=", Unit.BYTES, _bytes, (), "16 GiB")
    TTFT = Kind("ttft", "<=", Unit.SECONDS, _seconds, ("context",), "2 s", timed=True)
    TPOT = Kind("tpot", "<=", Unit.SECONDS, _seconds, CONDITIONS, "30 ms", timed=True)
    TOKENS_PER_S = Kind("tokens_per_s", ">=", Unit.TOKENS_PER_SECOND, _rate, CONDITIONS, "1000", timed=True)
    COST = Kind("cost", "<=", Unit.USD, _usd, CONDITIONS, "0.5 USD/Mtok", timed=True)

    @property
    def kind(self) -> Kind:
        """What is known of it."""
        return self.value


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that must hold.

    Args:
        text: the sentence, as it was written.
        metric: what is asked for.
        required: the value to keep to, in the metric's base unit; 1, for yes, of ``fits``.
        batch: requests at once it is asked at; ``None`` where none matter, or before they are known.
        context: tokens of each of them, the same way.
    """

    text: str
    metric: Metric
    required: Value
    batch: int | None = None
    context: int | None = None

    @property
    def name(self) -> str:
        """A word for it: ``max_context_at_batch_16``."""
        load = [f"_{word}_{value}" for word in CONDITIONS if (value := getattr(self, word)) is not None]
        return "".join((self.metric.kind.word, "_at" if load else "", *load))

    def at(self, batches: Sequence[int], contexts: Sequence[int], *, priced: bool) -> Requirement:
        """Return it with the load it does not name itself taken from a workload.

        Raises:
            SentenceError: the workload leaves that open, or it is about cost and there is no price.
        """
        kind = self.metric.kind
        if self.metric is Metric.COST and not priced:
            raise SentenceError(0, "cost needs a price: 'price', US dollars for a GPU and hour")
        workload = {"batch": batches, "context": contexts}
        missing = [word for word in kind.loads if getattr(self, word) is None]
        for word in missing:
            if (there := len(workload[word])) != 1:
                asked = f"{kind.word} at which {word}? say 'at {word} N'"
                raise SentenceError(0, f"{asked}: the workload has {there or 'none'}")
        batch = batches[0] if "batch" in missing else self.batch
        return replace(self, batch=batch, context=contexts[0] if "context" in missing else self.context)


# ------------------------------------------------------------------ reading


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word of a sentence, and where it is."""

    offset: int
    text: str


def parse_requirement(text: str) -> Requirement:
    """Return the requirement that a sentence states.

    Raises:
        SentenceError: it states none.
    """
    pieces = [_Piece(match.start(), match[0]) for match in _PIECE.finditer(text)]
    if not pieces:
        raise SentenceError(0, f"expected a requirement such as {_example(Metric.TPOT)!r}")
    metric = _metric(pieces[0])
    end = next((index for index, piece in enumerate(pieces) if piece.text == "at"), len(pieces))
    required = _required(metric, pieces[1:end], len(text))
    load = _load(metric, pieces[end + 1 :], len(text)) if end < len(pieces) else {}
    return Requirement(" ".join(text.split()), metric, required, load.get("batch"), load.get("context"))


def _metric(piece: _Piece) -> Metric:
    known = [metric.kind.word for metric in Metric]
    for metric in Metric:
        if metric.kind.word == piece.text:
            return metric
    suggestion = did_you_mean(piece.text, known) or f"expected one of {', '.join(known)}"
    raise SentenceError(piece.offset, f"{piece.text[:MOST_SHOWN]!r} cannot be required ({suggestion})")


def _required(metric: Metric, pieces: Sequence[_Piece], end: int) -> Value:
    kind = metric.kind
    if not kind.side:
        if pieces:
            message = f"{kind.word} is yes or no: expected nothing behind it, or 'at batch N context N'"
            raise SentenceError(pieces[0].offset, message)
        return 1
    if not pieces or pieces[0].text != kind.side:
        message = f"expected {kind.side!r} behind {kind.word}: {_example(metric)}"
        raise SentenceError(pieces[0].offset if pieces else end, message)
    value = pieces[1:]
    if not value:
        raise SentenceError(end, f"expected a value behind {kind.side!r}: {_example(metric)}")
    try:
        required = kind.read(" ".join(piece.text for piece in value))
    except ValueError as error:
        raise SentenceError(value[0].offset, str(error)) from None
    if not required:
        raise SentenceError(value[0].offset, "must be above 0")
    return required


def _load(metric: Metric, pieces: Sequence[_Piece], end: int) -> dict[str, int]:
    """Return what stands behind ``at``: counts of ``batch`` and ``context``."""
    kind, found = metric.kind, dict[str, int]()
    if not kind.loads:
        raise SentenceError(pieces[0].offset if pieces else end, f"{kind.word} is the same at every load")
    for name in pieces[::2] or (_Piece(end, ""),):
        if name.text not in CONDITIONS:
            raise SentenceError(name.offset, "expected 'batch N' or 'context N' behind 'at'")
        if name.text not in kind.loads:
            raise SentenceError(name.offset, f"{kind.word} has no {name.text}: 'at {kind.loads[0]} N'")
        if name.text in found:
            raise SentenceError(name.offset, f"{name.text} is said twice")
        value = next((piece for piece in pieces if piece.offset > name.offset), _Piece(end, ""))
        try:
            found[name.text] = parse_count(value.text)
        except ValueError as error:
            message = str(error) if value.text else f"expected a count behind {name.text!r}"
            raise SentenceError(value.offset, message) from None
    return found


def _example(metric: Metric) -> str:
    kind = metric.kind
    return f"{kind.word} {kind.side} {kind.example}"
