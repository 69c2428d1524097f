"""Mamba, Mamba-2, and the models that have attention between or beside them."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import (
    GATE_UP,
    LLAMA_OUTER,
    SHARED_GATE_UP,
    BlockNames,
    Fusion,
    Names,
    both,
    one_by_one,
)
from kvplan.checkpoint.names.kinds import APART, ROWS
from kvplan.checkpoint.names.mixer_kinds import STEPS_LAST
from kvplan.checkpoint.names.mixtures import GRANITE_EXPERTS, GRANITE_ROUTER

_BACKBONE = {"embed_tokens": "backbone.embeddings", "layers": "backbone.layers", "norm": "backbone.norm_f"}
_MODEL = {**LLAMA_OUTER, "norm": "model.final_layernorm"}
_FEED_FORWARD = {"post_attention_layernorm": "pre_ff_layernorm", "mlp": "feed_forward"}
_ONE_MIXER = {"input_layernorm": "norm", "mamba": "mixer"}
# Products with adapters, and what stands before the names of these.
_ADAPTED = {
    "self_attn.q_proj": "self_attn.linear_q",
    "self_attn.k_proj": "self_attn.linear_k",
    "self_attn.v_proj": "self_attn.linear_v",
    "mlp.first_step": "feed_forward.gate_up_proj",
}
_GRANITE_MLP = "shared_mlp.input_linear"


def _mamba2(prefix: str) -> tuple[Fusion, ...]:
    """Return the matrices that heads and groups share, under what their files call the mixer."""
    return (
        *both(f"{prefix}.in_proj", ("mamba.in_proj", "mamba.in_proj_groups"), STEPS_LAST),
        *both(f"{prefix}.conv1d", ("mamba.conv1d", "mamba.conv1d_groups"), ROWS),
    )


NAMES: dict[str, Names] = {
    "bamba": Names(outer=_MODEL, inner=_FEED_FORWARD, fusions=_mamba2("mamba")),
    "falcon_h1": Names(outer=_MODEL, inner=_FEED_FORWARD, fusions=_mamba2("mamba")),
    "falcon_mamba": Names(outer=_BACKBONE, inner=_ONE_MIXER),
    "granitemoehybrid": Names(
        inner={
            **GRANITE_ROUTER,
            "mlp.down_proj": "shared_mlp.output_linear",
            "mlp.shared_expert.down_proj": "shared_mlp.output_linear",
        },
        fusions=(
            *_mamba2("mamba"),
            *GRANITE_EXPERTS,
            *both(_GRANITE_MLP, GATE_UP, ROWS),
            *both(_GRANITE_MLP, SHARED_GATE_UP, ROWS),
        ),
    ),
    "jamba": Names(
        outer=_MODEL,
        inner={**_FEED_FORWARD, "mlp.gate": "feed_forward.router"},
        fusions=one_by_one("feed_forward.experts", "gate_proj", "up_proj", "down_proj"),
    ),
    "mamba": Names(outer=_BACKBONE, inner=_ONE_MIXER),
    "mamba2": Names(outer=_BACKBONE, inner=_ONE_MIXER, fusions=_mamba2("mixer")),
    "nemotron_h": Names(
        outer=_BACKBONE,
        inner={
            **_ONE_MIXER,
            "post_attention_layernorm": "norm",
            "self_attn": "mixer",
            "mlp": "mixer",
            "mlp.shared_expert": "mixer.shared_experts",
        },
        fusions=(
            *_mamba2("mixer"),
            *(
                Fusion((f"mixer.experts.{{}}.{name}.weight",), (f"mlp.experts.{name}.weight",), APART)
                for name in ("up_proj", "down_proj")
            ),
        ),
    ),
    "zamba2": Names(
        outer=_MODEL,
        fusions=_mamba2("mamba"),
        shared=BlockNames(
            block=Names(
                inner={
                    "shared_block": "shared_transformer",
                    "self_attn": "shared_transformer.self_attn",
                    "mlp": "shared_transformer.feed_forward",
                },
                fusions=both("shared_transformer.feed_forward.gate_up_proj", GATE_UP, ROWS),
            ),
            beside=Names(
                inner={
                    "input_layernorm": "mamba_decoder.input_layernorm",
                    "mamba": "mamba_decoder.mamba",
                    "shared_block_output": "linear",
                },
                fusions=_mamba2("mamba_decoder.mamba"),
            ),
            adapters={
                f"{ours}_adapter_{letter}": f"shared_transformer.{there}_adapter_list.{{}}.{number}"
                for ours, there in _ADAPTED.items()
                for number, letter in enumerate("ab")
            },
        ),
    ),
}
