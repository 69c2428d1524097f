"""Softmax attention over cached keys and values: prefill of many queries, and decode of one a sequence.

MHA, GQA and MQA are the same here: the query heads that share a kv head are rows of one product, and
neither keys nor values are repeated, gathered or copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.counter import Counter
from kvplan.engine.kv_codecs import F32
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.running_softmax import RunningSoftmax
from kvplan.engine.scratch import Scratch
from kvplan.engine.tile_batch import Reading, TileBatch
from kvplan.engine.tile_products import Rows, tiles_first
from kvplan.engine.tile_selection import Selection, select_some
from kvplan.engine.visibility import Flags, Positions, TilePositions, Visibility

__all__ = ["Settings", "View", "Visibility", "attend", "decode", "decode_reading"]

# Weights of values whose exponent bias is still to come are made 2^60 larger: see RunningSoftmax.
RAISED = 60
# OpenBLAS takes its small-matrix kernels up to this many multiplications.
SMALL_PRODUCT = 1_000_000
MOST_ROWS = 96
# Keys of one head whose scores are made at a time, and scores of several heads made together.
PIECE_TOKENS = 4096
SCORES_AT_ONCE = 1 << 19


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for every query of a layer.

    Args:
        scale: of products of queries and keys.
        softcap: scaled scores are bent to stay below it by a hyperbolic tangent, where given.
        sinks: (heads,) logits that take part in each head's softmax and have no value, where given.
        slopes: (heads,) how much scores fall with every token a key is older, where given.
    """

    scale: float
    softcap: float | None = None
    sinks: F32 | None = None
    slopes: F32 | None = None

    def softmax(
        self, head: int, heads: int, group: int, repeat: int, raised: int, scratch: Scratch
    ) -> RunningSoftmax:
        """Return a softmax of ``heads`` kv heads from ``head`` on, with ``group x repeat`` rows each."""
        sinks = self.sinks_by_kv_head(group)
        if sinks is not None:
            sinks = np.repeat(sinks[head : head + heads], repeat, axis=1)
        return RunningSoftmax(sinks, raised, scratch)

    def sinks_by_kv_head(self, group: int) -> F32 | None:
        """Return the sinks as (kv_heads, group)."""
        return None if self.sinks is None else self.sinks.astype(np.float32, copy=False).reshape(-1, group)

    def fall(self, head: int, scores: F32, ages: F32 | None) -> None:
        """Lower scores (..., heads, group, n, tokens) from kv head ``head`` on by slopes times ages."""
        if self.slopes is not None:
            if ages is None:
                raise ValueError("slopes go with the ages of keys")
            heads, group = scores.shape[-4:-2]
            slopes = self.slopes.reshape(-1, group)[head : head + heads]
            scores -= slopes[..., None, None] * ages

    def bend(self, scores: F32) -> None:
        """Apply the softcap."""
        if self.softcap is not None:
            scores *= np.float32(1 / self.softcap)
            np.tanh(scores, out=scores)
            scores *= np.float32(self.softcap)


