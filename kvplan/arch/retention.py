"""Which tokens stay in a layer's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Full:
    """Every token stays."""


@dataclass(frozen=True, slots=True)
class Sliding:
    """The last ``window`` tokens stay, the newest included, and the first ``sink_tokens`` beside them."""

    window: int
    sink_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Chunked:
    """The tokens of the current chunk stay: position ``p`` sees back to ``p - p % chunk`` (Llama 4)."""

    chunk: int


@dataclass(frozen=True, slots=True)
class Compressed:
    """One entry stays for each whole run of ``ratio`` tokens, made when its last one comes (DeepSeek-V4)."""

    ratio: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The tokens behind the last whole run of ``ratio`` stay: they wait to be compressed."""

    ratio: int


@dataclass(frozen=True, slots=True)
class PerRequest:
    """Nothing grows: one entry per request, however long it gets."""


Retention: TypeAlias = Full | Sliding | Chunked | Compressed | Unfinished | PerRequest
