"""The cache of a whole model: what every layer keeps of every sequence.

The caller adds a sequence, begins a step with its new tokens, lets each layer store and read through
the step, and finishes it. Blocks, tables, rings and slots stay in here.

A step that fails in a layer is not undone: what a window let go of for it may be overwritten already. Its
sequences can then only be freed; all others, and what is known of finished blocks, are as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.arch.entry import KV, Latent, State
from kvplan.arch.model import Model
from kvplan.arch.retention import PerRequest, Retention
from kvplan.engine.block_pool import block_key
from kvplan.engine.kv_tiles import KVTiles
from kvplan.engine.latent_tiles import LatentTiles
from kvplan.engine.placement import blocks_needed, placement
from kvplan.engine.scratch import Scratch
from kvplan.engine.snapshot import Arrays, Layout, Snapshot, require_equal_arrays
from kvplan.engine.state_store import StateStore
from kvplan.engine.step import GroupStep, Step, view_of
from kvplan.engine.token_group import Change, Growth, TokenGroup
from kvplan.errors import UsageError
from kvplan.storage import KvFormat

Tokens: TypeAlias = NDArray[np.int64]
# Where a snapshot has the keys that wait for their group to be complete.
HOT = "hot."
Store: TypeAlias = KVTiles | LatentTiles | StateStore


@dataclass(slots=True)
class Held:
    """What the cache knows of one sequence: its slot, its tokens, and the keys of its complete blocks.

    ``in_step`` while a step that it is in has begun and not been finished.
    """

    slot: int
    tokens: Tokens
    keys: list[bytes] = field(default_factory=list)
    in_step: bool = False


class Cache:
    """Keys, values, latents and states of up to ``sequences`` sequences of up to ``max_tokens`` tokens.

    Args:
        model: whose layers it serves.
        kv: storage of keys, values and latents; states are float32.
        allocation: blocks taken as sequences grow, or room for the longest taken at once.
        max_tokens: longest sequence, where the allocation has room for it.
        sequences: most sequences at once.
        blocks: blocks of each pool; enough for all sequences at their longest where absent.

    Raises:
        UsageError: the format cannot be kept in this allocation.
    """

    def __init__(
        self,
        model: Model,
        kv: KvFormat,
        allocation: Allocation,
        max_tokens: int,
        sequences: int,
        blocks: int | None = None,
    ) -> None:
        room = allocation.max_tokens if isinstance(allocation, Contiguous) else max_tokens
        self.max_tokens = min(max_tokens, room)
        self._kv = kv
        self._layout = Layout.of(model, kv, allocation)
        self._paged = allocation if isinstance(allocation, Paged) else None
        self._sequences: dict[int, Held] = {}
        self._next_id = 0
        self._free_slots = list(range(sequences))[::-1]
        slots = [layer.slot() for layer in model.layers]
        retentions = [slot.retention for slot in slots]
        self._groups = _groups(retentions, allocation, self.max_tokens, sequences, blocks)
        self._group_of = {layer: group for group in self._groups for layer in group.layers}
        self._stores: list[Store] = []
        scratch = Scratch()
        for layer, slot in enumerate(slots):
            match slot.entry:
                case KV(kv_heads=heads, k_dim=k_dim, v_dim=v_dim):
                    size = self._group_of[layer].size
                    self._stores.append(KVTiles(heads, k_dim, v_dim, *size, kv, scratch, sequences))
                case Latent(rank=rank, rope_dim=rope_dim):
                    self._stores.append(LatentTiles(rank, rope_dim, *self._group_of[layer].size, kv))
                case State():
                    self._stores.append(StateStore(slot.entry, sequences))
        self._has_states = any(isinstance(store, StateStore) for store in self._stores)

    # ------------------------------------------------------------------ sequences

    def add(self, prompt: Sequence[int] = ()) -> int:
        """Return the id of a new sequence; it begins with what is known of the prompt's first blocks.

        ``length`` then says how many of the prompt's tokens need no prefill; the last one always does.

        Raises:
            UsageError: there are as many sequences as the cache was made for.
        """
        known_from = np.asarray(prompt, np.int64)
        held, sequence = Held(self._take_slot(), np.empty(0, np.int64)), self._new_id()
        self._sequences[sequence] = held
        for store in self._stores:
            if isinstance(store, StateStore):
                store.clear(held.slot)
        self._adopt(sequence, known_from)
        return sequence

    def length(self, sequence: int) -> int:
        """Return how many tokens of a sequence have been stored."""
        return len(self._held(sequence).tokens)

    def fork(self, sequence: int) -> int:
        """Return a new sequence equal to this one: blocks are shared until one of the two writes to them.

        Costs one entry per block; states, and sequences of a contiguous cache, are copied whole.

        Raises:
            UsageError: there are as many sequences as the cache was made for, or a step was not finished.
            OutOfBlocks: a contiguous cache has no room for a copy; nothing is changed.
        """
        held = self._at_rest(sequence)
        if self._paged is None:
            return self.restore(self.snapshot(sequence))
        slot, child = self._take_slot(), self._new_id()
        for group in self._groups:
            group.fork(sequence, child)
        for store in self._stores:
            if isinstance(store, StateStore):
                store.copy(held.slot, slot)
            elif isinstance(store, KVTiles) and store.hot is not None:
                store.hot.copy(held.slot, slot)
        self._sequences[child] = Held(slot, held.tokens, list(held.keys))
        return child

    def free(self, sequence: int) -> None:
        """Forget a sequence; complete blocks stay known until their memory is needed.

        Raises:
            UsageError: there is no such sequence, or it was freed before.
        """
        held = self._held(sequence)
        for group in self._groups:
            group.free(sequence)
        self._free_slots.append(held.slot)
        del self._sequences[sequence]

    def trim(self, sequence: int, tokens: int) -> None:
        """Take back a sequence's last tokens, as after rejected speculation.

        Raises:
            UsageError: there are fewer, a step was not finished, or what they replaced is gone (a window
                moved on, a state changed).
        """
        held = self._at_rest(sequence)
        length = len(held.tokens)
        if not 0 <= tokens <= length:
            raise UsageError(f"cannot trim {tokens:,} of {length:,} tokens")
        if not tokens:
            return
        if self._has_states:
            raise UsageError("a recurrent state cannot be trimmed: what it was before is gone")
        for group in self._groups:
            if group.lost(sequence, length, length - tokens):
                raise UsageError("a window has moved on: the tokens it would show again are gone")
        self._reopen_groups(sequence, length - tokens)
        for group in self._groups:
            group.cut(sequence, length - tokens)
        held.tokens = held.tokens[: length - tokens]
        if self._paged is not None:
            del held.keys[len(held.tokens) // self._paged.block_tokens :]

    # ------------------------------------------------------------------ steps

    def begin(self, batch: Sequence[tuple[int, Tokens]], *, decode: bool = False) -> Step:
        """Make room for new tokens and return the step that stores and reads them.

        Args:
            batch: sequences, each once, with the ids of their new tokens (at least one).
            decode: every sequence adds one token to a prompt that was read before.

        Raises:
            UsageError: a sequence would pass ``max_tokens``, is unknown, is there twice, or is in a step that
                was not finished.
            OutOfBlocks: the pool has no room; nothing is changed.
        """
        starts, counts = self._lengths(batch)
        if decode and max(counts) > 1:
            raise UsageError("a decode step adds one token to every sequence in it")
        growths = [Growth(i, s, s + n) for (i, _), s, n in zip(batch, starts, counts, strict=True)]
        changes = [group.changes(growths) for group in self._groups]
        parts = {}
        for group, grown in zip(self._groups, changes, strict=True):
            before = () if decode else group.views(growths, after=False)
            self._take(group, grown)
            part = GroupStep(*group.destinations(growths), before, group.views(growths, after=True))
            parts.update(dict.fromkeys(group.layers, part))
        for sequence, tokens in batch:
            held = self._sequences[sequence]
            held.tokens = np.concatenate([held.tokens, tokens])
            held.in_step = True
        slots = np.array([self._sequences[sequence].slot for sequence, _ in batch])
        return Step(starts, counts, slots, decode, parts, self._stores, self._kv)

    def finish(self, batch: Sequence[tuple[int, Tokens]]) -> None:
        """Say that a step's tokens are stored in every layer: complete blocks can now be shared."""
        for sequence, _ in batch:
            self._held(sequence).in_step = False
        if self._paged is None or self._has_states:
            return
        size = self._paged.block_tokens
        for sequence, _ in batch:
            held = self._sequences[sequence]
            for index in range(len(held.keys), len(held.tokens) // size):
                parent = held.keys[-1] if held.keys else None
                held.keys.append(block_key(parent, held.tokens[index * size : (index + 1) * size]))
                for group in self._groups:
                    group.publish(sequence, index, held.keys[index])

    # ------------------------------------------------------------------ memory

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays: what is reserved."""
        return sum(store.nbytes for store in self._stores)

    def live_nbytes(self, layer: int, sequence: int) -> int:
        """Return the bytes of the slots a layer has in view of a sequence."""
        store, length = self._stores[layer], self.length(sequence)
        if isinstance(store, StateStore):
            return store.slot_nbytes
        group = self._group_of[layer]
        spans = group.placed.spans(length)
        if isinstance(store, LatentTiles):
            return sum(span.stop - span.start for span in spans) * store.slot_nbytes
        table, hot = group.tables[sequence], self._held(sequence).slot if store.hot is not None else None
        return sum(view_of(store, span, table.physical(span.blocks), hot).nbytes for span in spans)

    def allocated_nbytes(self, layer: int, sequence: int) -> int:
        """Return the bytes of the blocks, or of the slot, that a layer holds for a sequence."""
        store = self._stores[layer]
        if isinstance(store, StateStore):
            return store.slot_nbytes
        held = len(self._group_of[layer].tables[sequence].blocks) * store.block_nbytes
        return held + (store.hot_slot_nbytes if isinstance(store, KVTiles) else 0)

    def held_blocks(self, sequence: int) -> int:
        """Return how many blocks a sequence holds, over all block tables."""
        return sum(len(group.tables[sequence].blocks) for group in self._groups)

    @property
    def free_blocks(self) -> tuple[int, ...]:
        """Blocks each pool can still hand out."""
        return tuple(group.pool.num_free for group in self._groups)

    def _lengths(self, batch: Sequence[tuple[int, Tokens]]) -> tuple[list[int], list[int]]:
        if len({sequence for sequence, _ in batch}) < len(batch):
            raise UsageError("a sequence is in the batch twice")
        starts = [len(self._at_rest(sequence).tokens) for sequence, _ in batch]
        counts = [len(tokens) for _, tokens in batch]
        if not counts or min(counts) < 1:
            raise UsageError("a step needs at least one new token of every sequence in it")
        longest = max(start + count for start, count in zip(starts, counts, strict=True))
        if longest > self.max_tokens:
            raise UsageError(f"{longest:,} tokens are more than the {self.max_tokens:,} this cache is for")
        return starts, counts

    def _take(self, group: TokenGroup, changes: Sequence[Change]) -> None:
        """Change the tables of a group: copies first, while the blocks let go of still hold what they did.

        Blocks that are let go of may be taken again at once: a layer reads what was in view before it
        stores anything.
        """
        for change in changes:
            for source, target in group.own(change):
                for layer in group.layers:
                    store = self._stores[layer]
                    assert not isinstance(store, StateStore)
                    store.copy_block(source, target)
        for change in changes:
            group.drop(change)
        for change in changes:
            group.take(change)

    def _reopen_groups(self, sequence: int, length: int) -> None:
        """Let the keys of the group that ends a shortened sequence wait again, if it was complete."""
        for layer, store in enumerate(self._stores):
            if not isinstance(store, KVTiles) or store.hot is None or not length % store.tile_tokens:
                continue
            first = length // store.tile_tokens * store.tile_tokens
            if self.length(sequence) < first + store.tile_tokens:
                continue
            group = self._group_of[layer]
            blocks, offsets = group.destination(sequence, np.array([first]))
            store.reopen(int(blocks[0]), int(offsets[0]) // store.tile_tokens, self._held(sequence).slot)

    def _adopt(self, sequence: int, prompt: Tokens) -> None:
        """Begin a sequence with the longest run of complete blocks that every group knows."""
        keys = self._keys(prompt)
        known = [group.known(keys) for group in self._groups]
        covered = (n for n in range(len(keys), 0, -1) if all(blocks.cover(n) for blocks in known))
        count = next(covered, 0)
        for group, blocks in zip(self._groups, known, strict=True):
            group.adopt(sequence, blocks.first(count))
        held = self._sequences[sequence]
        held.keys = keys[:count]
        held.tokens = prompt[: count * self._paged.block_tokens] if self._paged else held.tokens

    def _keys(self, prompt: Tokens) -> list[bytes]:
        """Return the keys of a prompt's complete blocks; its last token is never among them."""
        if self._paged is None or self._has_states:
            return []
        size, keys = self._paged.block_tokens, list[bytes]()
        for start in range(0, (len(prompt) - 1) // size * size, size):
            keys.append(block_key(keys[-1] if keys else None, prompt[start : start + size]))
        return keys

    def _take_slot(self) -> int:
        if not self._free_slots:
            raise UsageError(f"the cache holds {len(self._sequences)} sequences, as many as it is for")
        return self._free_slots.pop()

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _held(self, sequence: int) -> Held:
        if sequence not in self._sequences:
            raise UsageError(f"there is no sequence {sequence} in the cache")
        return self._sequences[sequence]

    def _at_rest(self, sequence: int) -> Held:
        held = self._held(sequence)
        if held.in_step:
            raise UsageError(
                f"sequence {sequence} is in a step that was not finished", hint="if the step failed, free it"
            )
        return held

    # ------------------------------------------------------------------ saved sequences

    def snapshot(self, sequence: int) -> Snapshot:
        """Return copies of everything the cache keeps of a sequence: to be swapped out, or saved.

        Raises:
            UsageError: there is no such sequence, or it is in a step that was not finished.
        """
        held = self._at_rest(sequence)
        blocks = tuple(tuple(group.tables[sequence].blocks) for group in self._groups)
        layers = tuple(
            self._dump(layer, held.slot, self._physical(layer, sequence))
            for layer in range(len(self._stores))
        )
        return Snapshot(self._layout, held.tokens.copy(), blocks, layers)

    def restore(self, snapshot: Snapshot) -> int:
        """Return the id of a new sequence with a snapshot's content.

        Raises:
            UsageError: there are as many sequences as the cache was made for, or the snapshot is damaged,
                longer than ``max_tokens``, or of a cache with another layout.
            OutOfBlocks: the pool has no room; nothing is changed.
        """
        self._require_fit(snapshot)
        held = Held(self._take_slot(), snapshot.tokens.copy())
        sequence = self._new_id()
        self._sequences[sequence] = held
        for group, logical in zip(self._groups, snapshot.blocks, strict=True):
            group.restore(sequence, logical)
        for layer, arrays in enumerate(snapshot.layers):
            self._load(layer, held.slot, self._physical(layer, sequence), arrays)
        return sequence

    def _require_fit(self, snapshot: Snapshot) -> None:
        """Raise UsageError or OutOfBlocks unless the snapshot can be restored here."""
        self._layout.require(snapshot.layout)
        if len(snapshot.tokens) > self.max_tokens:
            count = f"{len(snapshot.tokens):,} tokens"
            raise UsageError(f"{count} are more than the {self.max_tokens:,} this cache is for")
        sizes = (len(snapshot.blocks), len(snapshot.layers))
        tables = list(zip(self._groups, snapshot.blocks, strict=False))
        if sizes != (len(self._groups), len(self._stores)) or not all(
            group.could_hold(logical, len(snapshot.tokens)) for group, logical in tables
        ):
            raise UsageError("this sequence is damaged: its blocks are not those of its length")
        for group, logical in tables:
            group.require_free(len(logical))
        counts = {layer: len(logical) for group, logical in tables for layer in group.layers}
        for layer, arrays in enumerate(snapshot.layers):
            require_equal_arrays(arrays, self._dump(layer, 0, np.zeros(counts.get(layer, 0), np.int64)))

    def _physical(self, layer: int, sequence: int) -> Tokens:
        """Return the blocks a layer holds for a sequence, none where it keeps a state."""
        if layer not in self._group_of:
            return np.empty(0, np.int64)
        table = self._group_of[layer].tables[sequence]
        return table.physical(table.blocks)

    def _dump(self, layer: int, slot: int, blocks: Tokens) -> Arrays:
        """Return copies of what a layer keeps in these blocks and this slot."""
        store = self._stores[layer]
        if isinstance(store, StateStore):
            return store.dump(slot)
        found = store.dump(blocks)
        if isinstance(store, KVTiles) and store.hot is not None:
            found |= {f"{HOT}{name}": array for name, array in store.hot.dump(slot).items()}
        return found

    def _load(self, layer: int, slot: int, blocks: Tokens, arrays: Arrays) -> None:
        """Put back what ``_dump`` returned."""
        store = self._stores[layer]
        if isinstance(store, StateStore):
            store.load(slot, arrays)
            return
        hot = {name[len(HOT) :]: array for name, array in arrays.items() if name.startswith(HOT)}
        store.load(blocks, {name: array for name, array in arrays.items() if not name.startswith(HOT)})
        if isinstance(store, KVTiles) and store.hot is not None:
            store.hot.load(slot, hot)


def _groups(
    retentions: Sequence[Retention],
    allocation: Allocation,
    max_tokens: int,
    sequences: int,
    blocks: int | None,
) -> tuple[TokenGroup, ...]:
    """Return one group for each retention among the layers that keep tokens."""
    groups = []
    for retention in dict.fromkeys(r for r in retentions if not isinstance(r, PerRequest)):
        placed = placement(retention, allocation)
        layers = [index for index, other in enumerate(retentions) if other == retention]
        most = blocks_needed(placed, [max_tokens] * sequences)
        groups.append(TokenGroup(placed, layers, most if blocks is None else blocks))
    return tuple(groups)
