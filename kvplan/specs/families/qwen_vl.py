"""The language models of Qwen2-VL, 2.5-VL and 3-VL: Qwen 2 and 3, whose rotations know places in images."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.llama import qwen_windows
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import layers_in
from kvplan.specs.families.sizes import Sizes

# Class defaults of transformers 5.23.
_QWEN2_VL = Sizes(
    vocab_size=152_064,
    hidden_size=8192,
    intermediate_size=29_568,
    num_hidden_layers=80,
    num_attention_heads=64,
    max_position_embeddings=32_768,
    num_key_value_heads=8,
)
_QWEN3_VL = Sizes(
    vocab_size=151_936,
    hidden_size=4096,
    intermediate_size=22_016,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=128_000,
    num_key_value_heads=32,
    head_dim=128,
)
_QWEN3_VL_MOE = Sizes(
    vocab_size=151_936,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    max_position_embeddings=128_000,
    num_key_value_heads=16,
)


def qwen2_vl_text(config: Config, identity: Identity) -> Model:
    """Qwen2-VL and 2.5-VL: Qwen 2 with other class defaults."""
    sizes = _QWEN2_VL.read(config)
    full = sizes.attention(config, RopeDefaults(rope_theta=1_000_000.0, mrope=True), qkv_bias=True)
    mlp, windows = sizes.gated_mlp(config), qwen_windows(config, max_window_layers=80)
    layers = [Layer(replace(full, sliding_window=window), mlp) for window in windows]
    return _finished(config, identity, sizes, layers, eps=1e-5)


def qwen3_vl_text(config: Config, identity: Identity) -> Model:
    """Qwen3-VL dense: Qwen 3 without windows; what the encoder adds deep in the layers is of images only."""
    sizes = _QWEN3_VL.read(config)
    layer = Layer(_qwen3_attention(config, sizes), sizes.gated_mlp(config))
    return _finished(config, identity, sizes, [layer] * sizes.num_hidden_layers)


def qwen3_vl_moe_text(config: Config, identity: Identity) -> Model:
    """Qwen3-VL mixtures: experts every ``decoder_sparse_step`` layers, their scores scaled to one."""
    sizes = _QWEN3_VL_MOE.read(config)
    mixer, dense, experts = _qwen3_attention(config, sizes), sizes.gated_mlp(config), _experts(config)
    step = config.integer("decoder_sparse_step", default=1)
    dense_layers = layers_in(config, "mlp_only_layers", sizes.num_hidden_layers)
    mlps: list[FeedForward] = [
        dense if index in dense_layers or (index + 1) % step else experts
        for index in range(sizes.num_hidden_layers)
    ]
    return _finished(config, identity, sizes, [Layer(mixer, mlp) for mlp in mlps])


def _qwen3_attention(config: Config, sizes: Sizes) -> Attention:
    bias = config.flag("attention_bias", False)
    rotation = RopeDefaults(rope_theta=500_000.0, mrope=True)
    config.harmless("sliding_window", "max_window_layers")  # the class has no windows
    return replace(sizes.attention(config, rotation, qkv_bias=bias, out_bias=bias), qk_norm=QkNorm.HEAD)


def _experts(config: Config) -> Experts:
    config.only("norm_topk_prob", True, "the chosen scores are scaled to one in this family")
    return Experts(
        num_experts=config.integer("num_experts", "num_local_experts", default=60),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=4),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=1408),
        norm_topk_prob=True,
    )


def _finished(
    config: Config, identity: Identity, sizes: Sizes, layers: list[Layer], *, eps: float = 1e-6
) -> Model:
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {
    "qwen2_5_vl_text": qwen2_vl_text,
    "qwen2_vl_text": qwen2_vl_text,
    "qwen3_vl_moe_text": qwen3_vl_moe_text,
    "qwen3_vl_text": qwen3_vl_text,
}
