"""CLIP, SigLIP 1 and 2, and Pixtral: the encoders that several families put before a language model."""

from __future__ import annotations

from collections.abc import Callable

from kvplan.arch.model import Model
from kvplan.arch.tower import TowerTensor
from kvplan.errors import did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.towers.parts import (
    Encoder,
    Tensors,
    finish_encoder,
    gated_mlp,
    ignore_what_is_not_counted,
    layer_norm,
    linear,
    parameter,
    patches_per_side,
    rms_norm,
    square_attention,
    two_layer_mlp,
    widths,
)


def encoder(config: Config, default_type: str) -> Encoder:
    """Return the encoder that ``model_type`` names, or without one the default.

    Raises:
        SpecError: it is not one that is understood, or a size is malformed.
    """
    kind = config.text("model_type", default=default_type)
    if kind not in ENCODERS:
        known = did_you_mean(kind, ENCODERS) or f"understood: {', '.join(ENCODERS)}"
        config.refuse("model_type", f"{shown(kind)} is no encoder that is understood ({known})")
    ignore_what_is_not_counted(config)
    return ENCODERS[kind](config)


def counted_encoder(config: Config, model: Model, default_type: str) -> Encoder:
    """Return the encoder of a ``vision_config``, every key of which is then understood."""
    found = encoder(config, default_type)
    finish_encoder(config, model)
    return found


def siglip(config: Config) -> Encoder:
    """Return a SigLIP encoder."""
    width, inner = widths(config, 768, 3072)
    positions = patches_per_side(config, image_size=224, patch_size=16) ** 2
    body = siglip_body(config, width, inner, positions, patch_size=16)
    return Encoder(width, (*body, *_pooling_head(config, width, inner)))


def siglip2(config: Config) -> Encoder:
    """Return a SigLIP 2 encoder: SigLIP with as many positions as the file says, for any shape of image."""
    width, inner = widths(config, 768, 3072)
    positions = config.integer("num_patches", default=256)
    body = siglip_body(config, width, inner, positions, patch_size=16)
    return Encoder(width, (*body, *_pooling_head(config, width, inner)))


def siglip_body(config: Config, width: int, inner: int, positions: int, *, patch_size: int) -> Tensors:
    """Return a SigLIP encoder without its pooling head; ``patch_size`` is the class default."""
    pixels = config.integer("num_channels", default=3) * config.integer("patch_size", default=patch_size) ** 2
    depth = config.depth("num_hidden_layers", default=12)
    return (
        *linear("embeddings.patch_embedding", width, pixels),
        *parameter("embeddings.position_embedding.weight", positions, width),
        *_pre_norm_blocks(width, inner, depth),
        *layer_norm("post_layernorm", width),
    )


def _pre_norm_blocks(width: int, inner: int, depth: int) -> Tensors:
    return (
        *layer_norm("layers.layer_norm1", width, depth),
        *square_attention("layers.self_attn", width, depth),
        *layer_norm("layers.layer_norm2", width, depth),
        *two_layer_mlp("layers.mlp", width, inner, depth),
    )


def _pooling_head(config: Config, width: int, inner: int) -> Tensors:
    """Return the head that pools all patches into one: there unless the file says otherwise."""
    if not config.flag("vision_use_head", True):
        return ()
    return (
        *parameter("head.probe", 1, 1, width),
        TowerTensor("head.attention.in_proj_weight", (3 * width, width)),
        TowerTensor("head.attention.in_proj_bias", (3 * width,)),
        *linear("head.attention.out_proj", width, width),
        *layer_norm("head.layernorm", width),
        *two_layer_mlp("head.mlp", width, inner, 1),
    )


def clip(config: Config) -> Encoder:
    """Return a CLIP vision encoder: a class embedding before the patches, norms before and after."""
    width, inner = widths(config, 768, 3072)
    channels, patch = config.integer("num_channels", default=3), config.integer("patch_size", default=32)
    positions = patches_per_side(config, image_size=224, patch_size=32) ** 2 + 1
    config.harmless("projection_dim", "vocab_size")  # of the whole CLIP, not of its vision model
    return Encoder(
        width,
        (
            *parameter("embeddings.class_embedding", width),
            *linear("embeddings.patch_embedding", width, channels * patch**2, bias=False),
            *parameter("embeddings.position_embedding.weight", positions, width),
            *layer_norm("pre_layrnorm", width),
            *_pre_norm_blocks(width, inner, config.depth("num_hidden_layers", default=12)),
            *layer_norm("post_layernorm", width),
        ),
    )


def pixtral(config: Config) -> Encoder:
    """Return a Pixtral encoder: rotated positions, gated blocks, no biases."""
    width, inner = widths(config, 1024, 4096)
    channels, patch = config.integer("num_channels", default=3), config.integer("patch_size", default=16)
    depth = config.depth("num_hidden_layers", default=24)
    config.harmless("image_size", "head_dim", "vocab_size", "is_composition")
    return Encoder(
        width,
        (
            *linear("patch_conv", width, channels * patch**2, bias=False),
            *rms_norm("ln_pre", width),
            *rms_norm("transformer.layers.attention_norm", width, depth),
            *square_attention("transformer.layers.attention", width, depth, bias=False),
            *rms_norm("transformer.layers.ffn_norm", width, depth),
            *gated_mlp("transformer.layers.feed_forward", width, inner, depth),
        ),
    )


ENCODERS: dict[str, Callable[[Config], Encoder]] = {
    "clip_vision_model": clip,
    "pixtral": pixtral,
    "siglip2_vision_model": siglip2,
    "siglip_vision_model": siglip,
}
