"""Block tables: which physical blocks a sequence holds in a group of layers that keep alike tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.block_pool import BlockPool, OutOfBlocks
from kvplan.engine.placement import Placement, Positions, Span

Placed: TypeAlias = tuple[Span, NDArray[np.int64]]


@dataclass(slots=True)
class Table:
    """The physical block of each logical block a sequence holds."""

    blocks: dict[int, int] = field(default_factory=dict)

    def physical(self, logical: Iterable[int]) -> NDArray[np.int64]:
        """Return the physical blocks of these logical ones, in their order."""
        return np.array([self.blocks[block] for block in logical], np.int64)


@dataclass(frozen=True, slots=True)
class Change:
    """What a sequence's table must become before a step.

    Args:
        sequence: whose table it is.
        missing: logical blocks to take.
        dropped: logical blocks to let go of.
        shared: logical blocks that are written to and that another sequence holds too.
        rewritten: logical blocks that are written to and that are the sequence's own.
    """

    sequence: int
    missing: tuple[int, ...]
    dropped: tuple[int, ...]
    shared: tuple[int, ...]
    rewritten: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """A sequence that grows from ``length`` to ``new_length`` tokens in a step."""

    sequence: int
    length: int
    new_length: int


class KnownBlocks:
    """The physical blocks that hold the first complete blocks of a prompt; ``None`` for one not known."""

    def __init__(self, placed: Placement, found: Sequence[int | None]) -> None:
        self._placed, self._found = placed, found
        self._unknown_before = list(accumulate((block is None for block in found), initial=0))

    def cover(self, count: int) -> bool:
        """Whether a sequence could begin with so many blocks: all it would have in view are known."""
        before = self._unknown_before
        return all(before[run.start] == before[run.stop] for run in self._in_view(count))

    def first(self, count: int) -> dict[int, int]:
        """Return the logical and physical blocks a sequence that begins with so many has in view."""
        logical = (block for run in self._in_view(count) for block in run)
        return {block: found for block in logical if (found := self._found[block]) is not None}

    def _in_view(self, count: int) -> list[range]:
        return [span.blocks for span in self._placed.spans(count * self._placed.block_tokens)]


class TokenGroup:
    """Layers whose tokens are placed alike: one pool of blocks, one table for each sequence.

    Block ``b`` of the pool is block ``b`` of every layer's arena.
    """

    def __init__(self, placed: Placement, layers: Sequence[int], num_blocks: int) -> None:
        self.placed = placed
        self.layers = tuple(layers)
        self.pool = BlockPool(num_blocks)
        self.tables: dict[int, Table] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Blocks of the pool, and tokens of each."""
        return self.pool.num_blocks, self.placed.block_tokens

    def changes(self, growths: Iterable[Growth]) -> list[Change]:
        """Return what each sequence's table must become for it to grow; nothing is changed yet.

        All sequences take their copies first, then all let go, then all take what is missing. No sequence
        lets go of more than it takes: where there is room for all, there is room for the copies.

        Raises:
            OutOfBlocks: the pool has too few blocks for that.
        """
        owners: dict[int, int] = {}
        changes = [self._change(growth, owners) for growth in growths]
        needed = sum(len(change.shared) + len(change.missing) for change in changes)
        free = self.pool.num_free + sum(self._freed(change, owners) for change in changes)
        if needed > free:
            raise OutOfBlocks(needed, free)
        return changes

    def _change(self, growth: Growth, owners: dict[int, int]) -> Change:
        """Return one sequence's change; ``owners`` are those that copies made before it leave a block."""
        table = self.tables[growth.sequence].blocks
        held = dict.fromkeys(self.placed.held(growth.new_length))
        written, _ = self.placed.slots(self._placed_positions(growth))
        shared: list[int] = []
        rewritten: list[int] = []
        for block in dict.fromkeys(written.tolist()):
            if block in table:
                others = self._give_up(table[block], owners)
                (shared if others else rewritten).append(block)
        # What went out of view before a trim is not taken again: no new token goes there.
        first = self.placed.block_at(growth.length)
        return Change(
            growth.sequence,
            missing=tuple(block for block in held if block >= first and block not in table),
            dropped=tuple(block for block in table if block not in held),
            shared=tuple(shared),
            rewritten=tuple(rewritten),
        )

    def _freed(self, change: Change, owners: dict[int, int]) -> int:
        """Return how many of the blocks a sequence lets go of nobody has then."""
        table = self.tables[change.sequence].blocks
        return sum(self._give_up(table[block], owners) == 0 for block in change.dropped)

    def _give_up(self, physical: int, owners: dict[int, int]) -> int:
        """Take one owner from a block in the reckoning, and return how many are left."""
        owners[physical] = owners.get(physical, self.pool.ref_count(physical)) - 1
        return owners[physical]

    def require_free(self, count: int) -> None:
        """Raise OutOfBlocks unless the pool has so many blocks now."""
        if count > self.pool.num_free:
            raise OutOfBlocks(count, self.pool.num_free)

    def own(self, change: Change) -> list[tuple[int, int]]:
        """Swap shared blocks for the sequence's own; return the (old, new) physical blocks to copy.

        What is known of a block that is written to again, as after a trim, is forgotten.
        """
        table, copies = self.tables[change.sequence].blocks, []
        for block in change.rewritten:
            self.pool.forget(table[block])
        for block, fresh in zip(change.shared, self.pool.allocate(len(change.shared)), strict=True):
            copies.append((table[block], fresh))
            self.pool.free([table[block]])
            table[block] = fresh
        return copies

    def drop(self, change: Change) -> None:
        """Let go of the blocks no later token sees."""
        table = self.tables[change.sequence].blocks
        self.pool.free([table.pop(block) for block in change.dropped])

    def take(self, change: Change) -> None:
        """Take what is missing."""
        taken = self.pool.allocate(len(change.missing))
        self.tables[change.sequence].blocks.update(zip(change.missing, taken, strict=True))

    def views(self, growths: Sequence[Growth], *, after: bool) -> tuple[tuple[Placed, ...], ...]:
        """Return the slots each sequence has in view before or after it has grown, with their blocks."""
        return tuple(
            tuple(
                (span, self.tables[growth.sequence].physical(span.blocks))
                for span in self.placed.spans(growth.new_length if after else growth.length)
            )
            for growth in growths
        )

    def destinations(
        self, growths: Sequence[Growth]
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64], NDArray[np.int64]]:
        """Return which of all new tokens have a place (``None`` for all), and its block and offset."""
        rows, blocks, offsets, first = [], [], [], 0
        for growth in growths:
            positions = self._placed_positions(growth)
            block, offset = self.destination(growth.sequence, positions)
            rows.append(positions - growth.length + first)
            blocks.append(block)
            offsets.append(offset)
            first += growth.new_length - growth.length
        found = np.concatenate(rows)
        return None if len(found) == first else found, np.concatenate(blocks), np.concatenate(offsets)

    def destination(self, sequence: int, positions: Positions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the physical block of each position, and the offset in it."""
        logical, offsets = self.placed.slots(positions)
        return self.tables[sequence].physical(logical.tolist()), offsets

    def _placed_positions(self, growth: Growth) -> Positions:
        positions = np.arange(growth.length, growth.new_length)
        return positions[self.placed.stored(positions, growth.new_length)]

    def fork(self, sequence: int, child: int) -> None:
        """Give a new sequence the same blocks; whoever writes first takes a copy."""
        table = self.tables[sequence]
        for block in table.blocks.values():
            self.pool.share(block)
        self.tables[child] = Table(dict(table.blocks))

    def adopt(self, sequence: int, blocks: Mapping[int, int]) -> None:
        """Give a new sequence blocks whose content is already known, as one more owner of each."""
        for block in blocks.values():
            self.pool.share(block)
        self.tables[sequence] = Table(dict(blocks))

    def could_hold(self, logical: Sequence[int], length: int) -> bool:
        """Whether these can be a sequence's blocks: each once, all it has in view, none it would not hold."""
        found = set(logical)
        needed = {block for span in self.placed.spans(length) for block in span.blocks}
        return len(found) == len(logical) and needed <= found <= set(self.placed.held(length))

    def restore(self, sequence: int, logical: Sequence[int]) -> None:
        """Take a block for each of a new sequence's logical ones."""
        taken = self.pool.allocate(len(logical))
        self.tables[sequence] = Table(dict(zip(logical, taken, strict=True)))

    def lost(self, sequence: int, length: int, shorter: int) -> bool:
        """Whether a token is gone that a sequence of some length has in view at a shorter one.

        The table is asked too: a sequence that began with known blocks, or was trimmed before, holds fewer
        than its length tells.
        """
        table = self.tables[sequence].blocks
        needed = (block for span in self.placed.spans(shorter) for block in span.blocks)
        return self.placed.lost(length, shorter) or any(block not in table for block in needed)

    def cut(self, sequence: int, new_length: int) -> None:
        """Let go of blocks past a shorter length."""
        table = self.tables[sequence].blocks
        held = frozenset(self.placed.held(new_length))
        self.pool.free([table.pop(block) for block in list(table) if block not in held])

    def publish(self, sequence: int, logical: int, key: bytes) -> None:
        """Say under which key a complete block's content is known, if the sequence still holds it."""
        block = self.tables[sequence].blocks.get(logical)
        if block is not None:
            self.pool.publish(block, key)

    def known(self, keys: Sequence[bytes]) -> KnownBlocks:
        """Return which of these complete blocks the pool has."""
        return KnownBlocks(self.placed, [self.pool.lookup(key) for key in keys])

    def free(self, sequence: int) -> None:
        """Let go of everything a sequence holds."""
        self.pool.free(list(self.tables.pop(sequence).blocks.values()))
