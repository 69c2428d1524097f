"""Ministral 3 and Devstral 2: Mistral whose queries grow past the trained context."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.temperature import TemperatureTuning
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults, rope_from
from kvplan.specs.families.sizes import Sizes

# What the class has where the file says nothing.
_ROTATION = RopeParameters(
    rope_theta=1_000_000.0,
    rope_type=RopeType.YARN,
    factor=16.0,
    original_max_position_embeddings=16_384,
    beta_fast=32.0,
    beta_slow=1.0,
    mscale=1.0,
    mscale_all_dim=1.0,
)
_GROWTH = 0.1


def ministral3(config: Config, identity: Identity) -> Model:
    """Ministral 3: a window in every layer where there is one; ``layer_types`` changes nothing."""
    sizes = Sizes(
        vocab_size=131_072,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=34,
        num_attention_heads=32,
        max_position_embeddings=262_144,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    rotation, temperature = _rotation(config, sizes.max_position_embeddings)
    # Its class warns of layer_types, and takes one mask for every layer.
    config.harmless("layer_types")
    mixer = replace(
        sizes.attention(config, None),
        sliding_window=config.optional_integer("sliding_window"),
        rope_parameters=rotation,
        temperature=temperature,
    )
    return finished_model(
        config,
        identity,
        [Layer(mixer, sizes.gated_mlp(config))] * sizes.num_hidden_layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _rotation(config: Config, longest: int) -> tuple[RopeParameters, TemperatureTuning | None]:
    """Return the rotation, and how queries grow with their position."""
    given = config.optional_inner("rope_scaling", "rope_parameters")
    if given is None:
        return _ROTATION, _growing(_GROWTH, _ROTATION)
    given.harmless("max_position_embeddings")
    growth = given.amount("llama_4_scaling_beta")
    rotation = rope_from(config, given, longest, RopeDefaults())
    if growth and rotation.original_max_position_embeddings is None:
        config.refuse(None, "llama_4_scaling_beta needs original_max_position_embeddings")
    return rotation, _growing(growth, rotation)


def _growing(growth: float | None, rotation: RopeParameters) -> TemperatureTuning | None:
    trained = rotation.original_max_position_embeddings
    return TemperatureTuning(growth, trained, first_place=0) if growth and trained else None


FAMILIES: Families = {"ministral3": ministral3}
