"""Rotary embeddings against rotations done pair by pair, and each stretching rule against its paper."""

import math

import numpy as np
import pytest

from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.engine.rotary import Rotary, attention_factor, frequencies, yarn_score_factor

THETA = 10_000.0
LLAMA3 = RopeParameters(
    500_000.0,
    RopeType.LLAMA3,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8_192,
)
LONGROPE = RopeParameters(
    THETA,
    RopeType.LONGROPE,
    original_max_position_embeddings=64,
    attention_factor=1.19,
    short_factor=(1.0, 1.5, 2.0, 4.0),
    long_factor=(1.0, 3.0, 9.0, 27.0),
)


def yarn(**others):
    given = {"factor": 40.0, "original_max_position_embeddings": 4_096, **others}
    return RopeParameters(THETA, RopeType.YARN, **given)


def dynamic(factor, original):
    return RopeParameters(THETA, RopeType.DYNAMIC, factor=factor, original_max_position_embeddings=original)


def normal(*shape):
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


def turned(x, positions, speeds, partner):
    """Turn every pair by hand: ``partner(i)`` gives the elements of pair i."""
    out = x.astype(np.float64)
    for token, position in enumerate(positions):
        for pair, speed in enumerate(speeds):
            first, second = partner(pair)
            cosine, sine = math.cos(position * speed), math.sin(position * speed)
            a, b = x[token, :, first].astype(np.float64), x[token, :, second].astype(np.float64)
            out[token, :, first], out[token, :, second] = a * cosine - b * sine, b * cosine + a * sine
    return out


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("interleaved", [False, True])
def test_every_pair_is_turned_by_its_position(share, interleaved):
    x, positions = normal(5, 3, 16), np.array([0, 1, 7, 99, 7])
    rotated = int(16 * share)
    speeds = [THETA ** (-2 * pair / rotated) for pair in range(rotated // 2)]
    parameters = RopeParameters(THETA, partial_rotary_factor=share, interleaved=interleaved)
    before = x.copy()
    found = Rotary(parameters, 16, 4_096, 100).rotate(x, positions)
    halves, neighbours = lambda i: (i, i + rotated // 2), lambda i: (2 * i, 2 * i + 1)
    expected = turned(x, positions, speeds, neighbours if interleaved else halves)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=2e-6)
    assert np.array_equal(found[..., rotated:], x[..., rotated:])
    assert np.array_equal(x, before)


@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_may_be_part_of_a_wider_array(interleaved):
    wide, positions = normal(5, 3, 24), np.arange(5)
    rotary = Rotary(RopeParameters(THETA, interleaved=interleaved), 16, 4_096, 5)
    part = wide[..., 8:]
    assert np.array_equal(rotary.rotate(part, positions), rotary.rotate(part.copy(), positions))


def test_what_was_looked_up_for_one_step_is_not_used_for_another():
    x, rotary = normal(3, 2, 16), Rotary(RopeParameters(THETA), 16, 4_096, 90)
    for positions in (np.array([4, 5, 6]), np.array([70, 5, 81])):
        alone = Rotary(RopeParameters(THETA), 16, 4_096, 90)
        assert np.array_equal(rotary.rotate(x, positions), alone.rotate(x, positions))
        assert np.allclose(rotary.rotate_back(rotary.rotate(x, positions), positions), x, atol=1e-6)


def test_both_layouts_give_the_same_scores():
    queries, keys, positions = normal(6, 2, 16), normal(6, 2, 16) + 1, np.arange(6)
    apart = np.concatenate((np.arange(0, 16, 2), np.arange(1, 16, 2)))
    neighbours = Rotary(RopeParameters(THETA, interleaved=True), 16, 4_096, 6)
    halves = Rotary(RopeParameters(THETA), 16, 4_096, 6)
    one = np.einsum("qhd,khd->hqk", neighbours.rotate(queries, positions), neighbours.rotate(keys, positions))
    queries, keys = queries[..., apart], keys[..., apart]
    other = np.einsum("qhd,khd->hqk", halves.rotate(queries, positions), halves.rotate(keys, positions))
    assert np.allclose(one, other, atol=1e-5)


def test_a_position_past_the_longest_request_is_refused():
    with pytest.raises(IndexError):
        Rotary(RopeParameters(THETA), 16, 4_096, 8).rotate(normal(1, 1, 16), np.array([8]))


def test_linear_slows_every_frequency():
    slow = RopeParameters(THETA, RopeType.LINEAR, factor=4.0)
    assert np.allclose(frequencies(slow, 8, 64, 64), [1 / 4, 0.1 / 4, 0.01 / 4, 0.001 / 4], rtol=1e-12)


@pytest.mark.parametrize(("max_tokens", "stretch"), [(1, 1), (64, 1), (65, 4 * 65 / 64 - 3), (256, 13)])
def test_dynamic_stretches_the_base_past_the_models_context(max_tokens, stretch):
    theta = THETA * stretch ** (8 / 6)
    expected = [theta ** (-pair / 4) for pair in range(4)]
    assert np.allclose(frequencies(dynamic(4.0, 64), 8, 64, max_tokens), expected, rtol=1e-12)


def test_dynamic_with_two_rotated_elements_has_one_frequency():
    assert frequencies(dynamic(4.0, 64), 2, 64, 256).tolist() == [1.0]


def test_llama3_keeps_short_waves_slows_long_ones_and_blends_between():
    speeds = [500_000.0 ** (-pair / 32) for pair in range(32)]
    expected, kinds = [], set()
    for speed in speeds:
        wavelength = 2 * math.pi / speed
        smooth = (8_192 / wavelength - 1) / (4 - 1)
        kind = "short" if wavelength < 8_192 / 4 else "long" if wavelength > 8_192 / 1 else "between"
        blended = (1 - smooth) * speed / 8 + smooth * speed
        kinds.add(kind)
        expected.append({"short": speed, "long": speed / 8, "between": blended}[kind])
    assert kinds == {"short", "long", "between"}
    assert np.allclose(frequencies(LLAMA3, 64, 131_072, 64), expected, rtol=1e-12)


# How many pairs are kept, blended and slowed: by hand from 64 ln(4096 / (2 pi beta)) / (2 ln 10000).
# beta 32 gives 10.47, beta 1 gives 22.51, beta 16 gives 12.88, beta 2 gives 20.11, beta 4 gives 17.70.
@pytest.mark.parametrize(
    ("others", "first", "last"),
    [
        ({}, 10, 23),
        ({"truncate": False}, 10.472_240_8, 22.513_440_6),
        ({"beta_fast": 16.0, "beta_slow": 2.0}, 12, 21),
    ],
)
def test_yarn_keeps_fast_pairs_slows_slow_ones_and_blends_between(others, first, last):
    found = frequencies(yarn(**others), 64, 163_840, 64)
    for pair, speed in enumerate(THETA ** (-pair / 32) for pair in range(32)):
        slowed = min(max((pair - first) / (last - first), 0), 1)
        assert found[pair] == pytest.approx(speed * (1 - slowed) + speed / 40 * slowed, rel=1e-7)
    assert found[10] == pytest.approx(THETA ** (-10 / 32), rel=1e-12)
    assert found[23] == pytest.approx(THETA ** (-23 / 32) / 40, rel=1e-12)


def test_yarn_whose_blend_has_no_width_is_a_step():
    found = frequencies(yarn(beta_fast=4.0, beta_slow=4.0, truncate=False), 64, 163_840, 64)
    plain = THETA ** (-np.arange(32) / 32)
    assert np.allclose(found, np.where(np.arange(32) < 18, plain, plain / 40), rtol=1e-12)


def test_yarn_blends_within_the_head():
    # beta 1,000 gives -1.49 and beta 1e-6 gives 70.5: the blend is cut to dimensions 0 to 63.
    found = frequencies(yarn(beta_fast=1_000.0, beta_slow=1e-6), 64, 163_840, 64)
    slowed = np.arange(32) / 63
    assert np.allclose(found, THETA ** (-np.arange(32) / 32) * (1 - slowed + slowed / 40), rtol=1e-12)


@pytest.mark.parametrize(("max_tokens", "divisors"), [(64, (1, 1.5, 2, 4)), (65, (1, 3, 9, 27))])
def test_longrope_takes_its_long_divisors_past_the_trained_context(max_tokens, divisors):
    expected = [THETA ** (-pair / 4) / divisor for pair, divisor in enumerate(divisors)]
    assert np.allclose(frequencies(LONGROPE, 8, 4_096, max_tokens), expected, rtol=1e-12)


def temperature(factor, mscale):
    return 0.1 * mscale * math.log(factor) + 1


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (RopeParameters(THETA), 1.0),
        (LLAMA3, 1.0),
        (dynamic(4.0, 64), 1.0),
        (LONGROPE, 1.19),
        (yarn(), 1.368_887_9),
        (yarn(factor=1.0), 1.0),
        (yarn(factor=0.5), 1.0),
        (yarn(attention_factor=1.3), 1.3),
        (yarn(mscale=1.0, mscale_all_dim=1.0), 1.0),
        (yarn(mscale=1.0, mscale_all_dim=0.5), temperature(40, 1) / temperature(40, 0.5)),
        (yarn(mscale=0.707), 1.368_887_9),
        (yarn(mscale_all_dim=0.707), 1.368_887_9),
    ],
)
def test_the_attention_factor_lengthens_what_is_rotated_and_nothing_else(parameters, expected):
    assert attention_factor(parameters) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotated_elements_carry_the_attention_factor(interleaved):
    x = normal(3, 2, 16)
    halved = yarn(attention_factor=0.5, partial_rotary_factor=0.5, interleaved=interleaved)
    found = Rotary(halved, 16, 4_096, 8).rotate(x, np.array([0, 3, 7]))
    lengths = np.linalg.norm(x[..., :8], axis=-1)
    assert np.allclose(np.linalg.norm(found[..., :8], axis=-1), 0.5 * lengths, rtol=1e-6)
    assert np.array_equal(found[..., 8:], x[..., 8:])


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, 1.0),
        (RopeParameters(THETA), 1.0),
        (yarn(), 1.0),
        (yarn(mscale=1.0), 1.0),
        # DeepSeek-V3 and DeepSeek-V2: (0.1 m ln 40 + 1)^2 for m = 1 and m = 0.707.
        (yarn(mscale=1.0, mscale_all_dim=1.0), 1.873_854_2),
        (yarn(mscale=0.707, mscale_all_dim=0.707), 1.589_626_2),
        (yarn(mscale_all_dim=1.0), 1.873_854_2),
    ],
)
def test_latent_attention_squares_the_temperature_of_all_dimensions(parameters, expected):
    assert yarn_score_factor(parameters) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("interleaved", [False, True])
def test_what_is_turned_back_is_where_it_was(interleaved):
    """And turned back from another position it is where it would be at the distance of the two."""
    rotary = Rotary(RopeParameters(THETA, partial_rotary_factor=0.5, interleaved=interleaved), 16, 64, 64)
    x, positions = normal(3, 2, 16), np.array([0, 3, 60])
    turned = rotary.rotate(x.copy(), positions)
    np.testing.assert_allclose(rotary.rotate_back(turned, positions), x, atol=1e-5)
    nearer = rotary.rotate_back(rotary.rotate(x.copy(), positions + 3), positions)
    np.testing.assert_allclose(nearer, rotary.rotate(x.copy(), np.full(3, 3)), atol=1e-5)
