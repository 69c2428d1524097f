"""Storage formats of weights, with the scales and zero points that belong to them.

Which tensors a format leaves alone is data too: it names the roles it applies to, and every other tensor
keeps the model's own dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kvplan.formula import formula
from kvplan.storage.find import find
from kvplan.storage.number_formats import (
    EIGHT_BIT_FLOAT,
    EIGHT_BIT_INTEGER,
    FOUR_BIT_FLOAT,
    IEEE,
    SINGLE,
    SIXTEEN_BIT,
)
from kvplan.storage.tensor_role import EVERY_MATRIX, EXPERTS_ONLY, LINEAR, NOTHING, TensorRole
from kvplan.units import Count, Unit, ceil_div


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


_AWQ = "AWQ GEMM layout: float16 scale and packed int4 zero per group"
_GPTQ = "GPTQ layout: float16 scale, packed zero, int32 g_idx per column, whatever sym and desc_act say"
_PACKED = "compressed-tensors pack-quantized: 16-bit scale per group, two int64 of weight_shape"
_KIMI = "as int4-sym-g32, with two int32 of weight_shape (Kimi-K2.5's index: 595,148,192,736 bytes)"
_ACTORDER = f"{_PACKED}, int32 weight_g_idx per column (actorder group)"
_ZEROS = f"{_PACKED}, packed int4 zero"
_DOUBLE = "bitsandbytes with double quantisation: uint8 absmax per 64, float32 for 256 of them, and an offset"
WEIGHT_FORMATS: tuple[WeightFormat, ...] = (
    WeightFormat("bf16", 16, NOTHING, IEEE, others="bf16"),
    WeightFormat("fp16", 16, NOTHING, IEEE, others="fp16"),
    WeightFormat("fp32", 32, NOTHING, IEEE, others="fp32", multiplied_in=SINGLE),
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


def weight_format(name: str) -> WeightFormat:
    """Return the weight format of this name; raises UsageError for an unknown one."""
    return find("weight format", name, WEIGHT_FORMATS)
