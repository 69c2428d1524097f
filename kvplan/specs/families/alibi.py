"""BLOOM, MPT and Falcon: LayerNorm, plain MLPs, and scores that fall with the distance (Falcon: some)."""

from __future__ import annotations

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model, head_dim
from kvplan.specs.families.rope import rope

# BLOOM has no key for it: the length of its training's sequences.
_BLOOM_CONTEXT = 2048


def bloom(config: Config, identity: Identity) -> Model:
    """BLOOM: normalised embeddings, biases everywhere, an MLP of four times the width."""
    hidden = config.integer("hidden_size", "n_embed", default=64)
    heads = config.integer("n_head", "num_attention_heads", default=8)
    attention = Attention(
        heads, heads, head_dim(config, hidden, heads), qkv_bias=True, out_bias=True, alibi=True
    )
    mlp = MLP(4 * hidden, gated=False, mlp_bias=True, hidden_act=Activation.GELU_TANH)
    normed = config.flag("apply_residual_connection_post_layernorm", False)
    layer = Layer(attention, mlp, Block.NORMED_RESIDUAL if normed else Block.PRE_NORM)
    # How a tensor-parallel run of its first code rounded.
    config.harmless("slow_but_exact", "offset_alibi", "bias_dropout_fusion", "masked_softmax_fusion")
    config.harmless(
        "n_inner", "skip_bias_add", "skip_bias_add_qkv", "unk_token_id", "attention_softmax_in_fp32"
    )
    return finished_model(
        config,
        identity,
        [layer] * config.depth("n_layer", "num_hidden_layers", default=2),
        tied=True,
        norm=Norm.LAYER,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=250_880),
        max_position_embeddings=config.integer("seq_length", default=_BLOOM_CONTEXT),
        embedding_norm=True,
    )


def mpt(config: Config, identity: Identity) -> Model:
    """MPT: what its attention is like is under ``attn_config``; without ALiBi, positions are learned."""
    hidden = config.integer("d_model", "hidden_size", default=2048)
    longest = config.integer("max_seq_len", default=2048)
    bias = not config.flag("no_bias", True)
    inner = config.inner_or("attn_config", {})
    attention = _mpt_attention(inner, hidden, config.integer("n_heads", default=16), bias=bias)
    learned = config.flag("learned_pos_emb", True) and not attention.alibi
    mlp = MLP(
        config.integer("expansion_ratio", default=4) * hidden,
        gated=False,
        mlp_bias=bias,
        hidden_act=Activation.GELU,
    )
    if config.text("norm_type", default="low_precision_layernorm") not in (
        "low_precision_layernorm",
        "layernorm",
    ):
        config.refuse("norm_type", "only LayerNorm is understood in this family")
    config.harmless("init_config", "init_device", "verbose", "embedding_fraction", "fc_type", "fan_mode")
    config.harmless("use_cache", "init_nonlinearity", "param_init_fn")
    return finished_model(
        config,
        identity,
        [Layer(attention, mlp)] * config.depth("n_layers", default=24),
        tied=True,
        norm=Norm.LAYER if bias else Norm.LAYER_NO_BIAS,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=50_368),
        max_position_embeddings=longest,
        learned_positions=longest if learned else 0,
        logits_multiplier=_logit_scale(config, hidden),
    )


def _mpt_attention(config: Config, hidden: int, heads: int, *, bias: bool) -> Attention:
    if hidden % heads:
        config.refuse(None, f"d_model ({hidden}) is no multiple of {heads} heads")
    kind = config.text("attn_type", default="multihead_attention")
    grouped = config.optional_integer("kv_n_heads")
    kv_heads = {"multihead_attention": heads, "multiquery_attention": 1, "grouped_query_attention": grouped}
    if kind not in kv_heads:
        config.refuse("attn_type", f"{kind[:40]!r} is not one of {', '.join(kv_heads)}")
    config.only("qk_ln", False, "normalised queries and keys are not counted in this family")
    config.only("qk_gn", False, "normalised queries and keys are not counted in this family")
    config.only("rope", False, "positions are not rotated in this family")
    config.only("prefix_lm", False, "attention is causal")
    config.only("attn_uses_sequence_id", False, "a request is one sequence")
    config.only("sliding_window_size", -1, "attention sees every token in this family")
    config.only("alibi_bias_max", 8, "slopes end at 2^-8")
    config.harmless("attn_impl", "attn_pdrop", "fused_qkv", "rope_theta", "rope_impl", "rope_dail_config")
    config.harmless("rope_hf_config", "model_type")
    attention = Attention(
        heads,
        kv_heads[kind] or heads,
        hidden // heads,
        qkv_bias=bias,
        out_bias=bias,
        alibi=config.flag("alibi", True),
        attention_multiplier=config.optional_number("softmax_scale"),
        clip_qkv=config.amount("clip_qkv") or None,
    )
    config.finish()
    return attention


def _logit_scale(config: Config, hidden: int) -> float:
    """Return what logits are multiplied by: a number, or one over the root of the width by name."""
    if config.is_text("logit_scale"):
        if config.text("logit_scale") != "inv_sqrt_d_model":
            config.refuse("logit_scale", "expected a number or 'inv_sqrt_d_model'")
        return float(hidden**-0.5)
    return config.number("logit_scale", default=1.0)


def falcon(config: Config, identity: Identity) -> Model:
    """Falcon: one KV head (7B), or ``num_kv_heads`` in the new decoder (40B, 180B); parallel blocks."""
    hidden = config.integer("hidden_size", "n_embed", default=4544)
    heads = config.integer("num_attention_heads", "n_head", default=71)
    depth = config.depth("num_hidden_layers", "n_layer", default=32)
    new, falls = config.flag("new_decoder_architecture", False), config.flag("alibi", False)
    bias, longest = config.flag("bias", False), config.integer("max_position_embeddings", default=2048)
    config.only("apply_residual_connection_post_layernorm", False, "the residual is the layer's input")
    rotation = rope(config, longest)
    attention = Attention(
        heads,
        _falcon_kv_heads(config, heads, new),
        head_dim(config, hidden, heads),
        qkv_bias=bias,
        out_bias=bias,
        rope_parameters=None if falls else rotation,
        alibi=falls,
        alibi_scaled=falls,
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
        vocab_size=config.integer("vocab_size", default=65_024),
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
        if new:
            config.refuse("parallel_attn", "false is not understood in the new decoder")
        return Block.PRE_NORM
    if norms == 2 and not new:
        config.refuse("num_ln_in_parallel_attn", "2 is of the new decoder")
    return Block.PARALLEL_TWO_NORMS if norms == 2 else Block.PARALLEL


FAMILIES: Families = {
    "bloom": bloom,
    "falcon": falcon,
    "mpt": mpt,
}
