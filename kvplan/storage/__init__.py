"""Storage formats: how many bytes an array of weights or a cached vector really takes.

Scales and zero points are part of a format, so they are part of every byte count here.
"""

from __future__ import annotations

from typing import TypeAlias

from kvplan.storage.kv_formats import KV_FORMATS, IndexFormat, KvFormat, kv_format
from kvplan.storage.number_formats import (
    DTYPE_BYTES,
    EIGHT_BIT_FLOAT,
    EIGHT_BIT_INTEGER,
    FOUR_BIT_FLOAT,
    SINGLE,
    SIXTEEN_BIT,
    TORCH_DTYPES,
)
from kvplan.storage.state_layouts import STATE_LAYOUTS, StateLayout, state_layout
from kvplan.storage.tensor_role import TensorRole
from kvplan.storage.weight_formats import (
    PACKED_FORMATS,
    WEIGHT_FORMATS,
    AsReleased,
    WeightFormat,
    WeightStorage,
    doubly_scaled_tensor_bytes,
    plain_tensor_bytes,
    tiled_matrix_bytes,
    weight_format,
)

Format: TypeAlias = WeightFormat | KvFormat

__all__ = [
    "DTYPE_BYTES",
    "EIGHT_BIT_FLOAT",
    "EIGHT_BIT_INTEGER",
    "FOUR_BIT_FLOAT",
    "KV_FORMATS",
    "PACKED_FORMATS",
    "SINGLE",
    "SIXTEEN_BIT",
    "STATE_LAYOUTS",
    "TORCH_DTYPES",
    "WEIGHT_FORMATS",
    "AsReleased",
    "Format",
    "IndexFormat",
    "KvFormat",
    "StateLayout",
    "TensorRole",
    "WeightFormat",
    "WeightStorage",
    "doubly_scaled_tensor_bytes",
    "kv_format",
    "plain_tensor_bytes",
    "state_layout",
    "tiled_matrix_bytes",
    "weight_format",
]
