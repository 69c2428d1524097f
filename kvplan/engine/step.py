"""One step over a batch of sequences: where its new tokens go, and what each layer may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.engine.arrays import Blocks, Float
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.latent_tiles import LatentTiles
from kvplan.engine.placement import Span
from kvplan.engine.state_store import StateStore
from kvplan.engine.tile_batch import Reading
from kvplan.engine.tile_plane import Places
from kvplan.engine.visibility import Visibility
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
        parts: what each layer's group sees; recurrent layers have none.
        stores: each layer's arrays.
        kv: the format of keys and values in them.
    """

    def __init__(
        self,
        starts: Sequence[int],
        counts: Sequence[int],
        slots: Blocks,
        decode: bool,
        parts: Mapping[int, GroupStep],
        stores: Sequence[KVTiles | LatentTiles | StateStore],
        kv: KvFormat,
    ) -> None:
        self.starts = tuple(starts)
        self.counts = tuple(counts)
        self.slots = slots
        self.decode = decode
        self.positions = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, counts, strict=True)])
        self._ends = np.cumsum(counts).tolist()
        self._parts = parts
        self._stores = stores
        self._kv = kv
        # Worked out for the first layer of a group, and good for all of them.
        self._readings: dict[tuple[int, ...], Reading] = {}
        self._places: dict[int, Places] = {}

    def rows(self, index: int) -> slice:
        """Return which of the step's tokens are a sequence's."""
        return slice(self._ends[index] - self.counts[index], self._ends[index])

    @property
    def last_rows(self) -> Blocks:
        """The last token of each sequence."""
        return np.array(self._ends) - 1

    def keys_and_values(self, layer: int) -> KVTiles:
        """Return an attention layer's arena."""
        store = self._stores[layer]
        assert isinstance(store, KVTiles)
        return store

    def latents(self, layer: int) -> LatentTiles:
        """Return a latent-attention layer's arena."""
        store = self._stores[layer]
        assert isinstance(store, LatentTiles)
        return store

    def states(self, layer: int) -> StateStore:
        """Return a recurrent layer's states."""
        store = self._stores[layer]
        assert isinstance(store, StateStore)
        return store

    def write(self, layer: int, keys: Float, values: Float, counter: Counter) -> None:
        """Store the new tokens' keys ``(tokens, heads, k_dim)`` and values ``(tokens, heads, v_dim)``.

        Tokens that a window has already passed have no place; every new entry is counted all the same.
        """
        part, store = self._parts[layer], self._stores[layer]
        assert not isinstance(store, StateStore)
        counter.write_cache(store.written_nbytes(self.positions))
        if part.rows is not None:
            keys, values = keys[part.rows], values[part.rows]
        if isinstance(store, KVTiles):
            hot = None if store.hot is None else np.repeat(self.slots, self.counts)
            store.store(self._places_of(part, store), keys, values, hot)
        else:
            store.write(part.blocks, part.offsets, keys, values)

    def _places_of(self, part: GroupStep, tiles: KVTiles) -> Places:
        """Return where the new tokens go in each arena of a group."""
        if id(part) not in self._places:
            self._places[id(part)] = tiles.places(part.blocks, part.offsets)
        return self._places[id(part)]

    def fresh_tiles(self, layer: int, tokens: int) -> KVTiles:
        """Return empty tiles for so many tokens, in a layer's own format."""
        like = self.keys_and_values(layer)
        blocks = -(-tokens // FRESH_TILE)
        return KVTiles(like.kv_heads, like.k_dim, like.v_dim, blocks, FRESH_TILE, self._kv, like.scratch)

    def after(self, layer: int, index: int) -> list[View]:
        """Return what a sequence's layer has in view once the new tokens are stored."""
        tiles = self.keys_and_values(layer)
        hot = None if tiles.hot is None else int(self.slots[index])
        return [view_of(tiles, *placed, hot) for placed in self._parts[layer].after[index]]

    def reading(self, layer: int, group: int) -> Reading:
        """Return what a layer of a decode step reads, with ``group`` query heads for each kv head.

        Layers that keep the same tokens in the same shape share one.
        """
        tiles = self.keys_and_values(layer)
        key = (id(self._parts[layer]), group, tiles.kv_heads, tiles.k_dim, tiles.v_dim)
        if key not in self._readings:
            views = [self.after(layer, index) for index in range(len(self.counts))]
            self._readings[key] = Reading.of(views, group)
        return self._readings[key]

    def before(self, layer: int, index: int) -> list[View]:
        """Return what a sequence's layer had in view when the step began."""
        tiles = self.keys_and_values(layer)
        return [view_of(tiles, *placed) for placed in self._parts[layer].before[index]]

    def seen_before(self, layer: int, index: int, visibility: Visibility) -> int:
        """Return how many of the tokens in view when the step began its first new token sees."""
        query, seen = self.starts[index], 0
        for span, _ in self._parts[layer].before[index]:
            keys = np.arange(span.start, span.stop)
            keys = keys + span.first_position if span.positions is None else span.positions[keys]
            seen += int(visibility.sees(np.array([query]), keys).sum())
        return seen

    def slots_after(self, layer: int, index: int) -> tuple[Span, Blocks]:
        """Return the one run of slots in view of a sequence that keeps every token."""
        (placed,) = self._parts[layer].after[index]
        return placed


def view_of(tiles: KVTiles, span: Span, blocks: Blocks, hot: int | None = None) -> View:
    """Return the slots of a span in these blocks; ``hot`` is the sequence's slot of waiting keys."""
    return View(tiles, blocks, span.start, span.stop, span.first_position, span.positions, hot)
