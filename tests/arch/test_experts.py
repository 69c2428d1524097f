"""Tensors of every kind of mixture, counted by hand."""

import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.arch.swiglu import Swiglu
from kvplan.checks import FieldError
from kvplan.storage import TensorRole

# Nemotron-3's kind, small: plain experts in a latent of 24, a shared one beside them, 8 of which 3 are used.
LATENT = Experts(
    8,
    3,
    20,
    shared_expert_intermediate_size=36,
    gated=False,
    moe_latent_size=24,
    router_bias_buffer=True,
    hidden_act=Activation.RELU_SQUARED,
    scoring_func=Scoring.SIGMOID,
    topk_method=TopkMethod.NOAUX_TC,
)


def shapes(experts):
    return {w.name: (w.copies, *w.shape) for w in experts.weights(40)}


def test_plain_experts_in_a_latent_have_two_matrices_each():
    assert shapes(LATENT) == {
        "mlp.gate.weight": (1, 8, 40),
        "mlp.gate.e_score_correction_bias": (1, 8),
        "mlp.fc1_latent_proj.weight": (1, 24, 40),
        "mlp.fc2_latent_proj.weight": (1, 40, 24),
        "mlp.experts.up_proj.weight": (8, 20, 24),
        "mlp.experts.down_proj.weight": (8, 24, 20),
        "mlp.shared_expert.up_proj.weight": (1, 36, 40),
        "mlp.shared_expert.down_proj.weight": (1, 40, 36),
    }
    # Router 320, latent 2 x 960, an expert 960, the shared one 2,880.
    trained = [w for w in LATENT.weights(40) if w.trained]
    assert sum(w.elements for w in trained) == 320 + 1_920 + 8 * 960 + 2_880
    assert sum(w.active_elements for w in trained) == 320 + 1_920 + 3 * 960 + 2_880


def test_biases_of_a_mixture_are_those_of_its_parts():
    plain = Experts(4, 2, 20, shared_expert_intermediate_size=36, moe_latent_size=24, gated=False)
    assert added(plain, expert_bias=True) == {
        "mlp.experts.up_proj.bias": (4, 20),
        "mlp.experts.down_proj.bias": (4, 24),
    }
    assert added(plain, mlp_bias=True) == {
        "mlp.fc1_latent_proj.bias": (1, 24),
        "mlp.fc2_latent_proj.bias": (1, 40),
        "mlp.shared_expert.up_proj.bias": (1, 36),
        "mlp.shared_expert.down_proj.bias": (1, 40),
    }
    assert added(plain, gated=True) == {
        "mlp.experts.gate_proj.weight": (4, 20, 24),
        "mlp.shared_expert.gate_proj.weight": (1, 36, 40),
    }


def added(experts, **fields):
    """The tensors that other values of fields add."""
    other = Experts(
        **{
            "num_experts": experts.num_experts,
            "num_experts_per_tok": experts.num_experts_per_tok,
            "moe_intermediate_size": experts.moe_intermediate_size,
            "shared_expert_intermediate_size": experts.shared_expert_intermediate_size,
            "moe_latent_size": experts.moe_latent_size,
            "gated": experts.gated,
            **fields,
        }
    )
    before, after = shapes(experts), shapes(other)
    assert before.items() <= after.items()
    return {name: shape for name, shape in after.items() if name not in before}


def test_a_correction_bias_is_a_parameter_where_it_is_said_to_be():
    for field, trained in (("router_bias_buffer", False), ("router_bias_parameter", True)):
        experts = Experts(4, 2, 8, topk_method=TopkMethod.NOAUX_TC, **{field: True})
        (found,) = (w for w in experts.weights(40) if "correction" in w.name)
        assert (found.shape, found.trained, found.role) == ((4,), trained, TensorRole.ROUTER)


def test_tensor_parallel_ranks_cut_experts_and_keep_the_latent_whole():
    on_rank = {w.name: (w.on_rank(4).copies, *w.on_rank(4).shape) for w in LATENT.weights(40)}
    assert on_rank["mlp.experts.up_proj.weight"] == (8, 5, 24)
    assert on_rank["mlp.experts.down_proj.weight"] == (8, 24, 5)
    assert on_rank["mlp.shared_expert.up_proj.weight"] == (1, 9, 40)
    assert on_rank["mlp.fc1_latent_proj.weight"] == (1, 24, 40)
    assert on_rank["mlp.fc2_latent_proj.weight"] == (1, 40, 24)


