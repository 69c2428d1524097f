"""Activations against Python's own functions, element by element."""

import math

import numpy as np
import pytest

from kvplan.arch.activation import Activation
from kvplan.engine.activations import XIELU, activate, activate_gated, erf, sigmoid, softplus

# Dense where the functions bend, and far enough for exp to overflow float32.
GRID = np.concatenate([np.linspace(-12, 12, 4_001), [-1e4, -300, -100, -89, -88, 88, 89, 300, 1e4]]).astype(
    np.float32
)


@pytest.fixture(autouse=True)
def overflow():
    """As in a decoder's step: sigmoids overflow, and are right."""
    with np.errstate(over="ignore"):
        yield


def logistic(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def gelu_tanh(x):
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


DEFINITIONS = {
    Activation.SILU: lambda x: x * logistic(x),
    Activation.GELU: lambda x: x / 2 * math.erfc(-x / math.sqrt(2)),
    Activation.GELU_TANH: gelu_tanh,
    Activation.RELU: lambda x: max(x, 0.0),
    Activation.RELU_SQUARED: lambda x: max(x, 0.0) ** 2,
    Activation.QUICK_GELU: lambda x: x * logistic(1.702 * x),
}


def test_every_activation_has_a_definition_but_one_with_numbers_of_its_layer():
    assert set(Activation) - set(DEFINITIONS) == {Activation.XIELU}
    with pytest.raises(ValueError, match="numbers of its layer"):
        activate(Activation.XIELU, GRID.copy())


def test_xielu():
    """Above zero a x^2 + x / 2; below it c (exp(min(x, eps)) - 1 - x) + x / 2 (arXiv 2411.13010)."""
    alpha_p, alpha_n, beta, eps = (np.array([value], np.float32) for value in (0.8, -0.4, 0.5, -0.125))
    above, below = math.log1p(math.exp(0.8)), 0.5 + math.log1p(math.exp(-0.4))
    x = np.linspace(-12, 12, 401, dtype=np.float32)
    expected = [
        above * v * v + v / 2 if v > 0 else below * (math.expm1(min(v, -0.125)) - v) + v / 2
        for v in map(float, x)
    ]
    found = XIELU(alpha_p, alpha_n, beta, eps)
    assert found.nbytes == 16
    assert np.allclose(found(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_an_activation_is_its_definition_and_is_done_in_place(kind):
    x = GRID.copy()
    expected = np.array([DEFINITIONS[kind](float(value)) for value in GRID])
    assert activate(kind, x) is x
    assert np.allclose(x, expected, rtol=1e-6, atol=5e-7)


def test_silu_keeps_its_relative_precision_where_it_is_small():
    x = np.linspace(-80, -5, 500, dtype=np.float32)
    expected = np.array([float(value) * logistic(float(value)) for value in x])
    assert np.allclose(activate(Activation.SILU, x), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_a_gated_activation_multiplies_the_activated_first_half_by_the_second(kind):
    both = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
    gate, up = both[:, :5].astype(np.float64), both[:, 5:].astype(np.float64)
    expected = np.vectorize(DEFINITIONS[kind])(gate) * up
    assert np.allclose(activate_gated(kind, both), expected, rtol=1e-5, atol=1e-6)


def test_erf_is_off_by_less_than_its_promise():
    x = np.linspace(-6, 6, 200_001, dtype=np.float32)
    exact = np.array([math.erf(float(value)) for value in x])
    assert np.abs(erf(x) - exact).max() < 1e-7
    assert erf(np.array([-1e30, -0.0, 0.0, 1e30], np.float32)).tolist() == [-1, 0, 0, 1]


def test_sigmoid_and_softplus():
    wide = [float(value) for value in GRID]
    assert np.allclose(sigmoid(GRID), [logistic(x) for x in wide], rtol=1e-6, atol=1e-37)
    expected = [max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in wide]
    assert np.allclose(softplus(GRID), expected, rtol=1e-6, atol=1e-37)
