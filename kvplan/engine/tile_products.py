"""Products of a few rows with runs of tiles: scores of keys, and weighted sums of values.

Consecutive tiles are one strided view, and one matmul walks them; nothing is gathered. Scales, minima, the
power and the excess of a codec (see kv_codecs) are applied to queries, scores, weights and sums, which are
small, never to the cached numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.kv_codecs import F32, Codec
from kvplan.engine.scratch import Scratch
from kvplan.engine.tile_formats import TileFormat
from kvplan.engine.tile_plane import Piece, TilePlane
from kvplan.engine.tile_runs import Run, batches

# Partial sums of values kept before they are added up: 1 MiB, as a core's L2.
PARTIAL_ELEMENTS = 1 << 18


def query_factor(codec: Codec) -> float:
    """Return what queries are multiplied by for a codec's power; the rest is ``score_factor``.

    Half of the power each: all of it would overflow queries, and leave products subnormal elsewhere.
    """
    return float(2.0 ** (codec.power // 2))


def score_factor(codec: Codec) -> float:
    """Return what scores are multiplied by for a codec's power."""
    return float(2.0 ** (codec.power - codec.power // 2))


class Rows:
    """Scaled queries (tiles, heads, n, dim), and what each format needs instead of them.

    Args:
        scaled: queries times the scale of scores, C-contiguous, for each tile they are multiplied with; or
            for one, if they are the same for all.
    """

    def __init__(self, scaled: F32) -> None:
        self.scaled = scaled
        self._folded: dict[Codec, F32] = {}
        self._sums: F32 | None = None

    def of_tiles(self, tiles: slice) -> Rows:
        """Return the rows of some of the tiles."""
        return Rows(_of_tiles(self.scaled, tiles))

    def folded(self, format: TileFormat) -> F32:
        """Return rows whose products with expanded keys, once finished, are products with keys."""
        codec = format.codec
        if format.grouped or not (codec.power or codec.excess):
            return self.scaled
        if codec not in self._folded:
            rows = self.scaled * np.float32(query_factor(codec))
            fold_excess(rows, codec)
            self._folded[codec] = rows
        return self._folded[codec]

    def sums(self) -> F32:
        """Return the sum of each row's channels, (tiles, heads, n, 1)."""
        if self._sums is None:
            self._sums = self.scaled.sum(axis=-1, keepdims=True)
        return self._sums


def _of_tiles(rows: F32, tiles: slice) -> F32:
    """Return the rows of some tiles, which are the same for all where there are those of one."""
    return rows if len(rows) == 1 else rows[tiles]


def fold_excess(rows: F32, codec: Codec) -> None:
    """Take what each plane of keys has too much off rows (..., dim), on the side of the next plane."""
    if codec.excess:
        width = rows.shape[-1] // codec.planes
        rows[..., width:] -= np.float32(codec.excess) * rows[..., :-width]


def tiles_first(scores: F32, tiles: int) -> F32:
    """View scores (heads, n, tiles x tokens) as (tiles, heads, n, tokens).

    Products over this order walk the arena as it lies in memory, at half again the speed of the other.
    """
    heads, rows, _ = scores.shape
    return scores.reshape(heads, rows, tiles, -1).transpose(2, 0, 1, 3)


def score_tiles(
    keys: TilePlane, runs: list[Run], head: int, rows: F32, scores: F32, scratch: Scratch
) -> None:
    """Write rows (tiles, heads, n, dim) times the expanded keys of runs to scores (tiles, heads, n, tokens).

    Rows are those of every tile, or those of one for all of them.
    """
    heads = rows.shape[1]
    if keys.format.codec.in_place:
        at = 0
        for run in runs:
            here = slice(at, at + run.length)
            stored = keys.in_place(head, heads, run)
            np.matmul(_of_tiles(rows, here), stored, out=scores[here])
            at += run.length
        return
    for piece, tiles, some in _places(keys, runs, head, heads):
        expanded = keys.expanded(piece, scratch)
        chosen = _of_tiles(rows, tiles)[:, some]
        if keys.format.grouped:
            _score_grouped(chosen, keys, piece, expanded, scores[tiles, some], scratch)
        else:
            _score_expanded(chosen, expanded, scores[tiles, some], scratch)


def _score_grouped(
    rows: F32, keys: TilePlane, piece: Piece, expanded: F32, scores: F32, scratch: Scratch
) -> None:
    """Write rows (tiles, heads, n, dim) times keys with a scale for each channel of a tile to scores."""
    scales, minima = keys.channel_scales(piece), keys.channel_minima(piece)
    if scales is not None:
        shape = (*scales.shape[:2], *rows.shape[2:])
        scaled = np.multiply(rows, scales, out=scratch.take("scaled queries", *shape))
        fold_excess(scaled, keys.format.codec)
        _score_expanded(scaled, expanded, scores, scratch)
    if minima is not None:
        scores += np.matmul(rows, minima.swapaxes(2, 3))


def _score_expanded(rows: F32, keys: F32, scores: F32, scratch: Scratch) -> None:
    """Write rows (tiles, heads, n, dim) times keys (planes, tiles, heads, dim / planes, tokens) to scores."""
    planes = len(keys)
    if planes == 1:
        np.matmul(rows, keys[0], out=scores)
        return
    width = rows.shape[-1] // planes
    parts = scratch.take("plane scores", planes, *scores.shape)
    for plane in range(planes):
        np.matmul(rows[..., plane * width : (plane + 1) * width], keys[plane], out=parts[plane])
    np.add.reduce(parts, axis=0, out=scores)


def finish_scores(
    keys: TilePlane, tiles: NDArray[np.int64], head: int, query_sums: F32, scores: F32, scratch: Scratch
) -> None:
    """Turn products of expanded keys into products of keys, in scores (tiles, heads, n, tokens).

    ``query_sums`` (tiles, heads, n, 1) are the sums of the scaled queries' channels.
    """
    heads = scores.shape[1]
    axes = _axes_in_memory(scores)
    scores = scores.transpose(axes)
    if keys.format.codec.power:
        scores *= np.float32(score_factor(keys.format.codec))
    scales, minima = keys.scales(head, heads, tiles), keys.minima(head, heads, tiles)
    if scales is not None:
        scores *= np.ascontiguousarray(scales.transpose(axes))
    if minima is not None:
        lowest = np.ascontiguousarray(minima.transpose(axes))
        shift = scratch.take("shift", *scores.shape)
        scores += np.multiply(query_sums.transpose(axes), lowest, out=shift)


def _axes_in_memory(by_tile: F32) -> tuple[int, int, int, int]:
    """Return the axes of an array (tiles, heads, n, tokens) as they lie in memory: so, or tiles third.

    What goes with it is laid out alike, for NumPy to walk both in loops as long as possible.
    """
    return (0, 1, 2, 3) if by_tile.strides[0] >= by_tile.strides[1] else (1, 2, 0, 3)


def sum_values(
    values: TilePlane,
    runs: list[Run],
    tiles: NDArray[np.int64],
    head: int,
    weights: F32,
    members: F32,
    scratch: Scratch,
) -> F32:
    """Return sums of values weighted by weights (tiles, heads, n, tokens), which are changed.

    Args:
        values, runs, tiles: the arena, and which of its tiles.
        head: the first of the heads.
        weights: of the tokens.
        members: (sums, tiles) how often each tile is part of each of the sums.
        scratch: work areas.

    Returns:
        (sums, heads, n, dim).
    """
    heads = weights.shape[1]
    codec = values.format.codec
    scales, minima = values.scales(head, heads, tiles), values.minima(head, heads, tiles)
    shift = None if minima is None else _by_sum(members, np.matmul(weights, minima.swapaxes(2, 3)))
    if scales is not None:
        axes = _axes_in_memory(weights)
        in_memory = weights.transpose(axes)
        in_memory *= np.ascontiguousarray(scales.transpose(axes))
    sums = _sum_expanded(values, runs, head, weights, members, scratch)
    if codec.excess:
        width = values.dim // codec.planes
        sums[..., :-width] -= np.float32(codec.excess) * sums[..., width:]
    if codec.power:
        sums *= np.float32(2.0**codec.power)
    return sums if shift is None else np.add(sums, shift, out=sums)


def _sum_expanded(
    values: TilePlane, runs: list[Run], head: int, weights: F32, members: F32, scratch: Scratch
) -> F32:
    _, heads, rows, _ = weights.shape
    limit = max(1, PARTIAL_ELEMENTS // (heads * rows * values.dim))
    if len(weights) <= limit:
        return _sum_at_once(values, runs, head, weights, members, scratch)
    sums = np.zeros((len(members), heads, rows, values.dim), np.float32)
    at = 0
    for batch in batches(runs, limit):
        here = slice(at, at + sum(run.length for run in batch))
        sums += _sum_at_once(values, batch, head, weights[here], members[:, here], scratch)
        at = here.stop
    return sums


def _sum_at_once(
    values: TilePlane, runs: list[Run], head: int, weights: F32, members: F32, scratch: Scratch
) -> F32:
    count, heads, rows, _ = weights.shape
    partial = scratch.take("partial", count, heads, values.columns, rows, values.dim // values.columns)
    _weigh(values, runs, head, weights[:, :, None], partial, scratch)
    return _by_sum(members, partial).swapaxes(2, 3).reshape(len(members), heads, rows, values.dim)


def _by_sum(members: F32, parts: F32) -> F32:
    """Add up parts (tiles, ...) to (sums, ...); a product does so much faster than np.add.reduceat."""
    sums: F32 = members @ parts.reshape(len(parts), -1)
    return sums.reshape(-1, *parts.shape[1:])


def _weigh(
    values: TilePlane, runs: list[Run], head: int, weights: F32, partial: F32, scratch: Scratch
) -> None:
    """Write weights (tiles, heads, 1, n, tokens) times values to (tiles, heads, columns, n, width)."""
    if values.format.codec.in_place:
        at = 0
        for run in runs:
            here = slice(at, at + run.length)
            stored = values.in_place(head, weights.shape[1], run)
            np.matmul(weights[here], stored, out=partial[here])
            at += run.length
        return
    by_plane = partial.reshape(*partial.shape[:2], values.format.codec.planes, -1, *partial.shape[3:])
    for piece, tiles, heads in _places(values, runs, head, weights.shape[1]):
        expanded = values.expanded(piece, scratch).transpose(1, 2, 0, 3, 4, 5)
        np.matmul(weights[tiles, heads, None], expanded, out=by_plane[tiles, heads])


def _places(plane: TilePlane, runs: list[Run], head: int, heads: int) -> Iterator[tuple[Piece, slice, slice]]:
    """Iterate over the pieces of some runs, each with its tiles and heads in arrays of just these runs."""
    at = 0
    for run in runs:
        for begin, piece in plane.pieces(head, heads, run):
            top = piece.head - head
            yield piece, slice(at + begin, at + begin + piece.run.length), slice(top, top + piece.heads)
        at += run.length
