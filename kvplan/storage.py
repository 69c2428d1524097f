"""Storage formats: how many bytes an array of weights or a cached vector really takes.

Scales and zero points are part of a format, so they are part of every byte count here. Which tensors
a weight format leaves alone is data too: a format names the roles it applies to, and every other
tensor keeps the model's own dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias, TypeVar

from kvplan.errors import unknown
from kvplan.formula import formula
from kvplan.units import Count, Unit, ceil_div


class TensorRole(Enum):
    """What a weight tensor is for; formats choose by it."""

    EMBEDDING = "embedding"
    POSITIONS = "position embedding"
    HEAD = "lm_head"
    ATTENTION = "attention matrix"
    MLP = "mlp matrix"
    EXPERT = "expert matrix"
    ROUTER = "router"
    NORM = "norm"
    BIAS = "bias"
    STATE = "recurrence parameter"
    TOWER = "vision or audio tower"


LINEAR = frozenset({TensorRole.ATTENTION, TensorRole.MLP, TensorRole.EXPERT})
EXPERTS_ONLY = frozenset({TensorRole.EXPERT})
NOTHING: frozenset[TensorRole] = frozenset()
# Number formats of products; a model in bf16 runs in fp16 where a device has no bf16 unit.
SIXTEEN_BIT = ("bf16", "fp16")
EIGHT_BIT_FLOAT = ("fp8", *SIXTEEN_BIT)
EIGHT_BIT_INTEGER = ("int8", *SIXTEEN_BIT)
FOUR_BIT_FLOAT = ("fp4", *EIGHT_BIT_FLOAT)
SINGLE = ("tf32", "fp32")
EVERY_MATRIX = LINEAR | {TensorRole.EMBEDDING, TensorRole.HEAD}


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How matrices are stored.

    A matrix of ``rows x columns`` (output x input features) is cut into tiles of ``tile_rows x
    tile_columns``; each tile stores ``bits`` per element plus ``tile_bytes`` of scales and zero points.

    Args:
        name: what ``--weights`` takes.
        bits: bits per element.
        applies_to: the roles it is used for; other tensors keep ``others``.
        tile_columns, tile_rows: elements that share a scale; 0 means the whole axis.
        tile_half_bytes: half-bytes of scale and zero point per tile (a packed int4 zero is one).
        column_bytes: further bytes per input column (GPTQ's ``g_idx``).
        tensor_bytes: further bytes per matrix (a global scale).
        whole_tiles: a rank's slice of a cut axis must be whole tiles, as its runtimes demand; otherwise a
            broken tile at the end of a slice is counted as a whole one's scales.
        others: the dtype of every other tensor; empty means the model's own.
        fallback: the format used where the row length is no multiple of ``tile_columns``.
        multiplied_in: number formats its products may run in; a device takes the one it is fastest in.
        source: where the layout is defined.
    """

    name: str
    bits: int
    applies_to: frozenset[TensorRole]
    source: str
    tile_columns: int = 1
    tile_rows: int = 1
    tile_half_bytes: int = 0
    column_bytes: int = 0
    tensor_bytes: int = 0
    whole_tiles: bool = False
    others: str = ""
    fallback: str = ""
    multiplied_in: tuple[str, ...] = SIXTEEN_BIT

    def for_columns(self, columns: int) -> WeightFormat:
        """Return the format a matrix with rows of this length is really stored in."""
        if self.fallback and columns % self.tile_columns:
            return weight_format(self.fallback).for_columns(columns)
        return self

    def tiles(self, rows: int, columns: int) -> int:
        """Return how many tiles, each with its own scales, a matrix is cut into."""
        return _pieces(rows, self.tile_rows) * _pieces(columns, self.tile_columns)


@formula(Unit.BYTES, "packed elements, then scales and zero points per tile, as the storage format defines")
def tiled_matrix_bytes(
    copies: Count,
    rows: Count,
    columns: Count,
    bits: int,
    tiles: Count,
    tile_half_bytes: int,
    column_bytes: int,
    tensor_bytes: int,
) -> Count:
    """Bytes of equal quantised matrices with everything stored beside their elements."""
    return copies * (
        ceil_div(rows * columns * bits, 8)
        + ceil_div(tiles * tile_half_bytes, 2)
        + columns * column_bytes
        + tensor_bytes
    )


