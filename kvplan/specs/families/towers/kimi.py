"""MoonViT, the vision encoder of Kimi K2.5."""

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
    parameter,
    square_attention,
    tower,
    two_layer_mlp,
)


def kimi_k25(config: Config, model: Model) -> tuple[Tower, ...]:
    """Kimi K2.5: learned positions on a grid, patches merged before the projector.

    Released files have the remote code's names, which begin with ``vt_`` and ``init_``.
    """
    config.harmless("use_unified_vision_chunk", "video_placeholder", "ignore_index")
    config.harmless("projection_layer_norm_eps")
    vision = config.inner_or("vision_config", {})
    ignore_what_is_not_counted(vision)
    width = vision.integer("hidden_size", "vt_hidden_size", default=1152)
    inner = vision.integer("intermediate_size", "vt_intermediate_size", default=4304)
    depth = vision.depth("num_hidden_layers", "vt_num_hidden_layers", default=27)
    height = vision.integer("pos_emb_height", "init_pos_emb_height", default=64)
    across = vision.integer("pos_emb_width", "init_pos_emb_width", default=64)
    down, right = vision.two_sizes("merge_kernel_size", missing=(2, 2))
    merged = width * down * right
    _refuse_other_projectors(config, vision, width, model)
    tensors = (
        *linear("patch_embed.proj", width, 3 * vision.integer("patch_size", default=14) ** 2),
        *parameter("patch_embed.pos_emb.position_embeddings", height, across, width),
        *layer_norm("layers.norm1", width, depth),
        *square_attention("layers.attn", width, depth),
        *layer_norm("layers.norm2", width, depth),
        *two_layer_mlp("layers.mlp", width, inner, depth),
        *layer_norm("final_layernorm", width),
        *layer_norm("mm_projector.pre_norm", width),
        *linear("mm_projector.in_proj", merged, merged),
        *linear("mm_projector.out_proj", model.hidden_size, merged),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def _refuse_other_projectors(config: Config, vision: Config, width: int, model: Model) -> None:
    config.only("projection_hidden_size", width, "the projector's norm is as wide as the encoder")
    vision.only("mm_hidden_size", width, "the projector reads what the encoder is wide")
    vision.only("text_hidden_size", model.hidden_size, "the projector makes what the text model is wide")
    vision.only("mm_projector_type", "patchmerger", "only this projector is")
    vision.only("merge_type", "sd2_tpool", "only this merging of patches is")
    vision.only("pos_emb_type", "divided_fixed", "only these positions are")
    # Positions in time are computed, not learned.
    vision.harmless("pos_emb_time", "init_pos_emb_time", "video_attn_type", "vt_num_attention_heads")
    vision.harmless("projector_hidden_act", "projector_ln_eps", "model_type")
