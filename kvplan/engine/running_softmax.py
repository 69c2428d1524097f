"""A softmax over scores that come in pieces, and the weighted sums that go with it.

Online softmax, arXiv 1805.02867: sums so far are rescaled whenever a larger score appears.
"""

from __future__ import annotations

from math import log

import numpy as np

from kvplan.engine.kv_codecs import F32
from kvplan.engine.scratch import Scratch

# Below any score, and finite: a row that has seen nothing yet has no infinity to take from an infinity.
NOTHING_SEEN = np.float32(-1e30)


class RunningSoftmax:
    """The state of the rows (heads, n) of some queries.

    Args:
        sinks: (heads, n) logits that take part in the total, and have no value; ``None`` for none.
        raised: weights are made ``2^raised`` larger, so that their products with very small expanded
            values stay normal numbers.
        scratch: work areas.
    """

    def __init__(self, sinks: F32 | None, raised: int, scratch: Scratch) -> None:
        self._scratch = scratch
        self._raised = np.float32(raised * log(2.0))
        self._maximum: F32 | None = sinks
        self._total: F32 | None = None if sinks is None else np.full_like(sinks, 2.0**raised)
        self._sums: F32 | None = None

    def weigh(self, scores: F32) -> None:
        """Turn scores (heads, n, keys) into weights, relative to the largest score so far."""
        highest = np.maximum(np.maximum.reduce(scores, axis=-1), NOTHING_SEEN)
        if self._maximum is not None:
            np.maximum(highest, self._maximum, out=highest)
            self._rescale(np.exp(self._maximum - highest))
        self._maximum = highest
        scores -= (highest - self._raised)[..., None]
        np.exp(scores, out=scores)
        total = scores @ self._scratch.ones(scores.shape[-1])
        self._total = total if self._total is None else self._total + total

    def add(self, sums: F32) -> None:
        """Add sums (heads, n, dim) of values by the weights last made."""
        self._sums = sums if self._sums is None else np.add(self._sums, sums, out=self._sums)

    def result(self) -> F32:
        """Return the weighted means (heads, n, dim)."""
        if self._sums is None or self._total is None:
            raise ValueError("a query must see at least one key")
        return np.divide(self._sums, self._total[..., None], out=self._sums)

    def _rescale(self, factor: F32) -> None:
        if self._total is not None:
            self._total = self._total * factor
        if self._sums is not None:
            self._sums *= factor[..., None]
