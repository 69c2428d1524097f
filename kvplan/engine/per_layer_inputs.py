"""Per-layer embeddings at run time: what each layer gets of every token, and what it adds for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.model import Model
from kvplan.arch.per_layer_input import PER_LAYER_GATE, PER_LAYER_NORM, PER_LAYER_PROJECTION, PerLayerInput
from kvplan.engine.activations import activate
from kvplan.engine.arrays import Float, Tokens
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import make_norm


class PerLayerInputs:
    """The second embedding of a model and the projection of the first one.

    Args:
        model: what it is in.
        weights: the tensors outside the layers, by name.
    """

    def __init__(self, model: Model, weights: Mapping[str, Float]) -> None:
        arch = model.per_layer_input
        assert arch is not None
        self._shape = (len(model.layers), arch.hidden_size_per_layer_input)
        self._table = weights["embed_tokens_per_layer.weight"]
        self._projection = Linear(weights["per_layer_model_projection.weight"])
        self._norm = make_norm(model.norm, weights, "per_layer_projection_norm", model.norm_eps)
        self._table_scale = np.float32(arch.hidden_size_per_layer_input**0.5)
        self._scale = np.float32(model.hidden_size**-0.5)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._table.nbytes + self._projection.nbytes + self._norm.nbytes

    def __call__(self, tokens: Tokens, embedded: Float, counter: Counter) -> Float:
        """Return each layer's input (layers, tokens, size) for tokens embedded as (tokens, hidden)."""
        projected = (self._projection(embedded, counter) * self._scale).reshape(len(tokens), *self._shape)
        # Tokens past the second embedding's rows have the first one's (transformers, modeling_gemma3n.py).
        rows = np.where(tokens < len(self._table), tokens, 0)
        looked_up = (self._table[rows] * self._table_scale).reshape(projected.shape)
        both = self._norm(projected, counter) + looked_up
        return np.ascontiguousarray(np.moveaxis(both * np.float32(2**-0.5), 1, 0))


class LayerInput:
    """What one layer does with its input.

    Args:
        arch: the description.
        model: the model it is in.
        weights: the layer's tensors by name.
    """

    def __init__(self, arch: PerLayerInput, model: Model, weights: Mapping[str, Float]) -> None:
        self._act = arch.hidden_act
        self._gate = Linear(weights[f"{PER_LAYER_GATE}.weight"])
        self._projection = Linear(weights[f"{PER_LAYER_PROJECTION}.weight"])
        self._norm = make_norm(model.norm, weights, PER_LAYER_NORM, model.norm_eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._gate.nbytes + self._projection.nbytes + self._norm.nbytes

    def __call__(self, x: Float, given: Float, counter: Counter) -> Float:
        """Return what is added to x (tokens, hidden) for an input (tokens, size)."""
        gated = activate(self._act, self._gate(x, counter))
        gated *= given
        return self._norm(self._projection(gated, counter), counter)
