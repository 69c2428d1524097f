"""RecurrentGemma: gated linear recurrences with some layers of windowed attention."""

from __future__ import annotations

import struct
from math import sqrt

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.rg_lru import RgLru
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults, rope

# The class has no limit of its own; this is what the models were trained on (arXiv 2404.07839, section 2).
_TRAINED_TOKENS = 8192
_BLOCKS = ("recurrent", "recurrent", "attention")


def recurrent_gemma(config: Config, identity: Identity) -> Model:
    """RecurrentGemma: ``block_types`` again and again; all attention is windowed, so nothing grows on."""
    config.only("embeddings_scale_by_sqrt_dim", True, "embeddings are scaled in this family")
    config.harmless("w_init_variance_scale", "final_w_init_variance_scale", "hidden_act")
    depth, hidden = config.depth("num_hidden_layers", default=26), config.integer("hidden_size", default=2560)
    heads = config.integer("num_attention_heads", default=10)
    act = activation(config, "hidden_activation", Activation.GELU_TANH)
    longest = config.integer("max_position_embeddings", default=_TRAINED_TOKENS)
    recurs = RgLru(
        lru_width=config.integer("lru_width", default=hidden),
        num_attention_heads=heads,
        conv1d_width=config.integer("conv1d_width", default=4),
        hidden_activation=act,
    )
    # The file's width is that of both matrices of the first step together.
    both = config.integer("intermediate_size", default=3 * 2560)
    mlp = MLP(both // 2, mlp_bias=True, hidden_act=act)
    mixers: dict[str, Mixer] = {"recurrent": recurs, "attention": _attention(config, hidden, heads, longest)}
    layers = [Layer(mixers[kind], mlp) for kind in _kinds(config, depth)]
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        norm=Norm.RMS_UNIT_OFFSET,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=256_000),
        max_position_embeddings=longest,
        embedding_multiplier=_in_bfloat16(sqrt(hidden)),
        final_logit_softcapping=config.number("logits_soft_cap", default=30.0),
    )


def _kinds(config: Config, depth: int) -> list[str]:
    pattern = config.words("block_types") or config.words("_block_types") or list(_BLOCKS)
    if strange := [kind for kind in pattern if kind not in _BLOCKS]:
        config.refuse("block_types", f"{strange[0][:40]!r} is not one of recurrent, attention")
    return [pattern[index % len(pattern)] for index in range(depth)]


def _attention(config: Config, hidden: int, heads: int, longest: int) -> Attention:
    if hidden % heads:
        config.refuse("num_attention_heads", f"hidden_size ({hidden}) is no multiple of it")
    config.only("head_dim", hidden // heads, "a head has hidden_size / num_attention_heads elements")
    window = config.integer("attention_window_size", "sliding_window", default=2048)
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.optional_integer("num_key_value_heads") or heads,
        head_dim=hidden // heads,
        sliding_window=window,
        qkv_bias=config.flag("attention_bias", False),
        out_bias=True,
        rope_parameters=rope(config, longest, RopeDefaults(partial_rotary_factor=0.5)),
    )


def _in_bfloat16(value: float) -> float:
    """Return the nearest bfloat16: the class keeps its embeddings' multiplier in one, whatever its dtype."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    kept = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    (rounded,) = struct.unpack("<f", struct.pack("<I", kept))
    return float(rounded)


FAMILIES: Families = {
    "recurrent_gemma": recurrent_gemma,
}
