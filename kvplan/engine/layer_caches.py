"""The cache of one layer: its arrays, and the block tables that say where in them tokens are.

A layer keeps tokens in blocks, or one state for each sequence, or the few that wait to be compressed; whoever
goes over all layers asks these kinds alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kvplan.arch.entry import KV, CompressedKV, IndexKey, Latent, Pending, State
from kvplan.arch.retention import Unfinished
from kvplan.arch.slot import CacheSlot
from kvplan.engine.arrays import Arrays, Blocks
from kvplan.engine.cached_sequences import CachedSequence
from kvplan.engine.hot_groups import HotGroups
from kvplan.engine.huge_pages import HugePages
from kvplan.engine.kv_tiles import KVTiles
from kvplan.engine.round_trip import round_trip, round_trip_rows
from kvplan.engine.row_tiles import RowTiles
from kvplan.engine.scratch import Scratch
from kvplan.engine.state_store import StateStore
from kvplan.engine.step import view_of
from kvplan.engine.token_group import TokenGroup
from kvplan.engine.waiting_rows import WaitingRows
from kvplan.storage import KvFormat

# Where a dump has the keys that wait for their group to be complete.
HOT = "hot."


@dataclass(frozen=True, slots=True)
class StateLayer:
    """A layer that keeps one state of each sequence, in the sequence's slot."""

    store: StateStore

    def clear(self, slot: int) -> None:
        """Begin a sequence: its state is the one before the first token."""
        self.store.clear(slot)

    def copy_slot(self, source: int, target: int) -> None:
        """Copy what a sequence has outside of blocks to another's slot."""
        self.store.copy(source, target)

    def live_nbytes(self, sequence: CachedSequence) -> int:
        """Return the bytes of a sequence's state."""
        return self.store.slot_nbytes

    def allocated_nbytes(self, sequence: CachedSequence) -> int:
        """Return the bytes of a sequence's state: all of its slot is in use."""
        return self.store.slot_nbytes

    def blocks(self, sequence: CachedSequence) -> Blocks:
        """Return the physical blocks of a sequence: none."""
        return np.empty(0, np.int64)

    def dump(self, blocks: Blocks, slot: int) -> Arrays:
        """Return copies of what is kept in these blocks, of which there are none, and this slot."""
        return self.store.dump(slot)

    def load(self, blocks: Blocks, slot: int, arrays: Arrays) -> None:
        """Put back what ``dump`` returned."""
        self.store.load(slot, arrays)


@dataclass(frozen=True, slots=True)
class WaitingLayer:
    """A layer that keeps the tokens behind the last whole run, in the sequence's slot."""

    store: WaitingRows

    def clear(self, slot: int) -> None:
        """Begin a sequence: nothing of a slot is read before it is written."""

    def copy_slot(self, source: int, target: int) -> None:
        """Copy what a sequence has outside of blocks to another's slot."""
        self.store.copy(source, target)

    def live_nbytes(self, sequence: CachedSequence) -> int:
        """Return the bytes of the tokens that wait."""
        return len(sequence.tokens) % self.store.ratio * self.store.row_nbytes

    def allocated_nbytes(self, sequence: CachedSequence) -> int:
        """Return the bytes of the room for them."""
        return self.store.slot_nbytes

    def blocks(self, sequence: CachedSequence) -> Blocks:
        """Return the physical blocks of a sequence: none."""
        return np.empty(0, np.int64)

    def dump(self, blocks: Blocks, slot: int) -> Arrays:
        """Return copies of what is kept in these blocks, of which there are none, and this slot."""
        return self.store.dump(slot)

    def load(self, blocks: Blocks, slot: int, arrays: Arrays) -> None:
        """Put back what ``dump`` returned."""
        self.store.load(slot, arrays)


