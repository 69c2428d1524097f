"""What an indexer leaves in a query's sight: the best single tokens, or the best blocks of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class TopTokens:
    """The best ``tokens`` tokens, or all in view where those are fewer (DeepSeek-V3.2)."""

    tokens: int


@dataclass(frozen=True, slots=True)
class TopBlocks:
    """The best ``blocks`` blocks of ``block_tokens`` tokens, the query's own among them (MiniMax-M3)."""

    blocks: int
    block_tokens: int


Selected: TypeAlias = TopTokens | TopBlocks
