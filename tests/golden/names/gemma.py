"""Gemma 3n and 4."""

from __future__ import annotations

from names.fusing import EXPERT_GATE_UP, LLAMA_OUTER, Names, expert_rows

PER_LAYER = {
    **LLAMA_OUTER,
    "embed_tokens_per_layer": "model.embed_tokens_per_layer",
    "per_layer_model_projection": "model.per_layer_model_projection",
    "per_layer_projection_norm": "model.per_layer_projection_norm",
}
NAMES: dict[str, Names] = {
    "gemma3n_text": Names(
        outer={
            **PER_LAYER,
            "altup_projections": "model.altup_projections",
            "altup_unembed_projections": "model.altup_unembed_projections",
        },
    ),
    "gemma4_text": Names(
        outer=PER_LAYER,
        inner={
            "mlp.shared_expert": "mlp",
            "mlp.shared_expert_norm": "post_feedforward_layernorm_1",
            "mlp.experts_input_norm": "pre_feedforward_layernorm_2",
            "mlp.experts_norm": "post_feedforward_layernorm_2",
            "mlp.gate_norm.weight": "router.scale",
            "mlp.gate": "router.proj",
            "mlp.per_expert_scale": "router.per_expert_scale",
        },
        fusions=[
            ("experts.gate_up_proj", tuple(f"{name}.weight" for name in EXPERT_GATE_UP), expert_rows),
            ("experts.down_proj", ("mlp.experts.down_proj.weight",), expert_rows),
        ],
    ),
}
