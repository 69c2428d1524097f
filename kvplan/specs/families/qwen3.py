"""Qwen 3: normalised queries and keys, mixtures of experts, and gated delta nets beside attention."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Identity, activation, finished_model, head_dim
from kvplan.specs.families.llama import attention, gated_mlp, qwen_windows
from kvplan.specs.families.rope import RopeDefaults, rope


def qwen3(config: Config, identity: Identity) -> Model:
    """Qwen 3 dense: heads of 128 where the file does not say."""
    bias = config.flag("attention_bias", False)
    full = attention(
        config,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        default_kv_heads=32,
        default_head_dim=128,
    )
    mlp = gated_mlp(config)
    layers = [Layer(replace(full, sliding_window=window), mlp) for window in qwen_windows(config)]
    return finished_model(config, identity, layers, tied=False)


def qwen3_moe(config: Config, identity: Identity) -> Model:
    """Qwen 3 mixtures: heads of hidden / heads where the file does not say; a window is in every layer."""
    config.only("qkv_bias", False, "attention_bias is the key this family reads")
    config.only("shared_expert_intermediate_size", 0, "this family has no shared expert")
    config.only("use_qk_norm", True, "queries and keys are normalised in this family")
    bias = config.flag("attention_bias", False)
    window = config.optional_integer("sliding_window", default=4096)
    if not config.flag("use_sliding_window", False):
        window = None
    config.harmless("max_window_layers")
    mixer = attention(config, window=window, qkv_bias=bias, out_bias=bias, qk_norm=True, default_kv_heads=4)
    layers = [Layer(mixer, mlp) for mlp in _feed_forwards(config, shared_size=0, norm_topk_prob=False)]
    return finished_model(config, identity, layers, tied=False)


def qwen3_next(config: Config, identity: Identity) -> Model:
    """Qwen3-Next: three gated delta nets for each gated full attention, experts with a shared one."""
    depth = config.depth("num_hidden_layers")
    shared_size = config.integer("shared_expert_intermediate_size", default=512)
    mlps = _feed_forwards(config, shared_size, norm_topk_prob=True)
    if activation(config) is not Activation.SILU:
        config.refuse("hidden_act", "the delta nets of this family are understood with silu only")
    attends, recurs = _gated_attention(config), _delta_net(config)
    mixers: list[Mixer] = [attends if full else recurs for full in _is_full(config, depth)]
    layers = [Layer(mixer, mlp) for mixer, mlp in zip(mixers, mlps, strict=True)]
    return finished_model(config, identity, layers, tied=False, norm=Norm.RMS_UNIT_OFFSET)


def _is_full(config: Config, depth: int) -> list[bool]:
    interval = config.integer("full_attention_interval", default=4)
    types = config.texts("layer_types", depth, ("full_attention", "linear_attention"))
    if types is not None:
        return [kind == "full_attention" for kind in types]
    return [(index + 1) % interval == 0 for index in range(depth)]


def _gated_attention(config: Config) -> Mixer:
    bias = config.flag("attention_bias", False)
    heads = config.integer("num_attention_heads", default=16)
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.integer("num_key_value_heads", default=2),
        head_dim=head_dim(config, config.integer("hidden_size"), heads, default=256),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        output_gate=True,
        rope_parameters=rope(
            config, config.integer("max_position_embeddings"), RopeDefaults(partial_rotary_factor=0.25)
        ),
    )


def _delta_net(config: Config) -> Mixer:
    return GatedDeltaNet(
        linear_num_key_heads=config.integer("linear_num_key_heads", default=16),
        linear_num_value_heads=config.integer("linear_num_value_heads", default=32),
        linear_key_head_dim=config.integer("linear_key_head_dim", default=128),
        linear_value_head_dim=config.integer("linear_value_head_dim", default=128),
        linear_conv_kernel_dim=config.integer("linear_conv_kernel_dim", default=4),
    )


def _feed_forwards(config: Config, shared_size: int, *, norm_topk_prob: bool) -> list[FeedForward]:
    """Return each layer's block: experts every ``decoder_sparse_step`` layers but in ``mlp_only_layers``."""
    depth = config.depth("num_hidden_layers")
    step = config.integer("decoder_sparse_step", default=1)
    dense_layers = frozenset(config.integers("mlp_only_layers"))
    if wrong := sorted(dense_layers - frozenset(range(depth))):
        config.refuse("mlp_only_layers", f"expected layers 0 to {depth - 1}, not {shown(wrong[0])}")
    dense = gated_mlp(config)
    experts = Experts(
        num_experts=config.integer(
            "num_experts", "num_local_experts", default=128 if not shared_size else 512
        ),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=8 if not shared_size else 10),
        moe_intermediate_size=config.integer("moe_intermediate_size"),
        shared_expert_intermediate_size=shared_size,
        shared_expert_gate=bool(shared_size),
        hidden_act=dense.hidden_act,
        norm_topk_prob=config.flag("norm_topk_prob", norm_topk_prob),
    )
    return [dense if index in dense_layers or (index + 1) % step else experts for index in range(depth)]
