"""How cached numbers become bits and come back: one codec for each number format.

A codec stores ``planes`` channels in one word: channel ``d`` with channel ``d + dim / planes``, so that
every plane of a tile is contiguous and comes back in a few whole-array passes. Where those passes only
move bits, what results differs from the number in a way that is linear, and put right outside the tile:

- ``power``: the float32 number is ``2^power`` too small (exponent bias of a smaller float);
- ``excess``: each plane is too large by ``excess`` times the next (words cast unmasked).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[Any]

LARGEST_BF16 = np.float32(2.0**127 * (2 - 2.0**-7))
LARGEST_FP16 = np.float32(65504.0)
LARGEST_FP8 = np.float32(448.0)


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """A number format of the tile store.

    Args:
        dtype: of the stored words.
        planes: channels in a word.
        pack: from values (..., dim) to words (..., dim / planes).
        expand: from words (...) to expanded numbers (planes, ...), written to its second argument.
        power: expanded numbers are ``2^power`` too small.
        excess: how many times each plane but the last has the next one in it.
    """

    dtype: type[np.generic]
    planes: int
    pack: Callable[[F32], Words]
    expand: Callable[[Words, F32], None]
    power: int = 0
    excess: int = 0

    @property
    def in_place(self) -> bool:
        """Whether stored words are float32 numbers as they are."""
        return self.dtype is np.float32

    def unpack(self, words: Words) -> F32:
        """Return the values (..., dim) of words (..., dim / planes), exactly."""
        out = np.empty((self.planes, *words.shape), np.float32)
        self.expand(words, out)
        if self.excess:
            out[:-1] -= np.float32(self.excess) * out[1:]
        if self.power:
            out *= np.float32(2.0**self.power)
        return np.concatenate(out, axis=-1)


def bfloat16_bits(values: F32) -> NDArray[np.uint32]:
    """Return the bfloat16 codes of float32 numbers, rounded to nearest even, saturating."""
    bits = np.clip(values, -LARGEST_BF16, LARGEST_BF16).view(np.uint32)
    return (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)


def float16_bits(values: F32) -> NDArray[np.int16]:
    """Return the IEEE 754 binary16 codes of float32 numbers, rounded to nearest even, saturating."""
    return np.clip(values, -LARGEST_FP16, LARGEST_FP16).astype(np.float16).view(np.int16)


def float8_bits(values: F32) -> NDArray[np.int8]:
    """Return the e4m3fn codes (OCP 8-bit floating point 1.0) of float32 numbers, to nearest even, saturating.

    From 2^-6 up the mantissa is rounded to three bits in place; below, codes are multiples of 2^-9.
    """
    magnitude = np.minimum(np.abs(values), LARGEST_FP8)
    bits = magnitude.view(np.uint32)
    normal = (bits + np.uint32(0x7FFFF) + (bits >> np.uint32(20) & np.uint32(1))) >> np.uint32(20)
    small = np.rint(magnitude * np.float32(512)).astype(np.uint32)
    codes = np.where(magnitude < np.float32(2**-6), small, normal - np.uint32(120 << 3))
    signed: NDArray[np.uint8] = (codes | np.signbit(values).astype(np.uint32) << np.uint32(7)).astype(
        np.uint8
    )
    return signed.view(np.int8)


def widen_float16(codes: NDArray[np.int16], out: F32) -> None:
    """Write finite binary16 codes as float32 numbers, ``2^112`` too small, to out of the same shape.

    Sign extension puts the sign in place and copies of it between sign and exponent, which are cleared.
    """
    bits = out.view(np.int32)
    np.copyto(bits, codes)
    np.left_shift(bits, np.int32(13), out=bits)
    np.bitwise_and(bits, np.int32(0x8FFFFFFF - 2**32), out=bits)


def _pack_bfloat16(values: F32) -> Words:
    codes = bfloat16_bits(values)
    half = codes.shape[-1] // 2
    return codes[..., :half] | codes[..., half:] << np.uint32(16)


def _expand_bfloat16(words: Words, out: F32) -> None:
    bits = out.view(np.uint32)
    np.left_shift(words, np.uint32(16), out=bits[0])
    np.bitwise_and(words, np.uint32(0xFFFF0000), out=bits[1])


def _expand_float16(words: Words, out: F32) -> None:
    widen_float16(words, out[0])


def _expand_float8(words: Words, out: F32) -> None:
    bits = out[0].view(np.int32)
    np.copyto(bits, words)
    np.left_shift(bits, np.int32(20), out=bits)
    np.bitwise_and(bits, np.int32(0x87FFFFFF - 2**32), out=bits)


def _copy(words: Words, out: F32) -> None:
    np.copyto(out[0], words)


def _in_bytes(bits: int) -> Codec:
    """Return the codec of whole numbers of so many bits, as many to a byte as there is room for."""
    planes = 8 // bits

    def pack(values: F32) -> Words:
        *rows, columns = values.shape
        codes = values.astype(np.uint8).reshape(*rows, planes, columns // planes)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
        words: NDArray[np.uint8] = np.bitwise_or.reduce(codes << shifts, axis=-2)
        return words

    def expand(words: Words, out: F32) -> None:
        # The first plane is the work area of the others.
        shifted = out[0].reshape(-1).view(np.uint8)[: words.size].reshape(words.shape)
        for plane in range(1, planes):
            np.right_shift(words, np.uint8(bits * plane), out=shifted)
            np.copyto(out[plane], shifted)
        np.copyto(out[0], words)

    return Codec(np.uint8, planes, pack, expand, excess=1 << bits)


FLOAT32 = Codec(np.float32, 1, lambda values: values, _copy)
BFLOAT16 = Codec(np.uint32, 2, _pack_bfloat16, _expand_bfloat16)
FLOAT16 = Codec(np.int16, 1, float16_bits, _expand_float16, power=112)
FLOAT8 = Codec(np.int8, 1, float8_bits, _expand_float8, power=120)
INT8 = Codec(np.int8, 1, lambda values: values.astype(np.int8), _copy)
INT4 = _in_bytes(4)
INT2 = _in_bytes(2)
