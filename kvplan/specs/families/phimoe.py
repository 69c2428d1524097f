"""Phi-3.5-MoE and Phi-mini-MoE: LayerNorm, biases, and a sparse mixer that picks two experts."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.experts import Experts, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults, rope_from
from kvplan.specs.families.sizes import Sizes

_ROTATION = RopeDefaults(rope_theta=1_000_000.0)


def phimoe(config: Config, identity: Identity) -> Model:
    """Phi-3.5-MoE: a window in every layer where the file has one; its noise is for training only."""
    config.harmless("input_jitter_noise")
    sizes = Sizes(
        vocab_size=32_064,
        hidden_size=4096,
        intermediate_size=6400,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=131_072,
        num_key_value_heads=8,
    ).read(config)
    bias = config.flag("attention_bias", False)
    mixer = replace(
        sizes.attention(config, None, qkv_bias=bias, out_bias=bias),
        sliding_window=config.optional_integer("sliding_window"),
        rope_parameters=_rope(config, sizes.max_position_embeddings),
    )
    experts = Experts(
        num_experts=config.integer("num_local_experts", default=16),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=sizes.intermediate_size,
        hidden_act=activation(config),
        topk_method=TopkMethod.SPARSEMIXER,
        router_jitter_noise=config.number("router_jitter_noise", default=0.01),
        norm_topk_prob=False,
    )
    return finished_model(
        config,
        identity,
        [Layer(mixer, experts)] * sizes.num_hidden_layers,
        tied=False,
        norm=Norm.LAYER,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        lm_head_bias=config.flag("lm_head_bias", False),
    )


def _rope(config: Config, longest: int) -> RopeParameters:
    """Return the rotation; its temperature is given outright, within the trained context and past it."""
    given = config.optional_inner("rope_scaling", "rope_parameters")
    if given is None:
        return rope_from(config, given, longest, _ROTATION)
    short, long = given.optional_number("short_mscale"), given.optional_number("long_mscale")
    found = rope_from(config, given, longest, _ROTATION)
    if found.rope_type is RopeType.DEFAULT:
        return found
    if found.rope_type is not RopeType.LONGROPE or short is None or long is None:
        given.refuse(None, "this family is stretched by longrope with a short_mscale and a long_mscale")
    if short != long:
        given.refuse("long_mscale", f"{long:g} is not understood beside a short_mscale of {short:g}")
    return replace(found, attention_factor=short)


FAMILIES: Families = {"phimoe": phimoe}
