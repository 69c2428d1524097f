"""Where along an axis a chart reckons: whole numbers, enough for a smooth curve, both ends among them."""

from __future__ import annotations

SHORTEST_CONTEXT = 1024
# Places from one doubling to the next.
PER_DOUBLING = 4


def contexts(longest: int, per_doubling: int = PER_DOUBLING) -> list[int]:
    """Return contexts from 1k, or less where the longest is short, up to the longest, evenly by doublings."""
    return between(min(SHORTEST_CONTEXT, max(1, longest // 8)), longest, per_doubling)


def between(least: int, most: int, per_doubling: int = PER_DOUBLING) -> list[int]:
    """Return whole numbers from ``least`` to ``most``, evenly by doublings, both ends included."""
    found, power = [least], 0
    while found[-1] < most:
        power += 1
        found.append(min(most, round(least * 2 ** (power / per_doubling))))
    return list(dict.fromkeys(found))


def doublings(most: int) -> list[int]:
    """Return 1, 2, 4 ... up to ``most``, and ``most`` itself."""
    return between(1, most, per_doubling=1)
