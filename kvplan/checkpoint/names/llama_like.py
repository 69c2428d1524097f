"""Families whose files have a Llama's names, all of them or all but a few."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import GATE_UP, LLAMA_OUTER, QKV, Fusion, Names, both
from kvplan.checkpoint.names.kinds import APART, ROWS, UNIT_ROWS

LLAMA = Names()

_FUSED_MLP = both("mlp.gate_up_proj", GATE_UP, ROWS)
_GLM4 = Names(
    inner={
        "post_attention_layernorm": "post_self_attn_layernorm",
        "pre_feedforward_layernorm": "post_attention_layernorm",
        "post_feedforward_layernorm": "post_mlp_layernorm",
    },
    fusions=_FUSED_MLP,
)
_EACH_HEAD = tuple(
    Fusion((f"self_attn.{name}_layernorm.norms.{{}}.weight",), (f"self_attn.{name}_norm.weight",), APART)
    for name in ("q", "k")
)
_BAICHUAN = both("self_attn.W_pack", QKV, ROWS)

# Baichuan 2 says model_type baichuan, too.
BAICHUAN_2 = Names(fusions=_BAICHUAN, kinds={"lm_head.weight": UNIT_ROWS})
BAICHUAN_2_VOCABULARY = 125_696

NAMES: dict[str, Names] = {
    **dict.fromkeys(
        (
            *("arcee", "cohere", "cohere2", "cwm", "deci", "ernie4_5", "exaone4", "gemma", "gemma2"),
            *("gemma3_text", "granite", "granite_swa", "helium", "internlm", "internlm3", "iquestcoder"),
            *("jais2", "llama", "mimo", "minicpm", "minicpm3", "ministral", "ministral3", "mistral"),
            *("mllama_text_model", "nemotron", "nemotron-nas", "olmo", "olmo2", "olmo3", "orion", "qwen2"),
            *("qwen2_5_vl_text", "qwen2_vl_text", "qwen3", "qwen3_vl_text", "seed_oss", "smollm3"),
        ),
        LLAMA,
    ),
    "baichuan": Names(fusions=_BAICHUAN),
    "glm": Names(fusions=_FUSED_MLP),
    "glm4": _GLM4,
    "glm4v_text": _GLM4,
    "hunyuan_v1_dense": Names(
        inner={"self_attn.q_norm": "self_attn.query_layernorm", "self_attn.k_norm": "self_attn.key_layernorm"}
    ),
    "hyperclovax": Names(
        inner={
            "post_attention_layernorm": "post_norm1",
            "pre_feedforward_layernorm": "post_attention_layernorm",
            "post_feedforward_layernorm": "post_norm2",
        }
    ),
    "phi": Names(
        outer={**LLAMA_OUTER, "norm": "model.final_layernorm"},
        inner={"self_attn.o_proj": "self_attn.dense", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"},
    ),
    "phi3": Names(fusions=(*both("self_attn.qkv_proj", QKV, ROWS), *_FUSED_MLP)),
    "stablelm": Names(fusions=_EACH_HEAD),
    "starcoder2": Names(inner={"mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}),
}
