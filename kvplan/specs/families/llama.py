"""Llama, Mistral, Mixtral, Qwen 2 and Phi-3: pre-norm blocks of grouped-query attention and a gated MLP."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Families,
    Identity,
    activation,
    finished_model,
    head_dim,
    windowed_layers,
)
from kvplan.specs.families.rope import PLAIN, RopeDefaults, rope


def attention(
    config: Config,
    *,
    window: int | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norm: QkNorm | None = None,
    default_kv_heads: int | None = None,
    default_head_dim: int | None = None,
    rotation: RopeDefaults = PLAIN,
) -> Attention:
    """Return the attention of a file with the usual key names.

    KV heads that are null mean one per query head; missing ones mean the family's default, or the same.
    """
    heads = config.integer("num_attention_heads")
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.optional_integer("num_key_value_heads", default=default_kv_heads) or heads,
        head_dim=head_dim(config, config.integer("hidden_size"), heads, default_head_dim),
        sliding_window=window,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        qk_norm=qk_norm,
        rope_parameters=rope(config, config.integer("max_position_embeddings"), rotation),
    )


def gated_mlp(config: Config) -> MLP:
    """Return the MLP of a file with the usual key names."""
    return MLP(config.integer("intermediate_size"), hidden_act=activation(config))


def llama(config: Config, identity: Identity) -> Model:
    """Llama 1 to 3, and models in their format (Yi, SmolLM, TinyLlama): untied, no window."""
    bias = config.flag("attention_bias", False)
    mlp = MLP(
        config.integer("intermediate_size"),
        mlp_bias=config.flag("mlp_bias", False),
        hidden_act=activation(config),
    )
    layer = Layer(attention(config, qkv_bias=bias, out_bias=bias), mlp)
    return finished_model(config, identity, [layer] * config.depth("num_hidden_layers"), tied=False)


def mistral(config: Config, identity: Identity) -> Model:
    """Mistral: a window in every layer, 4,096 where the file does not say; null means none."""
    return _all_windowed(config, identity, gated_mlp(config), missing_window=4096, default_kv_heads=8)


def mixtral(config: Config, identity: Identity) -> Model:
    """Mixtral: Mistral with experts in place of the MLP; no window where the file does not say."""
    experts = Experts(
        num_experts=config.integer("num_local_experts", default=8),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=config.integer("intermediate_size"),
        hidden_act=activation(config),
    )
    rotation = RopeDefaults(rope_theta=1_000_000.0)
    return _all_windowed(config, identity, experts, default_kv_heads=8, eps=1e-5, rotation=rotation)


def phi3(config: Config, identity: Identity) -> Model:
    """Phi-3 and Phi-4: a window in every layer where the file has one."""
    for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
        config.only(key, False, "this family has no biases")
    config.only("full_attn_mod", 1, "full attention in some layers only is not described by this key")
    config.only("interpolate_factor", 1, "position interpolation is not known here")
    rotation = RopeDefaults(
        partial_rotary_factor=1.0,
        original_max_position_embeddings=4096,
        longrope_names=("su", "yarn"),
    )
    return _all_windowed(config, identity, gated_mlp(config), eps=1e-5, rotation=rotation)


def _all_windowed(
    config: Config,
    identity: Identity,
    mlp: FeedForward,
    *,
    missing_window: int | None = None,
    default_kv_heads: int | None = None,
    eps: float = 1e-6,
    rotation: RopeDefaults = PLAIN,
) -> Model:
    depth = config.depth("num_hidden_layers")
    window = config.optional_integer("sliding_window", default=missing_window)
    slides = windowed_layers(config, depth) or [True] * depth
    config.harmless("sliding_window_size", "attention_sink_size")
    full = attention(config, default_kv_heads=default_kv_heads, rotation=rotation)
    sliding = replace(full, sliding_window=window)
    layers = [Layer(sliding if slide else full, mlp) for slide in slides]
    return finished_model(config, identity, layers, tied=False, eps=eps)


def qwen2(config: Config, identity: Identity) -> Model:
    """Qwen 2 and 2.5: biases on queries, keys and values that the file does not mention."""
    full, mlp = attention(config, qkv_bias=True, default_kv_heads=32), gated_mlp(config)
    layers = [Layer(replace(full, sliding_window=window), mlp) for window in qwen_windows(config)]
    return finished_model(config, identity, layers, tied=False)


def qwen_windows(config: Config, max_window_layers: int = 28) -> list[int | None]:
    """Return each layer's window in a Qwen file: none unless ``use_sliding_window``, whatever else it says.

    Where it is on, ``layer_types`` decides, else layers from ``max_window_layers`` on slide, which is by
    default what the class says.
    """
    depth = config.depth("num_hidden_layers")
    window = config.optional_integer("sliding_window", default=4096)
    first = config.count("max_window_layers", max_window_layers)
    types = windowed_layers(config, depth)
    if not config.flag("use_sliding_window", False):
        window = None
    slides = types if types is not None else [index >= first for index in range(depth)]
    return [window if slide else None for slide in slides]


FAMILIES: Families = {
    "llama": llama,
    # The same with ``layer_types`` (Ministral 8B), which mistral reads too.
    "ministral": mistral,
    "mistral": mistral,
    "mixtral": mixtral,
    "phi3": phi3,
    "qwen2": qwen2,
}
