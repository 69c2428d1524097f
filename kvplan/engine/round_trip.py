"""Keys, values and latents as a storage format gives them back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvplan.engine.kv_codecs import F32
from kvplan.engine.kv_tiles import KVTiles
from kvplan.engine.row_tiles import RowTiles
from kvplan.storage import KvFormat

# Tiles of whole groups, for formats that scale keys by groups of tokens.
_TILE = 64


def round_trip(keys: F32, values: F32, kv: KvFormat) -> tuple[F32, F32]:
    """Return keys ``(n, heads, k_dim)`` and values ``(n, heads, v_dim)`` of tokens in a row, as read again.

    Where keys are scaled by groups of tokens, the first token begins one, and those of the last group wait in
    float16 unless it is full.

    Raises:
        UsageError: the format cannot store them.
    """
    count, heads, k_dim = keys.shape
    tiles = KVTiles(heads, k_dim, values.shape[2], -(-count // _TILE), _TILE, kv, sequences=1)
    blocks, offsets = np.divmod(np.arange(count), _TILE)
    if tiles.hot is None:
        tiles.write(blocks, offsets, keys, values)
        return tiles.read(blocks, offsets)
    tiles.write(blocks, offsets, keys, values, np.zeros(count, np.int64))
    return tiles.read(blocks, offsets, np.where(blocks < count // _TILE, -1, 0))


def round_trip_rows(rows: Sequence[F32], kv: KvFormat) -> tuple[F32, ...]:
    """Return vectors ``(n, dim)`` that belong to no head, each with as many others, as read again.

    Raises:
        UsageError: the format cannot store them.
    """
    count = len(rows[0])
    tiles = RowTiles([vectors.shape[1] for vectors in rows], 1, count, kv)
    tiles.write(np.zeros(count, np.int64), np.arange(count), rows)
    return tiles.rows(np.zeros(1, np.int64), count)
