"""How small a model is made to be run anywhere; each kind of layer says what that means for it."""

from __future__ import annotations

from dataclasses import dataclass

# Widths stay multiples of this, so that scaled models keep to whole panels as real ones do.
STEP = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What layers are scaled down to.

    Args:
        hidden_size: the scaled model's width.
        of_hidden_size: the real one's.
        query_heads: at most so many query heads, where one KV head has no more than that.
        window: at most so many tokens stay in a window or a chunk, so that a short run slides it.
        rank: at most so many elements of a query's own compression.
        vocabulary: at most so many tokens.
        expert_features: experts together are no wider: a model of 512 keeps them all.
    """

    hidden_size: int
    of_hidden_size: int
    query_heads: int = 8
    window: int = 128
    rank: int = 256
    vocabulary: int = 512
    expert_features: int = 8192

    def width(self, width: int) -> int:
        """Return a width scaled with the model's, in whole steps, and never wider than it was."""
        steps = -(-width * self.hidden_size // self.of_hidden_size // STEP)
        return min(width, max(STEP, steps * STEP))

    def kept(self, window: int | None) -> int | None:
        """Return the length of a window or a chunk, where there is one."""
        return None if window is None else min(window, self.window)

    def heads(self, heads: int, group: int = 1) -> int:
        """Return how many heads stay of those that each serve ``group`` others: at least one."""
        return min(heads, max(1, self.query_heads // group))