def decode(queries: F32, views: Sequence[Sequence[View]], settings: Settings, counter: Counter) -> F32:
    """Attend with one query for each sequence, which sees every token in its views.

    Args:
        queries: (batch, heads, k_dim).
        views: of each sequence.
        settings: of the layer.
        counter: is told the products and the bytes read.

    Returns:
        (batch, heads, v_dim).
    """
    tiles = next(view.tiles for some in views for view in some)
    reading = Reading.of(views, queries.shape[1] // tiles.kv_heads, aged=settings.slopes is not None)
    return decode_reading(queries, tiles, reading, settings, counter)


def decode_reading(
    queries: F32, tiles: KVTiles, reading: Reading, settings: Settings, counter: Counter
) -> F32:
    """Do what :func:`decode` does, with views worked out before, of ``tiles`` or an arena of its shape.

    With ``slopes`` the reading is one with ages.
    """
    batch, heads, k_dim = queries.shape
    grouped = queries.reshape(batch, tiles.kv_heads, -1, k_dim)
    rows = _decode_rows(grouped, settings.scale, tiles.scratch)
    out = np.empty((*grouped.shape[:3], tiles.v_dim), np.float32)
    for part in reading.batches:
        _decode_batch(rows[part.sequences], tiles, part, settings, out[part.sequences])
    counter.attention(2 * reading.tokens * heads * (tiles.k_dim + tiles.v_dim))
    counter.read_cache(reading.nbytes)
    return out.reshape(batch, heads, tiles.v_dim)


def _decode_rows(grouped: F32, scale: float, scratch: Scratch) -> F32:
    """Return scaled queries (batch, kv_heads, rows, k_dim); a single row gets a row of zeros as company.

    OpenBLAS reads a matrix slower for one row, as a matrix-vector product, than for two.
    """
    batch, kv_heads, group, k_dim = grouped.shape
    rows = scratch.take("queries", batch, kv_heads, max(2, group), k_dim)
    if group == 1:
        rows[:, :, 1] = 0
    np.multiply(grouped, np.float32(scale), out=rows[:, :, :group])
    return rows


def _decode_batch(rows: F32, tiles: KVTiles, part: TileBatch, settings: Settings, out: F32) -> None:
    """Write the outputs (sequences, kv_heads, group, v_dim) for rows (sequences, kv_heads, n, k_dim)."""
    scratch, group = tiles.scratch, out.shape[2]
    if len(rows) > 1:
        by_tile = scratch.take("tile queries", len(part.owner), *rows.shape[1:])
        rows = np.take(rows, part.owner, axis=0, out=by_tile, mode="clip")
    scores = scratch.take("scores", len(part.owner), *rows.shape[1:3], tiles.tile_tokens)
    part.chosen.score(tiles, 0, Rows(rows), group, scores, scratch)
    real = scores[:, :, :group]
    settings.bend(real)
    if settings.slopes is not None:
        ages = None if part.ages is None else part.ages[:, None, None, None]
        settings.fall(0, real[:, :, :, None], ages)
    for tile, slots in part.hidden:
        real[tile, :, :, slots] = -np.inf
    totals = weigh_by_sequence(real, part, settings.sinks_by_kv_head(group), _raised(tiles), scratch)
    sums = part.chosen.sum(tiles, 0, scores, part.members, scratch)
    np.divide(sums[:, :, :group], totals[..., None], out=out)


def weigh_by_sequence(scores: F32, part: TileBatch, sinks: F32 | None, raised: int, scratch: Scratch) -> F32:
    """Turn scores (tiles, kv_heads, group, tokens) into weights, relative to each sequence's largest score.

    ``sinks`` (kv_heads, group) and ``raised`` are as RunningSoftmax has them.

    Returns:
        The weights' totals (sequences, kv_heads, group).
    """
    by_sequence = scores[None] if len(part.table) == 1 else scores[part.table]
    # Over tiles first: the rows of a tile are so short that a reduction of each takes six times as long.
    highest: F32 = np.maximum.reduce(np.maximum.reduce(by_sequence, axis=1), axis=-1)
    if sinks is not None:
        np.maximum(highest, sinks, out=highest)
    lowered = highest
    if raised:
        lowered = highest - np.float32(raised * log(2.0))
    scores -= (lowered if len(lowered) == 1 else lowered[part.owner])[..., None]
    np.exp(scores, out=scores)
    tokens = scores.shape[-1]
    by_tile = (scores.reshape(-1, tokens) @ scratch.ones(tokens)).reshape(len(scores), -1)
    totals: F32 = (part.members @ by_tile).reshape(highest.shape)
    return totals if sinks is None else totals + np.exp(sinks - lowered)


def attend(
    queries: F32,
    first_position: int,
    views: Sequence[View],
    visibility: Visibility,
    settings: Settings,
    counter: Counter,
) -> F32:
    """Attend with many queries of one sequence, each of which sees what its position allows.

    Queries are taken in blocks, keys in pieces, and a running softmax joins the pieces: work areas are a
    block times a piece, however long the sequence. Tiles nobody in a block sees are not read.

    Args:
        queries: (n, heads, k_dim); query i is at ``first_position + i``.
        views: which together hold every token a query may see, the queries' own included.
        visibility: which of them it sees.
        settings: of the layer.
        counter: is told the products of visible pairs, and the bytes in view.

    Returns:
        (n, heads, v_dim).
    """
    count, heads, k_dim = queries.shape
    held = [view for view in views if view.stop > view.start]
    tiles = held[0].tiles
    raised = max(_raised(view.tiles) for view in held)
    grouped = queries.reshape(count, tiles.kv_heads, -1, k_dim)
    sources = [_Source(view, view.tile_ids(), TilePositions.of(view.tile_positions())) for view in held]
    out = np.empty((*grouped.shape[:3], tiles.v_dim), np.float32)
    step = _block_positions(held, grouped.shape[2])
    pairs = 0
    for first in range(0, count, step):
        block = slice(first, min(first + step, count))
        positions = np.arange(first_position + block.start, first_position + block.stop)
        pieces = [piece for source in sources for piece in _pieces(source, positions, visibility)]
        _attend_block(grouped[block], pieces, settings, raised, out[block], tiles.scratch)
        pairs += sum(piece.pairs for piece in pieces)
    _count(held, pairs, heads, counter)
    return out.reshape(count, heads, tiles.v_dim)


@dataclass(frozen=True, slots=True)
class _Source:
    """A view's tiles and the positions of their tokens."""

    view: View
    ids: NDArray[np.int64]
    positions: TilePositions


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some tiles that queries of a block see, and for those not all of them see whole, who sees what.

    Args:
        tiles: the arena.
        chosen: which of its tiles.
        hidden: ranges of slots with (queries, slots) flags of those a query does not see.
        pairs: of a query and a key it sees.
        ages: (slots,) how far each token is behind the block's last query.
    """

    tiles: KVTiles
    chosen: Selection
    hidden: list[tuple[slice, Flags]]
    pairs: int
    ages: F32

    @property
    def slots(self) -> int:
        """Tokens the tiles have room for."""
        return len(self.chosen.ids) * self.tiles.tile_tokens


def _block_positions(views: Sequence[View], group: int) -> int:
    """Return how many positions' queries make a block: as many rows as small-matrix kernels take."""
    widest = max(view.tiles.k_dim * view.tiles.tile_tokens for view in views)
    return max(1, min(MOST_ROWS, SMALL_PRODUCT // widest) // group)


def _pieces(source: _Source, queries: Positions, visibility: Visibility) -> list[_Piece]:
    """Return what queries at consecutive positions see of a view."""
    first, last = int(queries[0]), int(queries[-1])
    chosen = np.flatnonzero(visibility.seen_by_some(first, last, source.positions))
    whole = visibility.seen_by_all(first, last, source.positions)
    tokens = source.view.tiles.tile_tokens
    at_once = max(1, PIECE_TOKENS // tokens)
    pieces = []
    for at in range(0, len(chosen), at_once):
        part = chosen[at : at + at_once]
        hidden = []
        pairs = len(queries) * tokens * int(whole[part].sum())
        for begin, end in _stretches(~whole[part]):
            keys = source.positions.positions[part[begin:end]].reshape(-1)
            seen = visibility.sees(queries[:, None], keys)
            pairs += int(seen.sum())
            hidden.append((slice(begin * tokens, end * tokens), ~seen))
        chosen_now = select_some(source.view, source.ids, part)
        ages = (last - source.positions.positions[part]).reshape(-1).astype(np.float32)
        pieces.append(_Piece(source.view.tiles, chosen_now, hidden, pairs, ages))
    return pieces


def _stretches(flags: Flags) -> list[tuple[int, int]]:
    """Return where each stretch of set flags begins and ends."""
    framed = np.zeros(len(flags) + 2, np.bool_)
    framed[1:-1] = flags
    edges = np.flatnonzero(framed[1:] != framed[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _attend_block(
    queries: F32, pieces: list[_Piece], settings: Settings, raised: int, out: F32, scratch: Scratch
) -> None:
    """Attend with queries (n, kv_heads, group, k_dim), some kv heads at a time."""
    count, kv_heads, group, k_dim = queries.shape
    rows = group * count
    scaled = scratch.take("queries", kv_heads, group, count, k_dim)
    np.multiply(queries.transpose(1, 2, 0, 3), np.float32(settings.scale), out=scaled)
    scaled = scaled.reshape(kv_heads, rows, k_dim)
    most = max((piece.slots for piece in pieces), default=1)
    at_once = max(1, SCORES_AT_ONCE // (rows * most))
    for head in range(0, kv_heads, at_once):
        heads = min(at_once, kv_heads - head)
        softmax = settings.softmax(head, heads, group, count, raised, scratch)
        folding = Rows(scaled[None, head : head + heads])
        for piece in pieces:
            _absorb(piece, head, folding, count, settings, softmax, scratch)
        means = softmax.result().reshape(heads, group, count, -1)
        out[:, head : head + heads] = means.transpose(2, 0, 1, 3)


def _absorb(
    piece: _Piece,
    head: int,
    rows: Rows,
    count: int,
    settings: Settings,
    softmax: RunningSoftmax,
    scratch: Scratch,
) -> None:
    """Add a piece's keys and values to the softmax of rows (heads, group x count, k_dim)."""
    _, heads, size, _ = rows.scaled.shape
    tiles, count_tiles = piece.tiles, len(piece.chosen.ids)
    scores = scratch.take("scores", heads, size, piece.slots)
    by_tile = tiles_first(scores, count_tiles)
    piece.chosen.score(tiles, head, rows, size, by_tile, scratch)
    settings.bend(scores)
    by_query = scores.reshape(heads, -1, count, piece.slots)
    settings.fall(head, by_query, piece.ages)
    for slots, hidden in piece.hidden:
        np.copyto(by_query[..., slots], -np.inf, where=hidden)
    softmax.weigh(scores)
    softmax.add(piece.chosen.sum(tiles, head, by_tile, scratch.ones(count_tiles)[None], scratch)[0])


def _raised(tiles: KVTiles) -> int:
    """Return what RunningSoftmax is to raise weights of these tiles' values by."""
    return RAISED if tiles.values.format.codec.power else 0


def _count(views: Sequence[View], pairs: int, heads: int, counter: Counter) -> None:
    tiles = views[0].tiles
    counter.attention(2 * pairs * heads * (tiles.k_dim + tiles.v_dim))
    counter.read_cache(sum(view.nbytes for view in views))
