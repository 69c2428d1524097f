"""Storage formats: how many bytes an array of weights or a cached vector really takes.

Scales and zero points are part of a format, so they are part of every byte count here. Which tensors
a weight format leaves alone is data too: a format names the roles it applies to, and every other
tensor keeps the model's own dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, TypeAlias, TypeVar

from kvplan.errors import UsageError, unknown
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
        scales_per_scale: tiles whose scales are quantised together, with a float32 scale of their own; 0 for
            none.
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
    scales_per_scale: int = 0
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

    def scales_of_scales(self, rows: int, columns: int) -> int:
        """Return how many float32 scales there are of the tiles' own scales."""
        return _pieces(self.tiles(rows, columns), self.scales_per_scale) if self.scales_per_scale else 0


@formula(Unit.BYTES, "packed elements, then scales and zero points per tile, as the storage format defines")
def tiled_matrix_bytes(
    copies: Count,
    rows: Count,
    columns: Count,
    bits: int,
    tiles: Count,
    tile_half_bytes: int,
    column_bytes: int,
    tensor_bytes: Count,
) -> Count:
    """Bytes of equal quantised matrices with everything stored beside their elements."""
    return copies * (
        ceil_div(rows * columns * bits, 8)
        + ceil_div(tiles * tile_half_bytes, 2)
        + columns * column_bytes
        + tensor_bytes
    )


@formula(Unit.BYTES, "what a matrix keeps once, then a float32 scale of every group of its tiles' own scales")
def doubly_scaled_tensor_bytes(tensor_bytes: int, scales_of_scales: Count) -> Count:
    """Bytes of a matrix beside its elements and tiles, where the tiles' scales are quantised too."""
    return tensor_bytes + 4 * scales_of_scales


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


def _grouped(
    name: str,
    bits: int,
    half_bytes: int,
    source: str,
    groups: tuple[int, ...],
    *,
    column_bytes: int = 0,
    tensor_bytes: int = 0,
) -> tuple[WeightFormat, ...]:
    """Return integers of ``bits`` with a scale for each group of a row's columns; 0 for the whole row.

    A format is named after its group: ``-g32``, or ``-row``.
    """
    return tuple(
        WeightFormat(
            name=f"{name}-g{group}" if group else f"{name}-row",
            bits=bits,
            applies_to=LINEAR,
            source=source,
            tile_columns=group,
            tile_half_bytes=half_bytes,
            column_bytes=column_bytes,
            tensor_bytes=tensor_bytes,
            whole_tiles=bool(group),
        )
        for group in groups
    )


