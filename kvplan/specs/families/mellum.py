"""Mellum 2 (JetBrains): Qwen 3's mixture with a rotation for each kind of layer."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Families,
    Identity,
    finished_model,
    prediction_layers,
    windowed_layers,
)
from kvplan.specs.families.rope import RopeDefaults, rope_from
from kvplan.specs.families.routed import sparse_layers
from kvplan.specs.families.sizes import Sizes

_FULL_THETA, _SLIDING_THETA = 500_000.0, 10_000.0


def mellum(config: Config, identity: Identity) -> Model:
    """Mellum 2: no layer slides and every layer has experts, unless the file says otherwise."""
    sizes = Sizes(
        vocab_size=98_304,
        hidden_size=2304,
        intermediate_size=7168,
        num_hidden_layers=28,
        num_attention_heads=32,
        max_position_embeddings=131_072,
        num_key_value_heads=4,
        head_dim=128,
    ).read(config)
    depth, dense = sizes.num_hidden_layers, sizes.gated_mlp(config)
    full, sliding = _mixers(config, sizes)
    experts = Experts(
        num_experts=config.integer("num_experts", "num_local_experts", default=64),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=8),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=896),
        hidden_act=dense.hidden_act,
        norm_topk_prob=config.flag("norm_topk_prob", True),
    )
    slides = windowed_layers(config, depth) or [False] * depth
    # Of the layer that predicts further tokens.
    config.harmless("mtp_layer_types", "mtp_mlp_layer_types")
    layers = [
        Layer(sliding if slide else full, experts if routed else dense)
        for slide, routed in zip(slides, sparse_layers(config, depth, [True] * depth), strict=True)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        num_nextn_predict_layers=prediction_layers(config),
    )


def _mixers(config: Config, sizes: Sizes) -> tuple[Attention, Attention]:
    """Return full attention, and that of a window, each rotated as ``rope_parameters`` says of its kind."""
    bias, both = config.flag("attention_bias", False), config.optional_inner("rope_parameters")
    plain = replace(sizes.attention(config, None, qkv_bias=bias, out_bias=bias), qk_norm=QkNorm.HEAD)
    kinds = (("full_attention", _FULL_THETA), ("sliding_attention", _SLIDING_THETA))
    full, sliding = (
        replace(
            plain,
            rope_parameters=rope_from(
                config,
                None if both is None else both.optional_inner(kind),
                sizes.max_position_embeddings,
                RopeDefaults(rope_theta=theta),
            ),
        )
        for kind, theta in kinds
    )
    if both is not None:
        both.finish()
    return full, replace(sliding, sliding_window=config.optional_integer("sliding_window", default=1024))


FAMILIES: Families = {"mellum": mellum}
