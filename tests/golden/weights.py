"""The weights of the golden cases: made from names and a seed, the same for ever, and stored nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.weight import Weight
from kvplan.storage import TensorRole

# Norms that stay plain in models whose other norms store the distance from one.
PLAIN_NORMS = ("linear_attn.norm.weight",)
# Mean and spread by the end of a tensor's name, where its role does not say enough.
BY_ENDING = {
    "mlp.gate.bias": (0.0, 0.5),
    "e_score_correction_bias": (0.0, 0.4),
    "self_attn.sinks": (0.0, 1.0),
    "linear_attn.A_log": (-2.0, 1.0),
    "linear_attn.dt_bias": (0.0, 0.5),
    "norm.bias": (0.0, 0.1),
    "ln_attn.bias": (0.0, 0.1),
    "ln_mlp.bias": (0.0, 0.1),
}
BY_ROLE = {
    TensorRole.BIAS: (0.0, 0.1),
    TensorRole.EMBEDDING: (0.0, 0.5),
    TensorRole.POSITIONS: (0.0, 0.3),
}


def golden_weights(model: Model, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return every tensor of a model under its full name, ``copies`` first where there are several.

    ``RandomState`` is frozen by NumPy's policy (NEP 19): its numbers never change.
    """
    return {name: _values(name, weight, model.norm, seed) for name, weight in named_weights(model)}


def named_weights(model: Model) -> Iterator[tuple[str, Weight]]:
    """Iterate over the tensors of a model with their full names, layer by layer."""
    for weight in model.input_weights():
        yield weight.name, weight
    for index, layer in enumerate(model.layers):
        for weight in model.layer_weights(layer):
            yield f"layers.{index}.{weight.name}", weight
    for weight in model.output_weights():
        yield weight.name, weight


def _values(name: str, weight: Weight, norm: Norm, seed: int) -> NDArray[np.float32]:
    shape = weight.shape if weight.copies == 1 else (weight.copies, *weight.shape)
    normal = np.random.RandomState(crc32(f"{seed} {name}".encode())).standard_normal(shape)
    mean, spread = _mean_and_spread(weight, norm)
    return (mean + spread * normal).astype(np.float32)


def _mean_and_spread(weight: Weight, norm: Norm) -> tuple[float, float]:
    """Return what keeps activations near one, logits far from flat, and every tensor felt."""
    for ending, found in BY_ENDING.items():
        if weight.name.endswith(ending):
            return found
    if weight.role is TensorRole.NORM:
        offset = norm is Norm.RMS_UNIT_OFFSET and not weight.name.endswith(PLAIN_NORMS)
        return (0.0 if offset else 1.0, 0.2)
    return BY_ROLE.get(weight.role, (0.0, 1.5 / weight.shape[-1] ** 0.5))
