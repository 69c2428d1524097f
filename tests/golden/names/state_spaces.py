"""Mamba, Mamba-2, and the models that have attention between or beside them."""

from __future__ import annotations

import numpy as np

from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.layer import Layer
from kvplan.arch.mamba2 import Mamba2
from names.fusing import LLAMA_OUTER, STACKED_EXPERTS, Array, Fusion, Names, both, rows


def of_groups_last(layer: Layer, of_heads: Array, of_groups: Array) -> Array:
    """Join gate, inputs and steps with what groups write and read: steps come last there."""
    mixer = layer.mixer.mamba2 if isinstance(layer.mixer, AttentionBesideMamba) else layer.mixer
    assert isinstance(mixer, Mamba2)
    gate_and_inputs, steps = np.split(of_heads, [2 * mixer.width])
    return np.concatenate((gate_and_inputs, of_groups, steps))


BACKBONE = {"embed_tokens": "backbone.embeddings", "layers": "backbone.layers", "norm": "backbone.norm_f"}
MODEL = {**LLAMA_OUTER, "norm": "model.final_layernorm"}
FEED_FORWARD = {"post_attention_layernorm": "pre_ff_layernorm", "mlp": "feed_forward"}
ONE_MIXER = {"input_layernorm": "norm", "mamba": "mixer"}
MAMBA2: list[Fusion] = [
    *both("mamba.in_proj", ("mamba.in_proj", "mamba.in_proj_groups"), of_groups_last),
    *both("mamba.conv1d", ("mamba.conv1d", "mamba.conv1d_groups"), rows),
]

NAMES: dict[str, Names] = {
    "mamba": Names(outer=BACKBONE, inner=ONE_MIXER),
    "falcon_mamba": Names(outer=BACKBONE, inner=ONE_MIXER),
    "mamba2": Names(outer=BACKBONE, inner=ONE_MIXER, fusions=MAMBA2),
    "jamba": Names(
        outer=MODEL, inner={**FEED_FORWARD, "mlp.gate": "feed_forward.router"}, fusions=STACKED_EXPERTS
    ),
    "bamba": Names(outer=MODEL, inner=FEED_FORWARD, fusions=MAMBA2),
    "granitemoehybrid": Names(
        inner={"mlp.gate": "block_sparse_moe.router", "mlp.experts": "block_sparse_moe.experts"},
        fusions=[
            *MAMBA2,
            *STACKED_EXPERTS,
            *both("shared_mlp.input_linear", ("mlp.gate_proj", "mlp.up_proj"), rows),
            *both("shared_mlp.output_linear", ("mlp.down_proj",), rows),
            *both(
                "shared_mlp.input_linear", ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"), rows
            ),
            *both("shared_mlp.output_linear", ("mlp.shared_expert.down_proj",), rows),
        ],
    ),
    "falcon_h1": Names(outer=MODEL, inner=FEED_FORWARD, fusions=MAMBA2),
    "nemotron_h": Names(
        outer={
            "embed_tokens": "model.embeddings",
            "layers": "model.layers",
            "norm": "model.norm_f",
        },
        inner={
            **ONE_MIXER,
            "post_attention_layernorm": "norm",
            "self_attn": "mixer",
            "mlp": "mixer",
            "mlp.shared_expert": "mixer.shared_experts",
        },
        fusions=[
            *MAMBA2,
            ("mlp.experts.up_proj", ("mlp.experts.up_proj.weight",), rows),
            ("mlp.experts.down_proj", ("mlp.experts.down_proj.weight",), rows),
        ],
    ),
}
