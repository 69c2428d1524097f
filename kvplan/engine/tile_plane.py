"""The keys, or the values, of one layer: one arena of tiles in the order products want them.

A tile holds ``tokens`` tokens of one head. Keys are stored channel by channel, (dim, tokens); values in
columns of ``width`` channels, (dim / width, tokens, width). Both let a product of a few query rows with a
tile run in OpenBLAS's small-matrix kernels, which read it once and copy nothing. This order is known
here only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.huge_pages import HugePages
from kvplan.engine.kv_codecs import F32
from kvplan.engine.kv_quantisers import Bits, decode_float16
from kvplan.engine.scratch import Scratch
from kvplan.engine.tile_formats import TileFormat
from kvplan.engine.tile_runs import Run

# Numbers expanded at a time, 2 MiB of float32: with less the calls take longer, with more the memory.
EXPANDED_ELEMENTS = 1 << 19
COLUMN_WIDTHS = (64, 32)


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of a write, as many as the rows of one tile that they go to."""

    tile: int
    rows: slice
    tokens: slice

    @classmethod
    def of(cls, tile: int, row: int, first: int, last: int) -> Segment:
        """Return the segment of tokens ``first`` to ``last - 1``, which go to rows ``row`` and on."""
        return cls(tile, slice(row, row + last - first), slice(first, last))


class Piece(NamedTuple):
    """Some heads, from ``head`` on, of the tiles of a run, which are expanded together."""

    head: int
    heads: int
    run: Run

    @property
    def place(self) -> tuple[slice, slice]:
        """Where the piece is in an array of (tiles, heads, ...)."""
        return self.run.tiles, slice(self.head, self.head + self.heads)


