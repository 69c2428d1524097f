"""Command-R and Aya (Cohere), Command-R7B and Command-A (Cohere 2): parallel blocks behind one LayerNorm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

_SIZES = Sizes(
    vocab_size=256_000,
    hidden_size=8192,
    intermediate_size=22_528,
    num_hidden_layers=40,
    num_attention_heads=64,
    max_position_embeddings=8192,
)


def cohere(config: Config, identity: Identity) -> Model:
    """Command-R and Aya; Command-R+ normalises each head of queries and keys by weights of its own."""
    sizes, bias = _SIZES.read(config), config.flag("attention_bias", False)
    rotation = RopeDefaults(rope_theta=500_000.0, interleaved=True)
    attention = replace(
        sizes.attention(config, rotation, qkv_bias=bias, out_bias=bias),
        qk_norm=QkNorm.EACH_HEAD if config.flag("use_qk_norm", False) else None,
    )
    return _model(config, identity, sizes, [attention] * sizes.num_hidden_layers, sizes.gated_mlp(config))


def cohere2(config: Config, identity: Identity) -> Model:
    """Cohere 2: of four layers, three slide and rotate; the fourth sees everything and rotates nothing."""
    sizes, bias = _SIZES.read(config), config.flag("attention_bias", False)
    widths = sizes.hidden_size // sizes.num_attention_heads
    config.only("head_dim", widths, f"a head has hidden_size / num_attention_heads ({widths}) elements")
    sliding = replace(
        sizes.attention(config, RopeDefaults(interleaved=True), qkv_bias=bias, out_bias=bias),
        head_dim=widths,
        sliding_window=_window(config),
    )
    full = replace(sliding, sliding_window=None, rope_parameters=None)
    pattern = config.integer("sliding_window_pattern", "layer_switch", default=4)
    depth = sizes.num_hidden_layers
    slides = windowed_layers(config, depth) or [(index + 1) % pattern != 0 for index in range(depth)]
    _what_released_files_say(config)
    attentions = [sliding if slide else full for slide in slides]
    return _model(config, identity, sizes, attentions, sizes.gated_mlp(config))


def _window(config: Config) -> int:
    window = config.optional_integer("sliding_window", default=4096)
    if window is None:
        config.refuse("sliding_window", "null is not understood: layers that rotate are those with a window")
    return window


def _what_released_files_say(config: Config) -> None:
    """Refuse other values of keys that describe what every model of the family does."""
    config.only("order_of_interleaved_layers", "local_attn_first", "sliding layers come first")
    config.only("position_embedding_type", "rope_gptj", "neighbouring elements are rotated together")
    config.only("rotary_pct", 1.0, "whole heads are rotated")
    config.only("use_embedding_sharing", True, "tie_word_embeddings says so")
    config.only("use_gated_activation", True, "the MLP is gated")
    config.only("use_parallel_block", True, "attention and MLP are side by side")
    config.only("use_parallel_embedding", False, "embeddings are only looked up")


def _model(
    config: Config, identity: Identity, sizes: Sizes, attentions: Sequence[Attention], mlp: MLP
) -> Model:
    return finished_model(
        config,
        identity,
        [Layer(attention, mlp, Block.PARALLEL) for attention in attentions],
        tied=True,
        norm=Norm.LAYER_NO_BIAS,
        eps_key="layer_norm_eps",
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        logits_multiplier=config.number("logit_scale", default=0.0625),
    )


FAMILIES: Families = {
    "cohere": cohere,
    "cohere2": cohere2,
}
