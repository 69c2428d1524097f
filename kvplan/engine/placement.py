"""Where a token of a sequence is kept: which logical block, and which place in it.

A placement is pure arithmetic on positions; it knows nothing of arrays or of other sequences. Paged
placements number blocks by position and let go of those no later token sees. Contiguous ones are rings
of a fixed number of slots, taken whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Retention, Sliding, Unfinished
from kvplan.units import ceil_div

Positions: TypeAlias = NDArray[np.int64]

# The tile a contiguous cache is cut into: the length decode attention is fastest on.
CONTIGUOUS_TILE = 64


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive slots of a placement that hold tokens in view.

    Args:
        blocks: the logical blocks, in slot order.
        start, stop: the slots in view, counted from the first slot of the first block.
        first_position: the position of slot 0, where slots follow positions.
        positions: the position of every slot, where they do not (a ring that has turned); -1 for an
            empty one.
    """

    blocks: range
    start: int
    stop: int
    first_position: int = 0
    positions: Positions | None = None


@dataclass(frozen=True, slots=True)
class PagedPlacement:
    """Blocks of ``block_tokens`` consecutive positions.

    A window holds as many of its last blocks as it can ever touch at once: the head block goes when the
    next one would be one too many, so what a sequence holds never shrinks as it grows.
    """

    retention: Retention
    block_tokens: int

    def slots(self, positions: Positions) -> tuple[Positions, Positions]:
        """Return the logical block and the offset in it of each position."""
        return positions // self.block_tokens, positions % self.block_tokens

    def block_at(self, length: int) -> int:
        """Return the logical block in which a sequence of this length goes on."""
        return length // self.block_tokens

    def held(self, length: int) -> list[int]:
        """Return the logical blocks a sequence of this length holds."""
        after = int(ceil_div(length, self.block_tokens))
        return [*range(min(self.pinned_blocks, after)), *range(self._first_moving(length), after)]

    @property
    def pinned_blocks(self) -> int:
        """Blocks of the first tokens that stay beside a window."""
        sinks = self.retention.sink_tokens if isinstance(self.retention, Sliding) else 0
        return int(ceil_div(sinks, self.block_tokens))

    @property
    def moving_blocks(self) -> int | None:
        """Most blocks the tokens in view can touch, pinned ones aside; ``None`` where it has no limit."""
        block = self.block_tokens
        match self.retention:
            case Sliding(window=window):
                return int(ceil_div(window - 1, block)) + 1
            case Chunked(chunk=chunk):
                # Chunks begin at multiples of their greatest common divisor with the block.
                return (block - gcd(chunk, block) + chunk - 1) // block + 1
        return None

    def spans(self, length: int) -> list[Span]:
        """Return the slots of the tokens that a sequence of this length has in view."""
        spans = []
        for first, last in _kept(self.retention, length):
            block = first // self.block_tokens
            base = block * self.block_tokens
            spans.append(Span(range(block, self._after(last)), first - base, last + 1 - base, base))
        return spans

    def lost(self, length: int, shorter: int) -> bool:
        """Whether a token that a shorter sequence would have in view is gone at this length."""
        held = frozenset(self.held(length))
        runs = _kept(self.retention, shorter)
        return any(
            block not in held
            for first, last in runs
            for block in range(first // self.block_tokens, self._after(last))
        )

    def stored(self, positions: Positions, length: int) -> NDArray[np.bool_]:
        """Return which of the positions still have a place once the sequence has this length."""
        blocks = positions // self.block_tokens
        return (blocks < self.pinned_blocks) | (blocks >= self._first_moving(length))

    def _first_moving(self, length: int) -> int:
        """Return the first block behind the pinned ones that a sequence of this length holds."""
        moving = self.moving_blocks
        first = 0 if moving is None else int(ceil_div(length, self.block_tokens)) - moving
        return max(self.pinned_blocks, first)

    def _after(self, position: int) -> int:
        return position // self.block_tokens + 1


@dataclass(frozen=True, slots=True)
class RingPlacement:
    """A fixed run of slots, taken whole: the first ``pinned`` positions stay, the others go round.

    Args:
        retention: which tokens stay in view.
        capacity: slots in all.
        pinned: slots at the front that never turn.
        block_tokens: length of the tiles the slots are cut into; divides ``capacity``.
    """

    retention: Retention
    capacity: int
    pinned: int
    block_tokens: int

    @property
    def blocks(self) -> int:
        """Tiles of one sequence."""
        return self.capacity // self.block_tokens

    def slots(self, positions: Positions) -> tuple[Positions, Positions]:
        """Return the logical block and the offset in it of each position."""
        turning = self.pinned + (positions - self.pinned) % (self.capacity - self.pinned)
        slot = np.where(positions < self.pinned, positions, turning)
        return slot // self.block_tokens, slot % self.block_tokens

    def block_at(self, length: int) -> int:
        """Return the logical block in which a sequence that never turned goes on."""
        return length // self.block_tokens

    def held(self, length: int) -> list[int]:
        """Return all blocks, whatever the length."""
        return list(range(self.blocks))

    def spans(self, length: int) -> list[Span]:
        """Return the slots of the tokens that a sequence of this length has in view."""
        kept = sum(last + 1 - first for first, last in _kept(self.retention, length))
        turned = self._positions(length) if length > self.capacity else None
        return [Span(range(self.blocks), 0, kept, positions=turned)] if length else []

    def lost(self, length: int, shorter: int) -> bool:
        """Whether a token that a shorter sequence would have in view is gone at this length."""
        overwritten = length - (self.capacity - self.pinned)
        runs = ((max(first, self.pinned), last) for first, last in _kept(self.retention, shorter))
        return any(first <= last and first < overwritten for first, last in runs)

    def stored(self, positions: Positions, length: int) -> NDArray[np.bool_]:
        """Return which of the positions are not overwritten once the sequence has this length."""
        return (positions < self.pinned) | (positions >= length - (self.capacity - self.pinned))

    def _positions(self, length: int) -> Positions:
        slots = np.arange(self.capacity)
        last = (length - 1 - self.pinned) // (turn := self.capacity - self.pinned)
        found = slots + last * turn
        found[found >= length] -= turn
        found[: self.pinned] = slots[: self.pinned]
        return found


@dataclass(frozen=True, slots=True)
class EntryPlacement:
    """Entries that stand for a whole run of ``ratio`` tokens each, placed as so many fewer tokens would be.

    An entry has the place of its run's last token; the others of the run have none.
    """

    entries: PagedPlacement | RingPlacement
    ratio: int

    @property
    def block_tokens(self) -> int:
        """Entries of a block."""
        return self.entries.block_tokens

    def slots(self, positions: Positions) -> tuple[Positions, Positions]:
        """Return the logical block and the offset in it of the entries that end at these positions."""
        return self.entries.slots(positions // self.ratio)

    def block_at(self, length: int) -> int:
        """Return the logical block in which a sequence of this length goes on."""
        return self.entries.block_at(length // self.ratio)

    def held(self, length: int) -> list[int]:
        """Return the logical blocks a sequence of this length holds."""
        return self.entries.held(length // self.ratio)

    def spans(self, length: int) -> list[Span]:
        """Return the slots of the entries that a sequence of this length has."""
        return self.entries.spans(length // self.ratio)

    def lost(self, length: int, shorter: int) -> bool:
        """Whether an entry that a shorter sequence would have is gone at this length."""
        return self.entries.lost(length // self.ratio, shorter // self.ratio)

    def stored(self, positions: Positions, length: int) -> NDArray[np.bool_]:
        """Return at which of the positions an entry ends that has a place."""
        ends: NDArray[np.bool_] = (positions + 1) % self.ratio == 0
        return ends


Placement: TypeAlias = PagedPlacement | RingPlacement | EntryPlacement


def placement(retention: Retention, allocation: Allocation) -> Placement:
    """Return where tokens under a retention go in an allocation; states have no tokens to place."""
    if isinstance(retention, Compressed):
        return EntryPlacement(_all_entries(retention.ratio, allocation), retention.ratio)
    if isinstance(allocation, Paged):
        return PagedPlacement(retention, allocation.block_tokens)
    capacity, pinned = _ring(retention, allocation)
    return RingPlacement(retention, capacity, pinned, _tile(capacity))


def _all_entries(ratio: int, allocation: Allocation) -> PagedPlacement | RingPlacement:
    if isinstance(allocation, Paged):
        return PagedPlacement(Full(), allocation.block_tokens)
    capacity = allocation.max_tokens // ratio
    return RingPlacement(Full(), capacity, 0, _tile(capacity))


def _ring(retention: Retention, allocation: Contiguous) -> tuple[int, int]:
    longest = allocation.max_tokens
    match retention:
        case Full():
            return longest, 0
        case Sliding(window=window, sink_tokens=sinks):
            return min(window + sinks, longest), (sinks if window + sinks < longest else 0)
        case Chunked(chunk=chunk):
            return min(chunk, longest), 0
        case Compressed() | Unfinished() | PerRequest():
            raise AssertionError("what is kept of a request has no tokens to place")


def _tile(capacity: int) -> int:
    """Return the largest divisor of the capacity up to 64: whole tiles, and no slot too many."""
    return max(length for length in range(1, CONTIGUOUS_TILE + 1) if capacity % length == 0)


def _kept(retention: Retention, length: int) -> list[tuple[int, int]]:
    """Return the first and last positions of the runs of tokens a sequence of this length keeps."""
    if length == 0:
        return []
    last = length - 1
    match retention:
        case Sliding(window=window, sink_tokens=sinks) if sinks < length - window:
            pinned = [(0, sinks - 1)] if sinks else []
            return [*pinned, (length - window, last)]
        case Chunked(chunk=chunk):
            return [(last - last % chunk, last)]
    return [(0, last)]


def blocks_needed(placed: Placement, lengths: Iterable[int]) -> int:
    """Return how many blocks sequences that grow up to these lengths hold at most, together."""
    if isinstance(placed, EntryPlacement):
        return blocks_needed(placed.entries, [length // placed.ratio for length in lengths])
    if isinstance(placed, RingPlacement):
        return placed.blocks * sum(1 for _ in lengths)
    moving = placed.moving_blocks
    most = None if moving is None else moving + placed.pinned_blocks
    blocks = [int(ceil_div(length, placed.block_tokens)) for length in lengths]
    return sum(blocks if most is None else [min(count, most) for count in blocks])
