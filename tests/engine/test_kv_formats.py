"""Number formats and quantisers of the cache, code by code against ml_dtypes and against exact bounds."""

import ml_dtypes
import numpy as np
import pytest

from kvplan.engine import kv_codecs
from kvplan.engine.kv_quantisers import (
    decode_float16,
    minimum_at_most,
    quantise_asymmetric,
    quantise_symmetric,
    scale_at_least,
)

FLOATS = {
    "bf16": (kv_codecs.BFLOAT16, ml_dtypes.bfloat16, np.uint16),
    "fp16": (kv_codecs.FLOAT16, np.float16, np.uint16),
    "fp8": (kv_codecs.FLOAT8, ml_dtypes.float8_e4m3fn, np.uint8),
}


def finite_values(name):
    """Every finite number of a format, as float32."""
    _, dtype, code = FLOATS[name]
    codes = np.arange(np.iinfo(code).max + 1, dtype=np.int64).astype(code)
    values = codes.view(dtype).astype(np.float32)
    return values[np.isfinite(values)]


def through(codec, values):
    return codec.unpack(codec.pack(np.asarray(values, np.float32)))


def bits(values):
    return np.asarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize("name", FLOATS)
def test_every_finite_code_comes_back_as_itself(name):
    values = finite_values(name)
    assert len(values) == {"bf16": 65_536 - 256, "fp16": 65_536 - 2_048, "fp8": 254}[name]
    assert np.array_equal(bits(through(FLOATS[name][0], values)), bits(values))


def test_fp8_codes_are_the_standard_ones():
    codes = np.arange(256, dtype=np.uint8)
    values = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    finite = np.isfinite(values)
    assert np.array_equal(kv_codecs.float8_bits(values[finite]).view(np.uint8), codes[finite])


def test_bf16_words_hold_channel_d_below_and_d_plus_half_above():
    values = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    assert kv_codecs.BFLOAT16.pack(values).tolist() == [0x3F00_3F80, 0x4040_C000]


def test_int4_bytes_hold_channel_d_below_and_d_plus_half_above():
    assert kv_codecs.INT4.pack(np.array([1, 2, 15, 0], np.float32)).tolist() == [0xF1, 0x02]


def test_int2_bytes_hold_each_quarter_of_the_channels_two_bits_higher():
    values = np.array([1, 2, 3, 0, 2, 1, 0, 3], np.float32)
    # Byte 0 has channels 0, 2, 4 and 6: 1, 3, 2, 0, the first lowest; byte 1 has 2, 0, 1, 3.
    assert kv_codecs.INT2.pack(values).tolist() == [0b00_10_11_01, 0b11_01_00_10]


