"""Attention of one token over latents, in the latents' own space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Blocks
from kvplan.engine.chosen_attention import to_weights
from kvplan.engine.counter import Counter
from kvplan.engine.kv_codecs import F32
from kvplan.engine.row_tiles import RowTiles


def decode_latent(
    absorbed: F32,
    rope_queries: F32,
    tiles: RowTiles,
    blocks: Blocks,
    stop: int,
    scale: float,
    counter: Counter,
    chosen: NDArray[np.int64] | None = None,
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
        chosen: the tokens that are read, ``(n,)`` positions in order; all where absent.
    """
    latents, rope_keys = tiles.rows(blocks, stop)
    if chosen is not None:
        latents, rope_keys = latents[chosen], rope_keys[chosen]
    scores: F32 = absorbed @ latents.T
    scores += rope_queries @ rope_keys.T
    to_weights(scores, scale)
    counter.attention(2 * scores.size * (2 * latents.shape[1] + rope_keys.shape[1]))
    counter.read_cache(len(latents) * tiles.slot_nbytes)
    mixed: F32 = np.matmul(scores, latents, dtype=np.float32)
    return mixed
