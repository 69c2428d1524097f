"""GLM-4 (THUDM) in the formats of transformers, and ChatGLM 2, 3 and GLM-4 in that of their own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

_SIZES = Sizes(
    vocab_size=151_552,
    hidden_size=4096,
    intermediate_size=13_696,
    num_hidden_layers=40,
    num_attention_heads=32,
    max_position_embeddings=131_072,
    num_key_value_heads=2,
    head_dim=128,
)
_IMAGES = replace(_SIZES, max_position_embeddings=32_768, head_dim=None)
_HALF_OF_NEIGHBOURS = RopeDefaults(partial_rotary_factor=0.5, interleaved=True)


def glm(config: Config, identity: Identity) -> Model:
    """GLM-4 (9B): half of a head is rotated, neighbours together; biases on queries, keys and values."""
    return _glm(config, identity, _SIZES.read(config), Block.PRE_NORM)


def glm4(config: Config, identity: Identity) -> Model:
    """GLM-4-0414 and GLM-Z1: GLM-4 with a norm before and behind attention and MLP."""
    return _glm(config, identity, _SIZES.read(config), Block.SANDWICH)


def glm4v_text(config: Config, identity: Identity) -> Model:
    """GLM-4.1V: GLM-4-0414 that always has biases and rotates whole heads unless the file says otherwise."""
    config.only("attention_bias", True, "queries, keys and values always have biases in this family")
    rotation = replace(_HALF_OF_NEIGHBOURS, partial_rotary_factor=1.0, mrope=True)
    sizes = _IMAGES.read(config)
    width = sizes.hidden_size // sizes.num_attention_heads
    config.only("head_dim", width, "a head has hidden_size / num_attention_heads elements")
    return _glm(config, identity, sizes, Block.SANDWICH, rotation, eps=1e-5)


def _glm(
    config: Config,
    identity: Identity,
    sizes: Sizes,
    block: Block,
    rotation: RopeDefaults = _HALF_OF_NEIGHBOURS,
    *,
    eps: float = 1.5625e-7,
) -> Model:
    attention = sizes.attention(config, rotation, qkv_bias=config.flag("attention_bias", True))
    layers = [Layer(attention, sizes.gated_mlp(config), block)] * sizes.num_hidden_layers
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def chatglm(config: Config, identity: Identity) -> Model:
    """ChatGLM 2, 3 and GLM-4 of the model's own code, whose class defaults are ChatGLM2-6B's."""
    hidden, heads = (
        config.integer("hidden_size", default=4096),
        config.integer("num_attention_heads", default=32),
    )
    every_bias = config.flag("add_bias_linear", False)
    attention = Attention(
        num_attention_heads=heads,
        num_key_value_heads=_groups(config, heads),
        head_dim=config.integer("kv_channels", default=128),
        qkv_bias=config.flag("add_qkv_bias", False) or every_bias,
        out_bias=every_bias,
        rope_parameters=_chatglm_rope(config),
    )
    if attention.num_attention_heads * attention.head_dim != hidden:
        config.refuse("kv_channels", "all heads together must be as wide as hidden_size")
    mlp = MLP(config.integer("ffn_hidden_size", default=13_696), mlp_bias=every_bias)
    depth = config.depth("num_layers", "num_hidden_layers", default=28)
    return _chatglm_model(config, identity, [Layer(attention, mlp)] * depth, hidden)


def _groups(config: Config, heads: int) -> int:
    groups = config.integer("multi_query_group_num", default=1)
    return groups if config.flag("multi_query_attention", False) else heads


def _chatglm_rope(config: Config) -> RopeParameters:
    """Return the rotation of half of each head, whose base is multiplied by ``rope_ratio``."""
    config.only("original_rope", True, "neighbouring elements are rotated together")
    ratio = config.number("rope_ratio", default=1.0)
    return RopeParameters(rope_theta=10_000.0 * ratio, partial_rotary_factor=0.5, interleaved=True)


def _chatglm_model(config: Config, identity: Identity, layers: Sequence[Layer], hidden: int) -> Model:
    config.only("apply_residual_connection_post_layernorm", False, "the residual is the layer's input")
    config.only("pre_seq_len", None, "trained prefixes are not described")
    config.only("quantization_bit", 0, "this quantisation is not described")
    # Scores are divided by the layer's number and multiplied by it again; the rest is precision.
    config.harmless("apply_query_key_layer_scaling", "attention_softmax_in_fp32", "fp32_residual_connection")
    config.harmless("bias_dropout_fusion", "prefix_projection")
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        norm=Norm.RMS if config.flag("rmsnorm", True) else Norm.LAYER,
        eps_key="layernorm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("padded_vocab_size", "vocab_size", default=65_024),
        max_position_embeddings=config.integer("seq_length", default=2048),
        final_norm=config.flag("post_layer_norm", True),
    )


FAMILIES: Families = {
    "chatglm": chatglm,
    "glm": glm,
    "glm4": glm4,
    "glm4v_text": glm4v_text,
}