def segments_of(tiles: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Segment]:
    """Return the runs of tokens that go to consecutive rows of one tile."""
    if len(tiles) == 0:
        return []
    follows = (tiles[1:] == tiles[:-1]) & (rows[1:] == rows[:-1] + 1)
    starts = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(tiles)]
    return [Segment.of(int(tiles[first]), int(rows[first]), first, last) for first, last in pairwise(starts)]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of a write go: token i to row ``rows[i]`` of tile ``tiles[i]``, both (n,)."""

    tiles: NDArray[np.int64]
    rows: NDArray[np.int64]
    segments: list[Segment]

    @classmethod
    def of(cls, tiles: NDArray[np.int64], rows: NDArray[np.int64]) -> Places:
        """Find the segments of these places."""
        return cls(tiles, rows, segments_of(tiles, rows))

    @property
    def apart(self) -> bool:
        """Whether several tokens are each a segment of their own, as in a decode step of a batch."""
        return 1 < len(self.tiles) == len(self.segments)


def nbytes_of_one(array: NDArray[Any]) -> int:
    """Return the bytes of one entry along the first axis, of which there may be none."""
    return prod(array.shape[1:]) * array.itemsize


def column_width(channels: int) -> int:
    """Return how many channels of a value make a column."""
    return next((width for width in COLUMN_WIDTHS if channels % width == 0), channels)


class TilePlane:
    """``tiles`` tiles of ``tokens`` tokens for each of ``heads`` heads, with their scales.

    Args:
        format: how a vector is stored.
        heads, dim: heads of a token, channels of a head; a multiple of the channels in a word.
        tiles, tokens: size of the arena.
        by_channel: keys' order, else values'.
        memory: where the arena is, if it is not one of its own.

    Attributes:
        columns: values' columns in a tile.
    """

    def __init__(
        self,
        format: TileFormat,
        heads: int,
        dim: int,
        tiles: int,
        tokens: int,
        *,
        by_channel: bool,
        memory: HugePages | None = None,
    ) -> None:
        zeros = np.zeros if memory is None else memory.zeros
        self.format = format
        self.heads = heads
        self.dim = dim
        self.tokens = tokens
        words = dim // format.codec.planes
        width = words if by_channel else column_width(words)
        order = (words // width, width, tokens) if by_channel else (words // width, tokens, width)
        self._words_per_token = words
        self._words = zeros((tiles, heads, *order), format.codec.dtype)
        scales = (tiles, heads, dim if format.grouped else tokens)
        self._scales = zeros(scales, np.int16) if format.scaled else None
        self._minima = zeros(scales, np.int16) if format.steps is not None else None
        # Axes (tiles, tokens, heads, columns, width), whatever the storage order.
        axes = (0, 4, 1, 2, 3) if by_channel else (0, 3, 1, 2, 4)
        self._by_token = self._words.transpose(axes)
        self.columns = dim // width
        # Axes (tiles, heads, ...), each tile as products take it.
        tile_shape = (words, tokens) if by_channel else order
        self._by_tile = self._words.reshape(tiles, heads, *tile_shape)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, by name; the first axis is tiles."""
        named = {"words": self._words, "scales": self._scales, "minima": self._minima}
        return {name: array for name, array in named.items() if array is not None}

    @property
    def token_nbytes(self) -> int:
        """Bytes of the words of one token."""
        return nbytes_of_one(self._by_token[:, 0])

    @property
    def group_nbytes(self) -> int:
        """Bytes of the scales and minima of one tile, where grouped."""
        beside = (self._scales, self._minima) if self.format.grouped else ()
        return sum(nbytes_of_one(stored) for stored in beside if stored is not None)

    def write(self, segments: Iterable[Segment], vectors: F32) -> None:
        """Store vectors (n, heads, dim), which are not grouped."""
        words, scales, minima = self.format.encode(vectors)
        words = words.reshape(len(words), *self._by_token.shape[2:])
        for segment in segments:
            self._by_token[segment.tile, segment.rows] = words[segment.tokens]
            if self._scales is not None and scales is not None:
                self._scales[segment.tile, :, segment.rows] = scales[segment.tokens].T
            if self._minima is not None and minima is not None:
                self._minima[segment.tile, :, segment.rows] = minima[segment.tokens].T

    def write_apart(self, places: Places, vectors: F32) -> None:
        """Store vectors (n, heads, dim), which are not grouped, each by itself."""
        words, scales, minima = self.format.encode(vectors)
        at = places.tiles, places.rows
        self._by_token[at] = words.reshape(len(words), *self._by_token.shape[2:])
        if self._scales is not None and scales is not None:
            self._scales[at[0], :, at[1]] = scales
        if self._minima is not None and minima is not None:
            self._minima[at[0], :, at[1]] = minima

    def write_group(self, tile: int, vectors: F32) -> None:
        """Store the grouped vectors (tokens, heads, dim) of one whole tile."""
        words, scales, minima = self.format.encode(vectors)
        self._by_token[tile] = words.reshape(self._by_token.shape[1:])
        if self._scales is not None and scales is not None:
            self._scales[tile] = scales
        if self._minima is not None and minima is not None:
            self._minima[tile] = minima

    def read(self, tiles: NDArray[np.int64], rows: NDArray[np.int64]) -> F32:
        """Return the vectors (n, heads, dim) in these rows of these tiles, as attention sees them."""
        words = self._by_token[tiles, rows].reshape(len(tiles), self.heads, self._words_per_token)
        values = self.format.codec.unpack(words)
        if self._scales is not None:
            values *= self._beside(self._scales, tiles, rows)
        if self._minima is not None:
            values += self._beside(self._minima, tiles, rows)
        return values

    def _beside(self, stored: Bits, tiles: NDArray[np.int64], rows: NDArray[np.int64]) -> F32:
        """Return scales or minima in a shape that goes with vectors (n, heads, dim)."""
        if self.format.grouped:
            return decode_float16(stored[tiles])
        return decode_float16(stored[tiles, :, rows])[..., None]

    def in_place(self, head: int, heads: int, run: Run) -> F32:
        """Return some heads of a run that is stored as float32, (tiles, heads, ...), where they are."""
        stored: F32 = self._by_tile[run.tiles, head : head + heads]
        return stored

    def pieces(self, head: int, heads: int, run: Run) -> Iterator[tuple[int, Piece]]:
        """Cut some heads of a run into what is expanded at a time, each with where in the run it begins."""
        room = max(1, EXPANDED_ELEMENTS // (self.tokens * self.dim))
        heads_at_once = min(heads, room)
        at_once = max(1, room // heads_at_once)
        for begin in range(0, run.length, at_once):
            part = run.part(begin, min(at_once, run.length - begin))
            for first in range(head, head + heads, heads_at_once):
                yield begin, Piece(first, min(heads_at_once, head + heads - first), part)

    def expanded(self, piece: Piece, scratch: Scratch) -> F32:
        """Return a piece as (planes, tiles, heads, ...), each plane of a tile as it is stored.

        That is (dim / planes, tokens) for keys, (columns / planes, tokens, width) for values. Planes come
        first so that each is written in one contiguous pass. Scales and minima, and the codec's power and
        excess, are left to the caller.
        """
        words = self._by_tile[piece.place]
        codec = self.format.codec
        out = scratch.take("expanded", codec.planes, *words.shape)
        codec.expand(words, out)
        return out

    def scales(self, head: int, heads: int, tiles: NDArray[np.int64]) -> F32 | None:
        """Return the scale of each token in these tiles, (tiles, heads, 1, tokens), if there are any."""
        return self._row(self._scales, head, heads, tiles)

    def minima(self, head: int, heads: int, tiles: NDArray[np.int64]) -> F32 | None:
        """Return the minimum of each token in these tiles, (tiles, heads, 1, tokens), if there are any."""
        return self._row(self._minima, head, heads, tiles)

    def channel_scales(self, piece: Piece) -> F32 | None:
        """Return the scale of each channel in a piece, (tiles, heads, 1, dim), where grouped."""
        return self._channels(self._scales, piece)

    def channel_minima(self, piece: Piece) -> F32 | None:
        """Return the minimum of each channel in a piece, (tiles, heads, 1, dim), where grouped."""
        return self._channels(self._minima, piece)

    def _row(self, stored: Bits | None, head: int, heads: int, tiles: NDArray[np.int64]) -> F32 | None:
        if stored is None or self.format.grouped:
            return None
        return decode_float16(stored[tiles, head : head + heads, None])

    def _channels(self, stored: Bits | None, piece: Piece) -> F32 | None:
        if stored is None or not self.format.grouped:
            return None
        return decode_float16(stored[piece.place])[:, :, None]
