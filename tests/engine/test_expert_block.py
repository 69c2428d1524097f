"""Expert blocks against sums written out in float64, token by token."""

import numpy as np
import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.experts import HASH_TABLE, Experts, Scoring, TopkMethod
from kvplan.arch.swiglu import Swiglu
from kvplan.engine.counter import Counter
from kvplan.engine.expert_block import ExpertBlock
from kvplan.engine.step import Step
from kvplan.storage import kv_format

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
GPT_OSS = Experts(6, 2, 33, router_bias=True, expert_bias=True, swiglu=Swiglu(0.8, 1.702, 1))
MIXTRAL = Experts(4, 2, 64)
LLAMA_4 = Experts(
    6,
    2,
    44,
    shared_expert_intermediate_size=28,
    scoring_func=Scoring.SIGMOID,
    norm_topk_prob=False,
    scales_input=True,
)
NEMOTRON = Experts(
    8,
    3,
    20,
    shared_expert_intermediate_size=36,
    gated=False,
    moe_latent_size=24,
    router_bias_buffer=True,
    mlp_bias=True,
    hidden_act=Activation.RELU_SQUARED,
    scoring_func=Scoring.SIGMOID,
    topk_method=TopkMethod.NOAUX_TC,
    routed_scaling_factor=2.5,
)
STEP = Experts(
    6,
    2,
    36,
    shared_expert_intermediate_size=36,
    swiglu=Swiglu(0.5, limit_after=True),
    shared_swiglu=Swiglu(0.6, limit_after=True),
    scoring_func=Scoring.SQRT_SOFTPLUS,
    expert_bias=True,
)
KINDS = {
    "mixtral": MIXTRAL,
    "qwen": QWEN,
    "deepseek": DEEPSEEK,
    "gpt-oss": GPT_OSS,
    "llama-4": LLAMA_4,
    "nemotron": NEMOTRON,
    "step": STEP,
}


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


