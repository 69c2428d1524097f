"""DeepSeek V2 and V3, and Kimi K2 in their format: latent attention, experts after dense first layers."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Identity, activation, finished_model
from kvplan.specs.families.llama import gated_mlp
from kvplan.specs.families.rope import RopeDefaults, rope


def deepseek_v2(config: Config, identity: Identity) -> Model:
    """DeepSeek V2: softmax routing without a correction bias, its scores as they are."""
    config.only("scoring_func", "softmax", "this family's router is a softmax")
    config.only("norm_topk_prob", False, "the chosen scores are not scaled to one in this family")
    config.only("rope_interleave", True, "neighbours are rotated together in this family")
    experts = replace(
        _experts(config, default_shared=2),
        norm_topk_prob=False,
        routed_scaling_factor=config.number("routed_scaling_factor", default=1.0),
    )
    return _deepseek(config, identity, _v2_groups(config, experts), default_dense_layers=0, interleaved=True)


def _v2_groups(config: Config, experts: Experts) -> Experts:
    method = config.text("topk_method", default="greedy")
    if method == "greedy":
        config.harmless("n_group", "topk_group")
        return experts
    if method != "group_limited_greedy":
        meant = "greedy and group_limited_greedy are, in this family"
        config.refuse("topk_method", f"{shown(method)} is not understood ({meant})")
    return replace(
        experts,
        topk_method=TopkMethod.GROUP_LIMITED_GREEDY,
        n_group=config.integer("n_group", default=1),
        topk_group=config.integer("topk_group", default=1),
    )


def deepseek_v3(config: Config, identity: Identity) -> Model:
    """DeepSeek V3 and R1: sigmoid routing with a correction bias that is a buffer.

    Next-token-prediction layers (``num_nextn_predict_layers``) are not part of the main model.
    """
    config.count("num_nextn_predict_layers", 1)
    config.only("scoring_func", "sigmoid", "this family's router is a sigmoid")
    config.only("topk_method", "noaux_tc", "experts are chosen with the correction bias in this family")
    experts = replace(
        _experts(config, default_shared=1),
        router_bias_buffer=True,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        n_group=config.optional_integer("n_group", default=8) or 1,
        topk_group=config.optional_integer("topk_group", default=4) or 1,
        norm_topk_prob=config.flag("norm_topk_prob", True),
        routed_scaling_factor=config.number("routed_scaling_factor", default=2.5),
    )
    interleaved = config.flag("rope_interleave", True)
    return _deepseek(config, identity, experts, default_dense_layers=3, interleaved=interleaved)


def _experts(config: Config, *, default_shared: int) -> Experts:
    width = config.integer("moe_intermediate_size")
    return Experts(
        num_experts=config.integer("n_routed_experts"),
        num_experts_per_tok=config.integer("num_experts_per_tok"),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("n_shared_experts", default_shared) * width,
        hidden_act=activation(config),
    )


def _deepseek(
    config: Config,
    identity: Identity,
    experts: Experts,
    *,
    default_dense_layers: int,
    interleaved: bool,
) -> Model:
    config.only("attention_bias", False, "the latent projections have no bias")
    config.only("moe_layer_freq", 1, "every layer after the dense ones has experts")
    config.harmless("num_key_value_heads")  # the latent is shared by all heads, whatever this says
    dense, mixer = gated_mlp(config), _latent_attention(config, interleaved)
    first = config.count("first_k_dense_replace", default_dense_layers)
    depth = config.depth("num_hidden_layers")
    layers = [Layer(mixer, dense if index < first else experts) for index in range(depth)]
    return finished_model(config, identity, layers, tied=False)


def _latent_attention(config: Config, interleaved: bool) -> LatentAttention:
    nope, rotated = config.integer("qk_nope_head_dim"), config.integer("qk_rope_head_dim")
    # transformers 5 writes both of these; neither is read back.
    config.only("head_dim", rotated, "the rotated part of a head has qk_rope_head_dim elements")
    config.only("qk_head_dim", nope + rotated, "a head has qk_nope_head_dim + qk_rope_head_dim elements")
    return LatentAttention(
        num_attention_heads=config.integer("num_attention_heads"),
        kv_lora_rank=config.integer("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rotated,
        v_head_dim=config.integer("v_head_dim"),
        # Missing is not null: the class default is 1,536, and DeepSeek-V2-Lite says null for "none".
        q_lora_rank=config.optional_integer("q_lora_rank", default=1536),
        rope_parameters=rope(
            config, config.integer("max_position_embeddings"), RopeDefaults(interleaved=interleaved)
        ),
    )
