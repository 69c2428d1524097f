"""Vectors that belong to no head, as rows in blocks: the latents of a layer, or the keys of its indexer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kvplan.engine.arrays import Blocks
from kvplan.engine.kv_codecs import F32, Words
from kvplan.engine.kv_quantisers import Bits, decode_float16
from kvplan.engine.tile_formats import value_format
from kvplan.errors import UsageError
from kvplan.storage import KvFormat


class RowArena:
    """Vectors of ``dim`` elements in one storage format, ``(blocks, block_tokens)`` of them.

    Raises:
        UsageError: the format is not one for vectors by themselves, or does not divide their length.
    """

    def __init__(self, dim: int, blocks: int, block_tokens: int, kv: KvFormat) -> None:
        if kv.key_group_tokens:
            raise UsageError(f"KV format {kv.name} has scales per key channel: these vectors have none")
        self._format = value_format(kv)
        codec = self._format.codec
        if dim % codec.planes:
            raise UsageError(f"KV format {kv.name} packs {codec.planes} elements: {dim} cannot be packed")
        self._words = np.zeros((blocks, block_tokens, dim // codec.planes), codec.dtype)
        self._scales = self._plane(blocks, block_tokens, self._format.scaled)
        self._minima = self._plane(blocks, block_tokens, self._format.steps is not None)

    @staticmethod
    def _plane(blocks: int, block_tokens: int, there: bool) -> Bits:
        return np.zeros((blocks, block_tokens if there else 0), np.int16)

    @property
    def arrays(self) -> tuple[Words, ...]:
        """The arrays, a block in each entry of their first axis."""
        return (self._words, self._scales, self._minima)

    def write(self, blocks: Blocks, offsets: Blocks, rows: F32) -> None:
        """Store rows ``(n, dim)`` at their places."""
        words, scales, minima = self._format.encode(rows[:, None])
        self._words[blocks, offsets] = words[:, 0]
        if scales is not None:
            self._scales[blocks, offsets] = scales[:, 0]
        if minima is not None:
            self._minima[blocks, offsets] = minima[:, 0]

    def rows(self, blocks: Blocks, stop: int) -> F32:
        """Return the first ``stop`` rows of these blocks, ``(stop, dim)``; a view where they are plain."""
        words = _first(self._words, blocks, stop)
        if self._format.codec.in_place:
            return words
        found = self._format.codec.unpack(words)
        if self._scales.shape[1]:
            found *= decode_float16(_first(self._scales, blocks, stop))[:, None]
        if self._minima.shape[1]:
            found += decode_float16(_first(self._minima, blocks, stop))[:, None]
        return found


def _first(array: Words, blocks: Blocks, stop: int) -> Words:
    """Return the first ``stop`` entries of these blocks one after another, without a copy if they are."""
    if int(blocks[-1]) - int(blocks[0]) == len(blocks) - 1 and (np.diff(blocks) == 1).all():
        taken = array[int(blocks[0]) : int(blocks[-1]) + 1]
    else:
        taken = array[blocks]
    return taken.reshape(-1, *array.shape[2:])[:stop]


class RowTiles:
    """Vectors for each token of a layer, a row of each: a latent and its rotated key, or an index key.

    Args:
        dims: elements of each vector.
        blocks, block_tokens: blocks of the arena, and tokens in each.
        kv: storage format; each vector has scales of its own.

    Raises:
        UsageError: the format cannot store them.
    """

    def __init__(self, dims: Sequence[int], blocks: int, block_tokens: int, kv: KvFormat) -> None:
        self.block_tokens = block_tokens
        self.dims = tuple(dims)
        self._arenas = [RowArena(dim, blocks, block_tokens, kv) for dim in dims]

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(array.nbytes for array in self._arrays())

    @property
    def block_nbytes(self) -> int:
        """Bytes of one block."""
        return sum(array[:1].nbytes for array in self._arrays())

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one token."""
        return self.block_nbytes // self.block_tokens

    def written_nbytes(self, positions: Blocks) -> int:
        """Return the bytes that storing tokens at these positions writes."""
        return len(positions) * self.slot_nbytes

    def write(self, blocks: Blocks, offsets: Blocks, rows: Sequence[F32]) -> None:
        """Store rows ``(n, dim)`` of each vector at their places.

        Raises:
            ValueError: one is not finite; nothing is stored.
        """
        if not all(np.isfinite(vectors).all() for vectors in rows):
            raise ValueError("latents and index keys must be finite to be cached")
        for arena, vectors in zip(self._arenas, rows, strict=True):
            arena.write(blocks, offsets, vectors)

    def rows(self, blocks: Blocks, stop: int) -> tuple[F32, ...]:
        """Return the first ``stop`` rows ``(stop, dim)`` of each vector."""
        return tuple(arena.rows(blocks, stop) for arena in self._arenas)

    def copy_block(self, source: int, target: int) -> None:
        """Copy one block over another."""
        for array in self._arrays():
            array[target] = array[source]

    def dump(self, blocks: Blocks) -> dict[str, Words]:
        """Return copies of these blocks as they are stored."""
        return {str(number): array[blocks] for number, array in enumerate(self._arrays())}

    def load(self, blocks: Blocks, arrays: Mapping[str, Words]) -> None:
        """Set these blocks to dumped ones."""
        for number, array in enumerate(self._arrays()):
            array[blocks] = arrays[str(number)]

    def _arrays(self) -> list[Words]:
        return [array for arena in self._arenas for array in arena.arrays]