def test_expert_parallel_ranks_hold_whole_experts():
    held = {w.name: (w.on_rank(1, 4).copies, *w.on_rank(1, 4).shape) for w in LATENT.weights(40)}
    assert held["mlp.experts.up_proj.weight"] == (2, 20, 24)
    assert held["mlp.experts.down_proj.weight"] == (2, 24, 20)
    assert held["mlp.shared_expert.up_proj.weight"] == (1, 36, 40)


def test_a_prefill_chunk_keeps_latents_and_the_copies_of_a_token():
    buffers = {b.name: b.elements for b in LATENT.buffers(40)}
    assert buffers == {
        "router scores": 8,
        "latents in and out": 48,
        "expert up": 60,
        "expert activated": 60,
        "expert outputs": 72,
        "shared expert": 72,
        "output": 40,
    }


def test_the_shared_expert_is_a_block_of_the_same_kind():
    bounded = Swiglu(limit=16.0, limit_after=True)
    assert LATENT.shared_expert == MLP(36, gated=False, hidden_act=Activation.RELU_SQUARED)
    experts = Experts(4, 2, 8, 12, swiglu=Swiglu(7.0), shared_swiglu=bounded, mlp_bias=True)
    assert experts.shared_expert == MLP(12, mlp_bias=True, swiglu=bounded)
    assert Experts(4, 2, 8).shared_expert is None


def test_scaled_down_a_latent_stays_narrower_than_the_model():
    small = LATENT.scaled_down(Limits(hidden_size=512, of_hidden_size=8_192))
    assert (small.moe_latent_size, small.moe_intermediate_size) == (24, 20)
    ultra = Experts(512, 22, 5_376, 10_240, gated=False, moe_latent_size=2_048)
    small = ultra.scaled_down(Limits(hidden_size=512, of_hidden_size=8_192))
    # A sixteenth of each; 512 experts share 8,192 features.
    assert (small.moe_latent_size, small.shared_expert_intermediate_size) == (128, 640)
    assert small.moe_intermediate_size == 16


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"moe_latent_size": 0}, "moe_latent_size must be at least 1, not 0"),
        ({"shared_swiglu": Swiglu(7.0)}, "shared_swiglu needs a shared_expert_intermediate_size"),
        ({"swiglu": Swiglu(7.0), "gated": False}, "swiglu needs experts gated by silu"),
        ({"swiglu": Swiglu(7.0), "hidden_act": Activation.GELU}, "swiglu needs experts gated by silu"),
        (
            {"router_bias_buffer": True, "router_bias_parameter": True},
            "router_bias_parameter cannot be beside router_bias_buffer",
        ),
        ({"router_bias_buffer": True}, "router_bias_buffer is read by topk_method noaux_tc only"),
        ({"router_jitter_noise": 0.1}, "router_jitter_noise is read by topk_method sparsemixer only"),
        (
            {"topk_method": TopkMethod.SPARSEMIXER},
            "router_jitter_noise is needed by topk_method sparsemixer",
        ),
        (
            {"topk_method": TopkMethod.SPARSEMIXER, "num_experts_per_tok": 3},
            "num_experts_per_tok must be 2 for topk_method sparsemixer",
        ),
        (
            {
                "topk_method": TopkMethod.SPARSEMIXER,
                "router_jitter_noise": 0.1,
                "scoring_func": Scoring.SIGMOID,
            },
            "topk_method sparsemixer goes with plain softmax scores only",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, complaint):
    given = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, **fields}
    with pytest.raises(FieldError, match=complaint):
        Experts(**given)


def test_a_bounded_gate_needs_a_gate_and_an_offset_of_one():
    with pytest.raises(FieldError, match="swiglu needs a block gated by silu"):
        MLP(8, gated=False, swiglu=Swiglu(7.0))
    with pytest.raises(FieldError, match="up_offset must be 0 or 1, not 2"):
        Swiglu(7.0, up_offset=2.0)
    with pytest.raises(FieldError, match="limit must be above 0"):
        Swiglu(0.0)
