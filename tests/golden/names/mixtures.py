"""Mixtures of experts, from Qwen 2's to AFMoE's."""

from __future__ import annotations

import numpy as np

from kvplan.arch.layer import Layer
from names.fusing import EXPERT_GATE_UP, QKV, STACKED_EXPERTS, Array, Names, both, rows

_SHARED_EXPERTS = {"mlp.shared_expert": "mlp.shared_experts"}
_GRANITE = {"mlp.gate": "block_sparse_moe.router", "mlp.experts": "block_sparse_moe.experts"}
_CORRECTION = "mlp.gate.e_score_correction_bias"
_INDEX_PARTS = ("q_proj", "k_proj", "q_norm", "k_norm")
_SHARED_GATE_UP = ("mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight")


def _stacked(_layer: Layer, *parts: Array) -> Array:
    """Put experts under one another: (experts x outputs, inputs)."""
    return np.concatenate(parts, axis=1).reshape(-1, parts[0].shape[-1])


def _stacked_inputs(_layer: Layer, part: Array) -> Array:
    """Put experts under one another, inputs first: (experts x inputs, outputs)."""
    return part.swapaxes(1, 2).reshape(-1, part.shape[1])


def _inputs_first(_layer: Layer, *parts: Array) -> Array:
    """Join outputs and put them last: (experts, inputs, outputs)."""
    return np.concatenate(parts, axis=1).swapaxes(1, 2)


def _one_row(_layer: Layer, part: Array) -> Array:
    return part[np.newaxis]


_GRANITE_SHARED = Names(
    inner={**_GRANITE, "mlp.shared_expert.down_proj": "shared_mlp.output_linear"},
    fusions=[*STACKED_EXPERTS, ("shared_mlp.input_linear.weight", _SHARED_GATE_UP, rows)],
)
NAMES: dict[str, Names] = {
    "qwen2_moe": Names(fusions=STACKED_EXPERTS),
    "olmoe": Names(fusions=STACKED_EXPERTS),
    "flex_olmo": Names(fusions=STACKED_EXPERTS),
    "mellum": Names(fusions=STACKED_EXPERTS),
    "exaone_moe": Names(inner=_SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "solar_open": Names(inner=_SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "hy_v3": Names(
        inner={**_SHARED_EXPERTS, _CORRECTION: "mlp.e_score_correction_bias"}, fusions=STACKED_EXPERTS
    ),
    "afmoe": Names(
        inner={
            **_SHARED_EXPERTS,
            _CORRECTION: "mlp.expert_bias",
            "mlp.gate": "mlp.router.gate",
            "self_attn.g_proj": "self_attn.gate_proj",
            "pre_feedforward_layernorm": "pre_mlp_layernorm",
            "post_feedforward_layernorm": "post_mlp_layernorm",
        },
        fusions=STACKED_EXPERTS,
    ),
    "glm4_moe": Names(inner=_SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "dots1": Names(inner=_SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "minimax_m2": Names(inner={_CORRECTION: "mlp.e_score_correction_bias"}, fusions=STACKED_EXPERTS),
    "minimax_m3_vl_text": Names(
        inner={
            **_SHARED_EXPERTS,
            **{f"self_attn.index_{part}": f"self_attn.indexer.{part}" for part in _INDEX_PARTS},
        },
        fusions=[
            *STACKED_EXPERTS,
            ("mlp.gate_up_proj.weight", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), rows),
            ("mlp.shared_experts.gate_up_proj.weight", _SHARED_GATE_UP, rows),
        ],
    ),
    "ernie4_5_moe": Names(
        inner=_SHARED_EXPERTS,
        fusions=[
            *STACKED_EXPERTS,
            ("mlp.gate.moe_statics.e_score_correction_bias", (_CORRECTION,), _one_row),
        ],
    ),
    "phimoe": Names(inner={"mlp.gate": "mlp.router"}, fusions=STACKED_EXPERTS),
    "granitemoe": Names(inner=_GRANITE, fusions=STACKED_EXPERTS),
    "granitemoeshared": _GRANITE_SHARED,
    "granitemoe_swa": _GRANITE_SHARED,
    "hunyuan_v1_moe": Names(
        inner={
            "self_attn.q_norm": "self_attn.query_layernorm",
            "self_attn.k_norm": "self_attn.key_layernorm",
            "mlp.gate": "mlp.gate.wg",
            "mlp.shared_expert": "mlp.shared_mlp",
        },
        fusions=STACKED_EXPERTS,
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
        fusions=[
            *both("norm_attn_norm.attn.Wqkv", QKV, rows),
            ("ffn.experts.mlp.w1", ("mlp.experts.gate_proj.weight",), _stacked),
            ("ffn.experts.mlp.v1", ("mlp.experts.up_proj.weight",), _stacked),
            ("ffn.experts.mlp.w2", ("mlp.experts.down_proj.weight",), _stacked_inputs),
        ],
    ),
    "llama4_text": Names(
        inner={
            "mlp.gate": "feed_forward.router",
            "mlp": "feed_forward",
        },
        fusions=[
            (
                "feed_forward.experts.gate_up_proj",
                tuple(f"{name}.weight" for name in EXPERT_GATE_UP),
                _inputs_first,
            ),
            ("feed_forward.experts.down_proj", ("mlp.experts.down_proj.weight",), _inputs_first),
        ],
    ),
    "mimo_v2_flash": Names(fusions=STACKED_EXPERTS),
}
