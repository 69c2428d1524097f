"""SigLIP before a projector that merges neighbouring patches into one: Aya, Command A, LFM2-VL, Idefics 3."""

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
    patches_per_side,
    tower,
)
from kvplan.specs.families.towers.vision_transformers import counted_encoder, siglip_body

_PROJECTOR = "multi_modal_projector"
# What the class reads where a file has no vision_config at all, beside what the encoder's class says.
_COMMAND_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 27,
    "image_size": 512,
}


def aya_vision(config: Config, model: Model) -> tuple[Tower, ...]:
    """Aya Vision: a norm and a gated pair of matrices; the class makes no encoder by its defaults."""
    config.harmless("vision_feature_layer", "vision_feature_select_strategy", "adapter_layer_norm_eps")
    vision = counted_encoder(config.inner("vision_config"), model, "siglip_vision_model")
    merged = vision.hidden_size * _merged(config, "downsample_factor")
    inner = config.integer("alignment_intermediate_size", default=model.hidden_size)
    norm = layer_norm(f"{_PROJECTOR}.layernorm", merged)
    return (tower(VISION, vision.tensors, norm, _gated_pair(model, merged, inner)),)


def cohere2_vision(config: Config, model: Model) -> tuple[Tower, ...]:
    """Command A Vision: a gated pair of matrices."""
    found = config.inner_or("vision_config", _COMMAND_SIGLIP)
    vision = counted_encoder(found, model, "siglip_vision_model")
    merged = vision.hidden_size * _merged(config, "downsample_factor")
    inner = config.integer("alignment_intermediate_size", default=36_864)
    return (tower(VISION, vision.tensors, _gated_pair(model, merged, inner)),)


def lfm2_vl(config: Config, model: Model) -> tuple[Tower, ...]:
    """LFM2-VL: SigLIP 2, a norm unless the file says otherwise, and two matrices."""
    config.harmless("projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy")
    # Of the processor: how many tiles and tokens an image becomes.
    config.harmless("do_image_splitting", "encoder_patch_size", "max_image_tokens", "max_num_patches")
    config.harmless("max_pixels_tolerance", "max_tiles", "min_image_tokens", "min_tiles", "tile_size")
    config.harmless("use_image_special_tokens", "use_thumbnail")
    vision = counted_encoder(config.inner_or("vision_config", {}), model, "siglip2_vision_model")
    merged = vision.hidden_size * _merged(config, "downsample_factor")
    inner, bias = config.integer("projector_hidden_size", default=2560), config.flag("projector_bias", True)
    normed = config.flag("projector_use_layernorm", True)
    projector = (
        *(layer_norm(f"{_PROJECTOR}.layer_norm", merged) if normed else ()),
        *linear(f"{_PROJECTOR}.linear_1", inner, merged, bias=bias),
        *linear(f"{_PROJECTOR}.linear_2", model.hidden_size, inner, bias=bias),
    )
    return (tower(VISION, vision.tensors, projector),)


def idefics3(config: Config, model: Model) -> tuple[Tower, ...]:
    """Idefics 3 and SmolVLM: SigLIP without a pooling head, and one matrix."""
    config.harmless("freeze_config", "use_reentrant_checkpointing")
    inner = config.inner_or("vision_config", {})
    ignore_what_is_not_counted(inner)
    inner.harmless("model_type", "max_image_size", "size", "use_base_siglip", "tie_word_embeddings")
    width = inner.integer("hidden_size", default=1152)
    between = inner.integer("intermediate_size", default=3072)
    positions = patches_per_side(inner, image_size=224, patch_size=32) ** 2
    body = siglip_body(inner, width, between, positions, patch_size=32)
    finish_encoder(inner, model)
    merged = width * _merged(config, "scale_factor")
    projector = linear("connector.modality_projection.proj", model.hidden_size, merged, bias=False)
    return (tower(VISION, body, projector),)


def _merged(config: Config, key: str) -> int:
    """Return how many patches become one: the key says how many on each side."""
    return config.integer(key, default=2) ** 2


def _gated_pair(model: Model, merged: int, inner: int) -> Tensors:
    """Return two matrices; the first one's outputs are halved by their gate."""
    return (
        *linear(f"{_PROJECTOR}.linear_1", inner, merged),
        *linear(f"{_PROJECTOR}.linear_2", model.hidden_size, inner // 2),
    )
