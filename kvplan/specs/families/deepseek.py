"""DeepSeek V2 and V3, and Kimi K2 in their format: latent attention, experts after dense first layers."""

from __future__ import annotations

from kvplan.arch.experts import Experts
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Identity, finished_model


def deepseek_v2(config: Config, identity: Identity) -> Model:
    """DeepSeek V2: softmax routing without a correction bias."""
    return _deepseek(config, identity, router_bias_buffer=False, default_dense_layers=0, default_shared=2)


def deepseek_v3(config: Config, identity: Identity) -> Model:
    """DeepSeek V3 and R1: sigmoid routing with a correction bias that is a buffer.

    Next-token-prediction layers (``num_nextn_predict_layers``) are not part of the main model.
    """
    config.count("num_nextn_predict_layers", 1)
    return _deepseek(config, identity, router_bias_buffer=True, default_dense_layers=3, default_shared=1)


def _deepseek(
    config: Config,
    identity: Identity,
    *,
    router_bias_buffer: bool,
    default_dense_layers: int,
    default_shared: int,
) -> Model:
    config.only("attention_bias", False, "the latent projections have no bias")
    config.only("moe_layer_freq", 1, "every layer after the dense ones has experts")
    config.harmless("num_key_value_heads")  # the latent is shared by all heads, whatever this says
    width = config.integer("moe_intermediate_size")
    experts = Experts(
        num_experts=config.integer("n_routed_experts"),
        num_experts_per_tok=config.integer("num_experts_per_tok"),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("n_shared_experts", default_shared) * width,
        router_bias_buffer=router_bias_buffer,
    )
    dense = MLP(config.integer("intermediate_size"))
    mixer, first = _latent_attention(config), config.count("first_k_dense_replace", default_dense_layers)
    depth = config.depth("num_hidden_layers")
    layers = [Layer(mixer, dense if index < first else experts) for index in range(depth)]
    return finished_model(config, identity, layers, tied=False)


def _latent_attention(config: Config) -> LatentAttention:
    nope, rope = config.integer("qk_nope_head_dim"), config.integer("qk_rope_head_dim")
    # transformers 5 writes both of these; neither is read back.
    config.only("head_dim", rope, "the rotated part of a head has qk_rope_head_dim elements")
    config.only("qk_head_dim", nope + rope, "a head has qk_nope_head_dim + qk_rope_head_dim elements")
    return LatentAttention(
        num_attention_heads=config.integer("num_attention_heads"),
        kv_lora_rank=config.integer("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        v_head_dim=config.integer("v_head_dim"),
        # Missing is not null: the class default is 1,536, and DeepSeek-V2-Lite says null for "none".
        q_lora_rank=config.optional_integer("q_lora_rank", default=1536),
    )
