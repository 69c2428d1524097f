"""Gemma 2 and 3: sandwiched norms, tied embeddings, windows interleaved with full attention."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.vision import SiglipTower
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Identity,
    dtype,
    finished_model,
    refuse_other_dtype,
    weight_format,
    windowed_layers,
)


def gemma2(config: Config, identity: Identity) -> Model:
    """Gemma 2: layers 0, 2, 4... slide over 4,096 tokens where the file does not say otherwise."""
    depth = config.depth("num_hidden_layers")
    slides = windowed_layers(config, depth) or [index % 2 == 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=4096)
    config.harmless("sliding_window_size")
    full = _attention(config, heads=8, kv_heads=4, qk_norm=False)
    layers = _layers(config, full, window, slides)
    return finished_model(config, identity, layers, tied=True)


def gemma3_text(config: Config, identity: Identity) -> Model:
    """Gemma 3 without its image encoder."""
    layers = _gemma3_layers(config)
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        max_position_embeddings=config.integer("max_position_embeddings", default=131_072),
    )


def gemma3(config: Config, identity: Identity) -> Model:
    """Gemma 3 with its image encoder: the language model is under ``text_config``.

    Keys equal to the class default are left out of released files, so the defaults are part of the format.
    """
    text = config.inner("text_config")
    layers = _gemma3_layers(text)
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
        max_position_embeddings=text.integer("max_position_embeddings", default=131_072),
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
    full = _attention(config, heads=8, kv_heads=4, qk_norm=True)
    return _layers(config, full, window, slides)


def _attention(config: Config, *, heads: int, kv_heads: int, qk_norm: bool) -> Attention:
    bias = config.flag("attention_bias", False)
    return Attention(
        num_attention_heads=config.integer("num_attention_heads", default=heads),
        num_key_value_heads=config.integer("num_key_value_heads", default=kv_heads),
        head_dim=config.integer("head_dim", default=256),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=qk_norm,
    )


def _layers(config: Config, full: Attention, window: int | None, slides: list[bool]) -> list[Layer]:
    mlp = MLP(config.integer("intermediate_size"))
    sliding = replace(full, sliding_window=window)
    return [Layer(sliding if slide else full, mlp, Block.SANDWICH) for slide in slides]


def _siglip(config: Config, outer_dtype: str) -> SiglipTower:
    refuse_other_dtype(config, outer_dtype)
    config.only("model_type", "siglip_vision_model", "only the SigLIP encoder is")
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
