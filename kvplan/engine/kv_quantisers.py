"""Scales of integer caches: how a vector becomes small integers, a float16 scale and a float16 minimum.

Codes are computed with the scale and minimum as stored. A stored scale is never smaller, and a stored
minimum never larger, than the exact one, so no code is clipped: the error is at most half a stored scale.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.kv_codecs import F32, LARGEST_FP16, float16_bits, widen_float16

Bits: TypeAlias = NDArray[np.int16]

INT8_STEPS = np.float32(127)
INT4_STEPS = np.float32(15)
INT2_STEPS = np.float32(3)


def decode_float16(bits: Bits) -> F32:
    """Return the float32 numbers of finite binary16 codes."""
    out = np.empty(bits.shape, np.float32)
    widen_float16(bits, out)
    out *= np.float32(2.0**112)
    return out


def scale_at_least(values: F32) -> Bits:
    """Return the binary16 codes of the smallest numbers not below these, which are not negative."""
    wanted = np.minimum(values, LARGEST_FP16)
    bits = float16_bits(wanted)
    # Codes of positive numbers are in the order of the numbers: the next code is the next number.
    bits += decode_float16(bits) < wanted
    return bits


def minimum_at_most(values: F32) -> Bits:
    """Return the binary16 codes of the largest numbers not above these."""
    wanted = np.clip(values, -LARGEST_FP16, LARGEST_FP16)
    bits = float16_bits(wanted)
    too_large = decode_float16(bits) > wanted
    # Codes of negative numbers, minus zero among them, are in the order of their magnitudes.
    positive = bits > 0
    bits -= too_large & positive
    bits += too_large & ~positive
    return bits


def quantise_symmetric(values: F32) -> tuple[F32, Bits]:
    """Return codes -127..127 like values (..., dim), and scale codes (...): value = code x scale."""
    bits = scale_at_least(np.abs(values).max(axis=-1) / INT8_STEPS)
    return _codes(values, bits, -INT8_STEPS, INT8_STEPS), bits


def quantise_asymmetric(values: F32, steps: np.float32) -> tuple[F32, Bits, Bits]:
    """Return codes 0..steps, and scale and minimum codes (...): value = code x scale + minimum."""
    minimum_bits = minimum_at_most(values.min(axis=-1))
    shifted = values - decode_float16(minimum_bits)[..., None]
    bits = scale_at_least(shifted.max(axis=-1) / steps)
    return _codes(shifted, bits, np.float32(0), steps), bits, minimum_bits


def _codes(values: F32, scale_bits: Bits, lowest: np.float32, highest: np.float32) -> F32:
    scales = decode_float16(scale_bits)
    # A vector of zeros has scale zero, and any scale would do for it.
    scales[scales == 0] = 1
    codes: F32 = np.rint(values / scales[..., None])
    return np.clip(codes, lowest, highest, out=codes)
