"""Families with linear attention, short convolutions or recurrences in place of attention, or beside it."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import (
    EXPERTS_EITHER_WAY,
    LLAMA_OUTER,
    MIXTRAL_EXPERTS,
    Fusion,
    Names,
    one_by_one,
)
from kvplan.checkpoint.names.kinds import reshaped
from kvplan.checkpoint.names.mixer_kinds import (
    BY_BLOCK,
    QKV_APART,
    QKV_IN_THIRDS,
    by_part,
    key_head_ba,
    key_head_qkvz,
)

# Numbers that transformers makes of a layer's place, and stores.
_LIGHTNING_DECAYS = (".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay")
_LFM2 = {
    "input_layernorm": "operator_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp": "feed_forward",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.gate.e_score_correction_bias": "feed_forward.expert_bias",
}
_LFM2_ATTENTION = {
    "self_attn.q_norm": "self_attn.q_layernorm",
    "self_attn.k_norm": "self_attn.k_layernorm",
    "self_attn.o_proj": "self_attn.out_proj",
}
_LFM2_OUTER = {**LLAMA_OUTER, "norm": "model.embedding_norm"}
_QKVZ, _BA = ("linear_attn.in_proj_qkvz.weight",), ("linear_attn.in_proj_ba.weight",)
_KIMI_EXPERTS = {"mlp.gate": "block_sparse_moe.gate", "mlp.shared_expert": "block_sparse_moe.shared_experts"}


def _linear(*names: str) -> tuple[str, ...]:
    return tuple(f"linear_attn.{name}.weight" for name in names)


def _convolutions(mixer: str) -> tuple[Fusion, ...]:
    apart = tuple(f"{mixer}.{name}_conv1d.weight" for name in "qkv")
    return tuple(Fusion(apart, (f"{mixer}.conv1d.weight",), kind) for kind in (QKV_APART, QKV_IN_THIRDS))


_QWEN3_5 = (
    Fusion(_linear("in_proj_qkv", "in_proj_z"), _QKVZ, by_part(key_head_qkvz, 3, 1)),
    Fusion(_linear("in_proj_b", "in_proj_a"), _BA, by_part(key_head_ba, 1, 1)),
)

NAMES: dict[str, Names] = {
    "kimi_linear": Names(
        inner=_KIMI_EXPERTS,
        fusions=(
            *_convolutions("self_attn"),
            Fusion(("self_attn.A_log",), ("self_attn.A_log",), reshaped(1, 1, -1, 1)),
            *MIXTRAL_EXPERTS,
        ),
        # transformers writes dense layers under the name of those with experts.
        other_inner={"mlp": "block_sparse_moe"},
    ),
    "lfm2": Names(outer=_LFM2_OUTER, inner=_LFM2 | _LFM2_ATTENTION),
    "lfm2_moe": Names(
        outer=_LFM2_OUTER,
        inner=_LFM2 | _LFM2_ATTENTION,
        fusions=one_by_one("feed_forward.experts", "w1", "w3", "w2"),
    ),
    "lfm3": Names(
        outer=_LFM2_OUTER,
        # Norms before each part and behind it: the engine's names of them depend on there being both.
        inner={
            **_LFM2,
            "post_attention_layernorm": "post_operator_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffn_norm",
            "self_attn.g_proj": "self_attn.gate_proj",
        },
    ),
    "minimax": Names(
        inner={"mlp.gate": "block_sparse_moe.gate"}, fusions=MIXTRAL_EXPERTS, unused=_LIGHTNING_DECAYS
    ),
    "olmo_hybrid": Names(
        inner={
            "input_layernorm": "attention_layer_norm",
            "post_attention_layernorm": "feedforward_layer_norm",
            "linear_attn.norm": "linear_attn.o_norm",
            "linear_attn.out_proj": "linear_attn.o_proj",
        },
        fusions=(
            *_convolutions("linear_attn"),
            Fusion(
                _linear("q_proj", "k_proj", "v_proj", "g_proj"), _QKVZ, by_part(key_head_qkvz, 1, 1, 1, 1)
            ),
            Fusion(_linear("b_proj", "a_proj"), _BA, by_part(key_head_ba, 1, 1)),
        ),
        # Layers with softmax attention have the names of OLMo 2.
        other_inner={"post_attention_layernorm": "post_attention_layernorm"},
    ),
    "qwen3_5_moe_text": Names(fusions=(*_QWEN3_5, *EXPERTS_EITHER_WAY)),
    "qwen3_5_text": Names(fusions=_QWEN3_5),
    "qwen3_next": Names(fusions=EXPERTS_EITHER_WAY),
    "recurrent_gemma": Names(
        outer={**LLAMA_OUTER, "norm": "model.final_norm"},
        inner={
            "input_layernorm": "temporal_pre_norm",
            "post_attention_layernorm": "channel_pre_norm",
            "self_attn": "temporal_block",
            "mlp": "mlp_block",
        },
        fusions=tuple(
            Fusion((name,), (name,), BY_BLOCK)
            for name in (
                "temporal_block.rg_lru.input_gate_bias",
                "temporal_block.rg_lru.recurrent_gate_bias",
            )
        ),
    ),
}
