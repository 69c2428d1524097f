"""From a vision transformer's width to the language model's: the projectors of LLaVA and its like."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config
from kvplan.specs.families.towers.parts import (
    VISION,
    Tensors,
    layer_norm,
    linear,
    parameter,
    rms_norm,
    tower,
)
from kvplan.specs.families.towers.vision_transformers import counted_encoder

_PROJECTOR = "multi_modal_projector"
# What these classes read where a file has no vision_config at all, beside what the encoder's class says.
_LLAVA_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
}
_VIDEO_CLIP = {**_LLAVA_CLIP, "image_size": 224}
_MISTRAL_PIXTRAL = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
_PALI_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4096,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
_ONEVISION_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}


def gemma3(config: Config, model: Model) -> tuple[Tower, ...]:
    """Gemma 3: SigLIP, a norm and one matrix."""
    config.harmless("mm_tokens_per_image")
    vision = counted_encoder(config.inner_or("vision_config", {}), model, "siglip_vision_model")
    width = vision.hidden_size
    projector = (
        *parameter(f"{_PROJECTOR}.mm_input_projection_weight", width, model.hidden_size),
        *rms_norm(f"{_PROJECTOR}.mm_soft_emb_norm", width),
    )
    return (tower(VISION, vision.tensors, projector),)


def llava(config: Config, model: Model) -> tuple[Tower, ...]:
    """LLaVA 1.5: CLIP, or another encoder, and two matrices with biases."""
    config.harmless("image_seq_length", "vocab_size", "ignore_index")
    vision = counted_encoder(config.inner_or("vision_config", _LLAVA_CLIP), model, "clip_vision_model")
    return (tower(VISION, vision.tensors, _two_matrices(config, model, vision.hidden_size, bias=True)),)


def llava_next(config: Config, model: Model) -> tuple[Tower, ...]:
    """LLaVA-NeXT: LLaVA with a learned mark at the end of each row of patches."""
    config.harmless("image_grid_pinpoints", "use_image_newline_parameter")
    (vision,) = llava(config, model)
    return (tower(VISION, vision.tensors, parameter("image_newline", model.hidden_size)),)


def llava_next_video(config: Config, model: Model) -> tuple[Tower, ...]:
    """LLaVA-NeXT-Video: LLaVA-NeXT whose frames are pooled."""
    config.harmless("video_seq_length", "spatial_pool_mode", "spatial_pool_stride")
    config.harmless("spatial_pool_out_channels")
    return llava_next(config, model)


def llava_onevision(config: Config, model: Model) -> tuple[Tower, ...]:
    """LLaVA-OneVision: SigLIP, two matrices and a learned mark at the end of each row of patches."""
    config.harmless("image_grid_pinpoints", "use_image_newline_parameter", "vision_aspect_ratio")
    given = config.inner_or("vision_config", _ONEVISION_SIGLIP)
    vision = counted_encoder(given, model, "siglip_vision_model")
    projector = _two_matrices(config, model, vision.hidden_size, bias=True)
    return (tower(VISION, vision.tensors, projector, parameter("image_newline", model.hidden_size)),)


def video_llava(config: Config, model: Model) -> tuple[Tower, ...]:
    """Video-LLaVA: an encoder of images, an equal one of videos, and two matrices for both."""
    config.harmless("image_seq_length", "video_seq_length")
    given = config.inner_or("vision_config", _VIDEO_CLIP)
    vision = counted_encoder(given, model, "clip_vision_model")
    projector = _two_matrices(config, model, vision.hidden_size, bias=True)
    videos = (replace(tensor, name=f"video_tower.{tensor.name}") for tensor in vision.tensors)
    return (tower(VISION, vision.tensors, projector, tuple(videos)),)


def vipllava(config: Config, model: Model) -> tuple[Tower, ...]:
    """ViP-LLaVA: several layers of CLIP, a norm over all of them and two matrices with biases."""
    config.harmless("image_seq_length", "projector_layernorm_eps", "projector_hidden_act")
    config.harmless("vision_feature_select_strategy")
    vision = counted_encoder(config.inner_or("vision_config", _LLAVA_CLIP), model, "clip_vision_model")
    features = vision.hidden_size * config.entries("vision_feature_layer", missing=5)
    projector = (
        *layer_norm(f"{_PROJECTOR}.projector_layernorm", features),
        *linear(f"{_PROJECTOR}.linear_1", model.hidden_size, features),
        *linear(f"{_PROJECTOR}.linear_2", model.hidden_size, model.hidden_size),
    )
    return (tower(VISION, vision.tensors, projector),)


def deepseek_vl(config: Config, model: Model) -> tuple[Tower, ...]:
    """DeepSeek-VL: SigLIP and two matrices with biases."""
    vision = counted_encoder(config.inner_or("vision_config", {}), model, "siglip_vision_model")
    aligner = (
        *linear("aligner.linear1", model.hidden_size, vision.hidden_size),
        *linear("aligner.linear2", model.hidden_size, model.hidden_size),
    )
    return (tower(VISION, vision.tensors, aligner),)


def mistral3(config: Config, model: Model) -> tuple[Tower, ...]:
    """Mistral Small 3.1, Ministral 3 and LightOnOCR: Pixtral, four patches merged into one, two matrices."""
    vision = counted_encoder(config.inner_or("vision_config", _MISTRAL_PIXTRAL), model, "pixtral")
    width, merged = vision.hidden_size, config.integer("spatial_merge_size", default=2) ** 2
    merger = (
        *rms_norm(f"{_PROJECTOR}.norm", width),
        *linear(f"{_PROJECTOR}.patch_merger.merging_layer", width, width * merged, bias=False),
    )
    return (tower(VISION, vision.tensors, merger, _two_matrices(config, model, width, bias=False)),)


def paligemma(config: Config, model: Model) -> tuple[Tower, ...]:
    """PaliGemma: SigLIP and one matrix to ``projection_dim``, which is the language model's width."""
    config.harmless("vocab_size", "hidden_size")
    projected = config.integer("projection_dim", default=2048)
    inner = config.inner_or("vision_config", _PALI_SIGLIP)
    inner.harmless(
        "projection_dim", "vocab_size", "num_image_tokens", "num_positions", "projector_hidden_act"
    )
    vision = counted_encoder(inner, model, "siglip_vision_model")
    return (tower(VISION, vision.tensors, linear(f"{_PROJECTOR}.linear", projected, vision.hidden_size)),)


def _two_matrices(config: Config, model: Model, width: int, *, bias: bool) -> Tensors:
    """Return the usual projector of one layer of the encoder or of several; ``bias`` is the class default."""
    config.harmless("projector_hidden_act", "vision_feature_select_strategy")
    features = width * config.entries("vision_feature_layer", missing=1)
    has_bias, out = config.flag("multimodal_projector_bias", bias), model.hidden_size
    return (
        *linear(f"{_PROJECTOR}.linear_1", out, features, bias=has_bias),
        *linear(f"{_PROJECTOR}.linear_2", out, out, bias=has_bias),
    )
