"""Per-layer embeddings: each layer adds a gated projection of its own part of every token's (Gemma 3n, 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.activation import Activation
from kvplan.arch.norm import Norm
from kvplan.arch.weight import Weight, matrix
from kvplan.checks import require_sizes
from kvplan.storage import TensorRole

# The matrices of a layer: into the width of its input, and back.
PER_LAYER_GATE, PER_LAYER_PROJECTION = "per_layer_input_gate", "per_layer_projection"
PER_LAYER_NORM = "post_per_layer_input_norm"


@dataclass(frozen=True, slots=True)
class PerLayerInput:
    """A second embedding, a part of each row for each layer.

    A layer's input is its part of the token's row and of a projection of the first embedding, added; what
    the layer makes of its residual stream is multiplied by it, projected back, normalised and added.

    Args:
        hidden_size_per_layer_input: elements of a layer's part.
        vocab_size_per_layer_input: rows of the second embedding.
        hidden_act: the function of what is multiplied by a layer's input.
    """

    hidden_size_per_layer_input: int
    vocab_size_per_layer_input: int
    hidden_act: Activation = Activation.GELU_TANH

    def __post_init__(self) -> None:
        require_sizes(self, "hidden_size_per_layer_input", "vocab_size_per_layer_input")

    def outer_weights(self, hidden_size: int, layers: int, norm: Norm) -> tuple[Weight, ...]:
        """Return the second embedding, the projection of the first one, and the norm of a layer's part."""
        size = self.hidden_size_per_layer_input
        table = (self.vocab_size_per_layer_input, layers * size)
        return (
            Weight("embed_tokens_per_layer.weight", table, TensorRole.EMBEDDING),
            matrix("per_layer_model_projection", layers * size, hidden_size, TensorRole.HEAD),
            *norm.weights("per_layer_projection_norm", size),
        )

    def scaled_down(self, vocabulary: int) -> PerLayerInput:
        """Return the same with no more rows than a scaled model has tokens."""
        return replace(self, vocab_size_per_layer_input=min(self.vocab_size_per_layer_input, vocabulary))

    def layer_weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return what every layer has for its input."""
        size, role = self.hidden_size_per_layer_input, TensorRole.MLP
        return (
            matrix(PER_LAYER_GATE, size, hidden_size, role),
            matrix(PER_LAYER_PROJECTION, hidden_size, size, role),
            *norm.weights(PER_LAYER_NORM, hidden_size),
        )
