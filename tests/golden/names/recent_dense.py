"""Cohere, OLMo, GLM, EXAONE, Hunyuan, StableLM, and the families that are Llama but for a detail."""

from __future__ import annotations

from names.fusing import GATE_UP, Names, both, rows

_FUSED_MLP = both("mlp.gate_up_proj", GATE_UP, rows)

NAMES: dict[str, Names] = {
    "cohere": Names(),
    "cohere2": Names(),
    "olmo": Names(),
    "olmo2": Names(),
    "olmo3": Names(),
    "glm": Names(fusions=_FUSED_MLP),
    "glm4": Names(
        inner={
            "post_attention_layernorm": "post_self_attn_layernorm",
            "pre_feedforward_layernorm": "post_attention_layernorm",
            "post_feedforward_layernorm": "post_mlp_layernorm",
        },
        fusions=_FUSED_MLP,
    ),
    "exaone4": Names(),
    "hunyuan_v1_dense": Names(
        inner={"self_attn.q_norm": "self_attn.query_layernorm", "self_attn.k_norm": "self_attn.key_layernorm"}
    ),
    "stablelm": Names(
        rows_apart={
            "self_attn.q_norm.weight": "self_attn.q_layernorm.norms.{}.weight",
            "self_attn.k_norm.weight": "self_attn.k_layernorm.norms.{}.weight",
        }
    ),
    "seed_oss": Names(),
    "smollm3": Names(),
    "ernie4_5": Names(),
    "arcee": Names(),
    "helium": Names(),
    "ministral": Names(),
    "cwm": Names(),
    "jais2": Names(),
    "iquestcoder": Names(),
    "granite_swa": Names(),
    "hyperclovax": Names(
        inner={
            "post_attention_layernorm": "post_norm1",
            "pre_feedforward_layernorm": "post_attention_layernorm",
            "post_feedforward_layernorm": "post_norm2",
        }
    ),
}
