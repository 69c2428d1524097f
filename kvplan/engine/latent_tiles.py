"""The latents of one layer, as rows in blocks: one compressed vector and one rotated key for each token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.engine.arrays import Blocks
from kvplan.engine.counter import Counter
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
            raise UsageError(f"KV format {kv.name} has scales per key channel: a latent has none")
        self._format = value_format(kv)
        codec = self._format.codec
        if dim % codec.planes:
            raise UsageError(f"KV format {kv.name} packs {codec.planes} elements: {dim} cannot be packed")
        self._words = np.zeros((blocks, block_tokens, dim // codec.planes), codec.dtype)
        self._scales = self._plane(blocks, block_tokens, self._format.scaled)
        self._minima = self._plane(blocks, block_tokens, self._format.shifted)

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


class LatentTiles:
    """One layer's latents ``(rank)`` and rotated keys ``(rope_dim)``, a row of each for every token.

    Args:
        rank, rope_dim: elements of the two.
        blocks, block_tokens: blocks of the arena, and tokens in each.
        kv: storage format; each of the two vectors has scales of its own.

    Raises:
        UsageError: the format cannot store them.
    """

    def __init__(self, rank: int, rope_dim: int, blocks: int, block_tokens: int, kv: KvFormat) -> None:
        self.block_tokens = block_tokens
        self._latents = RowArena(rank, blocks, block_tokens, kv)
        self._rope_keys = RowArena(rope_dim, blocks, block_tokens, kv)

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(array.nbytes for array in self._arrays())

    @property
    def block_nbytes(self) -> int:
        """Bytes of one block."""
        return sum(array[0].nbytes for array in self._arrays())

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one token."""
        return self.block_nbytes // self.block_tokens

    def written_nbytes(self, positions: Blocks) -> int:
        """Return the bytes that storing tokens at these positions writes."""
        return len(positions) * self.slot_nbytes

    def write(self, blocks: Blocks, offsets: Blocks, latents: F32, rope_keys: F32) -> None:
        """Store latents ``(n, rank)`` and rotated keys ``(n, rope_dim)`` at their places.

        Raises:
            ValueError: one is not finite; nothing is stored.
        """
        if not (np.isfinite(latents).all() and np.isfinite(rope_keys).all()):
            raise ValueError("latents must be finite to be cached")
        self._latents.write(blocks, offsets, latents)
        self._rope_keys.write(blocks, offsets, rope_keys)

    def rows(self, blocks: Blocks, stop: int) -> tuple[F32, F32]:
        """Return the first ``stop`` latents ``(stop, rank)`` and rotated keys ``(stop, rope_dim)``."""
        return self._latents.rows(blocks, stop), self._rope_keys.rows(blocks, stop)

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

    def _arrays(self) -> tuple[Words, ...]:
        return (*self._latents.arrays, *self._rope_keys.arrays)


def decode_latent(
    absorbed: F32,
    rope_queries: F32,
    tiles: LatentTiles,
    blocks: Blocks,
    stop: int,
    scale: float,
    counter: Counter,
) -> F32:
    """Return what one token's heads make of the latents in view, ``(heads, rank)``.

    Args:
        absorbed: queries in the latent's space ``(heads, rank)``.
        rope_queries: rotated parts of the queries ``(heads, rope_dim)``.
        tiles: the layer's arena.
        blocks: physical blocks of the sequence, in order.
        stop: tokens in view.
        scale: what scores are multiplied by.
        counter: gets the products with latents, and the bytes read.
    """
    latents, rope_keys = tiles.rows(blocks, stop)
    scores: F32 = absorbed @ latents.T
    scores += rope_queries @ rope_keys.T
    scores *= np.float32(scale)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    counter.attention(2 * scores.size * (2 * latents.shape[1] + rope_keys.shape[1]))
    counter.read_cache(stop * tiles.slot_nbytes)
    mixed: F32 = np.matmul(scores, latents, dtype=np.float32)
    return mixed