@formula(Unit.BYTES, "elements times the bytes of their number format")
def plain_tensor_bytes(elements: Count, element_bytes: int) -> Count:
    """Bytes of a tensor that no storage format packs."""
    return elements * element_bytes


def _pieces(length: int, size: int) -> int:
    return 1 if size == 0 else -(-length // size)


def _gguf(name: str, block_bytes: int, block: int = 256, fallback: str = "") -> WeightFormat:
    """Return a GGUF type: blocks of ``block`` weights along a row, ``block_bytes`` bytes each."""
    return WeightFormat(
        name=name,
        bits=0,
        applies_to=EVERY_MATRIX,
        tile_columns=block,
        tile_half_bytes=2 * block_bytes,
        others="fp32",
        fallback=fallback,
        multiplied_in=EIGHT_BIT_INTEGER,
        source="block sizes: ggml-common.h; fallbacks: llama-quant.cpp (llama.cpp); as llama-quantize --pure",
    )


_IEEE = "bits of the number format (IEEE 754, bfloat16)"
WEIGHT_FORMATS: tuple[WeightFormat, ...] = (
    WeightFormat("bf16", 16, NOTHING, _IEEE, others="bf16"),
    WeightFormat("fp16", 16, NOTHING, _IEEE, others="fp16"),
    WeightFormat("fp32", 32, NOTHING, _IEEE, others="fp32", multiplied_in=SINGLE),
    WeightFormat(
        "fp8",
        8,
        LINEAR,
        "vLLM fp8: e4m3 with one float32 scale per tensor",
        tile_columns=0,
        tile_rows=0,
        tile_half_bytes=8,
        multiplied_in=EIGHT_BIT_FLOAT,
    ),
    WeightFormat(
        "fp8-block",
        8,
        LINEAR,
        "DeepSeek-V3 config.json, weight_block_size [128, 128]: float32 scale per block",
        tile_columns=128,
        tile_rows=128,
        tile_half_bytes=8,
        whole_tiles=True,
        multiplied_in=EIGHT_BIT_FLOAT,
    ),
    WeightFormat(
        "fp8-row",
        8,
        LINEAR,
        "fbgemm_fp8 and compressed-tensors channel strategy: float32 scale per output row",
        tile_columns=0,
        tile_half_bytes=8,
        multiplied_in=EIGHT_BIT_FLOAT,
    ),
    WeightFormat(
        "int8",
        8,
        LINEAR,
        "LLM.int8() and compressed-tensors W8A8: float32 scale per output row",
        tile_columns=0,
        tile_half_bytes=8,
        multiplied_in=EIGHT_BIT_INTEGER,
    ),
    WeightFormat(
        "int4",
        4,
        LINEAR,
        "AWQ GEMM layout, group 128: float16 scale and packed int4 zero per group",
        tile_columns=128,
        tile_half_bytes=5,
        whole_tiles=True,
    ),
    WeightFormat(
        "int4-gptq",
        4,
        LINEAR,
        "GPTQ layout, group 128: float16 scale, packed int4 zero, int32 g_idx per column",
        tile_columns=128,
        tile_half_bytes=5,
        whole_tiles=True,
        column_bytes=4,
    ),
    WeightFormat(
        "nf4",
        4,
        LINEAR,
        "bitsandbytes NF4 without double quantisation: float32 absmax per 64",
        tile_columns=64,
        tile_half_bytes=8,
    ),
    WeightFormat(
        "mxfp4",
        4,
        EXPERTS_ONLY,
        "OCP Microscaling 1.0: e8m0 scale per 32; gpt-oss config.json: experts only",
        tile_columns=32,
        tile_half_bytes=2,
        multiplied_in=FOUR_BIT_FLOAT,
    ),
    WeightFormat(
        "nvfp4",
        4,
        LINEAR,
        "NVIDIA modelopt NVFP4: e4m3 scale per 16 and a float32 scale per tensor",
        tile_columns=16,
        tile_half_bytes=2,
        tensor_bytes=4,
        multiplied_in=FOUR_BIT_FLOAT,
    ),
    _gguf("q8_0", 34, 32),
    _gguf("q4_0", 18, 32),
    _gguf("q4_1", 20, 32),
    _gguf("q5_0", 22, 32),
    _gguf("q5_1", 24, 32),
    _gguf("iq4_nl", 18, 32),
    _gguf("q2_k", 84, fallback="iq4_nl"),
    _gguf("q3_k", 110, fallback="iq4_nl"),
    _gguf("q4_k", 144, fallback="q5_0"),
    _gguf("q5_k", 176, fallback="q5_1"),
    _gguf("q6_k", 210, fallback="q8_0"),
    _gguf("iq1_s", 50, fallback="iq4_nl"),
    _gguf("iq1_m", 56, fallback="iq4_nl"),
    _gguf("iq2_xxs", 66, fallback="iq4_nl"),
    _gguf("iq2_xs", 74, fallback="iq4_nl"),
    _gguf("iq2_s", 82, fallback="iq4_nl"),
    _gguf("iq3_xxs", 98, fallback="iq4_nl"),
    _gguf("iq3_s", 110, fallback="iq4_nl"),
    _gguf("iq4_xs", 136, fallback="iq4_nl"),
)

DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
TORCH_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How one cached vector (a head's key or value, a latent) is stored.

    Args:
        name: what ``--kv`` takes.
        bits: bits per element.
        scale_bytes: the scale and zero point kept beside each vector.
        source: where the layout is defined.
        key_group_tokens: keys have their ``scale_bytes`` beside each channel of so many tokens instead, and
            the last group is kept in float16 until it is full; 0 means beside each vector, as values.
        multiplied_in: number formats attention over it may run in; a device takes the one it is fastest in.
    """

    name: str
    bits: int
    scale_bytes: int
    source: str
    key_group_tokens: int = 0
    multiplied_in: tuple[str, ...] = SIXTEEN_BIT


_KIVI = "KIVI (arXiv 2402.02750): keys per channel over 64 tokens, values as int8 or int4 per token and head"
KV_FORMATS: tuple[KvFormat, ...] = (
    KvFormat("bf16", 16, 0, _IEEE),
    KvFormat("fp16", 16, 0, _IEEE),
    KvFormat("fp32", 32, 0, _IEEE, multiplied_in=SINGLE),
    KvFormat(
        "fp8",
        8,
        0,
        "vLLM kv_cache_dtype fp8: e4m3, one scale per tensor, none in the cache",
        multiplied_in=EIGHT_BIT_FLOAT,
    ),
    KvFormat(
        "int8", 8, 2, "kvplan: symmetric, one float16 scale per token and head (vLLM: float32, 2 bytes more)"
    ),
    KvFormat("int4", 4, 4, "kvplan: packed two to a byte, float16 scale and minimum per token and head"),
    KvFormat("int8-kivi", 8, 2, _KIVI, key_group_tokens=64),
    KvFormat("int4-kivi", 4, 4, _KIVI, key_group_tokens=64),
)


@dataclass(frozen=True, slots=True)
class StateLayout:
    """How a runtime stores a recurrent layer's state.

    Args:
        name: what ``--state`` takes.
        columns_dropped: convolution columns not kept: ``kernel - columns_dropped`` are.
        recurrent_bytes: bytes per element of the recurrent state; 0 means the model's dtype.
        source: where the layout is defined.
    """

    name: str
    columns_dropped: int
    recurrent_bytes: int
    source: str


STATE_LAYOUTS: tuple[StateLayout, ...] = (
    StateLayout("transformers", 0, 4, "transformers 5.23: all conv_kernel columns, float32 recurrent state"),
    StateLayout("vllm-fp32", 1, 4, "vLLM with mamba_ssm_cache_dtype float32: conv_kernel - 1 columns"),
    StateLayout(
        "vllm", 1, 0, "vLLM with mamba_ssm_cache_dtype auto: conv_kernel - 1 columns, the model's dtype"
    ),
)


Format: TypeAlias = WeightFormat | KvFormat


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def _find(noun: str, name: str, known: tuple[_N, ...]) -> _N:
    for candidate in known:
        if candidate.name == name:
            return candidate
    raise unknown(noun, name, [candidate.name for candidate in known])


def weight_format(name: str) -> WeightFormat:
    """Return the weight format of this name; raises UsageError for an unknown one."""
    return _find("weight format", name, WEIGHT_FORMATS)


def kv_format(name: str) -> KvFormat:
    """Return the KV cache format of this name; raises UsageError for an unknown one."""
    return _find("KV format", name, KV_FORMATS)


def state_layout(name: str) -> StateLayout:
    """Return the state layout of this name; raises UsageError for an unknown one."""
    return _find("state layout", name, STATE_LAYOUTS)
