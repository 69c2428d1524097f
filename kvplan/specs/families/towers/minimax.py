"""The vision encoder of MiniMax M3."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config
from kvplan.specs.families.towers.parts import (
    VISION,
    finish_encoder,
    ignore_what_is_not_counted,
    layer_norm,
    linear,
    square_attention,
    tower,
    two_layer_mlp,
    widths,
)


def minimax_m3_vl(config: Config, model: Model) -> tuple[Tower, ...]:
    """MiniMax M3: patches of two frames, rotated positions, two pairs of matrices around the merging."""
    config.harmless("image_grid_pinpoints", "image_seq_length", "process_image_mode", "projector_hidden_act")
    config.harmless("vision_feature_layer", "vision_feature_select_strategy")
    config.only("multimodal_projector_bias", True, "the projector has biases in this family")
    config.only("num_reward_heads", 0, "reward heads are not counted")
    vision = config.inner_or("vision_config", {})
    width, inner = widths(vision, 1280, 5120)
    frames, side = _merging(config, vision)
    patch = vision.integer("num_channels", default=3) * frames * vision.integer("patch_size", default=14) ** 2
    depth, out = vision.depth("num_hidden_layers", default=32), model.hidden_size
    projected = config.integer("projector_hidden_size", default=6144)
    # transformers 5 writes it; it is not read back.
    config.only("merged_hidden_size", out * side**2, "merging joins the language model's width by patches")
    vision.harmless("image_size", "projection_dim", "position_embedding_type", "rope_mode", "vocab_size")
    vision.harmless("model_type", "vision_segment_max_frames")
    ignore_what_is_not_counted(vision)
    tensors = (
        *linear("embeddings.proj", width, patch, bias=False),
        *layer_norm("pre_layrnorm", width),
        *square_attention("layers.self_attn", width, depth),
        *layer_norm("layers.layer_norm1", width, depth),
        *two_layer_mlp("layers.mlp", width, inner, depth),
        *layer_norm("layers.layer_norm2", width, depth),
        *linear("multi_modal_projector.linear_1", projected, width),
        *linear("multi_modal_projector.linear_2", out, projected),
        *linear("multi_modal_projector.merge_linear_1", projected, out * side**2),
        *linear("multi_modal_projector.merge_linear_2", out, projected),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def _merging(config: Config, vision: Config) -> tuple[int, int]:
    """Return the frames of a patch and the patches on a side that become one.

    Released files say them in a mapping of their own; the class reads them from the encoder's.
    """
    frames, side = (
        vision.integer("temporal_patch_size", default=2),
        vision.integer("spatial_merge_size", default=2),
    )
    for owner in (config, vision):
        said = owner.inner_or("img_token_compression_config", {})
        said.only("image_token_compression_method", "patch_merge", "only the merging of patches is")
        said.only("temporal_patch_size", frames, "the encoder's own is another")
        said.only("spatial_merge_size", side, "the encoder's own is another")
        said.finish()
    return frames, side
