"""Nemotron 3 and 4, and what NVIDIA's search for cheaper layers made of Llama (nemotron-nas, DeciLM)."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.llama import attention, gated_mlp
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

# Widths of the searched MLPs are whole multiples of it (NVIDIA, configuration_decilm.py).
_WIDTH_STEP = 256


def nemotron(config: Config, identity: Identity) -> Model:
    """Nemotron: LayerNorm stored as its distance from one, a plain MLP, half of a head rotated."""
    sizes = Sizes(
        vocab_size=256_000,
        hidden_size=6144,
        intermediate_size=24_576,
        num_hidden_layers=32,
        num_attention_heads=48,
        max_position_embeddings=4096,
    ).read(config)
    bias, half = config.flag("attention_bias", False), RopeDefaults(partial_rotary_factor=0.5)
    mixer = sizes.attention(config, half, qkv_bias=bias, out_bias=bias)
    mlp = sizes.plain_mlp(config, Activation.RELU_SQUARED, bias=False)
    return finished_model(
        config,
        identity,
        [Layer(mixer, mlp)] * sizes.num_hidden_layers,
        tied=False,
        norm=Norm.LAYER_UNIT_OFFSET,
        eps_key="norm_eps",
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def nemotron_nas(config: Config, identity: Identity) -> Model:
    """Llama with layers of their own widths and groups of queries, some without attention or MLP."""
    heads, bias = config.integer("num_attention_heads"), config.flag("attention_bias", False)
    config.only("num_key_value_heads", None, "block_configs says it")
    config.only("intermediate_size", None, "block_configs says it")
    mixer = attention(config, qkv_bias=bias, out_bias=bias)
    mlp_bias, act = config.flag("mlp_bias", False), activation(config)
    hidden, depth = config.integer("hidden_size"), config.depth("num_hidden_layers")
    blocks = config.inners("block_configs")
    if len(blocks) != depth:
        config.refuse("block_configs", f"has {len(blocks):,} entries for {depth:,} layers")
    layers = []
    for block in blocks:
        own = _searched_attention(block.inner("attention"), mixer, heads)
        width = _searched_width(block.inner("ffn"), hidden)
        block.finish()
        mlp = None if width is None else MLP(width, mlp_bias=mlp_bias, hidden_act=act)
        # A block without either does nothing at all.
        if own is not None or mlp is not None:
            layers.append(Layer(own, mlp))
    return finished_model(config, identity, layers, tied=False)


def _searched_attention(config: Config, mixer: Attention, heads: int) -> Attention | None:
    """Return a block's attention, or ``None`` where it has none."""
    config.only("replace_with_linear", False, "a matrix in place of attention is not described")
    config.only("num_sink_tokens", None, "sinks are not described in this family")
    config.only("use_prefill_window_in_sink_attention", False, "sinks are not described in this family")
    config.harmless("unshifted_sink", "sparsify")
    group, window = config.optional_integer("n_heads_in_group"), config.optional_integer("window_length")
    absent = config.flag("no_op", False)
    if not absent and (group is None or heads % group):
        config.refuse("n_heads_in_group", f"expected a divisor of the {heads} query heads")
    config.finish()
    if absent or group is None:
        return None
    return replace(mixer, num_key_value_heads=heads // group, sliding_window=window)


def _searched_width(config: Config, hidden: int) -> int | None:
    """Return the width of a block's MLP, or ``None`` where it has none."""
    config.only("replace_with_linear", False, "a matrix in place of an MLP is not described")
    config.harmless("sparsify")
    share, absent = config.optional_number("ffn_mult"), config.flag("no_op", False)
    if not absent and share is None:
        config.refuse("ffn_mult", "expected a number where no_op is false")
    config.finish()
    if absent or share is None:
        return None
    return -(-int(2 * share * hidden / 3) // _WIDTH_STEP) * _WIDTH_STEP


def deci(config: Config, identity: Identity) -> Model:
    """DeciLM: Llama with KV heads of their own in each layer."""
    bias, depth = config.flag("attention_bias", False), config.depth("num_hidden_layers")
    heads, each = config.integer("num_attention_heads"), config.integers("num_key_value_heads_per_layer")
    config.harmless("num_key_value_heads")
    if len(each) != depth or any(count < 1 or heads % count for count in each):
        config.refuse("num_key_value_heads_per_layer", f"expected a divisor of {heads} for each layer")
    mixer = attention(config, qkv_bias=bias, out_bias=bias)
    mlp = gated_mlp(config)
    layers = [Layer(replace(mixer, num_key_value_heads=count), mlp) for count in each]
    return finished_model(config, identity, layers, tied=False)


FAMILIES: Families = {
    "deci": deci,
    "nemotron": nemotron,
    "nemotron-nas": nemotron_nas,
}
