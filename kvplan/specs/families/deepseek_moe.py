"""DeepSeek-MoE (2024, remote code): plain multi-head attention, softmax scores, shared experts."""

from __future__ import annotations

from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.sizes import Sizes


def deepseek(config: Config, identity: Identity) -> Model:
    """DeepSeek-MoE: experts from ``first_k_dense_replace`` on, in layers that ``moe_layer_freq`` divides."""
    config.only("scoring_func", "softmax", "this family's router is a softmax")
    sizes = Sizes(
        vocab_size=102_400,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=30,
        num_attention_heads=32,
        max_position_embeddings=2048,
    ).read(config)
    bias = config.flag("attention_bias", False)
    mixer, dense = sizes.attention(config, qkv_bias=bias, out_bias=bias), sizes.gated_mlp(config)
    routed = config.optional_integer("n_routed_experts")
    first, every = config.count("first_k_dense_replace", 0), config.integer("moe_layer_freq", default=1)
    width = config.integer("moe_intermediate_size", default=1407)
    chosen, shared = config.optional_integer("num_experts_per_tok"), config.count("n_shared_experts", 0)
    normed = config.flag("norm_topk_prob", False)
    layers = [Layer(mixer, dense)] * sizes.num_hidden_layers
    if routed is not None:
        experts = Experts(
            num_experts=routed,
            num_experts_per_tok=chosen or config.integer("num_experts_per_tok"),
            moe_intermediate_size=width,
            shared_expert_intermediate_size=shared * width,
            hidden_act=dense.hidden_act,
            # The class does not norm the share of a single expert.
            norm_topk_prob=normed and chosen != 1,
        )
        layers = [
            Layer(mixer, experts if index >= first and index % every == 0 else dense)
            for index in range(sizes.num_hidden_layers)
        ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {"deepseek": deepseek}
