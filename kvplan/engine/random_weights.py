"""Weights of a model drawn from a seed: of the size real ones have, so that activations stay in range."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from zlib import crc32

import numpy as np

from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.weight import Weight
from kvplan.engine.arrays import Float
from kvplan.storage import TensorRole


def random_weights(model: Model, seed: int) -> dict[str, Float]:
    """Return every tensor of a model by its full name; each is drawn by itself, whatever the others are."""
    return {
        name: _drawn(weight, model, np.random.default_rng([seed, crc32(name.encode())]))
        for name, weight in named_weights(model)
    }


def named_weights(model: Model) -> Iterator[tuple[str, Weight]]:
    """Iterate over the tensors the engine runs, each with its full name; a tower's are not among them."""
    outer = (*model.input_weights(), *model.output_weights())
    yield from ((weight.name, weight) for weight in outer if weight.role is not TensorRole.TOWER)
    for index, layer in enumerate(model.layers):
        for weight in model.layer_weights(layer):
            yield f"layers.{index}.{weight.name}", weight


def _drawn(weight: Weight, model: Model, generator: np.random.Generator) -> Float:
    shape = (weight.copies, *weight.shape) if weight.copies > 1 else weight.shape
    drawn = generator.standard_normal(prod(shape), np.float32).reshape(shape)
    match weight.role:
        case TensorRole.NORM:
            drawn *= np.float32(0.1)
            is_scale = weight.name.endswith(".weight")
            # The delta net's own norm is stored whole whatever the model's norms are.
            whole = model.norm is not Norm.RMS_UNIT_OFFSET or "linear_attn" in weight.name
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
