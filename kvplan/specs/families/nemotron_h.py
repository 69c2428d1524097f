"""Nemotron-H and Nemotron 3: every layer is a Mamba-2, attention, an MLP or experts, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.entry import StateDtype
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.state_spaces import ROTATION_KEYS, read_harmless_keys, require_silu, state_dtype
from kvplan.specs.layer_pattern import MAX_LAYERS

_Part: TypeAlias = Mamba2 | Attention | MLP | Experts
_BY_LETTER = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_BY_WORD = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}


def nemotron_h(config: Config, identity: Identity) -> Model:
    """Nemotron-H: a pattern of layers whose length is the depth; attention knows no positions.

    The layers that predict further tokens (``mtp_*``) are no part of the model.
    """
    read_harmless_keys(config)
    require_silu(config, "mamba_hidden_act")
    config.harmless("num_hidden_layers", "expand", "mamba_expand", "time_step_rank", *ROTATION_KEYS)
    config.harmless("mamba_dt_min", "mamba_dt_max", "mamba_dt_init_floor", "moe_shared_expert_overlap")
    config.harmless("num_nextn_predict_layers", "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    config.only("tie_word_embeddings", False, "the output head of this family is a matrix of its own")
    config.only("sliding_window", None, "this family has no windows")
    config.only("attention_bias", False, "attention of this family has no biases")
    config.only("mamba_proj_bias", False, "use_bias is the key this family reads")
    eps = config.number("layer_norm_epsilon", "norm_eps", "rms_norm_eps", default=1e-5)
    makers: dict[str, Callable[[Config], _Part]] = {
        "mamba": _mamba2,
        "attention": _attention,
        "mlp": _mlp,
        "moe": _experts,
    }
    kinds = _kinds(config)
    parts = {kind: make(config) for kind, make in makers.items() if kind in kinds}
    config.harmless(*_KEYS_OF_ABSENT_LAYERS)
    layers = [_layer(parts[kind]) for kind in kinds]
    longest = config.integer("max_position_embeddings", default=4096)
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps_key="layer_norm_epsilon",
        eps=eps,
        hidden_size=config.integer("hidden_size", default=4096),
        vocab_size=config.integer("vocab_size", default=131_072),
        max_position_embeddings=longest,
    )


# A file may describe a kind of layer that its pattern has none of.
_KEYS_OF_ABSENT_LAYERS = (
    *("mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "mamba_n_groups", "conv_kernel"),
    *("mamba_d_conv", "use_bias", "use_conv_bias", "mamba_conv_bias", "mamba_ssm_cache_dtype"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "attention_head_dim"),
    *("intermediate_size", "mlp_bias", "mlp_hidden_act"),
    *("n_routed_experts", "num_local_experts", "n_shared_experts", "num_experts_per_tok", "n_group"),
    *("moe_intermediate_size", "moe_shared_expert_intermediate_size", "moe_latent_size", "topk_group"),
    *("norm_topk_prob", "routed_scaling_factor"),
)


def _layer(part: _Part) -> Layer:
    if isinstance(part, MLP | Experts):
        return Layer(None, part)
    return Layer(part, None)


def _kinds(config: Config) -> list[str]:
    """Return what each layer is, by the list or the older pattern; both must say the same."""
    pattern = config.text("hybrid_override_pattern")
    if wrong := [letter for letter in pattern if letter not in _BY_LETTER]:
        allowed = ", ".join(_BY_LETTER)
        config.refuse("hybrid_override_pattern", f"{shown(wrong[0])} is not one of {allowed}")
    by_pattern = [_BY_LETTER[letter] for letter in pattern]
    key = "layers_block_type" if config.has("layers_block_type") else "layer_types"
    words = config.words(key)
    if wrong := [word for word in words if word not in _BY_WORD]:
        config.refuse(key, f"{shown(wrong[0])} is not one of {', '.join(_BY_WORD)}")
    by_list = [_BY_WORD[word] for word in words]
    if by_pattern and by_list and by_pattern != by_list:
        config.refuse(key, "contradicts 'hybrid_override_pattern'")
    found = by_list or by_pattern or ["mamba", "moe", "attention", "mlp"]
    if len(found) > MAX_LAYERS:
        config.refuse(key, f"{len(found):,} layers are more than {MAX_LAYERS:,}")
    return found


def _mamba2(config: Config) -> Mamba2:
    bias = config.flag("use_bias", False)
    return Mamba2(
        num_heads=config.integer("mamba_num_heads", default=128),
        head_dim=config.integer("mamba_head_dim", default=64),
        state_size=config.integer("ssm_state_size", default=128),
        n_groups=config.integer("mamba_n_groups", "n_groups", default=8),
        conv_kernel=config.integer("mamba_d_conv", "conv_kernel", default=4),
        use_bias=bias,
        use_conv_bias=config.flag("mamba_conv_bias", config.flag("use_conv_bias", True)),
        out_bias=bias,
        # vLLM's default for this family too (models/config.py, NemotronHForCausalLMConfig).
        state_dtype=state_dtype(config, "mamba_ssm_cache_dtype", StateDtype.FP32),
    )


def _attention(config: Config) -> Attention:
    heads = config.integer("num_attention_heads", default=32)
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.optional_integer("num_key_value_heads", default=8) or heads,
        head_dim=config.integer("head_dim", "attention_head_dim", default=128),
    )


def _mlp(config: Config) -> MLP:
    return MLP(
        config.integer("intermediate_size", default=21504),
        gated=False,
        mlp_bias=config.flag("mlp_bias", False),
        hidden_act=activation(config, "mlp_hidden_act", Activation.RELU_SQUARED),
    )


def _experts(config: Config) -> Experts:
    config.only("n_shared_experts", 1, "this family has one shared expert")
    return Experts(
        num_experts=config.integer("n_routed_experts", "num_local_experts", default=8),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=7688),
        shared_expert_intermediate_size=config.integer("moe_shared_expert_intermediate_size", default=7688),
        gated=False,
        moe_latent_size=config.optional_integer("moe_latent_size"),
        router_bias_buffer=True,
        mlp_bias=config.flag("mlp_bias", False),
        hidden_act=activation(config, "mlp_hidden_act", Activation.RELU_SQUARED),
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        n_group=config.integer("n_group", default=1),
        topk_group=config.integer("topk_group", default=1),
        norm_topk_prob=config.flag("norm_topk_prob", True),
        routed_scaling_factor=config.number("routed_scaling_factor", default=1.0),
    )


FAMILIES: Families = {"nemotron_h": nemotron_h}
