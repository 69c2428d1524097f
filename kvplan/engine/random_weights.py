"""Weights of a model drawn from a seed: of the size real ones have, so that activations stay in range."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from zlib import crc32

import numpy as np

from kvplan.arch.attention import Attention
from kvplan.arch.experts import HASH_TABLE, Experts
from kvplan.arch.model import Model
from kvplan.arch.weight import Weight
from kvplan.engine.arrays import Float
from kvplan.storage import TensorRole


def random_weights(model: Model, seed: int) -> dict[str, Float]:
    """Return every tensor of a model by its full name; each is drawn by itself, whatever the others are."""
    found = {
        name: _drawn(weight, model, np.random.default_rng([seed, crc32(name.encode())]))
        for name, weight in named_weights(model)
    }
    for index, layer in enumerate(model.layers):
        if isinstance(layer.mlp, Experts) and layer.mlp.hash_vocab_size is not None:
            name = f"layers.{index}.{HASH_TABLE}"
            found[name] = _expert_table(layer.mlp, np.random.default_rng([seed, crc32(name.encode())]))
        for mixer in layer.mixers():
            if isinstance(mixer, Attention) and mixer.qk_norm is not None and mixer.attention_multiplier:
                _keep_scores_small(found, f"layers.{index}.self_attn.k_norm.weight", mixer)
    return found


def _keep_scores_small(weights: dict[str, Float], name: str, mixer: Attention) -> None:
    """Let normalised keys take what scores are not divided by, as trained ones do (Gemma 4)."""
    if name in weights and mixer.attention_multiplier is not None:
        weights[name] *= np.float32(mixer.head_dim**-0.5 / mixer.attention_multiplier)


def _expert_table(experts: Experts, generator: np.random.Generator) -> Float:
    """Return different experts for every token, ``(vocabulary, num_experts_per_tok)``."""
    drawn = generator.random((experts.hash_vocab_size or 0, experts.num_experts), np.float32)
    return drawn.argsort(axis=1)[:, : experts.num_experts_per_tok].astype(np.float32)


def named_weights(model: Model) -> Iterator[tuple[str, Weight]]:
    """Iterate over the tensors the engine runs, each with its full name; a tower's are not among them."""
    outer = (*model.input_weights(), *model.output_weights())
    yield from ((weight.name, weight) for weight in outer if weight.role is not TensorRole.TOWER)
    for index, layer in enumerate(model.layers):
        for weight in model.layer_weights(layer):
            if not weight.shared_in or model.shared_blocks()[weight.shared_in] == index:
                yield weight.full_name(index), weight


def _drawn(weight: Weight, model: Model, generator: np.random.Generator) -> Float:
    shape = (weight.copies, *weight.shape) if weight.copies > 1 else weight.shape
    drawn = generator.standard_normal(prod(shape), np.float32).reshape(shape)
    match weight.role:
        case TensorRole.NORM:
            drawn *= np.float32(0.1)
            is_scale = weight.name.endswith((".weight", "_scale", "_scalar"))
            # The delta net's own norm is stored whole whatever the model's norms are.
            whole = not model.norm.has_unit_offset or "linear_attn" in weight.name
            return drawn + np.float32(1) if is_scale and whole else drawn
        case TensorRole.BIAS:
            return drawn * np.float32(0.1)
        case TensorRole.EMBEDDING | TensorRole.POSITIONS:
            # A head tied to large embeddings finds every token most like itself, whatever the layers add.
            width = model.hidden_size if model.tie_word_embeddings else 1
            return drawn / np.float32(model.embedding_multiplier * width**0.5)
        case _:
            inputs = weight.shape[-1] if len(weight.shape) > 1 else 1
            return drawn / np.float32(inputs**0.5)
