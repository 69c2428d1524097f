"""One layer's keys and values in blocks of tokens, and views of them for attention.

Blocks are what is handed out; a block is one tile, or several of 64 tokens. Contiguous, paged and ring
caches differ only in which blocks a view names.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.hot_groups import HotGroups
from kvplan.engine.huge_pages import HugePages
from kvplan.engine.kv_codecs import F32
from kvplan.engine.scratch import Scratch
from kvplan.engine.tile_formats import key_format, value_format
from kvplan.engine.tile_plane import Places, TilePlane, nbytes_of_one
from kvplan.errors import UsageError
from kvplan.storage import KvFormat

TILE_TOKENS = (64, 32)
"""Tokens of a tile that the small-matrix kernels like, the best first."""


def tile_tokens(block_tokens: int) -> int:
    """Return how many tokens a tile of such a block has."""
    if block_tokens <= TILE_TOKENS[0]:
        return block_tokens
    return next((tokens for tokens in TILE_TOKENS if block_tokens % tokens == 0), block_tokens)


class KVTiles:
    """The keys and values of one layer, in ``blocks`` blocks of ``block_tokens`` tokens.

    Args:
        kv_heads: heads a token stores.
        k_dim, v_dim: channels of a key and of a value.
        blocks, block_tokens: size of the arena, zeros at first.
        kv: how a vector is stored.
        scratch: work areas of attention over these tiles; shared by the layers of a model to save memory.
        sequences: hot slots, one for each sequence, where keys wait until their group is full; for formats
            that scale keys by groups of tokens only.
        memory: where the arena is, if it is not one of its own.

    Attributes:
        block_nbytes: bytes of one block.
        slot_nbytes: bytes of one token; without the scales of its group, where there are any.
        group_nbytes: bytes of one group's scales; 0 where scales are not by groups.
        hot_slot_nbytes: bytes of one hot slot; 0 where there are none.

    Raises:
        UsageError: where a format that packs several numbers meets heads it cannot pack, or one that
            scales keys by groups meets blocks that are not whole groups.
    """

    def __init__(
        self,
        kv_heads: int,
        k_dim: int,
        v_dim: int,
        blocks: int,
        block_tokens: int,
        kv: KvFormat,
        scratch: Scratch | None = None,
        sequences: int = 0,
        memory: HugePages | None = None,
    ) -> None:
        _check_sizes(k_dim, v_dim, block_tokens, kv)
        self.kv_heads, self.k_dim, self.v_dim = kv_heads, k_dim, v_dim
        self.blocks, self.block_tokens = blocks, block_tokens
        self.scratch = scratch or Scratch()
        self.tile_tokens = tile_tokens(block_tokens)
        self.block_tiles = block_tokens // self.tile_tokens
        tiles = blocks * self.block_tiles
        size = tiles, self.tile_tokens
        self.keys = TilePlane(key_format(kv), kv_heads, k_dim, *size, by_channel=True, memory=memory)
        self.values = TilePlane(value_format(kv), kv_heads, v_dim, *size, by_channel=False, memory=memory)
        self.hot = HotGroups(self.keys, sequences) if kv.key_group_tokens else None
        self.block_nbytes = sum(map(nbytes_of_one, self._arrays().values()))
        self.group_nbytes = self.keys.group_nbytes
        groups_nbytes = self.group_nbytes * self.block_tiles
        self.slot_nbytes = (self.block_nbytes - groups_nbytes) // block_tokens
        self.hot_slot_nbytes = self.hot.slot_nbytes if self.hot else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arena, without hot slots."""
        return sum(array.nbytes for array in self._arrays().values())

    def written_nbytes(self, positions: NDArray[np.int64]) -> int:
        """Return the bytes that storing tokens at these positions writes.

        Grouped keys are written twice: as they come, and once more when they complete their group.
        """
        if self.hot is None:
            return len(positions) * self.slot_nbytes
        completed = int((positions % self.tile_tokens == self.tile_tokens - 1).sum())
        group = self.tile_tokens * self.keys.token_nbytes + self.group_nbytes
        value_nbytes = self.slot_nbytes - self.keys.token_nbytes
        return len(positions) * (self.hot.token_nbytes + value_nbytes) + completed * group

    def write(
        self,
        blocks: NDArray[np.int64],
        offsets: NDArray[np.int64],
        keys: F32,
        values: F32,
        hot: NDArray[np.int64] | None = None,
    ) -> None:
        """Store token i in slot ``offsets[i]`` of block ``blocks[i]``; later tokens overwrite earlier ones.

        Args:
            blocks, offsets: (n,).
            keys: (n, kv_heads, k_dim).
            values: (n, kv_heads, v_dim).
            hot: (n,) the hot slot of each token's sequence, where keys are scaled by groups. A group is
                quantised when its last slot is written; its earlier ones must be in the hot slot by then.

        Raises:
            ValueError: for other shapes, slots that are not there, NaN and infinity; nothing is written.
        """
        self.store(self.places(blocks, offsets), keys, values, hot)

    def places(self, blocks: NDArray[np.int64], offsets: NDArray[np.int64]) -> Places:
        """Return where such tokens go in this arena and any other of as many blocks of the same length.

        Raises:
            ValueError: for slots that are not there.
        """
        self._check_slots(blocks, offsets)
        return Places.of(*self._tiles_and_rows(blocks, offsets))

    def store(self, places: Places, keys: F32, values: F32, hot: NDArray[np.int64] | None = None) -> None:
        """Do what :meth:`write` does, with places worked out before."""
        count = len(places.tiles)
        _check_vectors("keys", keys, (count, self.kv_heads, self.k_dim))
        _check_vectors("values", values, (count, self.kv_heads, self.v_dim))
        if self.hot is None:
            _store(self.keys, places, keys)
        else:
            self.hot.write(places.segments, keys, self.hot.check(places.segments, hot, count))
        _store(self.values, places, values)

    def read(
        self, blocks: NDArray[np.int64], offsets: NDArray[np.int64], hot: NDArray[np.int64] | None = None
    ) -> tuple[F32, F32]:
        """Return keys (n, kv_heads, k_dim) and values (n, kv_heads, v_dim) as attention sees them.

        ``hot`` (n,) is the hot slot that holds a token's key, or -1.
        """
        self._check_slots(blocks, offsets)
        tiles, rows = self._tiles_and_rows(blocks, offsets)
        keys = self.keys.read(tiles, rows)
        if self.hot is not None and hot is not None:
            waiting = hot >= 0
            keys[waiting] = self.hot.plane.read(hot[waiting], rows[waiting])
        return keys, self.values.read(tiles, rows)

    def reopen(self, block: int, group: int, hot: int) -> None:
        """Put the keys of a block's full group into a hot slot, so that its tokens can be written again."""
        if self.hot is None:
            raise ValueError("keys of this format are not grouped")
        self.hot.reopen(block * self.block_tiles + group, hot)

    def copy_block(self, source: int, target: int) -> None:
        """Make block ``target`` equal to block ``source``."""
        for array in self._arrays().values():
            array[target] = array[source]

    def dump(self, blocks: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return copies of everything stored in these blocks, by name; the first axis is blocks."""
        return {name: array[blocks] for name, array in self._arrays().items()}

    def load(self, blocks: NDArray[np.int64], arrays: dict[str, NDArray[Any]]) -> None:
        """Put back what ``dump`` returned for as many blocks of an equal arena.

        Raises:
            ValueError: for arrays of another arena; nothing is written.
        """
        stored = self._arrays()
        expected = {name: ((len(blocks), *a.shape[1:]), a.dtype) for name, a in stored.items()}
        if {name: (a.shape, a.dtype) for name, a in arrays.items()} != expected:
            raise ValueError("these arrays were not dumped from such blocks")
        for name, array in stored.items():
            array[blocks] = arrays[name]

    def tile_ids(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tiles of these blocks, in order."""
        if self.block_tiles == 1:
            return blocks
        return (blocks[:, None] * self.block_tiles + np.arange(self.block_tiles)).reshape(-1)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by name, its first axis blocks."""
        return {
            f"{kind}.{name}": array.reshape(self.blocks, self.block_tiles, *array.shape[1:])
            for kind, plane in (("keys", self.keys), ("values", self.values))
            for name, array in plane.arrays.items()
        }

    def _tiles_and_rows(
        self, blocks: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.block_tiles == 1:
            return blocks, offsets
        return blocks * self.block_tiles + offsets // self.tile_tokens, offsets % self.tile_tokens

    def _check_slots(self, blocks: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        if blocks.ndim != 1 or blocks.shape != offsets.shape:
            raise ValueError(f"blocks {blocks.shape} and offsets {offsets.shape} are not two equal lists")
        for name, ids, limit in (("block", blocks, self.blocks), ("offset", offsets, self.block_tokens)):
            if len(ids) and not (ids.min() >= 0 and ids.max() < limit):
                raise ValueError(f"every {name} must be 0 to {limit - 1}")


@dataclass(frozen=True, slots=True)
class View:
    """Some tokens of one sequence, where they are stored.

    Args:
        tiles: the arena.
        blocks: (nb,) int64; slot s is token ``s % block_tokens`` of block ``blocks[s // block_tokens]``.
        start, stop: slots ``start`` to ``stop - 1`` hold tokens.
        first_position: slot s holds the token at position ``first_position + s``,
        positions: or, where given (a ring), at ``positions[s]``.
        hot: the hot slot of the sequence, where keys are scaled by groups: it holds the keys of the newest
            token's group, unless that token fills it.
    """

    tiles: KVTiles
    blocks: NDArray[np.int64]
    start: int
    stop: int
    first_position: int = 0
    positions: NDArray[np.int64] | None = None
    hot: int | None = None

    def __post_init__(self) -> None:
        slots = len(self.blocks) * self.tiles.block_tokens
        if not 0 <= self.start <= self.stop <= slots:
            raise ValueError(f"slots {self.start} to {self.stop} are not among {slots}")
        if self.positions is not None and len(self.positions) < self.stop:
            raise ValueError(f"{len(self.positions)} positions for {self.stop} slots")
        if self.hot_tile is not None and self.hot is None:
            raise ValueError("a view of a group that is not full needs its hot slot")

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens in view, with the scales of their groups; keys in a hot slot are float16."""
        tiles = self.tiles
        plain = (self.stop - self.start) * tiles.slot_nbytes
        if tiles.hot is None:
            return plain
        groups = -(-self.stop // tiles.tile_tokens) - self.first_tile
        if self.hot_tile is None:
            return plain + groups * tiles.group_nbytes
        first = (self.first_tile + self.hot_tile) * tiles.tile_tokens
        waiting = min(self.stop, first + tiles.tile_tokens) - max(self.start, first)
        wider = tiles.hot.token_nbytes - tiles.keys.token_nbytes
        return plain + waiting * wider + (groups - 1) * tiles.group_nbytes

    @property
    def hot_tile(self) -> int | None:
        """Which of ``tile_ids`` has its keys in the hot slot, if any."""
        if self.tiles.hot is None or self.start == self.stop:
            return None
        newest = self.stop - 1
        if self.positions is not None:
            newest = self.start + int(self.positions[self.start : self.stop].argmax())
        tile, row = divmod(newest, self.tiles.tile_tokens)
        return None if row == self.tiles.tile_tokens - 1 else tile - self.first_tile

    @property
    def first_tile(self) -> int:
        """How many tiles lie before the first one that holds a token in view."""
        return self.start // self.tiles.tile_tokens

    @property
    def tile_count(self) -> int:
        """How many tiles hold a token in view; ``start`` is less than ``stop``."""
        return -(-self.stop // self.tiles.tile_tokens) - self.first_tile

    def tile_ids(self) -> NDArray[np.int64]:
        """Return the tiles that hold a token in view, in the order of slots."""
        first = self.first_tile
        return self.tiles.tile_ids(self.blocks)[first : first + self.tile_count]

    def tile_positions(self) -> NDArray[np.int64]:
        """Return the position in each slot of these tiles, (tiles, tile_tokens); -1 where there is none."""
        tokens = self.tiles.tile_tokens
        first = self.first_tile * tokens
        found = np.full(-(-self.stop // tokens) * tokens - first, -1)
        if self.positions is None:
            held = np.arange(self.start, self.stop) + self.first_position
        else:
            held = self.positions[self.start : self.stop]
        found[self.start - first : self.stop - first] = held
        return found.reshape(-1, tokens)


def _store(plane: TilePlane, places: Places, vectors: F32) -> None:
    if places.apart:
        plane.write_apart(places, vectors)
    else:
        plane.write(places.segments, vectors)


def _check_sizes(k_dim: int, v_dim: int, block_tokens: int, kv: KvFormat) -> None:
    planes = value_format(kv).codec.planes
    for dim in (k_dim, v_dim):
        if dim % planes:
            raise UsageError(f"{kv.name} packs {planes} numbers; a head of {dim} is no multiple of that")
    group = kv.key_group_tokens
    if group and block_tokens % group:
        raise UsageError(
            f"{kv.name} scales keys by groups of {group} tokens; a block of {block_tokens} is no multiple",
            hint=f"blocks of {group} tokens, or a multiple",
        )


def _check_vectors(name: str, vectors: F32, shape: tuple[int, ...]) -> None:
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise ValueError(f"{name} are {vectors.dtype} {vectors.shape}, not float32 {shape}")
    # One product tells a decode step what it needs to know: where squares overflow, numbers are looked at.
    if not isfinite(np.vdot(vectors, vectors)) and not np.isfinite(vectors).all():
        raise ValueError(f"{name} hold NaN or infinity")
