"""The vision encoders of Llama 3.2 and Llama 4."""

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
    patches_per_side,
    square_attention,
    tower,
    two_layer_mlp,
    widths,
)

# Pairs of tiles that an image may be cut into, where the file does not list them.
_ASPECT_RATIOS = 8


def mllama(config: Config, model: Model) -> tuple[Tower, ...]:
    """Llama 3.2 Vision: tiles with embeddings of their own, and gated layers that see all of them."""
    vision = config.inner_or("vision_config", {})
    ignore_what_is_not_counted(vision)
    # The width handed on is said by vision_output_dim; which layers it comes from changes no tensor.
    vision.harmless("attention_heads", "intermediate_layers_indices", "model_type", "max_aspect_ratio_id")
    width, inner = widths(vision, 1280, 5120)
    channels, patch = vision.integer("num_channels", default=3), vision.integer("patch_size", default=14)
    out = vision.integer("vision_output_dim", default=7680)
    tensors = (
        *parameter("class_embedding", width),
        *linear("patch_embedding", width, channels * patch**2, bias=False),
        *_tile_positions(vision, width),
        *layer_norm("layernorm_pre", width),
        *layer_norm("layernorm_post", width),
        *_blocks("transformer.layers", width, inner, vision.depth("num_hidden_layers", default=32)),
        *_gated_blocks(width, inner, vision.depth("num_global_layers", default=8)),
        *linear("multi_modal_projector", model.hidden_size, out),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)


def _tile_positions(vision: Config, width: int) -> Tensors:
    positions = patches_per_side(vision, image_size=448, patch_size=14) ** 2 + 1
    tiles = vision.integer("max_num_tiles", default=4)
    ratios = vision.entries("supported_aspect_ratios", missing=_ASPECT_RATIOS) + 1
    name, around = "gated_positional_embedding", ("pre_tile", "post_tile")
    return (
        *parameter(f"{name}.gate", 1),
        *parameter(f"{name}.embedding", positions, width),
        *parameter(f"{name}.tile_embedding.weight", ratios, tiles * positions * width),
        *(t for at in around for t in parameter(f"{at}_positional_embedding.gate", 1)),
        *(
            t
            for at in around
            for t in parameter(f"{at}_positional_embedding.embedding.weight", ratios, tiles * width)
        ),
    )


def _blocks(name: str, width: int, inner: int, depth: int, *, attention_bias: bool = False) -> Tensors:
    return (
        *layer_norm(f"{name}.input_layernorm", width, depth),
        *square_attention(f"{name}.self_attn", width, depth, bias=attention_bias),
        *layer_norm(f"{name}.post_attention_layernorm", width, depth),
        *two_layer_mlp(f"{name}.mlp", width, inner, depth),
    )


def _gated_blocks(width: int, inner: int, depth: int) -> Tensors:
    name = "global_transformer.layers"
    gates = (t for gate in ("gate_attn", "gate_ffn") for t in parameter(f"{name}.{gate}", 1, count=depth))
    return (*_blocks(name, width, inner, depth), *gates)


def llama4(config: Config, model: Model) -> tuple[Tower, ...]:
    """Llama 4: biases everywhere in the blocks, pixels shuffled into fewer patches, one matrix at the end."""
    vision = config.inner_or("vision_config", {})
    ignore_what_is_not_counted(vision)
    vision.harmless("model_type", "pixel_shuffle_ratio", "multi_modal_projector_bias")
    width, inner = widths(vision, 768, 5632)
    channels, patch = vision.integer("num_channels", default=3), vision.integer("patch_size", default=14)
    positions = patches_per_side(vision, image_size=448, patch_size=14) ** 2 + 1
    projected = vision.integer("projector_output_dim", default=4096)
    between, out = (
        vision.integer("projector_input_dim", default=4096),
        vision.integer("vision_output_dim", default=7680),
    )
    depth = vision.depth("num_hidden_layers", default=34)
    tensors = (
        *parameter("class_embedding", width),
        *parameter("positional_embedding_vlm", positions, width),
        *linear("patch_embedding.linear", width, channels * patch**2, bias=False),
        *layer_norm("layernorm_pre", width),
        *layer_norm("layernorm_post", width),
        *_blocks("model.layers", width, inner, depth, attention_bias=True),
        *linear("vision_adapter.mlp.fc1", between, inner, bias=False),
        *linear("vision_adapter.mlp.fc2", projected, projected, bias=False),
        *linear("multi_modal_projector.linear_1", model.hidden_size, out, bias=False),
    )
    finish_encoder(vision, model)
    return (tower(VISION, tensors),)
