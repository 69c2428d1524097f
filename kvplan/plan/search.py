"""Search for the largest number that still fits, on the exact function."""

from __future__ import annotations

from collections.abc import Callable


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """Return the largest n in 1 .. limit with ``fits(n)``, or 0; ``fits`` never comes back once lost.

    At most 2 log2(limit) calls.
    """
    if limit < 1 or not fits(1):
        return 0
    low, high = 1, 1
    while high < limit and fits(min(2 * high, limit)):
        low = high = min(2 * high, limit)
    high = min(2 * high, limit)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
