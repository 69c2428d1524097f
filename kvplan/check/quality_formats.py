"""What a cache can be kept as, and what a measurement of its price can be asked for by name.

A format is a storage (``int8``), a window (``window-256``, or ``window-256+4`` with 4 sink tokens), or both
(``int8/window-256+4``); a window alone is stored in bf16. A model that was not trained with a window pays
for it: that price is measured as any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention
from kvplan.arch.model import Model
from kvplan.arch.what_if import with_window
from kvplan.errors import UsageError, unknown
from kvplan.plan.grouped_keys import refuse_ungroupable
from kvplan.storage import KV_FORMATS, KvFormat, kv_format

# Blocks of whole tiles, and of whole groups of KIVI's keys.
ALLOCATION = Paged(64)
MOST_FORMATS = 32
# Storage whose price people ask for, dearest first; fp32 is what all are compared with.
USUAL_STORAGE = ("bf16", "fp8", "int8", "int8-kivi", "int4", "int4-kivi", "int2", "int2-kivi")
# As StreamingLLM keeps (arXiv 2309.17453).
USUAL_SINKS = 4
_WINDOWED = "bf16"
_WINDOW = re.compile(r"window-([1-9]\d{0,8})(?:\+([1-9]\d{0,8}))?", re.ASCII)
_FORM = "int8, window-256, window-256+4 or int8/window-256+4"


@dataclass(frozen=True, slots=True)
class KeptWindow:
    """The tokens that stay: the last ``tokens``, and the first ``sink_tokens`` beside them."""

    tokens: int
    sink_tokens: int = 0

    @property
    def name(self) -> str:
        """What it is called: ``window-256+4``."""
        return f"window-{self.tokens}" + (f"+{self.sink_tokens}" if self.sink_tokens else "")


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """How a cache is stored, and which tokens stay in it; all of them where there is no window."""

    kv: KvFormat = field(default_factory=lambda: kv_format("fp32"))
    window: KeptWindow | None = None

    @property
    def name(self) -> str:
        """What it is called: the shortest text that means it."""
        if self.window is None:
            return self.kv.name
        return self.window.name if self.kv.name == _WINDOWED else f"{self.kv.name}/{self.window.name}"

    def of(self, model: Model) -> Model:
        """Return the model with these tokens in view.

        Raises:
            UsageError: its attention cannot have them, or keeps no more as it is.
        """
        if self.window is None:
            return model
        return with_window(model, self.window.tokens, self.window.sink_tokens)

    @property
    def kept_tokens(self) -> int | None:
        """Tokens that stay at most, where there is a window."""
        return None if self.window is None else self.window.tokens + self.window.sink_tokens


def parse_format(text: str) -> CacheFormat:
    """Return the format a name means.

    Raises:
        UsageError: there is none of that name.
    """
    storage, slash, window = text.partition("/")
    if slash:
        if not storage or not window.startswith("window"):
            raise UsageError(f"{text[:64]!r} is no cache format", hint=_FORM)
        return CacheFormat(_storage(storage), _window(window))
    if text.startswith("window"):
        return CacheFormat(kv_format(_WINDOWED), _window(text))
    return CacheFormat(_storage(text))


def parse_formats(text: str) -> tuple[CacheFormat, ...]:
    """Return a list of formats, each once, in the order of the list.

    Raises:
        UsageError: an entry is empty or no format, or there are more than ``MOST_FORMATS``.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"{text[:64]!r} has an empty entry", hint=_FORM)
    found = tuple(dict.fromkeys(parse_format(name) for name in names))
    if len(found) > MOST_FORMATS:
        raise UsageError(f"{len(found)} cache formats are more than {MOST_FORMATS}")
    return found


def usual_formats(context: int) -> tuple[CacheFormat, ...]:
    """Return the formats worth measuring: storage, and windows of half the context."""
    windows = [KeptWindow(max(1, context // 2), sinks) for sinks in (0, USUAL_SINKS)]
    return (
        *(CacheFormat(kv_format(name)) for name in USUAL_STORAGE),
        *(CacheFormat(kv_format(_WINDOWED), window) for window in windows),
    )


def is_possible(model: Model, one: CacheFormat, longest: int) -> bool:
    """Whether :func:`require_possible` lets a format pass."""
    try:
        require_possible(model, [one], longest)
    except UsageError:
        return False
    return True


def require_possible(model: Model, formats: Sequence[CacheFormat], longest: int) -> None:
    """Refuse formats that a model's cache cannot be kept in, or that change nothing in so many tokens.

    Raises:
        UsageError: the message names the format and says why.
    """
    for one in formats:
        try:
            _require(model, one, longest)
        except UsageError as error:
            message = error.message if one.kv.name in error.message else f"{one.name}: {error.message}"
            raise UsageError(message, hint=error.hint) from None


def _require(model: Model, one: CacheFormat, longest: int) -> None:
    kept = one.kept_tokens
    if kept is not None and kept >= longest:
        raise UsageError(f"a window that keeps {kept:,} tokens never slides within {longest:,}")
    mixers = (mixer for run in model.runs() for mixer in run.layer.mixers())
    if kept is not None and any(isinstance(mixer, Attention) and mixer.indexer for mixer in mixers):
        raise UsageError(f"a window in place of the blocks {model.name}'s indexers choose is not measured")
    for slot in one.of(model).stored_slots():
        refuse_ungroupable(slot, one.kv, ALLOCATION)


def _storage(name: str) -> KvFormat:
    known = {kv.name: kv for kv in KV_FORMATS}
    if name not in known:
        raise unknown("cache format", name, [*known, "window-256", "window-256+4"])
    return known[name]


def _window(text: str) -> KeptWindow:
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:64]!r} is no window", hint="window-256, or window-256+4 with 4 sink tokens")
    return KeptWindow(int(match[1]), int(match[2] or 0))
