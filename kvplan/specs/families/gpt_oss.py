"""gpt-oss: windows in every other layer, attention sinks, experts with biases."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.swiglu import Swiglu
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.rope import RopeDefaults, rope


def gpt_oss(config: Config, identity: Identity) -> Model:
    """gpt-oss: layers 0, 2, 4... slide over 128 tokens where the file does not say otherwise."""
    depth = config.depth("num_hidden_layers")
    slides = windowed_layers(config, depth) or [index % 2 == 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=128)
    config.only("hidden_act", "silu", "the experts of this family are gated by silu")
    experts = Experts(
        num_experts=config.integer("num_local_experts"),
        num_experts_per_tok=config.integer("num_experts_per_tok", "experts_per_token"),
        moe_intermediate_size=config.integer("intermediate_size"),
        router_bias=True,
        expert_bias=True,
        swiglu=Swiglu(
            limit=config.number("swiglu_limit", default=7.0),
            alpha=config.number("swiglu_alpha", default=1.702),
            up_offset=1.0,
        ),
    )
    full = _attention(config)
    sliding = replace(full, sliding_window=window)
    layers = [Layer(sliding if slide else full, experts) for slide in slides]
    return finished_model(config, identity, layers, tied=False, eps=1e-5)


def _attention(config: Config) -> Attention:
    bias = config.flag("attention_bias", True)
    return Attention(
        num_attention_heads=config.integer("num_attention_heads"),
        num_key_value_heads=config.integer("num_key_value_heads"),
        head_dim=config.integer("head_dim", default=64),
        qkv_bias=bias,
        out_bias=bias,
        sinks=True,
        rope_parameters=_rope(config),
    )


def _rope(config: Config) -> RopeParameters:
    """Return the rotation: stretched even where the file does not say so, as the class does."""
    found = rope(config, config.integer("max_position_embeddings"), RopeDefaults(rope_theta=150_000.0))
    if config.optional_inner("rope_scaling", "rope_parameters") is not None:
        return found
    return replace(
        found,
        rope_type=RopeType.YARN,
        factor=32.0,
        beta_fast=32.0,
        beta_slow=1.0,
        original_max_position_embeddings=4096,
        truncate=False,
    )


FAMILIES: Families = {"gpt_oss": gpt_oss}
