"""The language model of Llama 3.2 Vision: Llama 3 with layers that attend to an image."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import layers_in
from kvplan.specs.families.sizes import Sizes

# Class defaults of transformers 5.23.
_SIZES = Sizes(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=40,
    num_attention_heads=32,
    max_position_embeddings=131_072,
    num_key_value_heads=8,
)
_CROSS_ATTENTION_LAYERS = frozenset({3, 8, 13, 18, 23, 28, 33, 38})
# Marks of images, behind the vocabulary (modeling_mllama.py, MllamaTextModel).
_IMAGE_TOKENS = 8


def mllama_text(config: Config, identity: Identity) -> Model:
    """Llama 3.2 Vision: ``cross_attention_layers`` attend to an image, and text alone passes them by."""
    sizes = _SIZES.read(config)
    config.only("head_dim", _head_dim(config, sizes), "a head has hidden_size / num_attention_heads elements")
    config.only("tie_word_embeddings", False, "this family's class never ties its head")
    mlp = sizes.gated_mlp(config)
    attention = replace(sizes, head_dim=None).attention(config, RopeDefaults(rope_theta=500_000.0))
    crossing = CrossAttention(
        attention.num_attention_heads, attention.num_key_value_heads, attention.head_dim
    )
    there = _CROSS_ATTENTION_LAYERS
    if config.has("cross_attention_layers"):
        there = layers_in(config, "cross_attention_layers", sizes.num_hidden_layers)
    config.harmless("cross_attention_layers")
    layers = [
        Layer(crossing if index in there else attention, mlp) for index in range(sizes.num_hidden_layers)
    ]
    model = finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )
    return replace(model, input_only_tokens=_IMAGE_TOKENS)


def _head_dim(config: Config, sizes: Sizes) -> int:
    if sizes.hidden_size % sizes.num_attention_heads:
        config.refuse("num_attention_heads", f"must divide hidden_size ({sizes.hidden_size})")
    return sizes.hidden_size // sizes.num_attention_heads


FAMILIES: Families = {"mllama_text_model": mllama_text}
