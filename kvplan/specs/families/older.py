"""GPT-2, Phi 1.5 and 2, Falcon: LayerNorm, plain MLPs, parallel blocks, learned positions."""

from __future__ import annotations

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Identity, activation, finished_model, head_dim
from kvplan.specs.families.rope import RopeDefaults, rope


def gpt2(config: Config, identity: Identity) -> Model:
    """GPT-2: learned positions, biases everywhere, an MLP of four times the width."""
    hidden = config.integer("n_embd", "hidden_size", default=768)
    heads = config.integer("n_head", "num_attention_heads", default=12)
    positions = config.integer("n_positions", "max_position_embeddings", default=1024)
    config.only("scale_attn_weights", True, "attention scores are divided by the root of head_dim")
    config.only("scale_attn_by_inverse_layer_idx", False, "attention scores are scaled alike in every layer")
    config.only("reorder_and_upcast_attn", False, "attention scores are not computed in another precision")
    config.harmless("n_ctx", "n_special", "predict_special_tokens")
    attention = Attention(heads, heads, head_dim(config, hidden, heads), qkv_bias=True, out_bias=True)
    mlp = MLP(
        config.integer("n_inner", default=4 * hidden),
        gated=False,
        mlp_bias=True,
        hidden_act=activation(config, "activation_function", Activation.GELU_TANH),
    )
    return finished_model(
        config,
        identity,
        [Layer(attention, mlp)] * config.depth("n_layer", "num_hidden_layers", default=12),
        tied=True,
        norm=Norm.LAYER,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        max_position_embeddings=positions,
        learned_positions=positions,
    )


def phi(config: Config, identity: Identity) -> Model:
    """Phi 1.5 and 2: attention and MLP side by side behind one norm, biases everywhere, the head's too."""
    config.only("qk_layernorm", False, "normalised queries and keys are not counted in this family")
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    attention = Attention(
        heads,
        config.integer("num_key_value_heads", default=heads),
        head_dim(config, hidden, heads),
        qkv_bias=True,
        out_bias=True,
        rope_parameters=rope(
            config, config.integer("max_position_embeddings"), RopeDefaults(partial_rotary_factor=0.5)
        ),
    )
    mlp = MLP(
        config.integer("intermediate_size"),
        gated=False,
        mlp_bias=True,
        hidden_act=activation(config, default=Activation.GELU_TANH),
    )
    layer = Layer(attention, mlp, Block.PARALLEL)
    return finished_model(
        config,
        identity,
        [layer] * config.depth("num_hidden_layers"),
        tied=False,
        norm=Norm.LAYER,
        eps_key="layer_norm_eps",
        eps=1e-5,
        lm_head_bias=True,
    )


def falcon(config: Config, identity: Identity) -> Model:
    """Falcon: one KV head (7B), or ``num_kv_heads`` in the new decoder (40B, 180B); parallel blocks."""
    hidden = config.integer("hidden_size", "n_embed")
    heads = config.integer("num_attention_heads", "n_head")
    depth = config.depth("num_hidden_layers", "n_layer")
    new = config.flag("new_decoder_architecture", False)
    bias, longest = config.flag("bias", False), config.integer("max_position_embeddings", default=2048)
    config.only("alibi", False, "positions are rotated in this family, and ALiBi is not known")
    config.only("apply_residual_connection_post_layernorm", False, "the residual is the layer's input")
    attention = Attention(
        heads,
        _falcon_kv_heads(config, heads, new),
        head_dim(config, hidden, heads),
        qkv_bias=bias,
        out_bias=bias,
        rope_parameters=rope(config, longest),
    )
    mlp = MLP(
        config.integer("ffn_hidden_size", default=4 * hidden),
        gated=False,
        mlp_bias=bias,
        hidden_act=activation(config, "activation", Activation.GELU),
    )
    layer = Layer(attention, mlp, _falcon_block(config, new))
    return finished_model(
        config,
        identity,
        [layer] * depth,
        tied=True,
        norm=Norm.LAYER,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        max_position_embeddings=longest,
    )


def _falcon_kv_heads(config: Config, heads: int, new: bool) -> int:
    multi_query = config.flag("multi_query", True)
    stated = config.integer("num_kv_heads", "n_head_kv", default=heads)
    if new:
        return stated
    return 1 if multi_query else heads


def _falcon_block(config: Config, new: bool) -> Block:
    norms = config.optional_integer("num_ln_in_parallel_attn") or (2 if new else 1)
    if not config.flag("parallel_attn", True):
        return Block.PRE_NORM
    return Block.PARALLEL_TWO_NORMS if norms == 2 else Block.PARALLEL
