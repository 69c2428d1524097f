"""GPT-2, Phi, Falcon, the Llama-like families, gpt-oss, and DeepSeek."""

from __future__ import annotations

from names.fusing import (
    EXPERT_GATE_UP,
    GATE_UP,
    LLAMA_OUTER,
    QKV,
    STACKED_EXPERTS,
    Names,
    both,
    by_kv_head,
    columns,
    expert_columns,
    rows,
)

SHARED_EXPERTS = {"mlp.shared_expert": "mlp.shared_experts"}

NAMES: dict[str, Names] = {
    "llama": Names(),
    "mistral": Names(),
    "qwen2": Names(),
    "qwen3": Names(),
    "gemma2": Names(),
    "gemma3_text": Names(),
    "gpt2": Names(
        outer={
            "embed_tokens": "transformer.wte",
            "embed_positions": "transformer.wpe",
            "layers": "transformer.h",
            "norm": "transformer.ln_f",
        },
        inner={"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"},
        fusions=[
            *both("attn.c_attn", QKV, columns),
            *both("attn.c_proj", ("self_attn.o_proj",), columns),
            *both("mlp.c_fc", ("mlp.up_proj",), columns),
            *both("mlp.c_proj", ("mlp.down_proj",), columns),
        ],
    ),
    "phi": Names(
        outer={**LLAMA_OUTER, "norm": "model.final_layernorm"},
        inner={"self_attn.o_proj": "self_attn.dense", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"},
    ),
    "phi3": Names(fusions=[*both("self_attn.qkv_proj", QKV, rows), *both("mlp.gate_up_proj", GATE_UP, rows)]),
    "falcon": Names(
        outer={
            "embed_tokens": "transformer.word_embeddings",
            "layers": "transformer.h",
            "norm": "transformer.ln_f",
        },
        inner={
            "self_attn.o_proj": "self_attention.dense",
            "mlp.up_proj": "mlp.dense_h_to_4h",
            "mlp.down_proj": "mlp.dense_4h_to_h",
        },
        fusions=both("self_attention.query_key_value", QKV, by_kv_head),
    ),
    "gpt_oss": Names(
        inner={"mlp.gate": "mlp.router"},
        fusions=[
            ("mlp.experts.gate_up_proj", tuple(f"{name}.weight" for name in EXPERT_GATE_UP), expert_columns),
            (
                "mlp.experts.gate_up_proj_bias",
                tuple(f"{name}.bias" for name in EXPERT_GATE_UP),
                expert_columns,
            ),
            ("mlp.experts.down_proj", ("mlp.experts.down_proj.weight",), expert_columns),
            ("mlp.experts.down_proj_bias", ("mlp.experts.down_proj.bias",), expert_columns),
        ],
    ),
    "mixtral": Names(fusions=STACKED_EXPERTS),
    "qwen3_moe": Names(fusions=STACKED_EXPERTS),
    "qwen3_next": Names(fusions=STACKED_EXPERTS),
    "deepseek_v2": Names(inner=SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "deepseek_v3": Names(inner=SHARED_EXPERTS, fusions=STACKED_EXPERTS),
}
