"""Weight formats against the numbers each can hold: those of ml_dtypes, of papers, and of ggml."""

from statistics import NormalDist

import ml_dtypes
import numpy as np
import pytest

from kvplan.engine.weight_quantisers import FP4, NF4, dynamic_map, nearest_e2m1, quantiser
from kvplan.errors import UsageError
from kvplan.storage import WEIGHT_FORMATS, weight_format

SYMMETRIC = [
    *("int4-kimi int4-sym-g32 int4-sym-g64 int4-sym-g128 int4-sym-row int4-sym-actorder-g32".split()),
    *("int4-sym-actorder-g64 int4-sym-actorder-g128 int8-sym-g32 int8-sym-g64 int8-sym-g128".split()),
    *("int8-sym-row int8-sym-actorder-g32 int8-sym-actorder-g64 int8-sym-actorder-g128".split()),
]
WITH_ZEROS = [
    *("int4 int4-gptq int4-awq-g32 int4-awq-g64 int4-gptq-g32 int4-gptq-g64 int4-gptq-row".split()),
    *("int4-asym-g32 int4-asym-g64 int4-asym-g128 int4-asym-row".split()),
    *("int8-gptq-g32 int8-gptq-g64 int8-gptq-g128 int8-gptq-row".split()),
]
ONE_SCALE = [
    *"fp8 fp8-block fp8-row fp8-static mxfp8 int8 int8-tensor nf4 fp4 mxfp4 mxfp4-a16".split(),
    *"nvfp4 nvfp4-static nvfp4-a16".split(),
    *SYMMETRIC,
    *WITH_ZEROS,
]
DOUBLE = ["nf4-double", "fp4-double"]
MEASURED = [*ONE_SCALE, *DOUBLE, *"q8_0 q4_0 q4_1 q5_0 q5_1".split()]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
SIGNED_E2M1 = np.concatenate([-E2M1, E2M1])
E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
E4M3 = E4M3[np.isfinite(E4M3)]


def through(name, tiles):
    return quantiser(weight_format(name))(np.asarray(tiles, np.float32))


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def test_e2m1_is_that_of_ml_dtypes():
    values = np.concatenate([np.linspace(-8, 8, 64_001), np.arange(-32, 33) / 4]).astype(np.float32)
    expected = np.clip(values, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert np.array_equal(nearest_e2m1(values), expected)


def test_nf4_is_made_of_the_quantiles_of_a_normal_distribution():
    """QLoRA, appendix E: eight quantiles above zero and seven below it, the outermost at 1 and -1."""
    outermost, normal = 0.9677083, NormalDist()
    above = [normal.inv_cdf(p) for p in np.linspace(outermost, 0.5, 9)[:-1]]
    below = [-normal.inv_cdf(p) for p in np.linspace(outermost, 0.5, 8)[:-1]]
    expected = np.array(sorted([*above, 0.0, *below])) / above[0]
    assert np.abs(NF4 - expected).max() < 2e-7


def test_fp4_is_that_of_bitsandbytes():
    """csrc/kernels.cu, dDequantizeFP4Tree: its eight magnitudes, as they stand there."""
    magnitudes = [0, 0.005208333, 0.16666667, 0.25, 0.33333333, 0.5, 0.66666667, 1]
    assert sorted({abs(float(number)) for number in FP4}) == pytest.approx(magnitudes, rel=1e-6)
    assert FP4.tolist() == sorted(FP4.tolist())
    assert len(FP4) == 15


def grid(name, tile, matrix):
    """Every number a format could store for a tile of a matrix, computed in float64 from its definition."""
    largest = float(np.abs(tile).max())
    bits = 8 if name.startswith("int8") else 4
    match name:
        case "fp8" | "fp8-block" | "fp8-row" | "fp8-static":
            return E4M3 * (largest / 448)
        case "mxfp8":
            return E4M3 * 2.0 ** (np.floor(np.log2(largest)) - 8)
        case "int8" | "int8-tensor":
            return np.arange(-127, 128) * (largest / 127)
        case _ if name in WITH_ZEROS:
            low, high = min(float(tile.min()), 0), max(float(tile.max()), 0)
            scale = float(np.float16((high - low) / (2**bits - 1)))
            return (np.arange(2**bits) - round(-low / scale)) * scale
        case _ if name in SYMMETRIC:
            scale = float(np.float16(largest / ((2**bits - 1) / 2)))
            return np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) * scale
        case "nf4":
            return NF4.astype(np.float64) * largest
        case "fp4":
            return FP4.astype(np.float64) * largest
        case "mxfp4" | "mxfp4-a16":
            return SIGNED_E2M1 * 2.0 ** (np.floor(np.log2(largest)) - 2)
        case "nvfp4" | "nvfp4-static" | "nvfp4-a16":
            whole = float(np.abs(matrix).max()) / (6 * 448)
            return SIGNED_E2M1 * whole * float(ml_dtypes.float8_e4m3fn(largest / 6 / whole))