@pytest.mark.parametrize("name", ["FLOAT32", "BFLOAT16", "FLOAT16", "FLOAT8", "INT8", "INT4", "INT2"])
def test_no_vectors_make_no_words(name):
    """A compressor that waits for more tokens has nothing to store in most steps."""
    codec = getattr(kv_codecs, name)
    words = codec.pack(np.empty((0, 2, 16), np.float32))
    assert words.shape == (0, 2, 16 // codec.planes)
    assert codec.unpack(words).shape == (0, 2, 16)


def numbers_to_round(name):
    """Random float32 numbers of every size, halfway cases and their neighbours, subnormals, limits."""
    rng = np.random.default_rng(7)
    held = np.sort(np.unique(finite_values(name).astype(np.float64)))
    ties = ((held[1:] + held[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(ties, np.float32(sign * np.inf), dtype=np.float32) for sign in (-1, 1)]
    any_bits = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    largest = float(held[-1])
    spread = rng.standard_normal(100_000) * 2.0 ** rng.integers(-30, 9, 100_000)
    found = np.concatenate([held.astype(np.float32), ties, *near, any_bits, spread.astype(np.float32)])
    return found[np.isfinite(found) & (np.abs(found) <= largest)]


def nearest_even(name, values):
    """Round by searching the magnitudes of a format; their order is that of their codes."""
    held = np.unique(np.abs(finite_values(name)).astype(np.float64))
    wanted = np.abs(values.astype(np.float64))
    above = np.clip(np.searchsorted(held, wanted), 1, len(held) - 1)
    low, high = held[above - 1], held[above]
    up = (high - wanted < wanted - low) | ((high - wanted == wanted - low) & (above % 2 == 0))
    return np.copysign(np.where(up, high, low), values).astype(np.float32)


@pytest.mark.parametrize("name", FLOATS)
def test_rounding_is_to_nearest_even(name):
    codec, dtype, _ = FLOATS[name]
    values = numbers_to_round(name)
    values = values[: len(values) // 2 * 2]
    found = through(codec, values)
    assert len(values) > 100_000
    assert np.array_equal(bits(found), bits(nearest_even(name, values)))
    assert np.array_equal(bits(found), bits(values.astype(dtype).astype(np.float32)))


@pytest.mark.parametrize(
    ("name", "largest"), [("bf16", 3.3895313892515355e38), ("fp16", 65_504), ("fp8", 448)]
)
def test_larger_numbers_saturate(name, largest):
    beyond = np.array([np.nextafter(np.float32(largest), np.float32(np.inf)), 3.4028234e38], np.float32)
    assert through(FLOATS[name][0], beyond).tolist() == [np.float32(largest)] * 2
    assert through(FLOATS[name][0], -beyond).tolist() == [-np.float32(largest)] * 2


def test_float32_is_stored_as_it_is():
    values = np.array([1.1, -3e-40, 3e38, 0.0], np.float32)
    assert np.array_equal(bits(through(kv_codecs.FLOAT32, values)), bits(values))


@pytest.mark.parametrize("name", ["INT8", "INT4", "INT2"])
def test_every_integer_code_comes_back(name):
    codec = getattr(kv_codecs, name)
    codes = {"INT8": np.arange(-127, 128), "INT4": np.arange(256) % 16, "INT2": np.arange(256) // 3 % 4}[name]
    assert through(codec, codes).tolist() == codes.tolist()


def test_a_stored_scale_is_the_next_float16_not_below():
    values = np.abs(numbers_to_round("fp16"))
    found = decode_float16(scale_at_least(values)).astype(np.float64)
    below = np.nextafter(found.astype(np.float16), np.float16(-1)).astype(np.float64)
    assert (found >= values).all()
    assert ((below < values) | (found == 0)).all()


def test_a_stored_minimum_is_the_next_float16_not_above():
    values = numbers_to_round("fp16")
    found = decode_float16(minimum_at_most(values)).astype(np.float64)
    with np.errstate(over="ignore"):
        above = np.nextafter(found.astype(np.float16), np.float16(np.inf)).astype(np.float64)
    assert (found <= values).all()
    assert (above > values).all()


def vectors(kind):
    """Vectors as caches hold them (2,000 x 64): Gaussian, with outlier channels, tiny, constant, zero."""
    rng = np.random.default_rng(3)
    found = rng.standard_normal((2_000, 64)).astype(np.float32)
    match kind:
        case "outliers":
            found[:, [3, 17, 40, 63]] *= 20
        case "tiny":
            found *= np.float32(1e-6)
        case "constant":
            found[:] = found[:, :1]
        case "zero":
            found[:] = 0
        case "one-sided":
            found = np.abs(found) + np.float32(100)
    return found


KINDS = ["gaussian", "outliers", "tiny", "constant", "zero", "one-sided"]
# The spacing of float16 near zero, by which a stored scale or minimum may miss the exact one.
GRAIN = 2.0**-24


@pytest.mark.parametrize("kind", KINDS)
def test_int8_error_is_half_a_step(kind):
    values = vectors(kind).astype(np.float64)
    codes, scale_bits = quantise_symmetric(values.astype(np.float32))
    scales = decode_float16(scale_bits).astype(np.float64)
    step = np.abs(values).max(axis=1) / 127
    assert np.abs(codes).max() <= 127
    assert (scales <= step * (1 + 2**-10) + GRAIN).all()
    assert (np.abs(codes * scales[:, None] - values) <= scales[:, None] / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("largest", [15, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_error_above_a_minimum_is_half_a_step(kind, largest):
    values = vectors(kind).astype(np.float64)
    codes, scale_bits, minimum_bits = quantise_asymmetric(values.astype(np.float32), np.float32(largest))
    scales = decode_float16(scale_bits).astype(np.float64)
    minima = decode_float16(minimum_bits).astype(np.float64)
    spread = values.max(axis=1) - values.min(axis=1) + np.abs(values.min(axis=1)) * 2**-10 + GRAIN
    assert codes.min() >= 0
    assert codes.max() <= largest
    assert (scales <= spread / largest * (1 + 2**-10) + GRAIN).all()
    restored = codes * scales[:, None] + minima[:, None]
    rounding = np.abs(values).max() * 2**-23
    assert (np.abs(restored - values) <= scales[:, None] / 2 * (1 + 1e-6) + rounding).all()


def test_numbers_past_float16_saturate_in_integer_caches():
    values = np.array([[-1e9, 1e9, 0.0, 5.0]], np.float32)
    codes, scale_bits = quantise_symmetric(values)
    assert codes.tolist() == [[-127, 127, 0, 0]]
    assert decode_float16(scale_bits).tolist() == [65_504]
    codes, scale_bits, minimum_bits = quantise_asymmetric(values, np.float32(15))
    assert codes.tolist() == [[0, 15, 1, 1]]
    assert (decode_float16(scale_bits).tolist(), decode_float16(minimum_bits).tolist()) == (
        [65_504],
        [-65_504],
    )
