"""The vision encoder of InternVL, as transformers' own class has it."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config
from kvplan.specs.families.towers.parts import (
    VISION,
    Tensors,
    finish_encoder,
    ignore_what_is_not_counted,
    layer_norm,
    linear,
    parameter,
    rms_norm,
    tower,
    two_layer_mlp,
)


def internvl(config: Config, model: Model) -> tuple[Tower, ...]:
    """InternVL: scaled residual branches, pixels shuffled into fewer patches, a norm and two matrices."""
    config.harmless("image_seq_length", "vision_feature_layer", "vision_feature_select_strategy")
    config.harmless("projector_hidden_act")
    vision = config.inner_or("vision_config", {})
    ignore_what_is_not_counted(vision)
    vision.harmless("layer_scale_init_value", "model_type")
    width = vision.integer("hidden_size", default=1024)
    merged = width * int(1 / config.number("downsample_ratio", default=0.5)) ** 2
    tensors = (
        *_embeddings(vision, width),
        *_layers(vision, width),
        *(() if vision.flag("use_mean_pooling", True) else layer_norm("layernorm", width)),
        *layer_norm("multi_modal_projector.layer_norm", merged),
        *linear("multi_modal_projector.linear_1", model.hidden_size, merged),
        *linear("multi_modal_projector.linear_2", model.hidden_size, model.hidden_size),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def _embeddings(vision: Config, width: int) -> Tensors:
    height, across = vision.two_sizes("image_size", missing=(448, 448))
    down, right = vision.two_sizes("patch_size", missing=(14, 14))
    positions, pixels = (height // down) * (across // right) + 1, down * right
    masked, placed = (
        vision.flag("use_mask_token", False),
        vision.flag("use_absolute_position_embeddings", True),
    )
    return (
        *parameter("embeddings.cls_token", width),
        *(parameter("embeddings.mask_token", width) if masked else ()),
        *(parameter("embeddings.position_embeddings", positions, width) if placed else ()),
        *linear("embeddings.projection", width, vision.integer("num_channels", default=3) * pixels),
    )


def _layers(vision: Config, width: int) -> Tensors:
    name, depth = "encoder.layer", vision.depth("num_hidden_layers", default=24)
    inner, bias = vision.integer("intermediate_size", default=4096), vision.flag("attention_bias", False)
    norm = rms_norm if vision.text("norm_type", default="layer_norm") == "rms_norm" else layer_norm
    qk_norms = ("q_norm", "k_norm") if vision.flag("use_qk_norm", False) else ()
    return (
        *(
            t
            for part in ("q_proj", "k_proj", "v_proj")
            for t in linear(f"{name}.attention.{part}", width, width, depth, bias=bias)
        ),
        *linear(f"{name}.attention.projection_layer", width, width, depth),
        *(t for part in qk_norms for t in rms_norm(f"{name}.attention.{part}", width, depth)),
        *norm(f"{name}.layernorm_before", width, depth),
        *norm(f"{name}.layernorm_after", width, depth),
        *parameter(f"{name}.lambda_1", width, count=depth),
        *parameter(f"{name}.lambda_2", width, count=depth),
        *two_layer_mlp(f"{name}.mlp", width, inner, depth),
    )
