"""Tensors of GGUF files have the values that ggml's layouts give them, decoded here bit by bit.

Layouts: ggml-common.h; what they mean: dequantize_row_* in ggml-quants.c.
"""

import runpy
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvplan.checkpoint.gguf_tensors import READ, GgufFile
from kvplan.errors import UsageError
from kvplan.specs.gguf_header import read_header

by_hand = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "data" / "gguf_bytes.py")))

IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_VALUES = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)


def half(content):
    return struct.unpack("<e", content)[0]


def low_then_high(content):
    """The low half-bytes, then the high ones."""
    return [byte & 15 for byte in content] + [byte >> 4 for byte in content]


def f32(block):
    return [struct.unpack("<f", block)[0]]


def f16(block):
    return [half(block)]


def bf16(block):
    return [struct.unpack("<f", b"\0\0" + block)[0]]


def q8_0(block):
    return [half(block[:2]) * q for q in struct.unpack("<32b", block[2:])]


def q4_0(block):
    return [half(block[:2]) * (q - 8) for q in low_then_high(block[2:])]


def q4_1(block):
    return [half(block[:2]) * q + half(block[2:4]) for q in low_then_high(block[4:])]


def fifth_bits(content):
    (bits,) = struct.unpack("<I", content)
    return [(bits >> index & 1) << 4 for index in range(32)]


def q5_0(block):
    whole = zip(low_then_high(block[6:]), fifth_bits(block[2:6]), strict=True)
    return [half(block[:2]) * (low + high - 16) for low, high in whole]


def q5_1(block):
    whole = zip(low_then_high(block[8:]), fifth_bits(block[4:8]), strict=True)
    return [half(block[:2]) * (low + high) + half(block[2:4]) for low, high in whole]


def two_bits(content):
    """32 bytes have the first of their four numbers each, then the second..., and so the next 32."""
    halves = (content[:32], content[32:])
    return [byte >> shift & 3 for part in halves for shift in (0, 2, 4, 6) for byte in part]


def q2_k(block):
    scales, d, least = block[:16], half(block[80:82]), half(block[82:])
    numbers = two_bits(block[16:80])
    return [d * (scales[i // 16] & 15) * q - least * (scales[i // 16] >> 4) for i, q in enumerate(numbers)]


def q3_k(block):
    masks, packed, d = block[:32], block[96:108], half(block[108:])
    low = low_then_high(packed[:8])
    scales = [low[i] | (packed[8 + i % 4] >> 2 * (i // 4) & 3) << 4 for i in range(16)]
    third = [masks[i % 32] >> (i // 32) & 1 for i in range(256)]
    numbers = enumerate(two_bits(block[32:96]))
    return [d * (scales[i // 16] - 32) * (q + 4 * third[i] - 4) for i, q in numbers]


def six_bit_pairs(packed):
    """Eight scales and eight minima of six bits each in 12 bytes."""
    scales = [packed[i] & 63 for i in range(4)]
    scales += [packed[i + 8] & 15 | packed[i] >> 6 << 4 for i in range(4)]
    least = [packed[i + 4] & 63 for i in range(4)]
    least += [packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4 for i in range(4)]
    return scales, least


def nibbles_by_32(content):
    parts = [content[start : start + 32] for start in range(0, 128, 32)]
    return [number for part in parts for number in low_then_high(part)]


def q4_k(block):
    d, dmin = half(block[:2]), half(block[2:4])
    scales, least = six_bit_pairs(block[4:16])
    numbers = enumerate(nibbles_by_32(block[16:]))
    return [d * scales[i // 32] * q - dmin * least[i // 32] for i, q in numbers]


def q5_k(block):
    d, dmin = half(block[:2]), half(block[2:4])
    scales, least = six_bit_pairs(block[4:16])
    fifth = [block[16 + i % 32] >> (i // 32) & 1 for i in range(256)]
    numbers = enumerate(nibbles_by_32(block[48:]))
    return [d * scales[i // 32] * (q + 16 * fifth[i]) - dmin * least[i // 32] for i, q in numbers]


def q6_k(block):
    scales, d = struct.unpack("<16b", block[192:208]), half(block[208:])
    low = [n for start in (0, 64) for n in low_then_high(block[start : start + 64])]
    high = two_bits(block[128:192])
    return [d * scales[i // 16] * ((low[i] | high[i] << 4) - 32) for i in range(256)]


def iq4_nl(block):
    return [half(block[:2]) * IQ4_VALUES[q] for q in low_then_high(block[2:])]


def iq4_xs(block):
    d, (high,) = half(block[:2]), struct.unpack("<H", block[2:4])
    low = [block[4 + i // 2] >> 4 * (i % 2) & 15 for i in range(8)]
    scales = [(low[i] | (high >> 2 * i & 3) << 4) - 32 for i in range(8)]
    parts = [low_then_high(block[8 + start : 24 + start]) for start in range(0, 128, 16)]
    return [d * scales[i] * IQ4_VALUES[q] for i, part in enumerate(parts) for q in part]


def mxfp4(block):
    return [2.0 ** (block[0] - 127) * FP4_VALUES[q] for q in low_then_high(block[1:])]


# Where in a block its float16 numbers are: what is drawn at random there could be no number.
HALVES = {
    "F32": (),
    "F16": (0,),
    "BF16": (),
    "Q8_0": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "MXFP4": (),
}


def drawn_block(kind, random):
    """Return a block of any bits, whose scales are ordinary numbers."""
    block = bytearray(random.bytes(by_hand.TYPES[kind][2]))
    for at in HALVES[kind]:
        block[at : at + 2] = struct.pack("<e", random.uniform(-2, 2))
    if kind == "F32":
        block[:] = struct.pack("<f", random.uniform(-2, 2))
    if kind == "BF16":
        block[:] = struct.pack("<f", random.uniform(-2, 2))[2:]
    if kind == "MXFP4":
        block[0] = random.integers(110, 140)
    return bytes(block)


def test_every_type_that_is_read_is_decoded_here():
    assert set(HALVES) == set(READ)


@pytest.mark.parametrize("kind", READ)
def test_values_are_those_of_the_layout(kind, tmp_path):
    decode, random = globals()[kind.lower()], np.random.default_rng(7)
    _, width, _ = by_hand.TYPES[kind]
    blocks = [drawn_block(kind, random) for _ in range(3 * 2)]
    tensors = {"a.weight": (kind, (3, 2 * width), b"".join(blocks))}
    tensors["b.weight"] = tensors["a.weight"]
    path = tmp_path / "tiny.gguf"
    path.write_bytes(by_hand.file(by_hand.LLAMA, tensors))

    file = GgufFile(read_header(path))

    assert file.names() == ("a.weight", "b.weight")
    assert file.shape("b.weight") == (3, 2 * width)
    expected = np.array([value for block in blocks for value in decode(block)]).reshape(3, 2 * width)
    for name in file.names():
        found = file.read(name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_what_is_read_is_an_array_of_its_own(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(by_hand.llama())
    file = GgufFile(read_header(path))
    file.read("output_norm.weight")[:] = 1
    assert not file.read("output_norm.weight").any()


@pytest.mark.parametrize("kind", sorted(set(by_hand.TYPES) - set(READ)))
def test_a_type_that_is_not_read_is_refused_by_its_name(kind, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(by_hand.llama(kinds={"blk.0.attn_v.weight": kind}))
    header = read_header(path)
    with pytest.raises(UsageError, match=rf"tiny.gguf: tensor 'blk.0.attn_v.weight' is stored as {kind}"):
        GgufFile(header)
