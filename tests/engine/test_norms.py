"""Norms against their definitions in float64."""

import numpy as np
import pytest

from kvplan.arch.norm import Norm
from kvplan.engine.counter import Counter
from kvplan.engine.norms import GatedRMSNorm, LayerNorm, RMSNorm, make_norm

EPS = 1e-5


def normal(*shape, seed=0, scale=1.0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32) * np.float32(scale)


def rms(x):
    wide = x.astype(np.float64)
    return wide / np.sqrt((wide**2).mean(-1, keepdims=True) + EPS)


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=2e-6, atol=1e-6)


# Rows of a residual stream; heads of queries; a row so small that eps decides; a row of one element.
@pytest.mark.parametrize("shape", [(5, 96), (3, 4, 32), (1, 1)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_rms_norm(shape, scale):
    x, weight = normal(*shape, scale=scale), normal(shape[-1], seed=1)
    before = x.copy()
    assert_close(RMSNorm(weight, EPS)(x, Counter()), rms(x) * weight)
    assert_close(RMSNorm(weight, EPS, unit_offset=True)(x, Counter()), rms(x) * (1.0 + weight))
    assert np.array_equal(x, before)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_layer_norm(scale):
    x, weight, bias = normal(5, 96, scale=scale), normal(96, seed=1), normal(96, seed=2)
    x += np.float32(2 * scale)
    before = x.copy()
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS) * weight + bias
    assert np.allclose(LayerNorm(weight, bias, EPS)(x, Counter()), expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(x, before)


def test_gated_rms_norm():
    x, gate, weight = normal(5, 4, 32), normal(5, 4, 32, seed=1, scale=3), normal(32, seed=2)
    wide = gate.astype(np.float64)
    expected = rms(x) * weight * wide / (1 + np.exp(-wide))
    assert_close(GatedRMSNorm(weight, EPS)(x, gate, Counter()), expected)


def test_a_row_of_zeros_stays_zero():
    assert not RMSNorm(normal(8), EPS)(np.zeros((2, 8), np.float32), Counter()).any()


@pytest.mark.parametrize("kind", Norm)
def test_norms_are_made_by_kind(kind):
    """Each of the tensors its description has, in float64."""
    x = normal(3, 16) + np.float32(0.7)
    weights = {
        weight.name: normal(*weight.shape, seed=1 + (".bias" in weight.name))
        for weight in kind.weights("a", 16)
    }
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    weight, bias = weights.get("a.weight"), weights.get("a.bias")
    expected = {
        Norm.RMS: lambda: rms(x) * weight,
        Norm.RMS_UNIT_OFFSET: lambda: rms(x) * (1.0 + weight),
        Norm.LAYER: lambda: rms(centred) * weight + bias,
        Norm.LAYER_NO_BIAS: lambda: rms(centred) * weight,
        Norm.LAYER_UNIT: lambda: rms(centred),
        Norm.LAYER_UNIT_OFFSET: lambda: rms(centred) * (1.0 + weight) + bias,
    }
    assert_close(make_norm(kind, weights, "a", EPS)(x, Counter()), expected[kind]())


def test_bytes_are_those_of_the_elements_and_read_once_a_call():
    weight, bias, x = normal(16), normal(16), normal(3, 16)
    norms = {64: RMSNorm(weight, EPS), 128: LayerNorm(weight, bias, EPS)}
    for nbytes, norm in norms.items():
        counter = Counter()
        norm(x, counter)
        assert norm.nbytes == nbytes
        assert counter == Counter(weights_read_bytes=nbytes)
    offset, gated, counter = RMSNorm(weight, EPS, unit_offset=True), GatedRMSNorm(weight, EPS), Counter()
    assert offset.nbytes == gated.nbytes == 64
    gated(x, x.copy(), counter)
    assert counter == Counter(weights_read_bytes=64)