_IEEE = "bits of the number format (IEEE 754, bfloat16)"
_AWQ = "AWQ GEMM layout: float16 scale and packed int4 zero per group"
_GPTQ = "GPTQ layout: float16 scale, packed zero, int32 g_idx per column, whatever sym and desc_act say"
_PACKED = "compressed-tensors pack-quantized: 16-bit scale per group, two int64 of weight_shape"
_KIMI = "as int4-sym-g32, with two int32 of weight_shape (Kimi-K2.5's index: 595,148,192,736 bytes)"
_ACTORDER = f"{_PACKED}, int32 weight_g_idx per column (actorder group)"
_ZEROS = f"{_PACKED}, packed int4 zero"
_DOUBLE = "bitsandbytes with double quantisation: uint8 absmax per 64, float32 for 256 of them, and an offset"
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
        "fp8-static",
        8,
        LINEAR,
        "modelopt FP8, fp8 with activation_scheme static: float32 scales of the tensor and of its input",
        tile_columns=0,
        tile_rows=0,
        tile_half_bytes=8,
        tensor_bytes=4,
        multiplied_in=EIGHT_BIT_FLOAT,
    ),
    WeightFormat(
        "mxfp8",
        8,
        LINEAR,
        "OCP Microscaling 1.0, modelopt MXFP8: e4m3 with an e8m0 scale per 32",
        tile_columns=32,
        tile_half_bytes=2,
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
        "int8-tensor",
        8,
        LINEAR,
        "compressed-tensors W8A8, tensor strategy: one float32 scale per tensor",
        tile_columns=0,
        tile_rows=0,
        tile_half_bytes=8,
        multiplied_in=EIGHT_BIT_INTEGER,
    ),
    *_grouped("int8-gptq", 8, 6, _GPTQ, (32, 64, 128, 0), column_bytes=4),
    *_grouped("int8-sym", 8, 4, _PACKED, (32, 64, 128, 0), tensor_bytes=16),
    *_grouped("int8-sym-actorder", 8, 4, _ACTORDER, (32, 64, 128), column_bytes=4, tensor_bytes=16),
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
    *_grouped("int4-awq", 4, 5, _AWQ, (32, 64)),
    *_grouped("int4-gptq", 4, 5, _GPTQ, (32, 64, 0), column_bytes=4),
    *_grouped("int4-sym", 4, 4, _PACKED, (32, 64, 128, 0), tensor_bytes=16),
    WeightFormat(
        "int4-kimi", 4, LINEAR, _KIMI, tile_columns=32, tile_half_bytes=4, tensor_bytes=8, whole_tiles=True
    ),
    *_grouped("int4-sym-actorder", 4, 4, _ACTORDER, (32, 64, 128), column_bytes=4, tensor_bytes=16),
    *_grouped("int4-asym", 4, 5, _ZEROS, (32, 64, 128, 0), tensor_bytes=16),
    WeightFormat(
        "nf4",
        4,
        LINEAR,
        "bitsandbytes NF4 without double quantisation: float32 absmax per 64",
        tile_columns=64,
        tile_half_bytes=8,
    ),
    WeightFormat(
        "nf4-double",
        4,
        LINEAR,
        _DOUBLE,
        tile_columns=64,
        tile_half_bytes=2,
        tensor_bytes=4,
        scales_per_scale=256,
    ),
    WeightFormat(
        "fp4",
        4,
        LINEAR,
        "bitsandbytes FP4 without double quantisation: float32 absmax per 64",
        tile_columns=64,
        tile_half_bytes=8,
    ),
    WeightFormat(
        "fp4-double",
        4,
        LINEAR,
        _DOUBLE,
        tile_columns=64,
        tile_half_bytes=2,
        tensor_bytes=4,
        scales_per_scale=256,
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
    WeightFormat(
        "nvfp4-static",
        4,
        LINEAR,
        "NVIDIA modelopt NVFP4 as released: e4m3 scale per 16, float32 scales of the tensor and of its input",
        tile_columns=16,
        tile_half_bytes=2,
        tensor_bytes=8,
        multiplied_in=FOUR_BIT_FLOAT,
    ),
    WeightFormat(
        "nvfp4-a16",
        4,
        LINEAR,
        "NVIDIA modelopt W4A16_NVFP4: as NVFP4 with no scale of inputs, which stay in 16 bits",
        tile_columns=16,
        tile_half_bytes=2,
        tensor_bytes=4,
    ),
    WeightFormat(
        "mxfp4-a16",
        4,
        LINEAR,
        "compressed-tensors mxfp4-pack-quantized: e8m0 scale per 32, inputs in 16 bits",
        tile_columns=32,
        tile_half_bytes=2,
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
# Names of formats that pack matrices; those of GGUF are of files that describe themselves.
PACKED_FORMATS = tuple(f.name for f in WEIGHT_FORMATS if f.applies_to and f.bits)


@dataclass(frozen=True, slots=True)
class AsReleased:
    """Every tensor as its released file stores it, where that is more than one format.

    Args:
        base: the format of every tensor that names none of its own, by its role.
        others: further formats of matrices, in the order they are met.
    """

    base: WeightFormat
    others: tuple[str, ...]

    @property
    def name(self) -> str:
        """The formats, joined: ``fp8-row+bf16``."""
        return "+".join((self.base.name, *self.others))

    @property
    def source(self) -> str:
        """Where the base's layout is defined, and what stores the rest."""
        rest = ", ".join(self.others)
        return f"{self.base.source}; {rest} where the released files say so"

    @property
    def multiplied_in(self) -> tuple[str, ...]:
        """Number formats that products of the base may run in."""
        return self.base.multiplied_in


WeightStorage: TypeAlias = WeightFormat | AsReleased

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


_KIVI = "KIVI (arXiv 2402.02750): keys per channel over 64 tokens, values per token and head, as plain integers"
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
    KvFormat("int2", 2, 4, "kvplan: packed four to a byte, float16 scale and minimum per token and head"),
    KvFormat("int8-kivi", 8, 2, _KIVI, key_group_tokens=64),
    KvFormat("int4-kivi", 4, 4, _KIVI, key_group_tokens=64),
    KvFormat("int2-kivi", 2, 4, _KIVI, key_group_tokens=64),
)


@dataclass(frozen=True, slots=True)
class IndexFormat:
    """How the key of an indexer is stored, whatever the KV format is.

    Args:
        bits: bits per element.
        scale_elements: elements that share a scale.
        scale_bytes: bytes of a scale.
        source: where the layout is defined.
    """

    bits: int
    scale_elements: int
    scale_bytes: int
    source: str


_FP8_INDEX = IndexFormat(
    8, 128, 4, "vLLM, deepseek_v2.py, DeepseekV32IndexerCache: e4m3 with a float32 scale per 128 elements"
)
_BF16_INDEX = IndexFormat(
    16, 128, 0, "vLLM, minimax_m3/common/indexer.py, MiniMaxM3IndexerCache: bf16 unless it is told"
)


@dataclass(frozen=True, slots=True)
class StateLayout:
    """How a runtime stores what the KV format leaves open: recurrent states, and keys of indexers.

    Args:
        name: what ``--state`` takes.
        keeps_newest: convolutions keep their newest input where transformers does, though no step reads it.
        recurrent: what running states are stored in; empty means the model's dtype, absent what transformers
            takes for each kind.
        source: where the layout is defined.
        index_keys: what keys of indexers are stored in; absent where that is the KV format.
        block_index_keys: the same of indexers that choose blocks.
        lists_twice: a vector that is key and value is kept as both (transformers' caches list it so).
        heeds_files: a dtype that the released files ask for comes before ``recurrent``.
        speculates: states are kept behind guessed tokens too.
        speculative_tokens: guessed tokens a step checks; states are kept so that any of them can be dropped.
    """

    name: str
    keeps_newest: bool
    recurrent: str | None
    source: str
    index_keys: IndexFormat | None = None
    block_index_keys: IndexFormat | None = None
    lists_twice: bool = False
    heeds_files: bool = False
    speculates: bool = False
    speculative_tokens: int = 0

    def speculating(self, tokens: int) -> StateLayout:
        """Return the layout where each step checks so many guessed tokens.

        Raises:
            UsageError: the layout keeps nothing for them, or there are less than none.
        """
        if tokens < 0:
            raise UsageError(f"{tokens} guessed tokens are less than none")
        if tokens and not self.speculates:
            message = f"what {self.name} keeps for guessed tokens is not modelled"
            raise UsageError(message, hint="choose a vLLM layout with --state")
        return replace(self, speculative_tokens=tokens)

    def conv_columns(self, kernel: int, *, newest_kept: bool) -> int:
        """Return how many inputs of a convolution are kept; ``newest_kept``: transformers keeps them all."""
        return kernel if self.keeps_newest and newest_kept else kernel - 1

    def recurrent_format(self, in_transformers: str, asked: str) -> str:
        """Return what a running state is stored in; empty means the model's dtype.

        Args:
            in_transformers: what transformers takes.
            asked: what the released files ask serving engines for; empty for nothing.
        """
        if self.recurrent is None:
            return in_transformers
        return asked if asked and self.heeds_files else self.recurrent


STATE_LAYOUTS: tuple[StateLayout, ...] = (
    StateLayout(
        "transformers",
        True,
        None,
        "transformers 5.23: all conv_kernel columns, float32 recurrent state",
        lists_twice=True,
    ),
    StateLayout(
        "vllm-fp32",
        False,
        "fp32",
        "vLLM with mamba_ssm_cache_dtype float32: conv_kernel - 1 columns",
        _FP8_INDEX,
        _BF16_INDEX,
        speculates=True,
    ),
    StateLayout(
        "vllm",
        False,
        "",
        "vLLM with mamba_ssm_cache_dtype auto: conv_kernel - 1 columns, the files' dtype or the model's",
        _FP8_INDEX,
        _BF16_INDEX,
        heeds_files=True,
        speculates=True,
    ),
    StateLayout(
        "sglang",
        False,
        "fp32",
        "SGLang, configs/mamba_utils.py: conv_kernel - 1 columns, the files' mamba_ssm_dtype or float32",
        _FP8_INDEX,
        _BF16_INDEX,
        heeds_files=True,
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
