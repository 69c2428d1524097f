"""The cache of a whole model: what every layer keeps of every sequence, each in places of its own.

The caller adds a sequence, begins a step with its new tokens, lets each layer store and read through
the step, and finishes it. Blocks, tables, rings and slots stay in here.

A step that fails in a layer is not undone: what a window let go of for it may be overwritten already. Its
sequences can then only be freed; all others, and what is known of finished blocks, are as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.arch.model import Model
from kvplan.arch.retention import PerRequest, Retention, Unfinished
from kvplan.engine.arrays import Tokens
from kvplan.engine.block_pool import block_key
from kvplan.engine.cached_sequences import CachedSequence, CachedSequences
from kvplan.engine.choices import Choices, EarlierChoices
from kvplan.engine.layer_caches import TokenLayer, layer_caches
from kvplan.engine.placement import blocks_needed, placement
from kvplan.engine.snapshot import Layout, Snapshot
from kvplan.engine.step import GroupStep, Step
from kvplan.engine.token_group import Change, Growth, TokenGroup
from kvplan.errors import UsageError
from kvplan.storage import KvFormat


class Cache:
    """Keys, values, latents and states of up to ``sequences`` sequences of up to ``max_tokens`` tokens.

    Args:
        model: whose layers it serves.
        kv: storage of keys, values and latents; states are float32.
        allocation: blocks taken as sequences grow, or room for the longest taken at once.
        max_tokens: longest sequence, where the allocation has room for it.
        sequences: most sequences at once.
        blocks: blocks of each pool; enough for all sequences at their longest where absent.
        choices: remembers what indexers and routers choose, or holds them to what they chose before, if
            given.

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
        choices: Choices | EarlierChoices | None = None,
    ) -> None:
        self._choices = choices
        room = allocation.max_tokens if isinstance(allocation, Contiguous) else max_tokens
        self.max_tokens = min(max_tokens, room)
        self._kv = kv
        self._layout = Layout.of(model, kv, allocation)
        self._paged = allocation if isinstance(allocation, Paged) else None
        self._sequences = CachedSequences(sequences)
        slots = model.stored_slots()
        retentions = [slot.retention for slot in slots]
        self._groups = _groups(retentions, allocation, self.max_tokens, sequences, blocks)
        self._layers = layer_caches(slots, self._groups, kv, sequences)
        self._token_layers = [layer for layer in self._layers if isinstance(layer, TokenLayer)]
        self._has_states = len(self._token_layers) < len(self._layers)
        self._stores = [layer.store for layer in self._layers]

    # ------------------------------------------------------------------ sequences

    def add(self, prompt: Sequence[int] = ()) -> int:
        """Return the id of a new sequence; it begins with what is known of the prompt's first blocks.

        ``length`` then says how many of the prompt's tokens need no prefill; the last one always does.

        Raises:
            UsageError: there are as many sequences as the cache was made for.
        """
        known_from = np.asarray(prompt, np.int64)
        added = self._sequences.add(np.empty(0, np.int64))
        for layer in self._layers:
            layer.clear(added.slot)
        self._adopt(added, known_from)
        return added.id

    def length(self, sequence: int) -> int:
        """Return how many tokens of a sequence have been stored."""
        return len(self._sequences.find(sequence).tokens)

    def fork(self, sequence: int) -> int:
        """Return a new sequence equal to this one: blocks are shared until one of the two writes to them.

        Costs one entry per block; states, and sequences of a contiguous cache, are copied whole.

        Raises:
            UsageError: there are as many sequences as the cache was made for, or a step was not finished.
            OutOfBlocks: a contiguous cache has no room for a copy; nothing is changed.
        """
        parent = self._sequences.at_rest(sequence)
        if self._paged is None:
            return self.restore(self.snapshot(sequence))
        child = self._sequences.add(parent.tokens, parent.keys)
        for group in self._groups:
            group.fork(parent.id, child.id)
        for layer in self._layers:
            layer.copy_slot(parent.slot, child.slot)
        return child.id

    def free(self, sequence: int) -> None:
        """Forget a sequence; complete blocks stay known until their memory is needed.

        Raises:
            UsageError: there is no such sequence, or it was freed before.
        """
        self._sequences.find(sequence)
        for group in self._groups:
            group.free(sequence)
        self._sequences.remove(sequence)

    def trim(self, sequence: int, tokens: int) -> None:
        """Take back a sequence's last tokens, as after rejected speculation.

        Raises:
            UsageError: there are fewer, a step was not finished, or what they replaced is gone (a window
                moved on, a state changed).
        """
        found = self._sequences.at_rest(sequence)
        length = len(found.tokens)
        if not 0 <= tokens <= length:
            raise UsageError(f"cannot trim {tokens:,} of {length:,} tokens")
        if not tokens:
            return
        if self._has_states:
            raise UsageError("a recurrent state cannot be trimmed: what it was before is gone")
        for group in self._groups:
            if group.lost(sequence, length, length - tokens):
                raise UsageError("a window has moved on: the tokens it would show again are gone")
        for layer in self._token_layers:
            layer.reopen(found, length - tokens)
        for group in self._groups:
            group.cut(sequence, length - tokens)
        found.tokens = found.tokens[: length - tokens]
        if self._paged is not None:
            del found.keys[len(found.tokens) // self._paged.block_tokens :]

    def pass_through(self, sequence: int, kv: KvFormat) -> None:
        """Replace what a float32 cache keeps of a sequence's tokens by what a format would give back of it.

        As if the tokens had been read in full precision and their cache compressed afterwards; states stay.

        Raises:
            UsageError: this cache is not float32, the format cannot store its vectors, there is no such
                sequence, or a step was not finished.
        """
        if self._kv.name != "fp32":
            raise UsageError(f"what passes through {kv.name} must be kept in fp32, not in {self._kv.name}")
        found = self._sequences.at_rest(sequence)
        for layer in self._token_layers:
            layer.pass_through(found, kv)

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
        growing = [self._sequences.find(sequence) for sequence, _ in batch]
        for sequence, (_, tokens) in zip(growing, batch, strict=True):
            sequence.tokens = np.concatenate([sequence.tokens, tokens])
            sequence.in_step = True
        slots = np.array([sequence.slot for sequence in growing])
        new = np.concatenate([tokens for _, tokens in batch])
        return Step(starts, counts, slots, decode, parts, self._stores, self._kv, self._choices, new)

    def finish(self, batch: Sequence[tuple[int, Tokens]]) -> None:
        """Say that a step's tokens are stored in every layer: complete blocks can now be shared."""
        grown = [self._sequences.find(sequence) for sequence, _ in batch]
        for sequence in grown:
            sequence.in_step = False
            first = len(sequence.keys)
            self._add_keys(sequence.keys, sequence.tokens)
            for index in range(first, len(sequence.keys)):
                for group in self._groups:
                    group.publish(sequence.id, index, sequence.keys[index])

    # ------------------------------------------------------------------ memory

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays: what is reserved."""
        return sum(store.nbytes for store in self._stores)

    @property
    def live_bytes(self) -> int:
        """Bytes in view of all sequences; what two of them share counts for both."""
        return sum(layer.live_nbytes(sequence) for layer in self._layers for sequence in self._sequences)

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the blocks and slots of all sequences; what two of them share counts for both."""
        return sum(layer.allocated_nbytes(sequence) for layer in self._layers for sequence in self._sequences)

    def live_nbytes(self, place: int, sequence: int) -> int:
        """Return the bytes of what a place of the cache has in view of a sequence."""
        return self._layers[place].live_nbytes(self._sequences.find(sequence))

    def allocated_nbytes(self, place: int, sequence: int) -> int:
        """Return the bytes of the blocks, or of the slot, that a place of the cache holds for a sequence."""
        return self._layers[place].allocated_nbytes(self._sequences.find(sequence))

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
        starts = [len(self._sequences.at_rest(sequence).tokens) for sequence, _ in batch]
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
                for layer in self._token_layers:
                    if layer.group is group:
                        layer.store.copy_block(source, target)
        for change in changes:
            group.drop(change)
        for change in changes:
            group.take(change)

    def _adopt(self, sequence: CachedSequence, prompt: Tokens) -> None:
        """Begin a sequence with the longest run of complete blocks that every group knows."""
        keys = list[bytes]()
        # The last token is never among them: it is what the first logits come from.
        self._add_keys(keys, prompt[:-1])
        known = [group.known(keys) for group in self._groups]
        covered = (n for n in range(len(keys), 0, -1) if all(blocks.cover(n) for blocks in known))
        count = next(covered, 0)
        for group, blocks in zip(self._groups, known, strict=True):
            group.adopt(sequence.id, blocks.first(count))
        sequence.keys = keys[:count]
        if self._paged is not None:
            sequence.tokens = prompt[: count * self._paged.block_tokens]

    def _add_keys(self, keys: list[bytes], tokens: Tokens) -> None:
        """Add the keys of these tokens' complete blocks behind those there are; states are never shared."""
        if self._paged is None or self._has_states:
            return
        size = self._paged.block_tokens
        for index in range(len(keys), len(tokens) // size):
            parent = keys[-1] if keys else None
            keys.append(block_key(parent, tokens[index * size : (index + 1) * size]))

    # ------------------------------------------------------------------ saved sequences

    def snapshot(self, sequence: int) -> Snapshot:
        """Return copies of everything the cache keeps of a sequence: to be swapped out, or saved.

        Raises:
            UsageError: there is no such sequence, or it is in a step that was not finished.
        """
        found = self._sequences.at_rest(sequence)
        return Snapshot.of(found, self._layout, self._groups, self._layers)

    def restore(self, snapshot: Snapshot) -> int:
        """Return the id of a new sequence with a snapshot's content.

        Raises:
            UsageError: there are as many sequences as the cache was made for, or the snapshot is damaged,
                longer than ``max_tokens``, or of a cache with another layout.
            OutOfBlocks: the pool has no room; nothing is changed.
        """
        snapshot.require_fit(self._layout, self.max_tokens, self._groups, self._layers)
        restored = self._sequences.add(snapshot.tokens.copy())
        snapshot.put_back(restored, self._groups, self._layers)
        return restored.id


def _groups(
    retentions: Sequence[Retention],
    allocation: Allocation,
    max_tokens: int,
    sequences: int,
    blocks: int | None,
) -> tuple[TokenGroup, ...]:
    """Return one group for each retention among the places that keep tokens."""
    groups = []
    for retention in dict.fromkeys(r for r in retentions if not isinstance(r, PerRequest | Unfinished)):
        placed = placement(retention, allocation)
        places = [index for index, other in enumerate(retentions) if other == retention]
        most = blocks_needed(placed, [max_tokens] * sequences)
        groups.append(TokenGroup(placed, places, most if blocks is None else blocks))
    return tuple(groups)
