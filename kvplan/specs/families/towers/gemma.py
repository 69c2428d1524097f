"""The vision and audio encoders of Gemma 4."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config
from kvplan.specs.families.towers.parts import (
    AUDIO,
    VISION,
    Tensors,
    buffer,
    finish_encoder,
    gated_mlp,
    ignore_what_is_not_counted,
    linear,
    parameter,
    rms_norm,
    tower,
)


def gemma4(config: Config, model: Model) -> tuple[Tower, ...]:
    """Gemma 4: an encoder of images and one of sound, each there only where the file has its config."""
    config.harmless("vision_soft_tokens_per_image", "audio_soft_tokens_per_image")
    encoders = (("vision_config", _vision), ("audio_config", _audio))
    config.harmless(*(key for key, _ in encoders))
    return tuple(made(config.inner(key), model) for key, made in encoders if config.has(key))


def _vision(config: Config, model: Model) -> Tower:
    ignore_what_is_not_counted(config)
    config.harmless("model_type", "max_position_embeddings", "attention_bias", "global_head_dim")
    config.harmless("pooling_kernel_size", "default_output_length")
    config.harmless("image_seq_length", "video_seq_length")
    width, patch = config.integer("hidden_size", default=768), config.integer("patch_size", default=16)
    positions = config.integer("position_embedding_size", default=10_240)
    tensors = (
        *linear("patch_embedder.input_proj", width, 3 * patch**2, bias=False),
        *parameter("patch_embedder.position_embedding_table", 2, positions, width),
        *_vision_layers(config, width),
        *(_standardising(width) if config.flag("standardize", False) else ()),
        *linear("embed_vision.embedding_projection", model.hidden_size, width, bias=False),
    )
    finish_encoder(config, model)
    return tower(VISION, tensors)


def _standardising(width: int) -> Tensors:
    return (*buffer("std_bias", width), *buffer("std_scale", width))


def _clips(config: Config, linears: int, *, default: bool) -> Tensors:
    """Return the four bounds of each of a tower's clipped projections, where it clips them."""
    return buffer("clip_bounds", 4, count=linears) if config.flag("use_clipped_linears", default) else ()


def _vision_layers(config: Config, width: int) -> Tensors:
    name, depth = "encoder.layers", config.depth("num_hidden_layers", default=16)
    head = config.integer("head_dim", default=64)
    queries = config.integer("num_attention_heads", default=12) * head
    keys = config.integer("num_key_value_heads", default=12) * head
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    return (
        *linear(f"{name}.self_attn.q_proj", queries, width, depth, bias=False),
        *linear(f"{name}.self_attn.k_proj", keys, width, depth, bias=False),
        *linear(f"{name}.self_attn.v_proj", keys, width, depth, bias=False),
        *linear(f"{name}.self_attn.o_proj", width, queries, depth, bias=False),
        *rms_norm(f"{name}.self_attn.q_norm", head, depth),
        *rms_norm(f"{name}.self_attn.k_norm", head, depth),
        *gated_mlp(f"{name}.mlp", width, config.integer("intermediate_size", default=3072), depth),
        *(t for norm in norms for t in rms_norm(f"{name}.{norm}_layernorm", width, depth)),
        *_clips(config, 7 * depth, default=False),
    )


def _audio(config: Config, model: Model) -> Tower:
    ignore_what_is_not_counted(config)
    config.harmless("model_type", "residual_weight", "gradient_clipping")
    config.harmless("attention_chunk_size", "attention_context_left", "attention_context_right")
    config.harmless("attention_logit_cap", "attention_invalid_logits_value")
    width, out = config.integer("hidden_size", default=1024), config.integer("output_proj_dims", default=1536)
    tensors = (
        *_subsampling(config, width),
        *_conformer_layers(config, width),
        *linear("output_proj", out, width),
        *linear("embed_audio.embedding_projection", model.hidden_size, out, bias=False),
    )
    finish_encoder(config, model)
    return tower(AUDIO, tensors)


def _subsampling(config: Config, width: int) -> Tensors:
    """Return two convolutions that halve 128 mel bins each, and the way into the layers."""
    first, second = config.two_sizes("subsampling_conv_channels", missing=(128, 32))
    name = "subsample_conv_projection"
    return (
        *parameter(f"{name}.layer0.conv.weight", first, 1, 3, 3),
        *rms_norm(f"{name}.layer0.norm", first),
        *parameter(f"{name}.layer1.conv.weight", second, first, 3, 3),
        *rms_norm(f"{name}.layer1.norm", second),
        *linear(f"{name}.input_proj_linear", width, first // 4 * second, bias=False),
    )


def _conformer_layers(config: Config, width: int) -> Tensors:
    depth, heads = (
        config.depth("num_hidden_layers", default=12),
        config.integer("num_attention_heads", default=8),
    )
    head = width // heads
    kernel = config.integer("conv_kernel_size", default=5)
    return (
        *(t for part in ("feed_forward1", "feed_forward2") for t in _feed_forward(part, width, depth)),
        *(
            t
            for part in ("q_proj", "k_proj", "v_proj", "relative_k_proj")
            for t in linear(f"layers.self_attn.{part}", heads * head, width, depth, bias=False)
        ),
        *linear("layers.self_attn.post", width, width, depth, bias=False),
        *parameter("layers.self_attn.per_dim_scale", head, count=depth),
        *linear("layers.lconv1d.linear_start", 2 * width, width, depth, bias=False),
        *linear("layers.lconv1d.linear_end", width, width, depth, bias=False),
        *parameter("layers.lconv1d.depthwise_conv1d.weight", width, 1, kernel, count=depth),
        *rms_norm("layers.lconv1d.pre_layer_norm", width, depth),
        *rms_norm("layers.lconv1d.conv_norm", width, depth),
        *(t for at in ("pre_attn", "post_attn", "out") for t in rms_norm(f"layers.norm_{at}", width, depth)),
        *_clips(config, 10 * depth, default=True),
    )


def _feed_forward(part: str, width: int, depth: int) -> Tensors:
    return (
        *linear(f"layers.{part}.ffw_layer_1", 4 * width, width, depth, bias=False),
        *linear(f"layers.{part}.ffw_layer_2", width, 4 * width, depth, bias=False),
        *rms_norm(f"layers.{part}.pre_layer_norm", width, depth),
        *rms_norm(f"layers.{part}.post_layer_norm", width, depth),
    )
