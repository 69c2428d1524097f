"""Kimi-Linear: Kimi delta attention with some layers of latent attention that know no positions."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.arch.activation import Activation
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, activation, finished_model

_LONGEST = 1_048_576


def kimi_linear(config: Config, identity: Identity) -> Model:
    """Kimi-Linear: delta attention where ``layer_types`` or the list of the delta layers says so."""
    if activation(config) is not Activation.SILU:
        config.refuse("hidden_act", "the delta layers of this family are understood with silu only")
    depth = config.depth("num_hidden_layers", default=27)
    config.harmless("num_nextn_predict_layers")  # not part of the main model
    config.only("tie_word_embeddings", False, "the head is not the embedding in this family")
    linear = config.inner_or("linear_attn_config", {})
    delta, latent = _delta(config, linear), _latent(config)
    full = _is_full(config, linear, depth)
    linear.finish()
    mixers: list[Mixer] = [latent if is_full else delta for is_full in full]
    mlps = _feed_forwards(config, depth)
    layers = [Layer(mixer, mlp) for mixer, mlp in zip(mixers, mlps, strict=True)]
    longest = config.integer("model_max_length", "max_position_embeddings", default=_LONGEST)
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=1e-5,
        hidden_size=config.integer("hidden_size", default=2304),
        vocab_size=config.integer("vocab_size", default=163_840),
        max_position_embeddings=longest,
    )


def _is_full(config: Config, linear: Config, depth: int) -> list[bool]:
    """Return which layers attend in full; the lists in ``linear_attn_config`` count layers from one."""
    types = config.texts("layer_types", depth, ("full_attention", "linear_attention"))
    full, delta = linear.integers("full_attn_layers"), linear.integers("kda_layers")
    if types is not None:
        return [kind == "full_attention" for kind in types]
    if not full and not delta:
        return [index > 0 and index % 4 == 0 for index in range(depth)]
    if sorted([*full, *delta]) != list(range(1, depth + 1)):
        linear.refuse(None, f"full_attn_layers and kda_layers must name each layer from 1 to {depth} once")
    return [index + 1 in full for index in range(depth)]


def _delta(config: Config, linear: Config) -> KimiDeltaAttention:
    return KimiDeltaAttention(
        linear_num_heads=linear.integer("num_heads", default=config.integer("linear_num_heads", default=32)),
        linear_head_dim=linear.integer("head_dim", default=config.integer("linear_head_dim", default=128)),
        linear_conv_kernel_dim=linear.integer(
            "short_conv_kernel_size", default=config.integer("linear_conv_kernel_dim", default=4)
        ),
    )


def _latent(config: Config) -> LatentAttention:
    """Return the latent attention; nothing is rotated, whatever the file says of rotations."""
    config.only("mla_use_nope", True, "latent attention rotates nothing in this family")
    config.harmless("rope_theta", "rope_scaling", "rope_parameters", "head_dim", "qk_head_dim")
    heads = config.integer("num_attention_heads", default=32)
    config.only("num_key_value_heads", heads, "the latent is shared by all heads")
    return LatentAttention(
        num_attention_heads=heads,
        kv_lora_rank=config.integer("kv_lora_rank", default=512),
        qk_nope_head_dim=config.integer("qk_nope_head_dim", default=128),
        qk_rope_head_dim=config.integer("qk_rope_head_dim", default=64),
        v_head_dim=config.integer("v_head_dim", default=128),
        q_lora_rank=config.optional_integer("q_lora_rank"),
        attention_bias=config.flag("attention_bias", False),
    )


def _feed_forwards(config: Config, depth: int) -> Sequence[FeedForward]:
    """Return each layer's block: dense in the first layers, or where ``mlp_layer_types`` says so."""
    config.only("moe_layer_freq", 1, "every layer after the dense ones has experts")
    first = config.count("first_k_dense_replace", 1)
    types = config.texts("mlp_layer_types", depth, ("dense", "sparse"))
    if types is None:
        types = ["dense" if index < first else "sparse" for index in range(depth)]
    dense = MLP(config.integer("intermediate_size", default=9216), hidden_act=activation(config))
    experts = _experts(config)
    return [dense if kind == "dense" else experts for kind in types]


def _experts(config: Config) -> Experts:
    config.only("moe_router_activation_func", "sigmoid", "this family's router is a sigmoid")
    config.only("use_grouped_topk", True, "experts are chosen by groups in this family")
    config.only("topk_method", "noaux_tc", "experts are chosen with the correction bias in this family")
    width = config.integer("moe_intermediate_size", default=1024)
    shared = config.optional_integer("num_shared_experts", "n_shared_experts", default=1)
    if shared is None:
        config.refuse("num_shared_experts", f"{shown(None)} is no number of experts")
    return Experts(
        num_experts=config.integer("num_experts", "num_local_experts", default=256),
        num_experts_per_tok=config.integer("num_experts_per_token", "num_experts_per_tok", default=8),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=shared * width,
        router_bias_buffer=True,
        hidden_act=activation(config),
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        n_group=config.optional_integer("num_expert_group", "n_group") or 1,
        topk_group=config.optional_integer("topk_group") or 1,
        norm_topk_prob=_normalised(config),
        routed_scaling_factor=config.number("routed_scaling_factor", default=2.446),
    )


def _normalised(config: Config) -> bool:
    """Return whether the chosen scores are scaled to one; the key has two names."""
    released = config.flag("moe_renormalize", True)
    other = config.flag("norm_topk_prob", released)
    if other != released and config.has("moe_renormalize"):
        config.refuse("norm_topk_prob", "contradicts 'moe_renormalize'")
    return other


FAMILIES: Families = {
    "kimi_linear": kimi_linear,
}
