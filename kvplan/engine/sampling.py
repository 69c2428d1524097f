"""Choosing the next token from logits: the best one, or one drawn by temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from kvplan.errors import UsageError

_SEEDS = 1 << 64


class Sampler:
    """Chooses tokens; a request's tokens depend on its own logits, the seed and its number alone.

    Args:
        temperature: logits are divided by it; 0 takes the best token.
        top_k: only so many best tokens are drawn from; 0 for all.
        top_p: only the fewest best tokens that together have this probability are drawn from.
        seed: of the random numbers, 0 to 2^64 - 1.

    Raises:
        UsageError: a value outside its range.
    """

    def __init__(self, temperature: float = 0, top_k: int = 0, top_p: float = 1.0, seed: int = 0) -> None:
        if not (isfinite(temperature) and temperature >= 0):
            raise UsageError(f"temperature must be 0 or more, not {temperature:g}", hint="0 is greedy")
        if top_k < 0:
            raise UsageError(f"top-k must be 0 or more, not {top_k}", hint="0 draws from all tokens")
        if not 0 < top_p <= 1:
            raise UsageError(
                f"top-p must be above 0 and at most 1, not {top_p:g}", hint="1 draws from all tokens"
            )
        if not 0 <= seed < _SEEDS:
            raise UsageError(f"seed must be 0 to 2^64 - 1, not {seed}", hint="the same seed, the same tokens")
        self._temperature, self._top_k, self._top_p, self._seed = temperature, top_k, top_p, seed

    def sample(
        self, logits: NDArray[np.float32], request_ids: Sequence[int], steps: Sequence[int]
    ) -> NDArray[np.int64]:
        """Return one token for each row of logits (batch, vocabulary).

        Args:
            logits: the scores of the next token.
            request_ids: each row's request, 0 or more.
            steps: how many tokens each request has drawn before.

        Raises:
            ValueError: a logit is infinite or not a number.
        """
        if not np.isfinite(logits).all():
            raise ValueError("logits must be finite")
        if self._temperature == 0:
            best: NDArray[np.int64] = np.argmax(logits, axis=1)
            return best
        rows = zip(logits, request_ids, steps, strict=True)
        return np.array([self._draw(row, request, step) for row, request, step in rows], np.int64)

    def _draw(self, logits: NDArray[np.float32], request: int, step: int) -> int:
        """Draw one token of (vocabulary,) logits by the inverse of its distribution function."""
        scores = logits.astype(np.float64) - logits.max()
        with np.errstate(over="ignore"):
            scores /= self._temperature
        tokens = self._candidates(scores)
        sums = np.cumsum(np.exp(scores[tokens]))
        if self._top_p < 1:
            sums = sums[: np.searchsorted(sums, self._top_p * sums[-1]) + 1]
        drawn = np.searchsorted(sums, self._uniform(request, step) * sums[-1], side="right")
        return int(tokens[drawn])

    def _candidates(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the tokens to draw from, the best first; among equal ones, the lower number."""
        tokens = np.arange(len(scores))
        if 0 < self._top_k < len(scores):
            tokens = np.flatnonzero(scores >= np.partition(scores, -self._top_k)[-self._top_k])
        elif self._top_p == 1:
            return tokens
        best_first = tokens[np.argsort(-scores[tokens], kind="stable")]
        return best_first[: self._top_k or None]

    def _uniform(self, request: int, step: int) -> float:
        """Return the random number, 0 to below 1, of one step of one request.

        Philox makes it from its key and counter alone (Salmon et al., SC11), so no state is kept: a request
        that is stopped and resumed draws what it would have drawn.
        """
        bits = np.random.Philox(key=self._seed, counter=[0, step, request, 0])
        return np.random.Generator(bits).random()