@pytest.mark.parametrize("name", ONE_SCALE)
def test_every_weight_comes_back_as_the_nearest_number_its_tile_can_hold(name):
    elements = weight_format(name).tile_columns or 96
    tiles = drawn(2, 24, elements)
    tiles[:, :8] *= np.float32(0.01)
    tiles[1, 8] = np.abs(tiles[1, 8])
    found = through(name, tiles)
    for copy in range(2):
        for tile, back in zip(tiles[copy], found[copy], strict=True):
            numbers = grid(name, tile, tiles[copy])
            least = np.abs(numbers - tile[:, None].astype(np.float64)).min(axis=1)
            assert np.abs(numbers - back[:, None]).min(axis=1).max() <= 1e-6 * np.abs(tile).max()
            assert (np.abs(back - tile) <= least + 2e-6 * np.abs(tile).max()).all()


def test_scales_of_scales_are_of_256_numbers_denser_towards_zero():
    """bitsandbytes, create_dynamic_map: 64 numbers in the highest decade, 32 in the next, and so on."""
    numbers = dynamic_map()
    assert len(numbers) == len(set(numbers.tolist())) == 256
    counts = [((numbers > 10.0**-decade) & (numbers < 10.0 ** (1 - decade))).sum() for decade in range(1, 8)]
    assert counts == [64, 32, 16, 8, 4, 2, 1]
    assert set((-numbers).tolist()) - set(numbers.tolist()) == {-1.0}
    # Between 0.1 and 1 the first is half of a 64th of the way up.
    assert numbers[numbers > 0.1][0] == pytest.approx(0.1 + 0.9 / 128)


@pytest.mark.parametrize("name", DOUBLE)
def test_a_doubly_quantised_tile_is_off_by_what_its_scale_is(name):
    """Its codes are those of exact scales; each scale is the mean and the nearest of 256 numbers above it."""
    tiles = drawn(2, 600, 64)
    found, exact = through(name, tiles), through(name.removesuffix("-double"), tiles)
    largest = np.abs(tiles).max(axis=-1).astype(np.float64)
    for copy in range(2):
        mean = largest[copy].mean()
        for start in (0, 256, 512):
            part = largest[copy, start : start + 256] - mean
            numbers = dynamic_map().astype(np.float64) * np.abs(part).max()
            stored = numbers[np.abs(numbers[:, None] - part).argmin(axis=0)] + mean
            expected = (
                exact[copy, start : start + 256] * (stored / largest[copy, start : start + 256])[:, None]
            )
            assert np.abs(found[copy, start : start + 256] - expected).max() < 1e-5


def test_a_uniform_grid_has_the_error_of_one():
    """Rounding to a grid leaves an error spread evenly over a step: its mean square is step^2 / 12."""
    tiles = drawn(1, 4000, 256)
    for name, steps in [("int8", 254), ("q8_0", 254), ("q4_1", 15), ("q5_1", 31)]:
        largest, lowest = tiles.max(axis=-1), tiles.min(axis=-1)
        reach = 2 * np.abs(tiles).max(axis=-1) if steps == 254 else largest - lowest
        expected = np.square(reach / steps).mean() / 12
        assert np.square(through(name, tiles) - tiles).mean() == pytest.approx(expected, rel=0.02), name


