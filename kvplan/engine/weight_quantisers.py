"""Matrices as they come back from a storage format: its scales, and its numbers nearest to the weights.

Every function takes tiles ``(copies, tiles, elements)``: the last axis shares what is stored beside it, the
second is one matrix, the first the experts of a stack. Rounding is to nearest: the search of AWQ and GPTQ
for better codes needs text, which random weights have none of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.kv_codecs import F32, FLOAT8, LARGEST_FP8, float16_bits
from kvplan.engine.kv_quantisers import decode_float16
from kvplan.errors import UsageError
from kvplan.storage import WeightFormat

FloatArray: TypeAlias = NDArray[np.floating]
Quantiser: TypeAlias = Callable[[F32], F32]

# bitsandbytes, csrc/kernels.cu: quantiles of a normal distribution (QLoRA, arXiv 2305.14314, appendix E).
NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
# bitsandbytes, functional.py, get_4bit_type("fp4"): twelfths, and one far smaller.
_FP4 = np.array([0.0625, 2, 3, 4, 6, 8, 12]) / 12
FP4 = np.concatenate([-_FP4[::-1], [0], _FP4]).astype(np.float32)
_TABLES = {"nf4": NF4, "fp4": FP4}
LARGEST_E2M1 = np.float32(6)
# Of e2m1 numbers, 4 and 6 have the largest exponent: 2 (OCP Microscaling 1.0, table 5).
_E2M1_EXPONENT = 2


def quantiser(storage: WeightFormat) -> Quantiser:
    """Return how tiles come back from a format that packs matrices.

    Raises:
        UsageError: none is written for this format.
    """
    match storage.name:
        case "fp8" | "fp8-block" | "fp8-row" | "fp8-static":
            return fp8
        case "mxfp8":
            return mxfp8
        case "int8" | "int8-tensor":
            return int8
        case "nf4" | "fp4":
            table = _TABLES[storage.name]
            return lambda tiles: from_table(tiles, table)
        case "nf4-double" | "fp4-double":
            table = _TABLES[storage.name.removesuffix("-double")]
            return lambda tiles: doubly_quantised(tiles, table, storage.scales_per_scale)
        case "mxfp4" | "mxfp4-a16":
            return mxfp4
        case "nvfp4" | "nvfp4-static" | "nvfp4-a16":
            return nvfp4
        case name if name.startswith(("int4-sym", "int8-sym", "int4-kimi")):
            return lambda tiles: symmetric(tiles, storage.bits)
        case name if name.startswith(("int4", "int8")):
            return lambda tiles: with_zero(tiles, storage.bits)
        case "q8_0":
            return q8_0
        case "q4_0":
            return lambda tiles: _ggml_signed(tiles, 16)
        case "q5_0":
            return lambda tiles: _ggml_signed(tiles, 32)
        case "q4_1":
            return lambda tiles: _ggml_shifted(tiles, 16)
        case "q5_1":
            return lambda tiles: _ggml_shifted(tiles, 32)
    raise UsageError(
        f"what {storage.name} does to weights is not measured",
        hint="of the GGUF types q8_0, q5_1, q5_0, q4_1 and q4_0 are",
    )


def fp8(tiles: F32) -> F32:
    """Return e4m3 numbers times a float32 scale that makes the largest one 448."""
    scales = _no_zeros(_largest(tiles) / LARGEST_FP8)
    return FLOAT8.unpack(FLOAT8.pack(tiles / scales)) * scales


def int8(tiles: F32) -> F32:
    """Return codes -127..127 times a float32 scale."""
    scales = _no_zeros(_largest(tiles) / np.float32(127))
    return _clip(np.rint(tiles / scales), -127, 127) * scales


def with_zero(tiles: F32, bits: int) -> F32:
    """Return codes of so many bits less a zero that is one of them, times a float16 scale (AWQ, GPTQ).

    The range has zero in it (AutoGPTQ, Quantizer.find_params), so that a code can mark it.
    """
    most = 2**bits - 1
    lowest = np.minimum(tiles.min(axis=-1, keepdims=True), 0)
    highest = np.maximum(tiles.max(axis=-1, keepdims=True), 0)
    scales = _no_zeros(_as_float16((highest - lowest) / np.float32(most)))
    zeros = _clip(np.rint(-lowest / scales), 0, most)
    return (_clip(np.rint(tiles / scales) + zeros, 0, most) - zeros) * scales


def symmetric(tiles: F32, bits: int) -> F32:
    """Return signed codes of so many bits times a 16-bit scale (compressed-tensors, symmetric).

    The scale spreads all codes over twice the largest number (compressed-tensors, calculate_qparams).
    """
    half = 2 ** (bits - 1)
    scales = _no_zeros(_as_float16(_largest(tiles) / np.float32(half - 0.5)))
    return _clip(np.rint(tiles / scales), -half, half - 1) * scales


def mxfp8(tiles: F32) -> F32:
    """Return e4m3 numbers times a power of two (OCP Microscaling 1.0, section 6.3): 448 is in 2 to the 8."""
    largest = _largest(tiles)
    scales: F32 = np.ldexp(np.ones_like(largest), np.clip(np.frexp(largest)[1] - 1 - 8, -127, 127))
    return FLOAT8.unpack(FLOAT8.pack(np.clip(tiles / scales, -LARGEST_FP8, LARGEST_FP8))) * scales


def from_table(tiles: F32, table: F32) -> F32:
    """Return numbers of a table from -1 to 1 times a float32 scale that makes the largest one 1."""
    scales = _no_zeros(_largest(tiles))
    return _nearest(table, tiles / scales) * scales


def doubly_quantised(tiles: F32, table: F32, scales_per_scale: int) -> F32:
    """Return numbers of a table times scales that are quantised themselves (bitsandbytes, quantize_4bit).

    What a matrix's scales are above their mean is stored in 8 bits, with a float32 scale for some of them
    together.
    """
    scales = _largest(tiles)
    codes = _nearest(table, tiles / _no_zeros(scales))
    mean = scales.mean(axis=1, keepdims=True)
    starts = range(scales_per_scale, tiles.shape[1], scales_per_scale)
    parts = [_from_dynamic_map(part) for part in np.split(scales - mean, starts, axis=1)]
    stored: F32 = np.concatenate(parts, axis=1) + mean
    return codes * stored


def dynamic_map() -> F32:
    """Return the 256 numbers an 8-bit scale can be (bitsandbytes, functional.py, create_dynamic_map).

    In each decade down to a millionth there are half as many as in the one above, evenly spread.
    """
    decades = [_middles(np.linspace(0.1, 1, 2**power + 1)) * 10.0 ** (power - 6) for power in range(7)]
    above = np.concatenate(decades)
    numbers: F32 = np.sort(np.concatenate([-above, [0], above, [1]])).astype(np.float32)
    return numbers


def _from_dynamic_map(values: F32) -> F32:
    largest = _no_zeros(np.abs(values).max(axis=1, keepdims=True))
    return _nearest(dynamic_map(), values / largest) * largest


def _nearest(table: F32, values: F32) -> F32:
    nearest: F32 = table[np.searchsorted(_middles(table), values)]
    return nearest


def _middles(numbers: FloatArray) -> FloatArray:
    middles: FloatArray = (numbers[:-1] + numbers[1:]) / 2
    return middles


def mxfp4(tiles: F32) -> F32:
    """Return e2m1 numbers times a power of two (OCP Microscaling 1.0, section 6.3).

    The scale is the largest element's own power of two, less that of e2m1's largest number: elements
    above six times it saturate.
    """
    largest = _largest(tiles)
    powers = np.frexp(largest)[1] - 1 - _E2M1_EXPONENT
    scales: F32 = np.ldexp(np.ones_like(largest), np.clip(powers, -127, 127))
    return nearest_e2m1(tiles / scales) * scales


def nvfp4(tiles: F32) -> F32:
    """Return e2m1 numbers times an e4m3 scale and a float32 one for the matrix (NVIDIA modelopt).

    The matrix's scale makes the largest of its e4m3 scales 448.
    """
    largest = _largest(tiles)
    whole = _no_zeros(largest.max(axis=1, keepdims=True) / (LARGEST_E2M1 * LARGEST_FP8))
    scales = _no_zeros(FLOAT8.unpack(FLOAT8.pack(largest / LARGEST_E2M1 / whole))) * whole
    return nearest_e2m1(tiles / scales) * scales


def q8_0(tiles: F32) -> F32:
    """Return codes -127..127, made with the exact scale, times the scale in float16 (ggml-quants.c)."""
    scales = _largest(tiles) / np.float32(127)
    codes: F32 = np.rint(tiles / _no_zeros(scales))
    return codes * _as_float16(scales)


def nearest_e2m1(values: F32) -> F32:
    """Return the nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with its sign; ties to the even code.

    Numbers are half apart below 2, one apart below 4, and two apart from there on.
    """
    magnitudes = np.minimum(np.abs(values), LARGEST_E2M1)
    apart = np.where(magnitudes < 2, np.float32(0.5), np.where(magnitudes < 4, np.float32(1), np.float32(2)))
    found: F32 = np.copysign(np.rint(magnitudes / apart) * apart, values)
    return found


def _ggml_signed(tiles: F32, codes: int) -> F32:
    """Return what q4_0 and q5_0 store (ggml-quants.c): the largest number is the lowest code exactly."""
    half = codes // 2
    at = np.abs(tiles).argmax(axis=-1, keepdims=True)
    scales = np.take_along_axis(tiles, at, axis=-1) / np.float32(-half)
    found = np.floor(tiles / _no_zeros(scales) + np.float32(half + 0.5))
    return (_clip(found, 0, codes - 1) - np.float32(half)) * _as_float16(scales)


def _ggml_shifted(tiles: F32, codes: int) -> F32:
    """Return what q4_1 and q5_1 store (ggml-quants.c): a float16 minimum is code zero."""
    minima = tiles.min(axis=-1, keepdims=True)
    scales = (tiles.max(axis=-1, keepdims=True) - minima) / np.float32(codes - 1)
    found = np.floor((tiles - minima) / _no_zeros(scales) + np.float32(0.5))
    return _clip(found, 0, codes - 1) * _as_float16(scales) + _as_float16(minima)


def _largest(tiles: F32) -> F32:
    return np.asarray(np.abs(tiles).max(axis=-1, keepdims=True))


def _no_zeros(scales: F32) -> F32:
    """Return scales to divide by: where all elements are zero, any would do."""
    return np.where(scales == 0, np.float32(1), scales)


def _as_float16(values: F32) -> F32:
    return decode_float16(float16_bits(values))


def _clip(codes: F32, lowest: int, highest: int) -> F32:
    return np.clip(codes, np.float32(lowest), np.float32(highest), out=codes)
