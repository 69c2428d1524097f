"""Apertus: Llama with normalised queries and keys, and a plain MLP whose activation is learned."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

_THETA = 12_000_000.0
# What the class rotates by where the file says nothing.
_ROTATION = RopeParameters(
    rope_theta=_THETA,
    rope_type=RopeType.LLAMA3,
    factor=8.0,
    original_max_position_embeddings=8192,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
)


def apertus(config: Config, identity: Identity) -> Model:
    """Apertus; rotations are stretched as Llama 3's where the file does not say."""
    sizes = Sizes(
        vocab_size=131_072,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=65_536,
    ).read(config)
    bias = config.flag("attention_bias", False)
    stretched = config.has("rope_scaling") or config.has("rope_parameters")
    config.only("qk_norm", True, "queries and keys are normalised in this family")
    config.only("post_norm", False, "norms are before attention and the MLP")
    config.only("mlp_bias", False, "the MLP has no biases in this family")
    rotation = RopeDefaults(rope_theta=_THETA)
    mixer = replace(sizes.attention(config, rotation, qkv_bias=bias, out_bias=bias), qk_norm=QkNorm.HEAD)
    if not stretched:
        config.only("rope_theta", _THETA, "without rope_scaling the class rotates as released")
        mixer = replace(mixer, rope_parameters=_ROTATION)
    learned = config.text("hidden_act", default="xielu") == "xielu"
    mlp = MLP(
        sizes.intermediate_size,
        gated=False,
        hidden_act=Activation.XIELU if learned else activation(config),
    )
    return finished_model(
        config,
        identity,
        [Layer(mixer, mlp)] * sizes.num_hidden_layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {"apertus": apertus}
