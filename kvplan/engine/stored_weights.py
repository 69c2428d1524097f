"""Weights as they come back from the files of a storage format."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.model import Model
from kvplan.arch.weight import Weight
from kvplan.engine.kv_codecs import F32, bfloat16_bits, float16_bits
from kvplan.engine.kv_quantisers import decode_float16
from kvplan.engine.random_weights import named_weights
from kvplan.engine.weight_quantisers import Quantiser, quantiser
from kvplan.storage import AsReleased, WeightStorage


def stored_weights(
    model: Model, weights: Mapping[str, F32], storage: WeightStorage, model_dtype: str
) -> dict[str, F32]:
    """Return every tensor as the format gives it back, in float32.

    The format packs what its roles say, and every other tensor is rounded to the dtype it is kept in.

    Args:
        model: whose tensors they are.
        weights: by full name, as :func:`random_weights` returns them; not changed.
        storage: the format.
        model_dtype: the dtype of the model's released weights.

    Raises:
        UsageError: what the format does to weights is not known here.
    """
    if not isinstance(storage, AsReleased) and storage.applies_to:
        quantiser(storage)  # refused by its own name, not by that of a fallback
    return {
        name: _stored(weights[name], weight, storage, model_dtype) for name, weight in named_weights(model)
    }


def through_tiles(matrices: F32, tile_rows: int, tile_columns: int, quantise: Quantiser) -> F32:
    """Return matrices ``(copies, rows, columns)`` cut into tiles, quantised, and put together again.

    Args:
        matrices: equal matrices.
        tile_rows, tile_columns: size of a tile; 0 means the whole axis. Tiles at the end of an axis are
            as short as they are.
        quantise: gets ``(copies, tiles, elements)``; in a short tile the last row or column is there more
            than once, which changes no scale.
    """
    copies, rows, columns = matrices.shape
    tall, wide = min(tile_rows or rows, rows), min(tile_columns or columns, columns)
    whole = np.pad(matrices, ((0, 0), (0, -rows % tall), (0, -columns % wide)), mode="edge")
    down, across = whole.shape[1] // tall, whole.shape[2] // wide
    tiles = whole.reshape(copies, down, tall, across, wide).swapaxes(2, 3)
    stored = quantise(tiles.reshape(copies, down * across, tall * wide))
    back = stored.reshape(tiles.shape).swapaxes(2, 3).reshape(whole.shape)
    return np.ascontiguousarray(back[:, :rows, :columns])


def _stored(tensor: F32, weight: Weight, storage: WeightStorage, model_dtype: str) -> F32:
    packed = weight.format_under(storage)
    if packed is None:
        return _rounded(tensor, weight.plain_dtype(storage, model_dtype))
    matrices = tensor.reshape(weight.copies, *weight.shape)
    found = through_tiles(matrices, packed.tile_rows, packed.tile_columns, quantiser(packed))
    return found.reshape(tensor.shape)


def _rounded(tensor: F32, dtype: str) -> F32:
    match dtype:
        case "bf16":
            return (bfloat16_bits(tensor) << np.uint32(16)).view(np.float32)
        case "fp16":
            return decode_float16(float16_bits(tensor))
        case "fp32":
            return tensor
    raise ValueError(f"no plain array has the dtype {dtype!r}")
