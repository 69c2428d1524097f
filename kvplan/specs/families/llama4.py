"""Llama 4: layers that see their own chunk beside full ones without rotation, and experts used one by one."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts, Scoring
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.temperature import TemperatureTuning
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import layers_in, ones_in
from kvplan.specs.families.sizes import Sizes

_ROTATION = RopeDefaults(rope_theta=500_000.0, interleaved=True)


def llama4_text(config: Config, identity: Identity) -> Model:
    """Llama 4's language model: what rotates has a 1 in ``no_rope_layers``, whatever its name says."""
    sizes = Sizes(
        vocab_size=202_048,
        hidden_size=5120,
        intermediate_size=8192,
        num_hidden_layers=48,
        num_attention_heads=40,
        max_position_embeddings=131_072,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    # How a tool that quantises laid experts out before it wrote them.
    config.harmless("for_llm_compressor")
    depth = sizes.num_hidden_layers
    experts = _experts(config, sizes)
    dense = MLP(config.integer("intermediate_size_mlp", default=16_384), hidden_act=experts.hidden_act)
    routed = _routed_layers(config, depth)
    layers = [
        Layer(mixer, experts if index in routed else dense)
        for index, mixer in enumerate(_mixers(config, sizes))
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _experts(config: Config, sizes: Sizes) -> Experts:
    return Experts(
        num_experts=config.integer("num_local_experts", default=16),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=1),
        moe_intermediate_size=sizes.intermediate_size,
        shared_expert_intermediate_size=sizes.intermediate_size,
        hidden_act=activation(config),
        scoring_func=Scoring.SIGMOID,
        norm_topk_prob=False,
        scales_input=True,
    )


def _routed_layers(config: Config, depth: int) -> frozenset[int]:
    """Return the layers with experts: those in ``moe_layers``, even an empty list, else every so many."""
    step = config.integer("interleave_moe_layer_step", default=1)
    listed = layers_in(config, "moe_layers", depth)
    return listed if config.has("moe_layers") else frozenset(range(step - 1, depth, step))


def _mixers(config: Config, sizes: Sizes) -> list[Attention]:
    """Return each layer's attention: rotated in its chunk, or neither; ``layer_types`` may say otherwise."""
    depth, bias = sizes.num_hidden_layers, config.flag("attention_bias", False)
    interval = config.integer("no_rope_layer_interval", default=4)
    chunk = config.optional_integer("attention_chunk_size", default=8192)
    normed = config.flag("use_qk_norm", True)
    rotated = replace(
        sizes.attention(config, _ROTATION, qkv_bias=bias, out_bias=bias),
        qk_norm=QkNorm.UNIT if normed else None,
        qk_norm_after_rope=normed,
    )
    plain = replace(
        rotated,
        rope_parameters=None,
        qk_norm=None,
        qk_norm_after_rope=False,
        temperature=_temperature(config),
    )
    rotates = ones_in(config, "no_rope_layers", depth) or [
        (index + 1) % interval != 0 for index in range(depth)
    ]
    types = config.texts("layer_types", depth, ("chunked_attention", "full_attention"))
    in_chunks = rotates if types is None else [kind == "chunked_attention" for kind in types]
    if any(in_chunks) and chunk is None:
        config.refuse("attention_chunk_size", "some layers are in chunks: their length is needed")
    return [
        replace(rotated if turns else plain, attention_chunk_size=chunk if chunked else None)
        for turns, chunked in zip(rotates, in_chunks, strict=True)
    ]


def _temperature(config: Config) -> TemperatureTuning | None:
    scale, floor = config.number("attn_scale", default=0.1), config.number("floor_scale", default=8192)
    return TemperatureTuning(scale, floor) if config.flag("attn_temperature_tuning", True) else None


FAMILIES: Families = {"llama4_text": llama4_text}
