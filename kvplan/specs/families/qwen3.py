"""Qwen 3: normalised queries and keys, dense and with experts."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.llama import attention, gated_mlp, qwen_windows


def qwen3(config: Config, identity: Identity) -> Model:
    """Qwen 3 dense: heads of 128 where the file does not say."""
    bias = config.flag("attention_bias", False)
    full = attention(
        config,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
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
    mixer = attention(
        config, window=window, qkv_bias=bias, out_bias=bias, qk_norm=QkNorm.HEAD, default_kv_heads=4
    )
    depth, experts = config.depth("num_hidden_layers", default=24), Experts(128, 8, 768)
    mlps = sparse_layers(config, depth, gated_mlp(config), experts, norm_topk_prob=False)
    layers = [Layer(mixer, mlp) for mlp in mlps]
    return finished_model(config, identity, layers, tied=False)


def sparse_layers(
    config: Config, depth: int, dense: MLP, experts: Experts, *, norm_topk_prob: bool
) -> list[FeedForward]:
    """Return each layer's block: experts every ``decoder_sparse_step`` layers but in ``mlp_only_layers``.

    ``experts`` and ``norm_topk_prob`` are those of the class, where the file says nothing.
    """
    step = config.integer("decoder_sparse_step", default=1)
    dense_layers = frozenset(config.integers("mlp_only_layers"))
    if wrong := sorted(dense_layers - frozenset(range(depth))):
        config.refuse("mlp_only_layers", f"expected layers 0 to {depth - 1}, not {shown(wrong[0])}")
    sparse = replace(
        experts,
        num_experts=config.integer("num_experts", "num_local_experts", default=experts.num_experts),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=experts.num_experts_per_tok),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=experts.moe_intermediate_size),
        hidden_act=dense.hidden_act,
        norm_topk_prob=config.flag("norm_topk_prob", norm_topk_prob),
    )
    return [dense if index in dense_layers or (index + 1) % step else sparse for index in range(depth)]


FAMILIES: Families = {
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
}
