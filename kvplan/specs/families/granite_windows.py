"""Granite with windows: sinks in every layer, and a rotation of its own, or none, in each."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model, windowed_layers
from kvplan.specs.families.sizes import Sizes

# One layer of so many sees everything: the first.
_PATTERN = 4


def granite_swa(config: Config, identity: Identity) -> Model:
    """Granite with windows and a dense MLP."""
    sizes = Sizes(
        vocab_size=100_352,
        hidden_size=2560,
        intermediate_size=8192,
        num_hidden_layers=24,
        num_attention_heads=20,
        max_position_embeddings=8192,
        num_key_value_heads=4,
    ).read(config)
    mlp = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False))
    return _granite(config, identity, sizes, mlp, tied=True, eps=1e-5)


def granitemoe_swa(config: Config, identity: Identity) -> Model:
    """Granite with windows and experts, a shared one among them where it has a width."""
    sizes = Sizes(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
    ).read(config)
    experts = Experts(
        num_experts=config.integer("num_local_experts", default=8),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=sizes.intermediate_size,
        shared_expert_intermediate_size=config.count("shared_intermediate_size", 0),
        hidden_act=activation(config),
    )
    return _granite(config, identity, sizes, experts, tied=False, eps=1e-6)


def _granite(
    config: Config, identity: Identity, sizes: Sizes, mlp: FeedForward, *, tied: bool, eps: float
) -> Model:
    layers = [Layer(mixer, mlp) for mixer in _mixers(config, sizes)]
    return finished_model(
        config,
        identity,
        layers,
        tied=tied,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        embedding_multiplier=config.number("embedding_multiplier", default=1.0),
        residual_multiplier=config.number("residual_multiplier", default=1.0),
        logits_multiplier=1 / config.number("logits_scaling", default=1.0),
    )


def _mixers(config: Config, sizes: Sizes) -> list[Attention]:
    """Return each layer's attention."""
    depth, bias = sizes.num_hidden_layers, config.flag("attention_bias", False)
    full = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        sinks=True,
        attention_multiplier=config.number("attention_multiplier", default=1.0),
    )
    window = config.optional_integer("sliding_window", default=128)
    slides = windowed_layers(config, depth) or [index % _PATTERN != 0 for index in range(depth)]
    if any(slides) and window is None:
        config.refuse("sliding_window", "some layers slide: their length is needed")
    assert full.rope_parameters is not None
    rotations = _rotations(config, depth, full.rope_parameters)
    return [
        replace(full, sliding_window=window if slide else None, rope_parameters=rotation)
        for slide, rotation in zip(slides, rotations, strict=True)
    ]


def _rotations(config: Config, depth: int, rotation: RopeParameters) -> list[RopeParameters | None]:
    """Return each layer's rotation: by its own base where the file has them, and none by a base of 0."""
    thetas = config.list_as_given("layer_rope_theta")
    if thetas is None:
        return [rotation] * depth
    if len(thetas) != depth:
        config.refuse("layer_rope_theta", f"has {len(thetas):,} entries for {depth:,} layers")
    found: list[RopeParameters | None] = []
    for theta in thetas:
        if isinstance(theta, bool) or not isinstance(theta, int | float) or (theta and theta <= 1):
            config.refuse("layer_rope_theta", "expected a list of 0 and numbers above 1")
        found.append(replace(rotation, rope_theta=float(theta)) if theta else None)
    return found


FAMILIES: Families = {
    "granite_swa": granite_swa,
    "granitemoe_swa": granitemoe_swa,
}
