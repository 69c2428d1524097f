"""Dense and expert blocks against sums written out in float64, token by token."""

import math

import numpy as np
import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.mlp import MLP
from kvplan.engine.counter import Counter
from kvplan.engine.feed_forward import DenseBlock, ExpertBlock

HIDDEN = 40
DEEPSEEK = Experts(
    12,
    3,
    20,
    shared_expert_intermediate_size=70,
    router_bias_buffer=True,
    scoring_func=Scoring.SIGMOID,
    topk_method=TopkMethod.NOAUX_TC,
    n_group=3,
    topk_group=2,
    routed_scaling_factor=2.5,
)
QWEN = Experts(8, 2, 70, shared_expert_intermediate_size=24, shared_expert_gate=True, norm_topk_prob=False)
GPT_OSS = Experts(6, 2, 33, router_bias=True, expert_bias=True, swiglu_limit=0.8)
MIXTRAL = Experts(4, 2, 64)
KINDS = {"mixtral": MIXTRAL, "qwen": QWEN, "deepseek": DEEPSEEK, "gpt-oss": GPT_OSS}


def random_weights(arch):
    """Make every weight of the description; a stack has its copies first."""
    random = np.random.default_rng(1)
    made = {}
    for weight in arch.weights(HIDDEN):
        shape = weight.shape if weight.copies == 1 else (weight.copies, *weight.shape)
        made[weight.name] = (random.standard_normal(shape) * 0.4).astype(np.float32)
    return made


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
}


def linear(weights, name, x, index=()):
    """Multiply in float64 with one weight, or with one of a stack."""
    bias = weights.get(f"{name}.bias")
    product = x @ weights[f"{name}.weight"][index].astype(np.float64).T
    return product if bias is None else product + bias[index]


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("act", Activation)
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


def route(arch, weights, x):
    """Return {expert: share} of one token, by sorting."""
    logits = linear(weights, "mlp.gate", x)
    sigmoids = arch.scoring_func is Scoring.SIGMOID
    scores = sigmoid(logits) if sigmoids else np.exp(logits) / np.exp(logits).sum()
    by = scores + weights.get("mlp.gate.e_score_correction_bias", 0)
    groups = np.split(np.arange(arch.num_experts), arch.n_group)
    groups.sort(key=lambda group: -np.sort(by[group])[-2:].sum())
    eligible = np.concatenate(groups[: arch.topk_group])
    chosen = sorted(eligible, key=lambda expert: -by[expert])[: arch.num_experts_per_tok]
    shares = scores[chosen] / (scores[chosen].sum() if arch.norm_topk_prob else 1)
    return dict(zip(chosen, shares * arch.routed_scaling_factor, strict=True))


def one_expert(arch, weights, x, expert):
    gate = linear(weights, "mlp.experts.gate_proj", x, expert)
    up = linear(weights, "mlp.experts.up_proj", x, expert)
    if arch.swiglu_limit is None:
        between = silu(gate) * up
    else:
        gate, up = np.minimum(gate, arch.swiglu_limit), np.clip(up, -arch.swiglu_limit, arch.swiglu_limit)
        between = (up + 1) * gate * sigmoid(1.702 * gate)
    return linear(weights, "mlp.experts.down_proj", between, expert)


def one_token(arch, weights, x):
    """Add up one token's experts and the shared one."""
    routed = route(arch, weights, x)
    out = sum(share * one_expert(arch, weights, x, expert) for expert, share in routed.items())
    if arch.shared_expert_intermediate_size:
        gate = silu(linear(weights, "mlp.shared_expert.gate_proj", x))
        up = linear(weights, "mlp.shared_expert.up_proj", x)
        shared = linear(weights, "mlp.shared_expert.down_proj", gate * up)
        out += shared * (
            sigmoid(linear(weights, "mlp.shared_expert_gate", x)) if arch.shared_expert_gate else 1
        )
    return out


@pytest.mark.parametrize("rows", [1, 2, 9, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_block_is_the_sum_of_each_tokens_experts(kind, rows):
    arch, x = KINDS[kind], normal(rows)
    weights = random_weights(arch)
    before = x.copy()
    expected = np.array([one_token(arch, weights, token) for token in x.astype(np.float64)])
    assert_close(ExpertBlock(arch, weights)(x, Counter()), expected)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("kind", KINDS)
def test_experts_nobody_chose_are_neither_computed_nor_counted(kind):
    arch, x = KINDS[kind], normal(2)
    weights = random_weights(arch)
    used = {expert for token in x.astype(np.float64) for expert in route(arch, weights, token)}
    assert 1 < len(used) < arch.num_experts
    for name, weight in weights.items():
        if name.startswith("mlp.experts."):
            weight[[expert for expert in range(arch.num_experts) if expert not in used]] = np.nan
    counter = Counter()
    block = ExpertBlock(arch, weights)
    assert np.isfinite(block(x, counter)).all()
    assert block.nbytes == 4 * sum(weight.elements for weight in arch.weights(HIDDEN))
    expert = 3 * HIDDEN * arch.moe_intermediate_size
    biases = 2 * arch.moe_intermediate_size + HIDDEN if arch.expert_bias else 0
    router = arch.num_experts * HIDDEN
    shared = 3 * HIDDEN * arch.shared_expert_intermediate_size + HIDDEN * arch.shared_expert_gate
    once = router + shared + arch.num_experts * (arch.router_bias + arch.router_bias_buffer)
    assert counter.weights_read_bytes == 4 * (once + len(used) * (expert + biases))
    assert counter.matmul_flops == 2 * 2 * (router + shared + arch.num_experts_per_tok * expert)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_gets_the_same_whoever_shares_its_batch(kind):
    arch, x = KINDS[kind], normal(30)
    block = ExpertBlock(arch, random_weights(arch))
    alone = np.concatenate([block(x[row : row + 1], Counter()) for row in range(30)])
    assert_close(block(x, Counter()), alone)


def test_an_expert_may_have_another_activation():
    arch = Experts(4, 4, 16, hidden_act=Activation.RELU)
    weights, x = random_weights(arch), normal(3)
    wide = x.astype(np.float64)
    expected = 0
    for expert in range(4):
        shares = np.array([[route(arch, weights, token)[expert]] for token in wide])
        gate = np.maximum(linear(weights, "mlp.experts.gate_proj", wide, expert), 0)
        up = linear(weights, "mlp.experts.up_proj", wide, expert)
        expected = expected + shares * linear(weights, "mlp.experts.down_proj", gate * up, expert)
    assert_close(ExpertBlock(arch, weights)(x, Counter()), expected)
