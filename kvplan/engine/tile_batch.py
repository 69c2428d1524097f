"""What one query for each of several sequences reads: worked out once, and used by every layer that is alike.

Sequences with little in view are read together. Their tiles are taken in the order they lie in the arena,
whichever sequence they belong to, so that one product walks as many of them as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.kv_codecs import F32
from kvplan.engine.kv_tiles import View
from kvplan.engine.tile_products import PARTIAL_ELEMENTS
from kvplan.engine.tile_runs import runs_of
from kvplan.engine.tile_selection import Selection

# Summing tiles by sequence is a product with one row for each, which must stay small beside the others.
MOST_SEQUENCES = 16


@dataclass(frozen=True, slots=True)
class TileBatch:
    """The tiles some consecutive sequences have in view.

    Args:
        sequences: which of all.
        chosen: their tiles.
        owner: (tiles,) the sequence each is read for, from 0.
        table: (sequences, most) the tiles of each sequence, the last one again until all have as many.
        members: (sequences, tiles) 1 where a tile is a sequence's, else 0.
        hidden: tiles with those of their slots that are not in view.
        ages: (tiles, tokens) how far each token is behind its sequence's newest, where asked for.
    """

    sequences: slice
    chosen: Selection
    owner: NDArray[np.int64]
    table: NDArray[np.int64]
    members: F32
    hidden: tuple[tuple[int, slice], ...]
    ages: F32 | None = None

    @classmethod
    def of(cls, views: Sequence[Sequence[View]], first: int, *, aged: bool) -> TileBatch:
        """Return what sequences ``first`` and on have in view."""
        every = [view for some in views for view in some]
        ids = np.concatenate([view.tile_ids() for view in every])
        counts = np.array([sum(view.tile_count for view in some) for some in views])
        owner = np.repeat(np.arange(len(views)), counts)
        order = np.argsort(ids, kind="stable")
        places = np.argsort(order)
        return cls(
            slice(first, first + len(views)),
            Selection(ids[order], runs_of(ids[order]), tuple(_hot(every, places))),
            owner[order],
            places[_padded(counts)],
            (owner[order] == np.arange(len(views))[:, None]).astype(np.float32),
            tuple(_hidden(every, places)),
            np.concatenate([_ages(some) for some in views])[order] if aged else None,
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """All that one query for each sequence reads of an arena, or of one of the same shape.

    Args:
        batches: the tiles.
        tokens: in view, over all sequences.
        nbytes: of those.
    """

    batches: tuple[TileBatch, ...]
    tokens: int
    nbytes: int

    @classmethod
    def of(cls, views: Sequence[Sequence[View]], group: int, *, aged: bool = False) -> Reading:
        """Return what each sequence has in view for so many query heads a kv head; ``aged``, with ages.

        Raises:
            ValueError: a sequence has nothing in view, or views are of several arenas.
        """
        held = [[view for view in some if view.stop > view.start] for some in views]
        every = [view for some in held for view in some]
        if not all(held):
            raise ValueError("a query must see at least one key")
        if any(view.tiles is not every[0].tiles for view in every):
            raise ValueError("all views of a step must be of one arena")
        tiles = every[0].tiles
        most = PARTIAL_ELEMENTS // prod((tiles.kv_heads, group, tiles.v_dim))
        return cls(
            tuple(TileBatch.of(held[part], part.start, aged=aged) for part in _parts(held, most)),
            sum(view.stop - view.start for view in every),
            sum(view.nbytes for view in every),
        )


def _parts(views: Sequence[Sequence[View]], most: int) -> Iterator[slice]:
    """Cut sequences into parts of at most so many tiles, if all were as long as the longest, or of one."""
    first = longest = 0
    for index, some in enumerate(views):
        count = sum(view.tile_count for view in some)
        longest = max(longest, count)
        size = index + 1 - first
        if size > 1 and (size * longest > most or size > MOST_SEQUENCES):
            yield slice(first, index)
            first, longest = index, count
    yield slice(first, len(views))


def _padded(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of each sequence's tiles, (sequences, most), where these counts follow each other."""
    ends = np.cumsum(counts)[:, None]
    places: NDArray[np.int64] = np.minimum(ends - counts[:, None] + np.arange(counts.max()), ends - 1)
    return places


def _ages(views: Sequence[View]) -> F32:
    """Return how far each token in a sequence's tiles is behind its newest one, (tiles, tokens)."""
    positions = np.concatenate([view.tile_positions() for view in views])
    ages: F32 = (positions.max() - positions).astype(np.float32)
    return ages


def _hot(views: Sequence[View], places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Return the place of every tile whose keys are in a hot slot, and the slot."""
    at = 0
    for view in views:
        tile = view.hot_tile
        if tile is not None and view.hot is not None:
            yield int(places[at + tile]), view.hot
        at += view.tile_count


def _hidden(views: Sequence[View], places: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Return what lies in the views' tiles before their first tokens and after their last ones."""
    at = 0
    for view in views:
        tokens, count = view.tiles.tile_tokens, view.tile_count
        if view.start % tokens:
            yield int(places[at]), slice(0, view.start % tokens)
        at += count
        if view.stop % tokens:
            yield int(places[at - 1]), slice(view.stop % tokens, tokens)
