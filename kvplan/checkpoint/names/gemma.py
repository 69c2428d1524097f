"""Gemma 3n and 4."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import LLAMA_OUTER, Names, stacked
from kvplan.checkpoint.names.kinds import EXPERT_ROWS

_PER_LAYER = ("embed_tokens_per_layer", "per_layer_model_projection", "per_layer_projection_norm")
_STREAMS = ("altup_projections", "altup_unembed_projections")
_OUTER = {**LLAMA_OUTER, **{name: f"model.{name}" for name in _PER_LAYER}}

NAMES: dict[str, Names] = {
    "gemma3n_text": Names(outer={**_OUTER, **{name: f"model.{name}" for name in _STREAMS}}),
    "gemma4_text": Names(
        outer=_OUTER,
        inner={
            "mlp.shared_expert": "mlp",
            "mlp.shared_expert_norm": "post_feedforward_layernorm_1",
            "mlp.experts_input_norm": "pre_feedforward_layernorm_2",
            "mlp.experts_norm": "post_feedforward_layernorm_2",
            "mlp.gate_norm.weight": "router.scale",
            "mlp.gate": "router.proj",
            "mlp.per_expert_scale": "router.per_expert_scale",
        },
        fusions=stacked("experts", EXPERT_ROWS),
    ),
}