@dataclass(frozen=True, slots=True)
class TokenLayer:
    """A layer that keeps tokens in the blocks of its group, and unfinished groups of keys in a slot."""

    store: KVTiles | RowTiles
    group: TokenGroup

    @property
    def _hot(self) -> HotGroups | None:
        return self.store.hot if isinstance(self.store, KVTiles) else None

    def clear(self, slot: int) -> None:
        """Begin a sequence: nothing of a slot is read before it is written."""

    def copy_slot(self, source: int, target: int) -> None:
        """Copy what a sequence has outside of blocks to another's slot."""
        if self._hot is not None:
            self._hot.copy(source, target)

    def live_nbytes(self, sequence: CachedSequence) -> int:
        """Return the bytes of the tokens in view of a sequence."""
        store, spans = self.store, self.group.placed.spans(len(sequence.tokens))
        if isinstance(store, RowTiles):
            return sum(span.stop - span.start for span in spans) * store.slot_nbytes
        table, hot = self.group.tables[sequence.id], None if store.hot is None else sequence.slot
        return sum(view_of(store, span, table.physical(span.blocks), hot).nbytes for span in spans)

    def allocated_nbytes(self, sequence: CachedSequence) -> int:
        """Return the bytes of the blocks a sequence holds, and of its slot."""
        held = len(self.group.tables[sequence.id].blocks) * self.store.block_nbytes
        return held + (self.store.hot_slot_nbytes if isinstance(self.store, KVTiles) else 0)

    def blocks(self, sequence: CachedSequence) -> Blocks:
        """Return the physical blocks of a sequence."""
        table = self.group.tables[sequence.id]
        return table.physical(table.blocks)

    def reopen(self, sequence: CachedSequence, length: int) -> None:
        """Let the keys of the group that will end a shortened sequence wait again, if it was complete."""
        tiles = self.store
        if not isinstance(tiles, KVTiles) or tiles.hot is None or not length % tiles.tile_tokens:
            return
        first = length // tiles.tile_tokens * tiles.tile_tokens
        if len(sequence.tokens) < first + tiles.tile_tokens:
            return
        blocks, offsets = self.group.destination(sequence.id, np.array([first]))
        tiles.reopen(int(blocks[0]), int(offsets[0]) // tiles.tile_tokens, sequence.slot)

    def pass_through(self, sequence: CachedSequence, kv: KvFormat) -> None:
        """Replace what is in view of a sequence, stored as float32, by what another format gives back."""
        store, table = self.store, self.group.tables[sequence.id]
        for span in self.group.placed.spans(len(sequence.tokens)):
            block, offsets = np.divmod(np.arange(span.start, span.stop), store.block_tokens)
            held = table.physical(span.blocks)
            if isinstance(store, RowTiles):
                rows = [vectors[span.start :] for vectors in store.rows(held, span.stop)]
                store.write(held[block], offsets, round_trip_rows(rows, kv))
            else:
                found = round_trip(*store.read(held[block], offsets), kv)
                store.write(held[block], offsets, *found)

    def dump(self, blocks: Blocks, slot: int) -> Arrays:
        """Return copies of what is kept in these blocks and this slot."""
        waiting = {} if self._hot is None else self._hot.dump(slot)
        return self.store.dump(blocks) | {f"{HOT}{name}": array for name, array in waiting.items()}

    def load(self, blocks: Blocks, slot: int, arrays: Arrays) -> None:
        """Put back what ``dump`` returned."""
        waiting = {name[len(HOT) :]: array for name, array in arrays.items() if name.startswith(HOT)}
        self.store.load(blocks, {name: array for name, array in arrays.items() if not name.startswith(HOT)})
        if self._hot is not None:
            self._hot.load(slot, waiting)


LayerCache: TypeAlias = StateLayer | WaitingLayer | TokenLayer


def layer_caches(
    slots: Iterable[CacheSlot], groups: Iterable[TokenGroup], kv: KvFormat, sequences: int
) -> list[LayerCache]:
    """Return the cache of each slot, by what it keeps of a token, for up to so many sequences.

    Raises:
        UsageError: the format cannot be kept in blocks of this size.
    """
    group_of = {layer: group for group in groups for layer in group.layers}
    scratch, memory = Scratch(), HugePages()
    caches: list[LayerCache] = []
    for layer, slot in enumerate(slots):
        match slot.entry:
            case KV(k_dim=dim, one_vector=True):
                group = group_of[layer]
                # As key and as value, as transformers keeps it.
                caches.append(TokenLayer(RowTiles((dim, dim), *group.size, kv), group))
            case KV(kv_heads=heads, k_dim=k_dim, v_dim=v_dim):
                group = group_of[layer]
                tiles = KVTiles(heads, k_dim, v_dim, *group.size, kv, scratch, sequences, memory)
                caches.append(TokenLayer(tiles, group))
            case Latent(rank=rank, rope_dim=rope_dim):
                group = group_of[layer]
                caches.append(TokenLayer(RowTiles((rank, rope_dim), *group.size, kv), group))
            case IndexKey(dim=dim) | CompressedKV(dim=dim):
                group = group_of[layer]
                caches.append(TokenLayer(RowTiles((dim,), *group.size, kv), group))
            case Pending(elements=elements) if isinstance(slot.retention, Unfinished):
                caches.append(WaitingLayer(WaitingRows(elements, slot.retention.ratio, sequences)))
            case Pending(elements=elements):
                caches.append(StateLayer(StateStore(State(0, 0, elements, recurrent_dtype=""), sequences)))
            case State() as state:
                caches.append(StateLayer(StateStore(state, sequences)))
    return caches
