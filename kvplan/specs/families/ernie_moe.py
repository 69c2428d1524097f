"""ERNIE 4.5 with experts: softmax scores, and a bias they are chosen with that is a parameter."""

from __future__ import annotations

from kvplan.arch.experts import Experts, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

_ROTATION = RopeDefaults(rope_theta=500_000.0, interleaved=True)


def ernie4_5_moe(config: Config, identity: Identity) -> Model:
    """ERNIE 4.5 with experts in some layers; ``use_bias`` is of every other matrix, the head too."""
    sizes = Sizes(
        vocab_size=103_424,
        hidden_size=2560,
        intermediate_size=12_288,
        num_hidden_layers=28,
        num_attention_heads=20,
        max_position_embeddings=131_072,
        num_key_value_heads=4,
    ).read(config)
    bias = config.flag("use_bias", False)
    mixer = sizes.attention(config, _ROTATION, qkv_bias=bias, out_bias=bias)
    dense = sizes.gated_mlp(config, bias=bias)
    width = config.integer("moe_intermediate_size", default=1536)
    config.only("moe_norm_min", 1e-12, "shares are divided by their sum, which is far above it")
    config.only("moe_use_aux_free", True, "experts are chosen with the correction bias in this family")
    experts = Experts(
        num_experts=config.integer("moe_num_experts", "num_experts", default=64),
        num_experts_per_tok=config.integer("moe_k", "num_experts_per_tok", default=6),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("moe_num_shared_experts", 2) * width,
        router_bias_parameter=True,
        mlp_bias=bias,
        hidden_act=dense.hidden_act,
        topk_method=TopkMethod.NOAUX_TC,
    )
    layers = [
        Layer(mixer, experts if routed else dense) for routed in _routed(config, sizes.num_hidden_layers)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        lm_head_bias=bias,
    )


def _routed(config: Config, depth: int) -> list[bool]:
    """Return which layers have experts; an end of -1 is the last layer."""
    interval = config.integer("moe_layer_interval", default=1)
    first, last = config.count("moe_layer_start_index", 1), config.whole_number("moe_layer_end_index", -1)
    if last == -1:
        last = depth - 1
    return [(index + 1) % interval == 0 and first <= index <= last for index in range(depth)]


FAMILIES: Families = {"ernie4_5_moe": ernie4_5_moe}
