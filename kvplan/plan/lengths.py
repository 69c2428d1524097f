"""What paged and contiguous allocation waste when requests have different lengths.

Lengths are of requests as they stand: the tokens each has in the cache when one looks. A request that
still decodes is as long as it is now, so a mix of growing requests is described by their present lengths,
not by those they end with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from operator import mul
from typing import assert_never

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.plan.cache import Cache
from kvplan.plan.capacity import LARGEST_EXACT, Capacity
from kvplan.units import LARGEST_COUNT, Count, Unit

# Every length of a uniform distribution is summed: points at even steps would all be whole blocks.
MOST_LENGTHS = 1 << 20
# Enough quantiles that the mean is within 0.1% over five octaves.
QUANTILES = 64


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """How long requests are: lengths in tokens, and how many of all requests have each.

    Args:
        lengths: tokens of a request, each 1 or more.
        weights: requests of each length, among ``sum(weights)`` of them; as many as lengths.
    """

    lengths: tuple[int, ...]
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.lengths or len(self.lengths) != len(self.weights):
            raise UsageError(f"{len(self.lengths)} lengths cannot have {len(self.weights)} weights")
        if min(self.weights) < 1:
            raise UsageError(f"a length has a weight of at least 1, not {min(self.weights)}")
        for length in (min(self.lengths), max(self.lengths)):
            if not 1 <= length <= LARGEST_COUNT:
                raise UsageError(f"a request has 1 to {LARGEST_COUNT:,} tokens, not {length:,}")

    @classmethod
    def fixed(cls, tokens: int) -> LengthDistribution:
        """Return the distribution of requests that all have this length."""
        return cls((tokens,), (1,))

    @classmethod
    def uniform(cls, low: int, high: int) -> LengthDistribution:
        """Return the distribution in which every length from ``low`` to ``high`` is as likely.

        Raises:
            UsageError: the limits are no range, or further apart than 1,048,576 lengths.
        """
        _refuse_no_range(low, high)
        if high - low >= MOST_LENGTHS:
            raise UsageError(f"{low:,} to {high:,} are more than {MOST_LENGTHS:,} different lengths")
        return cls(tuple(range(low, high + 1)), (1,) * (high - low + 1))

    @classmethod
    def log_uniform(cls, low: int, high: int, quantiles: int = QUANTILES) -> LengthDistribution:
        """Return the distribution in which every octave between ``low`` and ``high`` is as likely.

        It is stood for by the middles of ``quantiles`` equally likely parts, the same on every run: a
        length n has probability log((n + 1) / n) / log((high + 1) / low).

        Raises:
            UsageError: the limits are no range, or there is no quantile.
        """
        _refuse_no_range(low, high)
        if quantiles < 1:
            raise UsageError(f"a distribution has at least 1 quantile, not {quantiles}")
        ratio = (high + 1) / low
        points = (int(low * ratio ** ((k + 0.5) / quantiles)) for k in range(quantiles))
        counts = Counter(points)
        return cls(tuple(counts), tuple(counts.values()))

    @property
    def requests(self) -> int:
        """Requests the weights are of."""
        return sum(self.weights)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest request."""
        return max(self.lengths)

    @property
    def mean_tokens(self) -> Fraction:
        """Expected tokens of a request, exactly."""
        return Fraction(sum(map(mul, self.weights, self.lengths)), self.requests)

    def summed(self, figure: Callable[[Count], Count]) -> int:
        """Return a figure of one request summed over ``requests`` of them, exactly.

        ``figure`` takes lengths as an integer array (L,) and returns as many integers.
        """
        import numpy as np

        found = np.asarray(figure(np.array(self.lengths, dtype=np.int64)))
        return sum(map(mul, self.weights, found.tolist()))


@dataclass(frozen=True, slots=True)
class Waste:
    """The cache bytes of one request that are expected under a distribution of lengths, exactly.

    Args:
        live_bytes: of the tokens that matter, and of states.
        fragmentation_bytes: handed out in whole blocks and without a token in view: the last block of a
            sequence, and those a window only partly covers.
        reserved_bytes: taken whole when a request arrives, and empty at its present length.
    """

    live_bytes: Fraction
    fragmentation_bytes: Fraction
    reserved_bytes: Fraction

    @property
    def allocated_bytes(self) -> Fraction:
        """Bytes handed out: live ones, and both kinds of empty ones."""
        return self.live_bytes + self.fragmentation_bytes + self.reserved_bytes

    @property
    def live_share(self) -> Fraction:
        """Share of the allocated bytes that is live, of all requests together, not the mean of shares."""
        return self.live_bytes / self.allocated_bytes


def waste(cache: Cache, allocation: Allocation, distribution: LengthDistribution) -> Waste:
    """Return what one request is expected to use and to waste of a cache.

    Args:
        cache: of one request, over any layers, on one rank or all.
        allocation: how that cache is handed out: the one it was planned with.
        distribution: how long requests are.

    Raises:
        UsageError: the longest request is longer than a contiguous cache, or past 2^53 bytes.
    """
    if isinstance(allocation, Contiguous):
        _refuse_longer(distribution, allocation.max_tokens)
    _refuse_overflow(cache, distribution)
    live = Fraction(distribution.summed(cache.live_bytes), distribution.requests)
    empty = Fraction(distribution.summed(cache.allocated_bytes), distribution.requests) - live
    match allocation:
        case Paged():
            return Waste(live, empty, Fraction(0))
        case Contiguous():
            return Waste(live, Fraction(0), empty)
        case _ as never:
            assert_never(never)


@formula(Unit.REQUESTS, "the pool over the expected bytes of a request, rounded down: law of large numbers")
def requests_on_average(pool_bytes: int, drawn_requests: int, drawn_bytes: int) -> int:
    """Requests a pool holds on average, where ``drawn_requests`` as distributed take ``drawn_bytes``."""
    return pool_bytes * drawn_requests // drawn_bytes


def requests_held(capacity: Capacity, distribution: LengthDistribution) -> int:
    """Return how many requests fit on average, on the tightest stage and over all replicas; 0 for none.

    An expectation, not a promise: a draw with more long requests than the distribution says holds fewer.
    Where all requests have one length it is :meth:`Capacity.max_batch` of that length.

    Raises:
        UsageError: the longest request is longer than the deployment allows, or past 2^53 bytes.
    """
    _refuse_longer(distribution, capacity.deployment.max_tokens)
    on_stages = []
    for memory in capacity.stages:
        _refuse_overflow(memory.cache, distribution)
        taken = distribution.summed(memory.cache.allocated_bytes)
        on_stages.append(requests_on_average(memory.pool.number, distribution.requests, taken))
    return min(on_stages) * capacity.deployment.parallelism.data


def _refuse_overflow(cache: Cache, distribution: LengthDistribution) -> None:
    """Refuse lengths whose bytes int64 might wrap; no request takes more than the longest."""
    longest = distribution.longest_tokens
    most = cache.allocated_bytes(longest)
    if most > LARGEST_EXACT:
        raise UsageError(f"a request of {longest:,} tokens is {most:,} bytes of cache, past 2^53")


def _refuse_longer(distribution: LengthDistribution, longest: int) -> None:
    if distribution.longest_tokens > longest:
        raise UsageError(
            f"requests of up to {distribution.longest_tokens:,} tokens are longer than the longest "
            f"context, {longest:,}",
            hint="--max-length",
        )


def _refuse_no_range(low: int, high: int) -> None:
    if not 1 <= low <= high:
        raise UsageError(f"lengths from {low:,} to {high:,} are no range of 1 or more tokens")
