"""Dense blocks against their steps written out in float64."""

import math

import numpy as np
import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.mlp import MLP
from kvplan.arch.swiglu import Swiglu
from kvplan.engine.counter import Counter
from kvplan.engine.feed_forward import DenseBlock
from kvplan.engine.swiglu import bounded_swiglu

HIDDEN = 40


def random_weights(arch):
    """Make every weight of the description."""
    random = np.random.default_rng(1)
    return {
        weight.name: (random.standard_normal(weight.shape) * 0.4).astype(np.float32)
        for weight in arch.weights(HIDDEN)
    }


def normal(rows):
    return np.random.default_rng(2).standard_normal((rows, HIDDEN), dtype=np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


ACTIVATIONS = {
    Activation.SILU: silu,
    Activation.GELU: np.vectorize(lambda x: x / 2 * math.erfc(-x / math.sqrt(2))),
    Activation.GELU_TANH: lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    Activation.RELU: lambda x: np.maximum(x, 0),
    Activation.RELU_SQUARED: lambda x: np.maximum(x, 0) ** 2,
    Activation.QUICK_GELU: lambda x: x * sigmoid(1.702 * x),
}


def linear(weights, name, x):
    bias = weights.get(f"{name}.bias")
    product = x @ weights[f"{name}.weight"].astype(np.float64).T
    return product if bias is None else product + bias


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("mlp_bias", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_a_dense_block_is_its_two_steps(gated, mlp_bias, act):
    arch = MLP(72, gated=gated, mlp_bias=mlp_bias, hidden_act=act)
    weights, x = random_weights(arch), normal(5)
    wide = x.astype(np.float64)
    up = linear(weights, "mlp.up_proj", wide)
    activated = ACTIVATIONS[act](linear(weights, "mlp.gate_proj", wide) if gated else up)
    between = activated * up if gated else activated
    before = x.copy()
    assert_close(DenseBlock(arch, weights)(x, Counter()), linear(weights, "mlp.down_proj", between))
    assert np.array_equal(x, before)


@pytest.mark.parametrize("mlp_bias", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_a_dense_block_counts_every_weight_once(gated, mlp_bias):
    arch, counter = MLP(72, gated=gated, mlp_bias=mlp_bias), Counter()
    block = DenseBlock(arch, random_weights(arch))
    matrices = (3 if gated else 2) * 72 * HIDDEN
    biases = ((2 if gated else 1) * 72 + HIDDEN) if mlp_bias else 0
    assert block.nbytes == 4 * (matrices + biases)
    block(normal(7), counter)
    assert counter == Counter(matmul_flops=2 * 7 * matrices, weights_read_bytes=4 * (matrices + biases))


def test_a_bounded_gate_is_bounded_before_its_activation_or_after():
    # One row of a width of two: gates 3 and -3, linear halves 5 and -5.
    halves = np.array([[3.0, -3.0, 5.0, -5.0]], np.float32)
    before = bounded_swiglu(Swiglu(limit=2, alpha=2, up_offset=1), halves.copy())
    # (2 + 1) 2 sigmoid(4), and (-2 + 1) (-3) sigmoid(-6).
    assert before.tolist() == [pytest.approx([3 * 2 * 0.98201379, -1 * -3 * 0.00247262316])]
    after = bounded_swiglu(Swiglu(limit=2, limit_after=True), halves.copy())
    # 3 sigmoid(3) = 2.857722 is above 2; -3 sigmoid(-3) = -0.142278 is not.
    assert after.tolist() == [pytest.approx([2 * 2, -2 * -0.142277620])]


def test_a_dense_block_may_have_a_bounded_gate():
    arch = MLP(72, swiglu=Swiglu(limit=0.7))
    weights, x = random_weights(arch), normal(5)
    wide = x.astype(np.float64)
    gate = np.minimum(linear(weights, "mlp.gate_proj", wide), 0.7)
    up = np.clip(linear(weights, "mlp.up_proj", wide), -0.7, 0.7)
    expected = linear(weights, "mlp.down_proj", silu(gate) * up)
    assert_close(DenseBlock(arch, weights)(x, Counter()), expected)


def test_a_dense_block_may_have_learned_the_bends_of_its_activation():
    """xIELU: alphas are kept as what a softplus makes them of; beta and eps are no parameters."""
    arch = MLP(72, gated=False, hidden_act=Activation.XIELU)
    weights, x = random_weights(arch), normal(5)
    weights |= {
        "mlp.act_fn.beta": np.array([0.5], np.float32),
        "mlp.act_fn.eps": np.array([-1e-6], np.float32),
    }
    up = linear(weights, "mlp.up_proj", x.astype(np.float64))
    above, below = (np.logaddexp(0, weights[f"mlp.act_fn.alpha_{side}"].astype(float)) for side in "pn")
    bent = np.where(up > 0, above * up**2, (0.5 + below) * (np.expm1(np.minimum(up, -1e-6)) - up)) + up / 2
    block, counter = DenseBlock(arch, weights), Counter()
    assert_close(block(x, counter), linear(weights, "mlp.down_proj", bent))
    assert counter.weights_read_bytes == block.nbytes == 4 * (2 * 72 * HIDDEN + 4)


def test_a_dense_block_may_be_multiplied_before_and_behind_its_activation():
    arch = MLP(72, mlp_multipliers=(0.3, 1.7))
    weights, x = random_weights(arch), normal(5)
    wide = x.astype(np.float64)
    gate, up = linear(weights, "mlp.gate_proj", wide), linear(weights, "mlp.up_proj", wide)
    expected = 1.7 * linear(weights, "mlp.down_proj", silu(0.3 * gate) * up)
    assert_close(DenseBlock(arch, weights)(x, Counter()), expected)


def test_a_sparse_gate_keeps_what_is_above_a_share_of_a_normal_distribution():
    """84.13 % of a normal distribution is below its mean and one standard deviation."""
    arch = MLP(72, hidden_act=Activation.GELU_TANH, activation_sparsity=0.8413447460685429)
    weights, x = random_weights(arch), normal(5)
    wide = x.astype(np.float64)
    gate, up = linear(weights, "mlp.gate_proj", wide), linear(weights, "mlp.up_proj", wide)
    cutoff = gate.mean(axis=1, keepdims=True) + gate.std(axis=1, keepdims=True)
    gate = ACTIVATIONS[Activation.GELU_TANH](np.maximum(gate - cutoff, 0))
    assert 0.5 < (gate == 0).mean() < 0.95
    assert_close(DenseBlock(arch, weights)(x, Counter()), linear(weights, "mlp.down_proj", gate * up))
