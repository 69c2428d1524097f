"""One step over a batch of sequences: where its new tokens go, and what each layer may read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from kvplan.engine.arrays import Blocks, Float, Tokens
from kvplan.engine.choices import Choices, EarlierChoices
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.placement import Span
from kvplan.engine.round_trip import round_trip_rows
from kvplan.engine.row_tiles import RowTiles
from kvplan.engine.state_store import StateStore
from kvplan.engine.tile_batch import Reading
from kvplan.engine.tile_plane import Places
from kvplan.engine.visibility import Flags, Positions, Visibility
from kvplan.engine.waiting_rows import WaitingRows
from kvplan.storage import KvFormat

# Tiles of new tokens that are read beside the cache: the length attention is fastest on.
FRESH_TILE = 64


@dataclass(frozen=True, slots=True)
class GroupStep:
    """A step as the layers of one group see it; lists have one entry for each sequence.

    Args:
        rows: the new tokens that have a place, among all of the step's; ``None`` for all of them.
        blocks, offsets: the place of each of those.
        before: what was in view when the step began; nothing in a decode step, which never reads it.
        after: what is in view once its tokens are stored.
    """

    rows: Blocks | None
    blocks: Blocks
    offsets: Blocks
    before: tuple[tuple[tuple[Span, Blocks], ...], ...]
    after: tuple[tuple[tuple[Span, Blocks], ...], ...]


class Step:
    """The new tokens of a batch, ``counts[i]`` for sequence ``i`` behind its ``starts[i]`` cached ones.

    Args:
        starts, counts: cached and new tokens of each sequence.
        slots: the slot of each sequence in arrays that have one for each.
        decode: every sequence adds one token to a prompt that was read before.
        parts: what the group of each place in the cache sees; states have none.
        stores: the arrays of each place.
        kv: the format of keys and values in them.
        choices: remembers what indexers and routers choose, or holds them to what they chose before, if
            given.
        tokens: the ids of the new tokens, which some routers look up.
    """

    def __init__(
        self,
        starts: Sequence[int],
        counts: Sequence[int],
        slots: Blocks,
        decode: bool,
        parts: Mapping[int, GroupStep],
        stores: Sequence[KVTiles | RowTiles | StateStore | WaitingRows],
        kv: KvFormat,
        choices: Choices | EarlierChoices | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._choices = choices
        self.tokens = tokens
        self.starts = tuple(starts)
        self.counts = tuple(counts)
        self.slots = slots
        self.decode = decode
        self.positions = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, counts, strict=True)])
        # What is looked up for them is kept from layer to layer.
        self.positions.flags.writeable = False
        self._ends = list(accumulate(counts))
        self._parts = parts
        self._stores = stores
        self._kv = kv
        # Worked out for the first layer of a group, and good for all of them.
        self._readings: dict[tuple[int | None, ...], Reading] = {}
        self._places: dict[int, Places] = {}
        # Of each sequence, (new tokens, tokens in view): what the last indexer that ran has chosen.
        self.chosen: tuple[Flags, ...] = ()
        self._held: dict[int, tuple[Float, Float]] = {}

    def rows(self, index: int) -> slice:
        """Return which of the step's tokens are a sequence's."""
        return slice(self._ends[index] - self.counts[index], self._ends[index])

    def settle(self, who: Hashable, index: int, scores: Float, chosen: Flags) -> Flags:
        """Return what a sequence's tokens choose: as in an earlier run where that is a matter of rounding.

        Args:
            who, scores, chosen: see :class:`kvplan.engine.choices.EarlierChoices`.
            index: of the sequence in the step.
        """
        if self._choices is None:
            return chosen
        return self._choices.settle(who, int(self.slots[index]), self.starts[index], scores, chosen)

    def settle_all(self, who: Hashable, scores: Float, chosen: Flags) -> Flags:
        """Return the same for the new tokens of all sequences."""
        if self._choices is None:
            return chosen
        parts = [self.rows(index) for index in range(len(self.counts))]
        return np.concatenate([self.settle(who, i, scores[of], chosen[of]) for i, of in enumerate(parts)])

    @property
    def last_rows(self) -> Blocks:
        """The last token of each sequence."""
        return np.array([end - 1 for end in self._ends])

    def keys_and_values(self, place: int) -> KVTiles:
        """Return an attention layer's arena."""
        store = self._stores[place]
        assert isinstance(store, KVTiles)
        return store

    def rows_of_tokens(self, place: int) -> RowTiles:
        """Return the arena of a layer's latents, or of its indexer's keys."""
        store = self._stores[place]
        assert isinstance(store, RowTiles)
        return store

    def states(self, place: int) -> StateStore:
        """Return a recurrent layer's states."""
        store = self._stores[place]
        assert isinstance(store, StateStore)
        return store

    def waiting(self, place: int) -> WaitingRows:
        """Return the rows of a layer's tokens that wait to be compressed."""
        store = self._stores[place]
        assert isinstance(store, WaitingRows)
        return store

    def write(self, place: int, keys: Float, values: Float, counter: Counter) -> None:
        """Store the new tokens' keys ``(tokens, heads, k_dim)`` and values ``(tokens, heads, v_dim)``.

        Tokens that a window has already passed have no place; every new entry is counted all the same.
        """
        part, store = self._parts[place], self.keys_and_values(place)
        counter.write_cache(store.written_nbytes(self.positions))
        if part.rows is not None:
            keys, values = keys[part.rows], values[part.rows]
        hot = None if store.hot is None else np.repeat(self.slots, self.counts)
        store.store(self._places_of(part, store), keys, values, hot)

    def write_rows(self, place: int, rows: Sequence[Float], counter: Counter) -> None:
        """Store the new tokens' vectors ``(tokens, dim)``, all of those that are kept together."""
        part, store = self._parts[place], self.rows_of_tokens(place)
        counter.write_cache(store.written_nbytes(self.positions))
        if part.rows is not None:
            rows = [vectors[part.rows] for vectors in rows]
        store.write(part.blocks, part.offsets, rows)

    def write_entries(self, place: int, entries: Float, counter: Counter) -> None:
        """Store the entries ``(n, dim)`` of all runs that the new tokens end, sequence by sequence."""
        part, store = self._parts[place], self.rows_of_tokens(place)
        counter.write_cache(len(entries) * store.slot_nbytes)
        store.write(part.blocks, part.offsets, (entries,))

    def window_rows(self, place: int, index: int, *, after: bool) -> tuple[Positions, Float]:
        """Return positions ``(n,)`` and first vectors ``(n, dim)`` that a window has in view of a sequence.

        ``after``: once its new tokens are stored, not when the step began.
        """
        part, store = self._parts[place], self.rows_of_tokens(place)
        placed = part.after[index] if after else part.before[index]
        if not placed:
            return np.empty(0, np.int64), np.empty((0, store.dims[0]), np.float32)
        ((span, blocks),) = placed
        slots = np.arange(span.start, span.stop)
        held = slots + span.first_position if span.positions is None else span.positions[slots]
        return held, store.rows(blocks, span.stop)[0][span.start :]

    def as_stored(self, rows: Float) -> Float:
        """Return vectors ``(n, dim)`` as they are read again once they are stored."""
        return round_trip_rows((rows,), self._kv)[0]

    def read_rows(self, place: int, index: int, counter: Counter) -> tuple[Float, ...]:
        """Return all vectors of a sequence that keeps every token, ``(tokens, dim)`` each, read once."""
        span, blocks = self.slots_after(place, index)
        stored = self.rows_of_tokens(place)
        counter.read_cache(span.stop * stored.slot_nbytes)
        return stored.rows(blocks, span.stop)

    def tokens_at(self, place: int, index: int, positions: Blocks) -> tuple[Float, Float]:
        """Return keys and values ``(n, heads, dim)`` of some tokens of a sequence that keeps every one."""
        _, blocks = self.slots_after(place, index)
        tiles = self.keys_and_values(place)
        return tiles.read(blocks[positions // tiles.block_tokens], positions % tiles.block_tokens)

    def hold(self, place: int, keys: Float, values: Float) -> None:
        """Keep new tokens back until every layer has read what they will overwrite: see ``write_held``."""
        self._held[place] = (keys, values)

    def held(self, place: int) -> tuple[Float, Float]:
        """Return the keys and values that a layer before has made in this step, and not stored yet."""
        return self._held[place]

    def write_held(self, counter: Counter) -> None:
        """Store the new tokens that were held back."""
        for place, (keys, values) in self._held.items():
            self.write(place, keys, values, counter)

    def _places_of(self, part: GroupStep, tiles: KVTiles) -> Places:
        """Return where the new tokens go in each arena of a group."""
        if id(part) not in self._places:
            self._places[id(part)] = tiles.places(part.blocks, part.offsets)
        return self._places[id(part)]

    def fresh_tiles(self, place: int, tokens: int) -> KVTiles:
        """Return empty tiles for so many tokens, in a layer's own format."""
        like = self.keys_and_values(place)
        blocks = -(-tokens // FRESH_TILE)
        return KVTiles(like.kv_heads, like.k_dim, like.v_dim, blocks, FRESH_TILE, self._kv, like.scratch)

    def after(self, place: int, index: int) -> list[View]:
        """Return what a sequence's layer has in view once the new tokens are stored."""
        tiles = self.keys_and_values(place)
        hot = None if tiles.hot is None else int(self.slots[index])
        return [view_of(tiles, *placed, hot) for placed in self._parts[place].after[index]]

    def reading(self, place: int, group: int, *, aged: bool = False, window: int | None = None) -> Reading:
        """Return what a layer of a decode step reads, with ``group`` query heads for each kv head.

        ``aged``, it says how old each token is. With a ``window``, it is the last so many of the tokens of a
        sequence that keeps them all. Layers that keep the same tokens in the same shape share one.
        """
        tiles = self.keys_and_values(place)
        key = (id(self._parts[place]), group, aged, window, tiles.kv_heads, tiles.k_dim, tiles.v_dim)
        if key not in self._readings:
            views = [self.after(place, index) for index in range(len(self.counts))]
            if window is not None:
                views = [[_newest(view, window) for view in some] for some in views]
            self._readings[key] = Reading.of(views, group, aged=aged)
        return self._readings[key]

    def before(self, place: int, index: int) -> list[View]:
        """Return what a sequence's layer had in view when the step began."""
        tiles = self.keys_and_values(place)
        return [view_of(tiles, *placed) for placed in self._parts[place].before[index]]

    def seen_before(self, place: int, index: int, visibility: Visibility) -> int:
        """Return how many of the tokens in view when the step began its first new token sees."""
        query, seen = self.starts[index], 0
        for span, _ in self._parts[place].before[index]:
            keys = np.arange(span.start, span.stop)
            keys = keys + span.first_position if span.positions is None else span.positions[keys]
            seen += int(visibility.sees(np.array([query]), keys).sum())
        return seen

    def slots_after(self, place: int, index: int) -> tuple[Span, Blocks]:
        """Return the one run of slots in view of a sequence that keeps every token."""
        (placed,) = self._parts[place].after[index]
        return placed


def _newest(view: View, tokens: int) -> View:
    return replace(view, start=max(view.start, view.stop - tokens))


def view_of(tiles: KVTiles, span: Span, blocks: Blocks, hot: int | None = None) -> View:
    """Return the slots of a span in these blocks; ``hot`` is the sequence's slot of waiting keys."""
    return View(tiles, blocks, span.start, span.stop, span.first_position, span.positions, hot)
