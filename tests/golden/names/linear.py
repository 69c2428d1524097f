"""Kimi-Linear, MiniMax-01, RecurrentGemma, LFM2 and 3, Qwen 3.5, and OLMo Hybrid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.layer import Layer
from kvplan.arch.rg_lru import RgLru
from names.first_families import SHARED_EXPERTS
from names.fusing import LLAMA_OUTER, STACKED_EXPERTS, Array, Fusion, Names

FORGET_GATE = ("f_a_proj", "f_b_proj", "dt_bias", "A_log")
# transformers makes these of the layer's number, and keeps them among its tensors.
LIGHTNING_DECAYS = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
LFM2_INNER = {
    "input_layernorm": "operator_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "self_attn.q_layernorm",
    "self_attn.k_norm": "self_attn.k_layernorm",
    "self_attn.o_proj": "self_attn.out_proj",
    "mlp": "feed_forward",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.gate.e_score_correction_bias": "feed_forward.expert_bias",
}
# Norms before each part and behind it; which of our names they have depends on there being both.
LFM3_INNER = {
    **{ours: name for ours, name in LFM2_INNER.items() if not ours.startswith("self_attn")},
    "post_attention_layernorm": "post_operator_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffn_norm",
}
LFM2_OUTER = {**LLAMA_OUTER, "norm": "model.embedding_norm"}


def one_rate_a_head(_layer: Layer, rates: Array) -> Array:
    return rates[None, None, :, None]


def by_block(layer: Layer, bias: Array) -> Array:
    assert isinstance(layer.mixer, RgLru)
    return bias.reshape(layer.mixer.num_attention_heads, -1)


def _of_key_heads(layer: Layer, joined: Array, parts: tuple[int, ...], kept: slice) -> Array:
    """Return some parts of every key head, part by part; rows come by key head, each with all parts."""
    assert isinstance(layer.mixer, GatedDeltaNet)
    by_head = joined.reshape(layer.mixer.linear_num_key_heads, sum(parts), -1)
    pieces = np.split(by_head, np.cumsum(parts)[:-1], axis=1)
    return np.concatenate([piece.reshape(-1, joined.shape[1]) for piece in pieces[kept]])


def of_qkvz(kept: slice) -> Callable[..., Array]:
    """Return what takes some of a head's query, key, values and gates."""

    def taken(layer: Layer, joined: Array) -> Array:
        assert isinstance(layer.mixer, GatedDeltaNet)
        values = layer.mixer.value_width // layer.mixer.linear_num_key_heads
        key = layer.mixer.linear_key_head_dim
        return _of_key_heads(layer, joined, (key, key, values, values), kept)

    return taken


def of_ba(kept: slice) -> Callable[..., Array]:
    """Return what takes a head's write strengths or its steps."""

    def taken(layer: Layer, joined: Array) -> Array:
        assert isinstance(layer.mixer, GatedDeltaNet)
        group = layer.mixer.linear_num_value_heads // layer.mixer.linear_num_key_heads
        return _of_key_heads(layer, joined, (group, group), kept)

    return taken


QKVZ, BA = ("linear_attn.in_proj_qkvz.weight",), ("linear_attn.in_proj_ba.weight",)
UNFUSED_DELTA_NET: list[Fusion] = [
    ("linear_attn.in_proj_qkv.weight", QKVZ, of_qkvz(slice(0, 3))),
    ("linear_attn.in_proj_z.weight", QKVZ, of_qkvz(slice(3, 4))),
    ("linear_attn.in_proj_b.weight", BA, of_ba(slice(0, 1))),
    ("linear_attn.in_proj_a.weight", BA, of_ba(slice(1, 2))),
]
# OLMo Hybrid has a matrix for each.
OLMO_DELTA_NET: list[Fusion] = [
    ("linear_attn.q_proj.weight", QKVZ, of_qkvz(slice(0, 1))),
    ("linear_attn.k_proj.weight", QKVZ, of_qkvz(slice(1, 2))),
    ("linear_attn.v_proj.weight", QKVZ, of_qkvz(slice(2, 3))),
    ("linear_attn.g_proj.weight", QKVZ, of_qkvz(slice(3, 4))),
    ("linear_attn.b_proj.weight", BA, of_ba(slice(0, 1))),
    ("linear_attn.a_proj.weight", BA, of_ba(slice(1, 2))),
]

NAMES: dict[str, Names] = {
    "kimi_linear": Names(
        inner={
            **SHARED_EXPERTS,
            **{f"self_attn.{name}": f"self_attn.forget_gate.{name}" for name in FORGET_GATE},
        },
        fusions=[("self_attn.A_log", ("self_attn.A_log",), one_rate_a_head), *STACKED_EXPERTS],
    ),
    "minimax": Names(fusions=STACKED_EXPERTS, made_there=LIGHTNING_DECAYS),
    "recurrent_gemma": Names(
        outer={**LLAMA_OUTER, "norm": "model.final_norm"},
        inner={
            "input_layernorm": "temporal_pre_norm",
            "post_attention_layernorm": "channel_pre_norm",
            "self_attn": "temporal_block",
            "mlp": "mlp_block",
        },
        fusions=[
            (name, (name,), by_block)
            for name in (
                "temporal_block.rg_lru.input_gate_bias",
                "temporal_block.rg_lru.recurrent_gate_bias",
            )
        ],
    ),
    "lfm2": Names(outer=LFM2_OUTER, inner=LFM2_INNER),
    "lfm3": Names(outer=LFM2_OUTER, inner=LFM3_INNER),
    "lfm2_moe": Names(outer=LFM2_OUTER, inner=LFM2_INNER, fusions=STACKED_EXPERTS),
    "olmo_hybrid": Names(
        inner={"linear_attn.norm": "linear_attn.o_norm", "linear_attn.out_proj": "linear_attn.o_proj"},
        fusions=OLMO_DELTA_NET,
    ),
    "qwen3_5_text": Names(fusions=UNFUSED_DELTA_NET),
    "qwen3_5_moe_text": Names(fusions=[*UNFUSED_DELTA_NET, *STACKED_EXPERTS]),
}
