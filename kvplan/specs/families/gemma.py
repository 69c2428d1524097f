"""Gemma 1 to 3: tied embeddings; from the second on sandwiched norms, and windows between full layers."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Families,
    Identity,
    activation,
    finished_model,
    windowed_layers,
)
from kvplan.specs.families.rope import RopeDefaults, rope, rope_from


def gemma(config: Config, identity: Identity) -> Model:
    """Gemma 1: Llama with heads of 256 and norms stored as their distance from one."""
    heads = config.integer("num_attention_heads", default=16)
    longest = config.integer("max_position_embeddings", default=8192)
    bias = config.flag("attention_bias", False)
    config.only("use_bidirectional_attention", False, "a token sees those before it only")
    full = Attention(
        heads,
        config.integer("num_key_value_heads", default=16),
        config.integer("head_dim", default=256),
        qkv_bias=bias,
        out_bias=bias,
        rope_parameters=rope(config, longest),
    )
    act = activation(config, default=Activation.GELU_TANH)
    # The exact GELU of the first files was never meant: the class takes the approximation.
    act = Activation.GELU_TANH if act is Activation.GELU else act
    config.only("hidden_activation", act.value, "it contradicts hidden_act, which the class reads")
    return finished_model(
        config,
        identity,
        [Layer(full, MLP(config.integer("intermediate_size", default=24_576), hidden_act=act))]
        * config.depth("num_hidden_layers", default=28),
        tied=True,
        norm=Norm.RMS_UNIT_OFFSET,
        embedding_multiplier=sqrt(config.integer("hidden_size", default=3072)),
        hidden_size=config.integer("hidden_size", default=3072),
        vocab_size=config.integer("vocab_size", default=256_000),
        max_position_embeddings=longest,
    )


def gemma2(config: Config, identity: Identity) -> Model:
    """Gemma 2: layers 0, 2, 4... slide over 4,096 tokens where the file does not say otherwise."""
    depth = config.depth("num_hidden_layers")
    slides = windowed_layers(config, depth) or [index % 2 == 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=4096)
    config.harmless("sliding_window_size")
    full = replace(
        _attention(config, qk_norm=None),
        attn_logit_softcapping=config.optional_number("attn_logit_softcapping", default=50.0),
        rope_parameters=rope(config, config.integer("max_position_embeddings")),
    )
    layers = _layers(config, full, replace(full, sliding_window=window), slides)
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        norm=Norm.RMS_UNIT_OFFSET,
        embedding_multiplier=_embedding_multiplier(config),
        final_logit_softcapping=config.optional_number("final_logit_softcapping", default=30.0),
    )


def gemma3_text(config: Config, identity: Identity) -> Model:
    """Gemma 3's language model.

    Keys equal to the class default are left out of released files, so the defaults are part of the format.
    """
    layers = _gemma3_layers(config)
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        norm=Norm.RMS_UNIT_OFFSET,
        embedding_multiplier=_embedding_multiplier(config),
        final_logit_softcapping=config.optional_number("final_logit_softcapping"),
        max_position_embeddings=_longest(config),
        vocab_size=config.integer("vocab_size", default=262_208),
    )


def _gemma3_layers(config: Config) -> list[Layer]:
    """Return the layers: every ``sliding_window_pattern``-th is full, the others slide."""
    depth = config.depth("num_hidden_layers")
    pattern = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
    slides = windowed_layers(config, depth) or [(index + 1) % pattern != 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=4096)
    config.only("attn_logit_softcapping", None, "attention scores are not capped in this family")
    everywhere, nearby = full_and_local_ropes(config, _longest(config))
    full = replace(_attention(config, qk_norm=QkNorm.HEAD), rope_parameters=everywhere)
    sliding = replace(full, sliding_window=window, rope_parameters=nearby)
    return _layers(config, full, sliding, slides)


def full_and_local_ropes(config: Config, longest: int) -> tuple[RopeParameters, RopeParameters]:
    """Return the rotations of full and of sliding layers.

    Older files stretch the full layers by ``rope_scaling`` and give the sliding ones a base of their own.
    """
    by_kind = config.optional_inner("rope_parameters")
    full = config.optional_inner("rope_scaling")
    sliding = None
    if by_kind is not None:
        if full is not None:
            config.refuse("rope_scaling", "cannot be beside rope_parameters")
        full, sliding = by_kind.optional_inner("full_attention"), by_kind.optional_inner("sliding_attention")
        by_kind.finish()
    local = RopeDefaults(rope_theta=10_000.0, theta_key="rope_local_base_freq")
    return (
        rope_from(config, full, longest, RopeDefaults(rope_theta=1_000_000.0)),
        rope_from(config, sliding, longest, local),
    )


def _longest(config: Config) -> int:
    return config.integer("max_position_embeddings", default=131_072)


def _embedding_multiplier(config: Config) -> float:
    return sqrt(config.integer("hidden_size"))


def _attention(config: Config, *, qk_norm: QkNorm | None) -> Attention:
    bias = config.flag("attention_bias", False)
    config.only("use_bidirectional_attention", False, "a token sees those before it only")
    return Attention(
        num_attention_heads=config.integer("num_attention_heads", default=8),
        num_key_value_heads=config.integer("num_key_value_heads", default=4),
        head_dim=config.integer("head_dim", default=256),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=qk_norm,
        query_pre_attn_scalar=config.number("query_pre_attn_scalar", default=256.0),
    )


def _layers(config: Config, full: Attention, sliding: Attention, slides: list[bool]) -> list[Layer]:
    config.harmless("hidden_act")  # the class reads the other key
    mlp = MLP(
        config.integer("intermediate_size"),
        hidden_act=activation(config, "hidden_activation", Activation.GELU_TANH),
    )
    return [Layer(sliding if slide else full, mlp, Block.SANDWICH) for slide in slides]


FAMILIES: Families = {
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3_text,
}
