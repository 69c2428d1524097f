"""Perplexity and what changes it, with how sure one can be of either.

The losses of tokens in a row are alike: a hard passage is hard for many of them. An interval that took
every token as a sample of its own would be too narrow, so tokens are taken in blocks of ``BLOCK_TOKENS`` in
a row, and the means of blocks are the samples (batch means, as simulations of queues are judged by). They
are paired: both caches read the same tokens, so what a format changes is the mean of the differences of
their losses, token by token, in which the hardness of the text cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, expm1, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]

BLOCK_TOKENS = 64
# With fewer, nobody can say how much they vary.
LEAST_BLOCKS = 8
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % confidence interval, which is absent where there are too few tokens for one."""

    value: float
    low: float | None
    high: float | None


def perplexity(losses: Sequence[Losses]) -> Estimate:
    """Return the exponential of the mean loss.

    Args:
        losses: of each window's tokens in order, ``(tokens,)`` each, in nats.
    """
    return _estimate(losses, exp)


def perplexity_change(losses: Sequence[Losses], reference: Sequence[Losses]) -> Estimate:
    """Return by which share the perplexity differs from the reference's: 0.01 is 1 % more.

    Args:
        losses, reference: of the same tokens, window by window, in nats.
    """
    return _estimate([found - other for found, other in zip(losses, reference, strict=True)], expm1)


def _estimate(windows: Sequence[Losses], of_mean: Callable[[float], float]) -> Estimate:
    mean = float(np.concatenate(windows).mean())
    blocks = block_means(windows)
    if len(blocks) < LEAST_BLOCKS:
        return Estimate(of_mean(mean), None, None)
    half = student_quantile(len(blocks) - 1) * float(blocks.std(ddof=1)) / sqrt(len(blocks))
    return Estimate(of_mean(mean), of_mean(mean - half), of_mean(mean + half))


def block_means(windows: Sequence[Losses]) -> Losses:
    """Return the means of blocks of about ``BLOCK_TOKENS`` tokens in a row, none of two windows.

    A window is cut into blocks that differ by one token at most; a shorter one is a block.
    """
    cut = (np.array_split(window, max(1, round(len(window) / BLOCK_TOKENS))) for window in windows)
    return np.array([block.mean() for blocks in cut for block in blocks])


def student_quantile(degrees: int) -> float:
    """Return how many standard errors reach to either end of a 95 % interval, of so many degrees of freedom.

    An expansion of Student's quantile about the normal one (Abramowitz and Stegun, 26.7.5), good to 0.1 %
    from ``LEAST_BLOCKS`` - 1 degrees on.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / float(degrees) ** power for power, term in enumerate(terms))
