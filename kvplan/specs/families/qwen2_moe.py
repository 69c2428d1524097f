"""Qwen 1.5 and 2 mixtures: Qwen 2 with experts and a shared one behind a gate."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.routed import layers_in
from kvplan.specs.families.sizes import Sizes


def qwen2_moe(config: Config, identity: Identity) -> Model:
    """Qwen 2 mixtures: biases on queries, keys and values unless the file says otherwise."""
    sizes = Sizes(
        vocab_size=151_936,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=16,
        max_position_embeddings=32_768,
        num_key_value_heads=16,
    ).read(config)
    full, dense = sizes.attention(config, qkv_bias=config.flag("qkv_bias", True)), sizes.gated_mlp(config)
    experts = Experts(
        num_experts=config.integer("num_experts", default=60),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=4),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=1408),
        shared_expert_intermediate_size=config.integer("shared_expert_intermediate_size", default=5632),
        shared_expert_gate=True,
        hidden_act=dense.hidden_act,
        norm_topk_prob=config.flag("norm_topk_prob", False),
    )
    step = config.integer("decoder_sparse_step", default=1)
    dense_layers = layers_in(config, "mlp_only_layers", sizes.num_hidden_layers)
    layers = [
        Layer(
            replace(full, sliding_window=window),
            dense if index in dense_layers or (index + 1) % step else experts,
        )
        for index, window in enumerate(_windows(config, sizes.num_hidden_layers))
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _windows(config: Config, depth: int) -> list[int | None]:
    """Return each layer's window; where windows are on, every other one of the first layers slides.

    This is not Qwen 2's rule, in which layers from ``max_window_layers`` on slide (transformers 5.23).
    """
    # The class writes 0 where windows are off.
    window = config.count("sliding_window", 4096) or None
    first_full, types = config.count("max_window_layers", 28), windowed_layers(config, depth)
    if not config.flag("use_sliding_window", False):
        if types is not None and any(types):
            config.refuse("layer_types", "layers slide only where use_sliding_window is true")
        return [None] * depth
    slides = types or [index % 2 == 0 and index < first_full for index in range(depth)]
    return [window if slide else None for slide in slides]


FAMILIES: Families = {"qwen2_moe": qwen2_moe}
