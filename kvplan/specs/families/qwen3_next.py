"""Qwen3-Next: gated delta nets with gated attention in every fourth layer, and what Qwen 3.5 has of it."""

from __future__ import annotations

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention, OutputGate, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.layer import Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.qwen3 import sparse_layers
from kvplan.specs.families.rope import RopeDefaults, rope
from kvplan.specs.families.state_spaces import state_dtype

# A quarter of each head is rotated.
QUARTER = RopeDefaults(partial_rotary_factor=0.25)


def qwen3_next(config: Config, identity: Identity) -> Model:
    """Qwen3-Next: three gated delta nets for each gated full attention, experts with a shared one."""
    depth = config.depth("num_hidden_layers", default=48)
    dense = MLP(config.integer("intermediate_size", default=5632), hidden_act=silu(config))
    experts = Experts(
        num_experts=512,
        num_experts_per_tok=10,
        moe_intermediate_size=512,
        shared_expert_intermediate_size=config.integer("shared_expert_intermediate_size", default=512),
        shared_expert_gate=True,
    )
    mlps = sparse_layers(config, depth, dense, experts, norm_topk_prob=True)
    longest = config.integer("max_position_embeddings", default=32_768)
    mixers = mixers_in_turn(config, depth, gated_attention(config, 2, rope(config, longest, QUARTER)))
    return finished_model(
        config,
        identity,
        [Layer(mixer, mlp) for mixer, mlp in zip(mixers, mlps, strict=True)],
        tied=False,
        norm=Norm.RMS_UNIT_OFFSET,
        hidden_size=config.integer("hidden_size", default=2048),
        vocab_size=config.integer("vocab_size", default=151_936),
        max_position_embeddings=longest,
    )


def silu(config: Config) -> Activation:
    """Return the function of a file's blocks and its convolutions, which is silu."""
    found = activation(config)
    if found is not Activation.SILU:
        config.refuse("hidden_act", "the delta nets of this family are understood with silu only")
    if activation(config, "output_gate_type") is not Activation.SILU:
        config.refuse("output_gate_type", "the delta nets of this family are gated by silu")
    return found


def gated_attention(config: Config, kv_heads: int, rotation: RopeParameters | None) -> Attention:
    """Return the full attention, with a gate beside each query; ``kv_heads`` are the class's own."""
    bias = config.flag("attention_bias", False)
    return Attention(
        num_attention_heads=config.integer("num_attention_heads", default=16),
        num_key_value_heads=config.integer("num_key_value_heads", default=kv_heads),
        head_dim=config.integer("head_dim", default=256),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        output_gate=OutputGate.QUERY,
        rope_parameters=rotation,
    )


def mixers_in_turn(config: Config, depth: int, full: Attention) -> list[Mixer]:
    """Return each layer's mixer: attention by ``layer_types``, or in every ``full_attention_interval``."""
    recurs = GatedDeltaNet(
        linear_num_key_heads=config.integer("linear_num_key_heads", default=16),
        linear_num_value_heads=config.integer("linear_num_value_heads", default=32),
        linear_key_head_dim=config.integer("linear_key_head_dim", default=128),
        linear_value_head_dim=config.integer("linear_value_head_dim", default=128),
        linear_conv_kernel_dim=config.integer("linear_conv_kernel_dim", default=4),
        state_dtype=state_dtype(config, "mamba_ssm_dtype"),
    )
    interval = config.integer("full_attention_interval", default=4)
    types = config.texts("layer_types", depth, ("full_attention", "linear_attention"))
    if types is not None:
        return [full if kind == "full_attention" else recurs for kind in types]
    return [recurs if (index + 1) % interval else full for index in range(depth)]


FAMILIES: Families = {"qwen3_next": qwen3_next}
