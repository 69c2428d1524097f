"""Families with routed experts and plain attention."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import (
    EXPERT_GATE_UP,
    EXPERTS,
    EXPERTS_EITHER_WAY,
    GATE_UP,
    MIXTRAL_EXPERTS,
    QKV,
    QWEN_EXPERTS,
    SHARED_GATE_UP,
    STACKED_EXPERTS,
    Fusion,
    Names,
    both,
    one_by_one,
    stacked,
    weights_of,
)
from kvplan.checkpoint.names.kinds import (
    EXPERT_COLUMNS,
    EXPERT_ROWS,
    INTERLEAVED,
    ROWS,
    SAME,
    UNDER_ONE_ANOTHER,
    UNDER_ONE_ANOTHER_TURNED,
    reshaped,
)

SHARED_EXPERTS = {"mlp.shared_expert": "mlp.shared_experts"}
WITH_SHARED_EXPERTS = Names(inner=SHARED_EXPERTS, fusions=EXPERTS_EITHER_WAY)

_CORRECTION = "mlp.gate.e_score_correction_bias"
_GATE, _UP, _DOWN = weights_of(EXPERTS)
_INDEX_PARTS = ("q_proj", "k_proj", "q_norm", "k_norm")
_HUNYUAN = {"mlp.gate": "mlp.gate.wg", "mlp.shared_expert": "mlp.shared_mlp"}
_HUNYUAN_NORMS = {
    "self_attn.q_norm": "self_attn.query_layernorm",
    "self_attn.k_norm": "self_attn.key_layernorm",
}
GRANITE_EXPERTS = (
    Fusion(("block_sparse_moe.input_linear.weight",), weights_of(EXPERT_GATE_UP), EXPERT_ROWS),
    Fusion(("block_sparse_moe.output_linear.weight",), (_DOWN,), SAME),
)
GRANITE_ROUTER = {"mlp.gate": "block_sparse_moe.router.layer"}
_GRANITE_SHARED_MLP = {"mlp.shared_expert.down_proj": "shared_mlp.output_linear"}
_GRANITE_SHARED_GATE_UP = both("shared_mlp.input_linear", SHARED_GATE_UP, ROWS)
# transformers' text model alone, and the released files, whose names are those of its class with images.
_MINIMAX_M3 = Names(
    inner={
        **SHARED_EXPERTS,
        **{f"self_attn.index_{part}": f"self_attn.indexer.{part}" for part in _INDEX_PARTS},
    },
    fusions=(
        *STACKED_EXPERTS,
        *MIXTRAL_EXPERTS,
        *both("mlp.gate_up_proj", GATE_UP, ROWS),
        *both("mlp.shared_experts.gate_up_proj", SHARED_GATE_UP, ROWS),
    ),
    other_inner={
        "mlp.gate": "block_sparse_moe.gate",
        _CORRECTION: "block_sparse_moe.e_score_correction_bias",
        "mlp.shared_expert": "block_sparse_moe.shared_experts",
    },
)

NAMES: dict[str, Names] = {
    **dict.fromkeys(
        ("flex_olmo", "mellum", "olmoe", "qwen2_moe", "qwen3_moe"), Names(fusions=EXPERTS_EITHER_WAY)
    ),
    **dict.fromkeys(("deepseek", "dots1", "glm4_moe", "glm4v_moe_text", "solar_open"), WITH_SHARED_EXPERTS),
    "afmoe": Names(
        inner={
            **SHARED_EXPERTS,
            _CORRECTION: "mlp.expert_bias",
            "mlp.gate": "mlp.router.gate",
            "self_attn.g_proj": "self_attn.gate_proj",
            "pre_feedforward_layernorm": "pre_mlp_layernorm",
            "post_feedforward_layernorm": "post_mlp_layernorm",
        },
        fusions=EXPERTS_EITHER_WAY,
    ),
    "dbrx": Names(
        outer={
            "embed_tokens": "transformer.wte",
            "layers": "transformer.blocks",
            "norm": "transformer.norm_f",
        },
        inner={
            "input_layernorm": "norm_attn_norm.norm_1",
            "post_attention_layernorm": "norm_attn_norm.norm_2",
            "self_attn.o_proj": "norm_attn_norm.attn.out_proj",
            "mlp.gate": "ffn.router.layer",
        },
        fusions=(
            *both("norm_attn_norm.attn.Wqkv", QKV, ROWS),
            Fusion(("ffn.experts.mlp.w1",), (_GATE,), UNDER_ONE_ANOTHER),
            Fusion(("ffn.experts.mlp.v1",), (_UP,), UNDER_ONE_ANOTHER),
            Fusion(("ffn.experts.mlp.w2",), (_DOWN,), UNDER_ONE_ANOTHER_TURNED),
        ),
    ),
    "ernie4_5_moe": Names(
        inner=SHARED_EXPERTS,
        fusions=(
            *EXPERTS_EITHER_WAY,
            Fusion(("mlp.moe_statics.e_score_correction_bias",), (_CORRECTION,), reshaped(1, -1)),
        ),
    ),
    "exaone_moe": Names(
        inner={**SHARED_EXPERTS, _CORRECTION: "mlp.e_score_correction_bias"}, fusions=EXPERTS_EITHER_WAY
    ),
    "gpt_oss": Names(
        inner={"mlp.gate": "mlp.router"},
        fusions=(
            *stacked("mlp.experts", INTERLEAVED),
            Fusion(
                ("mlp.experts.gate_up_proj_bias",),
                tuple(f"{name}.bias" for name in EXPERT_GATE_UP),
                INTERLEAVED,
            ),
            Fusion(("mlp.experts.down_proj_bias",), ("mlp.experts.down_proj.bias",), SAME),
        ),
    ),
    "granitemoe": Names(inner=GRANITE_ROUTER, fusions=GRANITE_EXPERTS),
    "granitemoe_swa": Names(
        inner={"mlp.gate": "block_sparse_moe.router", **_GRANITE_SHARED_MLP},
        fusions=(*stacked("block_sparse_moe.experts", EXPERT_ROWS), *_GRANITE_SHARED_GATE_UP),
    ),
    "granitemoeshared": Names(
        inner={**GRANITE_ROUTER, **_GRANITE_SHARED_MLP},
        fusions=(*GRANITE_EXPERTS, *_GRANITE_SHARED_GATE_UP),
    ),
    **dict.fromkeys(
        ("hunyuan", "hunyuan_v1_moe"),
        Names(inner={**_HUNYUAN_NORMS, **_HUNYUAN}, fusions=EXPERTS_EITHER_WAY),
    ),
    "hy_v3": Names(
        inner={
            _CORRECTION: "mlp.expert_bias",
            "mlp.gate": "mlp.router.gate",
            "mlp.shared_expert": "mlp.shared_mlp",
        },
        fusions=EXPERTS_EITHER_WAY,
    ),
    "llama4_text": Names(
        inner={"mlp.gate": "feed_forward.router", "mlp": "feed_forward"},
        fusions=(
            *stacked("feed_forward.experts", EXPERT_COLUMNS),
            *one_by_one("feed_forward.experts", "gate_proj", "up_proj", "down_proj"),
        ),
    ),
    "mimo_v2_flash": Names(
        inner={"self_attn.sinks": "self_attn.attention_sink_bias"}, fusions=EXPERTS_EITHER_WAY
    ),
    "minimax_m2": Names(
        inner={
            _CORRECTION: "block_sparse_moe.e_score_correction_bias",
            "mlp.gate": "block_sparse_moe.gate",
        },
        fusions=MIXTRAL_EXPERTS,
    ),
    "minimax_m3": _MINIMAX_M3,
    "minimax_m3_vl_text": _MINIMAX_M3,
    "mixtral": Names(inner={"mlp.gate": "block_sparse_moe.gate"}, fusions=MIXTRAL_EXPERTS),
    "phimoe": Names(inner={"mlp.gate": "block_sparse_moe.gate"}, fusions=MIXTRAL_EXPERTS),
    # Inputs first in released files; transformers turns what does not fit.
    "qwen3_vl_moe_text": Names(
        fusions=(*STACKED_EXPERTS, *stacked("mlp.experts", EXPERT_COLUMNS), *QWEN_EXPERTS)
    ),
}
