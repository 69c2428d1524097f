"""What indexers and routers chose in one run, so that the same sequences read again can be held to it.

Two runs add the same numbers up in other orders. Of two tokens, or two experts, with almost equal scores each
may then choose another one, and from there on their logits are of different questions. A later run takes the
earlier one's choice where its own scores say that the difference is a matter of rounding, and keeps its own
elsewhere.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Float
from kvplan.engine.visibility import Flags

# Scores this close, as a share of the largest in view, are equal but for rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class _Piece:
    """The choices of consecutive tokens from ``start`` on: flags ``(n, ..., options)``, eight to a byte."""

    start: int
    options: int
    packed: NDArray[np.uint8]


class Choices:
    """The choices of a run over several sequences, each in a slot of its cache."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[Hashable, int], list[_Piece]] = {}

    def settle(self, who: Hashable, slot: int, start: int, scores: Float, chosen: Flags) -> Flags:
        """Remember the choice of a sequence's last tokens, from ``start`` on, and return it."""
        piece = _Piece(start, chosen.shape[-1], np.packbits(chosen, axis=-1))
        self._pieces.setdefault((who, slot), []).append(piece)
        return chosen

    def of_sequence(self, slot: int) -> EarlierChoices:
        """Return what was chosen for one sequence, for a cache that has it alone."""
        mine = {who: pieces for (who, owner), pieces in self._pieces.items() if owner == slot}
        return EarlierChoices(mine)


class EarlierChoices:
    """What an earlier run chose for one sequence: ``pieces`` by who chose."""

    def __init__(self, pieces: dict[Hashable, list[_Piece]]) -> None:
        self._pieces = pieces

    def settle(self, who: Hashable, slot: int, start: int, scores: Float, chosen: Flags) -> Flags:
        """Return a choice as the earlier run made it where scores are equal but for rounding.

        Args:
            who: an indexer of a decoder, or a router and what it chooses; the same in both runs.
            slot: of the sequence.
            start: tokens before the first of those that choose.
            scores, chosen: ``(n, options)``: tokens, entries or experts; of indexers that choose blocks
                ``(n, heads, blocks)``. Scores are minus infinity for what could not be chosen.
        """
        found = chosen.copy()
        for piece in self._pieces.get(who, []):
            if piece.start < start:
                continue
            earlier = np.unpackbits(piece.packed, axis=-1, count=piece.options).view(np.bool_)
            rows = slice(piece.start - start, piece.start - start + len(earlier))
            mine, seen = (of[rows, ..., : piece.options] for of in (found, scores))
            for at in map(tuple, np.argwhere((mine != earlier).any(axis=-1))):
                if _is_rounding(seen[at], mine[at], earlier[at]):
                    mine[at] = earlier[at]
        return found


def _is_rounding(scores: Float, mine: Flags, other: Flags) -> bool:
    """Whether what only one of two choices has differs in its scores by no more than rounding."""
    gap = scores[mine & ~other].max(initial=-np.inf) - scores[other & ~mine].min(initial=np.inf)
    largest = np.abs(scores[np.isfinite(scores)]).max(initial=0)
    return bool(mine.sum() == other.sum() and gap <= _ROUNDING * largest)
