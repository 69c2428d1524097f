"""Running states taken over new tokens: a decode step's at once, a prompt's token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Float


class Recurrent(Protocol):
    """What some tokens do to a state, and what they read from it."""

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take a state one token on in place, or one state of each of some tokens; return what is read."""


def recur(
    tokens: Recurrent, lengths: Sequence[int], states: Float, slots: NDArray[np.int64], said: Float
) -> None:
    """Take each sequence's state over its new tokens, and write what each token reads to ``said``.

    Args:
        tokens: the new tokens of each sequence, one sequence after another.
        lengths: (sequences,), new tokens of each.
        states: (all slots, ...), changed in place.
        slots: (sequences,), where each one's state is; no two the same.
        said: (tokens, ...), filled.
    """
    if np.all(np.equal(lengths, 1)):
        chosen = _as_slice(slots)
        mine = states[chosen]
        said[...] = tokens.advance(mine, slice(None))
        if not isinstance(chosen, slice):
            states[chosen] = mine
        return
    start = 0
    for length, slot in zip(lengths, slots, strict=True):
        state = states[slot]
        for token in range(start, start + length):
            said[token] = tokens.advance(state, token)
        start += length


def _as_slice(slots: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return consecutive slots as a slice, which is read and changed without a copy; others as they are."""
    first = int(slots[0])
    consecutive = np.array_equal(slots, np.arange(first, first + len(slots)))
    return slice(first, first + len(slots)) if consecutive else slots