# What the gguf package 0.19.0 makes of these 32 weights: scale, minimum, and a code for each.
WEIGHTS = ((np.arange(32) * 37) % 64 - 29) / np.float32(10)
# fmt: off
GGUF = {
    "q8_0": ("0x1.b6cp-6", "0x0p+0", [-108, 30, -71, 67, -34, 105, 4, -97, 41, -60, 78, -22, 116, 15, -86, 52, -49, 90, -11, 127, 26, -75, 64, -37, 101, 0, -101, 37, -64, 75, -26, 112]),  # noqa: E501
    "q4_0": ("-0x1.b34p-2", "0x0p+0", [7, -2, 4, -4, 2, -7, 0, 6, -3, 4, -5, 1, -7, -1, 5, -3, 3, -6, 1, -8, -2, 5, -4, 2, -6, 0, 6, -2, 4, -5, 2, -7]),  # noqa: E501
    "q4_1": ("0x1.aep-2", "-0x1.734p+1", [0, 9, 2, 11, 5, 14, 7, 1, 10, 3, 12, 5, 14, 8, 1, 10, 4, 13, 6, 15, 9, 2, 11, 5, 13, 7, 0, 9, 3, 12, 5, 14]),  # noqa: E501
    "q5_0": ("-0x1.b34p-3", "0x0p+0", [14, -4, 9, -8, 4, -13, 0, 12, -5, 8, -10, 3, -15, -2, 11, -7, 6, -11, 1, -16, -3, 9, -8, 5, -13, 0, 13, -5, 8, -9, 3, -14]),  # noqa: E501
    "q5_1": ("0x1.a04p-3", "-0x1.734p+1", [0, 18, 5, 23, 10, 28, 15, 1, 20, 6, 25, 11, 30, 16, 3, 21, 8, 26, 13, 31, 18, 4, 23, 9, 28, 14, 1, 19, 6, 24, 11, 29]),  # noqa: E501
}
# fmt: on


@pytest.mark.parametrize("name", GGUF)
def test_a_gguf_block_is_what_ggml_makes_of_it(name):
    scale, minimum, codes = GGUF[name]
    expected = np.array(codes, np.float32) * float.fromhex(scale) + float.fromhex(minimum)
    assert through(name, WEIGHTS[None, None])[0, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "codes"),
    [("q4_0", (-8, 8)), ("q4_1", (0, 16)), ("q5_0", (-16, 16)), ("q5_1", (0, 32)), ("q8_0", (-127, -95))],
)
def test_a_gguf_block_of_its_own_codes_comes_back_exactly(name, codes):
    block = np.resize(np.arange(*codes), 32).astype(np.float32)
    assert np.array_equal(through(name, block[None, None])[0, 0], block)


def test_signed_gguf_blocks_have_no_code_for_the_far_end():
    """The first of the largest numbers is code -8, and its opposite would be 8: it becomes 7."""
    block = np.zeros(32)
    block[:2] = 8, -8
    assert through("q4_0", block[None, None])[0, 0, :2].tolist() == [8, -7]


def test_mxfp4_saturates_above_six_times_its_scale():
    """7.5 has the exponent 2 and so the scale 1: the nearest e2m1 number is 6."""
    assert through("mxfp4", [[[7.5, 5.0, -2.5, 0.2]]]).tolist() == [[[6, 4, -2, 0]]]


@pytest.mark.parametrize("name", MEASURED)
def test_zeros_come_back_as_zeros(name):
    tiles = drawn(2, 3, 32)
    tiles[0, 1], tiles[1] = 0, 0
    found = through(name, tiles)
    assert np.isfinite(found).all()
    assert not found[0, 1].any()
    assert not found[1].any()
    assert found[0, 0].any()


@pytest.mark.parametrize("name", MEASURED)
def test_weights_that_are_given_are_not_changed(name):
    tiles = drawn(2, 3, 64)
    before = tiles.copy()
    assert through(name, tiles).dtype == np.float32
    assert np.array_equal(tiles, before)


def test_more_bits_and_smaller_tiles_cost_less():
    """On normal weights; the order is that of the bits, and of what a number format spends on range."""
    tiles = drawn(1, 2000, 128)

    def error(name, elements=32):
        cut = tiles.reshape(1, -1, elements)
        return np.square(through(name, cut) - cut).mean()

    names = ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
    assert [error(name) for name in names] == sorted(error(name) for name in names)
    assert error("int8", 128) < error("fp8", 128) < error("nf4", 64) < error("int4", 128)
    assert error("int4", 16) < error("int4", 128)
    assert error("nvfp4", 16) < error("mxfp4", 32)


@pytest.mark.parametrize("storage", [s for s in WEIGHT_FORMATS if s.applies_to], ids=lambda s: s.name)
def test_a_format_is_known_or_refused_by_its_name(storage):
    if storage.name in MEASURED:
        assert callable(quantiser(storage))
        return
    with pytest.raises(UsageError, match=rf"what {storage.name} does to weights is not measured") as caught:
        quantiser(storage)
    assert "q8_0" in caught.value.hint