SCORES = {
    Scoring.SOFTMAX: lambda x: np.exp(x) / np.exp(x).sum(),
    Scoring.SIGMOID: sigmoid,
    Scoring.SQRT_SOFTPLUS: lambda x: np.sqrt(np.log1p(np.exp(x))),
}
ACTIVATIONS = {
    Activation.SILU: lambda x: x * sigmoid(x),
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


def route(arch, weights, x):
    """Return {expert: share} of one token, by sorting."""
    logits = linear(weights, "mlp.gate", x)
    scores = SCORES[arch.scoring_func](logits)
    by = scores + weights.get("mlp.gate.e_score_correction_bias", 0)
    groups = np.split(np.arange(arch.num_experts), arch.n_group)
    groups.sort(key=lambda group: -np.sort(by[group])[-2:].sum())
    eligible = np.concatenate(groups[: arch.topk_group])
    chosen = sorted(eligible, key=lambda expert: -by[expert])[: arch.num_experts_per_tok]
    shares = scores[chosen] / (scores[chosen].sum() if arch.norm_topk_prob else 1)
    return dict(zip(chosen, shares * arch.routed_scaling_factor, strict=True))


def between(arch, swiglu, weights, prefix, x, index=()):
    """What goes into an expert's second step."""
    up = linear(weights, f"{prefix}.up_proj", x, index)
    if not arch.gated:
        return ACTIVATIONS[arch.hidden_act](up)
    gate = linear(weights, f"{prefix}.gate_proj", x, index)
    if swiglu is None:
        return ACTIVATIONS[arch.hidden_act](gate) * up
    gate = gate if swiglu.limit_after else np.minimum(gate, swiglu.limit)
    gate = gate * sigmoid(swiglu.alpha * gate)
    return np.minimum(gate, swiglu.limit) * (np.clip(up, -swiglu.limit, swiglu.limit) + swiglu.up_offset)


def one_expert(arch, weights, x, expert):
    inside = between(arch, arch.swiglu, weights, "mlp.experts", x, expert)
    return linear(weights, "mlp.experts.down_proj", inside, expert)


def one_token(arch, weights, x):
    """Add up one token's experts and the shared one."""
    into = linear(weights, "mlp.fc1_latent_proj", x) if arch.moe_latent_size else x
    routed = route(arch, weights, x).items()
    if arch.scales_input:
        out = sum(one_expert(arch, weights, share * into, expert) for expert, share in routed)
    else:
        out = sum(share * one_expert(arch, weights, into, expert) for expert, share in routed)
    if arch.moe_latent_size:
        out = linear(weights, "mlp.fc2_latent_proj", out)
    if arch.shared_expert_intermediate_size:
        inside = between(arch, arch.shared_swiglu, weights, "mlp.shared_expert", x)
        shared = linear(weights, "mlp.shared_expert.down_proj", inside)
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
    width, shared_width = arch.moe_intermediate_size, arch.shared_expert_intermediate_size
    halves, into = 2 if arch.gated else 1, arch.moe_latent_size or HIDDEN
    expert = (halves + 1) * into * width
    expert_biases = halves * width + into if arch.expert_bias else 0
    latents = 2 * HIDDEN * into if arch.moe_latent_size else 0
    once = arch.num_experts * HIDDEN + latents
    once += (halves + 1) * HIDDEN * shared_width + HIDDEN * arch.shared_expert_gate
    biases = arch.num_experts * (arch.router_bias + arch.router_bias_buffer)
    if arch.mlp_bias:
        biases += halves * shared_width + HIDDEN + into + HIDDEN
    assert counter.weights_read_bytes == 4 * (once + biases + len(used) * (expert + expert_biases))
    assert counter.matmul_flops == 2 * 2 * (once + arch.num_experts_per_tok * expert)


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


def test_a_table_says_the_experts_of_a_token_and_scores_their_shares():
    """DeepSeek-V4's first layers: whatever the scores, a token's experts are those of its row."""
    arch = Experts(8, 3, 20, scoring_func=Scoring.SQRT_SOFTPLUS, routed_scaling_factor=1.5, hash_vocab_size=9)
    weights, x, tokens = random_weights(arch), normal(4), np.array([8, 2, 0, 8])
    table = np.array([np.random.default_rng(row).permutation(8)[:3] for row in range(9)])
    weights[HASH_TABLE] = table.astype(np.float32)
    step = Step([0], [4], np.array([0]), False, {}, [], kv_format("fp32"), tokens=tokens)
    found = ExpertBlock(arch, dict(weights))(x.copy(), Counter(), None, step)
    for row, token, out in zip(x.astype(np.float64), tokens, found, strict=True):
        scores = SCORES[arch.scoring_func](linear(weights, "mlp.gate", row))[table[token]]
        shares = 1.5 * scores / scores.sum()
        expected = sum(
            share * one_expert(arch, weights, row, expert)
            for share, expert in zip(shares, table[token], strict=True)
        )
        assert_close(out, expected)


def test_routers_are_told_apart_by_their_block_and_by_what_they_choose():
    class Seen:
        def __init__(self):
            self.who = []

        def settle(self, who, slot, start, scores, chosen):
            self.who.append(who)
            return chosen

    seen = Seen()
    step = Step([0], [4], np.array([0]), False, {}, [], kv_format("fp32"), seen)
    for _ in range(2):
        ExpertBlock(DEEPSEEK, random_weights(DEEPSEEK))(normal(4), Counter(), None, step)
    assert len(set(seen.who)) == 2 * len({"groups", "experts"})


def test_experts_with_norms_of_their_own_read_the_residual_stream():
    """The router reads it by a scale and the root of its width, the experts by another scale (Gemma 4)."""
    eps = 0.05
    arch = Experts(6, 2, 20, shared_expert_intermediate_size=28, own_norms=True)
    weights, x = random_weights(arch), normal(9)
    residual = np.random.default_rng(3).standard_normal((9, HIDDEN), dtype=np.float32)

    def normed(name, rows):
        return rows / np.sqrt((rows**2).mean(-1, keepdims=True) + eps) * weights[f"mlp.{name}.weight"]

    expected = []
    for token, before in zip(x.astype(np.float64), residual.astype(np.float64), strict=True):
        chosen = route(arch, weights, normed("gate_norm", before) / HIDDEN**0.5)
        into = normed("experts_input_norm", before)
        out = sum(
            share * weights["mlp.per_expert_scale"][expert] * one_expert(arch, weights, into, expert)
            for expert, share in chosen.items()
        )
        inside = between(arch, None, weights, "mlp.shared_expert", token)
        shared = linear(weights, "mlp.shared_expert.down_proj", inside)
        expected.append(normed("experts_norm", out) + normed("shared_expert_norm", shared))
    assert_close(ExpertBlock(arch, weights, eps)(x, Counter(), residual), np.array(expected))


def test_a_correction_that_is_a_parameter_is_added_like_any_other():
    """Ernie 4.5: softmax scores corrected, and shares of the scores themselves."""
    arch = Experts(12, 3, 20, router_bias_parameter=True, topk_method=TopkMethod.NOAUX_TC)
    weights, x = random_weights(arch), normal(9)
    expected = np.array([one_token(arch, weights, token) for token in x.astype(np.float64)])
    assert_close(ExpertBlock(arch, weights)(x, Counter()), expected)
    plain = {name: 0 * w if "correction" in name else w for name, w in weights.items()}
    assert not np.allclose(ExpertBlock(arch, plain)(x, Counter()), expected, rtol=1e-2)
