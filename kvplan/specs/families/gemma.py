"""Gemma 2 and 3: sandwiched norms, tied embeddings, windows interleaved with full attention."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.vision import SiglipTower
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Identity,
    activation,
    dtype,
    finished_model,
    refuse_other_dtype,
    weight_format,
    windowed_layers,
)
from kvplan.specs.families.rope import RopeDefaults, rope, rope_from


def gemma2(config: Config, identity: Identity) -> Model:
    """Gemma 2: layers 0, 2, 4... slide over 4,096 tokens where the file does not say otherwise."""
    depth = config.depth("num_hidden_layers")
    slides = windowed_layers(config, depth) or [index % 2 == 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=4096)
    config.harmless("sliding_window_size")
    full = replace(
        _attention(config, qk_norm=False),
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
    """Gemma 3 without its image encoder."""
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
    )


def gemma3(config: Config, identity: Identity) -> Model:
    """Gemma 3 with its image encoder: the language model is under ``text_config``.

    Keys equal to the class default are left out of released files, so the defaults are part of the format.
    """
    text = config.inner("text_config")
    layers = _gemma3_layers(text)
    text.only("final_logit_softcapping", None, "logits are not capped in this family's class with images")
    stored, outer_dtype = weight_format(config), dtype(config)
    vision = _siglip(config.inner("vision_config"), outer_dtype)
    tied = config.flag("tie_word_embeddings", True)
    config.harmless("model_type", "mm_tokens_per_image")
    config.finish()
    return finished_model(
        text,
        identity,
        layers,
        tied=tied,
        norm=Norm.RMS_UNIT_OFFSET,
        embedding_multiplier=_embedding_multiplier(text),
        max_position_embeddings=_longest(text),
        vocab_size=text.integer("vocab_size", default=262_208),
        vision=vision,
        stored=stored,
        model_dtype=outer_dtype,
    )


def _gemma3_layers(config: Config) -> list[Layer]:
    """Return the layers: every ``sliding_window_pattern``-th is full, the others slide."""
    depth = config.depth("num_hidden_layers")
    pattern = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
    slides = windowed_layers(config, depth) or [(index + 1) % pattern != 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=4096)
    config.only("attn_logit_softcapping", None, "attention scores are not capped in this family")
    everywhere, nearby = _gemma3_ropes(config)
    full = replace(_attention(config, qk_norm=True), rope_parameters=everywhere)
    sliding = replace(full, sliding_window=window, rope_parameters=nearby)
    return _layers(config, full, sliding, slides)


def _gemma3_ropes(config: Config) -> tuple[RopeParameters, RopeParameters]:
    """Return the rotations of full and of sliding layers.

    Older files stretch the full layers by ``rope_scaling`` and give the sliding ones a base of their own.
    """
    longest, by_kind = _longest(config), config.optional_inner("rope_parameters")
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


def _attention(config: Config, *, qk_norm: bool) -> Attention:
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


def _siglip(config: Config, outer_dtype: str) -> SiglipTower:
    refuse_other_dtype(config, outer_dtype)
    config.only("model_type", "siglip_vision_model", "only the SigLIP encoder is")
    config.harmless("hidden_act", "layer_norm_eps")  # the tower is counted, not computed
    config.only("vision_use_head", False, "the encoder's pooling head is not counted")
    tower = SiglipTower(
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_hidden_layers=config.integer("num_hidden_layers"),
        num_attention_heads=config.integer("num_attention_heads"),
        image_size=config.integer("image_size"),
        patch_size=config.integer("patch_size"),
        num_channels=config.integer("num_channels", default=3),
    )
    config.finish()
    return tower
