"""Some tiles of an arena that are attended together: their scores, and the sums of their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.kv_codecs import F32
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.scratch import Scratch
from kvplan.engine.tile_products import Rows, finish_scores, score_tiles, sum_values
from kvplan.engine.tile_runs import Run, runs_of


@dataclass(frozen=True, slots=True)
class Selection:
    """Tiles of an arena, or of any that is filled alike.

    Args:
        ids, runs: of the tiles.
        hot: the places among them of those whose keys are in a hot slot, and the slots.
    """

    ids: NDArray[np.int64]
    runs: list[Run]
    hot: tuple[tuple[int, int], ...] = ()

    def score(self, tiles: KVTiles, head: int, rows: Rows, real: int, scores: F32, scratch: Scratch) -> None:
        """Write products of rows with the keys of some heads to scores (tiles, heads, n, tokens).

        Rows past the first ``real`` are zeros, there for speed, and so are their scores.
        """
        keys = tiles.keys
        score_tiles(keys, self.runs, head, rows.folded(keys.format), scores, scratch)
        if keys.format.scaled or keys.format.codec.power:
            finish_scores(keys, self.ids, head, rows.sums()[:, :, :real], scores[:, :, :real], scratch)
        if tiles.hot is not None:
            for tile, slot in self.hot:
                here, plane = slice(tile, tile + 1), tiles.hot.plane
                one = rows.of_tiles(here)
                score_tiles(plane, [Run(slot, 1)], head, one.folded(plane.format), scores[here], scratch)
                finish_scores(plane, np.array([slot]), head, one.sums(), scores[here], scratch)

    def sum(self, tiles: KVTiles, head: int, weights: F32, members: F32, scratch: Scratch) -> F32:
        """Return the sums of values weighted by weights (tiles, heads, n, tokens), which are changed.

        ``members`` (sums, tiles) says how often each tile is part of each of the sums.

        Returns:
            (sums, heads, n, v_dim).
        """
        return sum_values(tiles.values, self.runs, self.ids, head, weights, members, scratch)


def select_some(view: View, ids: NDArray[np.int64], chosen: NDArray[np.int64]) -> Selection:
    """Select the tiles at these places of a view's ``ids``."""
    some, tile = ids[chosen], view.hot_tile
    places = [] if tile is None else np.flatnonzero(chosen == tile).tolist()
    hot = () if view.hot is None else tuple((place, view.hot) for place in places)
    return Selection(some, runs_of(some), hot)
