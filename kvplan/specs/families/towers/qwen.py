"""The vision encoders of Qwen2-VL to Qwen3.5, and of GLM-4V in their manner."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config
from kvplan.specs.families.towers.parts import (
    VISION,
    Tensors,
    finish_encoder,
    gated_mlp,
    ignore_what_is_not_counted,
    layer_norm,
    linear,
    parameter,
    patches_per_side,
    rms_norm,
    tower,
    two_layer_mlp,
    widths,
)


def qwen2_vl(config: Config, model: Model) -> tuple[Tower, ...]:
    """Qwen2-VL: LayerNorms and plain blocks; ``embed_dim`` wide, ``hidden_size`` at the end."""
    vision = _vision(config)
    width = vision.integer("embed_dim", default=1280)
    inner, depth = int(width * vision.number("mlp_ratio", default=4)), vision.depth("depth", default=32)
    merged = width * vision.integer("spatial_merge_size", default=2) ** 2
    tensors = (
        *linear("patch_embed.proj", width, _pixels(vision, patch_size=14), bias=False),
        *_plain_blocks(width, inner, depth),
        *layer_norm("merger.ln_q", width),
        *_merger_mlp(merged, vision.integer("hidden_size", default=3584)),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def qwen2_5_vl(config: Config, model: Model) -> tuple[Tower, ...]:
    """Qwen2.5-VL: RMSNorms and gated blocks; most layers see windows."""
    vision = _vision(config)
    vision.harmless("window_size", "fullatt_block_indexes")
    width, inner = widths(vision, 3584, 3420)
    depth = vision.depth("depth", default=32)
    merged = width * vision.integer("spatial_merge_size", default=2) ** 2
    tensors = (
        *linear("patch_embed.proj", width, _pixels(vision, patch_size=14), bias=False),
        *rms_norm("blocks.norm1", width, depth),
        *rms_norm("blocks.norm2", width, depth),
        *_fused_attention(width, depth),
        *gated_mlp("blocks.mlp", width, inner, depth, bias=True),
        *rms_norm("merger.ln_q", width),
        *_merger_mlp(merged, vision.integer("out_hidden_size", default=3584)),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def qwen3_vl(config: Config, model: Model) -> tuple[Tower, ...]:
    """Qwen3-VL: learned positions, and a merger of its own for each layer that is read deep in the text."""
    vision = _vision(config)
    tensors = _qwen3_body(vision, vision.entries("deepstack_visual_indexes", missing=3))
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def qwen3_5(config: Config, model: Model) -> tuple[Tower, ...]:
    """Qwen3.5: Qwen3-VL's encoder, read at its end only."""
    config.only("language_model_only", False, "a file without its encoder is not understood here")
    vision = _vision(config)
    vision.only("deepstack_visual_indexes", [], "this family reads the encoder at its end only")
    tensors = _qwen3_body(vision, deep=0)
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def _qwen3_body(vision: Config, deep: int) -> Tensors:
    """Return the encoder with its merger, and ``deep`` others."""
    width, inner = widths(vision, 1152, 4304)
    out, depth = vision.integer("out_hidden_size", default=3584), vision.depth("depth", default=27)
    merged = width * vision.integer("spatial_merge_size", default=2) ** 2
    tensors = (
        *linear("patch_embed.proj", width, _pixels(vision, patch_size=16)),
        *parameter("pos_embed.weight", vision.integer("num_position_embeddings", default=2304), width),
        *_plain_blocks(width, inner, depth),
        *layer_norm("merger.norm", width),
        *_two_linears("merger", merged, out, 1),
    )
    if not deep:
        return tensors
    name = "deepstack_merger_list"
    return (*tensors, *layer_norm(f"{name}.norm", merged, deep), *_two_linears(name, merged, out, deep))


def glm4v(config: Config, model: Model) -> tuple[Tower, ...]:
    """GLM-4.1V and 4.5V: patches merged by a convolution, then a gated block as wide as the text wants it."""
    vision = _vision(config)
    width, inner = widths(vision, 1536, 13696)
    out, depth = vision.integer("out_hidden_size", default=4096), vision.depth("depth", default=24)
    merged = width * vision.integer("spatial_merge_size", default=2) ** 2
    positions = patches_per_side(vision, image_size=336, patch_size=14) ** 2
    tensors = (
        *parameter("embeddings.position_embedding.weight", positions, width),
        *linear("patch_embed.proj", width, _pixels(vision, patch_size=14)),
        *rms_norm("post_conv_layernorm", width),
        *rms_norm("blocks.norm1", width, depth),
        *rms_norm("blocks.norm2", width, depth),
        *linear("blocks.attn.qkv", 3 * width, width, depth, bias=vision.flag("attention_bias", False)),
        *linear("blocks.attn.proj", width, width, depth, bias=False),
        *gated_mlp("blocks.mlp", width, out, depth),
        *rms_norm("post_layernorm", width),
        *linear("downsample", out, merged),
        *linear("merger.proj", out, out, bias=False),
        *layer_norm("merger.post_projection_norm", out),
        *gated_mlp("merger", out, inner),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def _vision(config: Config) -> Config:
    vision = config.inner_or("vision_config", {})
    ignore_what_is_not_counted(vision)
    vision.harmless("model_type", "tokens_per_second", "spatial_patch_size")
    vision.only("in_chans", 3, "in_channels is the key this family's class reads")
    return vision


def _pixels(vision: Config, patch_size: int) -> int:
    """Return the numbers in one patch of a few frames; ``patch_size`` is the class default."""
    channels, frames = (
        vision.integer("in_channels", default=3),
        vision.integer("temporal_patch_size", default=2),
    )
    return channels * frames * vision.integer("patch_size", default=patch_size) ** 2


def _plain_blocks(width: int, inner: int, depth: int) -> Tensors:
    return (
        *layer_norm("blocks.norm1", width, depth),
        *layer_norm("blocks.norm2", width, depth),
        *_fused_attention(width, depth),
        *two_layer_mlp("blocks.mlp", width, inner, depth),
    )


def _fused_attention(width: int, depth: int) -> Tensors:
    return (
        *linear("blocks.attn.qkv", 3 * width, width, depth),
        *linear("blocks.attn.proj", width, width, depth),
    )


def _merger_mlp(merged: int, out: int) -> Tensors:
    return (*linear("merger.mlp.0", merged, merged), *linear("merger.mlp.2", out, merged))


def _two_linears(name: str, merged: int, out: int, count: int) -> Tensors:
    return (
        *linear(f"{name}.linear_fc1", merged, merged, count),
        *linear(f"{name}.linear_fc2", out, merged, count),
    )
