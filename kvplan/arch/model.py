"""A model: its layers in order, and the tensors outside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kvplan.arch.layer import Layer
from kvplan.arch.norm import Norm
from kvplan.arch.vision import SiglipTower
from kvplan.arch.weight import Split, Weight, matrix
from kvplan.checks import require_amounts
from kvplan.storage import TensorRole

# Rows of an embedding are padded to a multiple of this before they are cut over ranks
# (vLLM, vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE).
VOCABULARY_PADDING = 64


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` equal layers, wherever they stand."""

    layer: Layer
    count: int


def group_equal(layers: Iterable[Layer]) -> tuple[Run, ...]:
    """Group equal layers, in the order of their first appearance."""
    counts: dict[Layer, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(Run(layer, count) for layer, count in counts.items())


@dataclass(frozen=True, slots=True)
class Model:
    """Everything the planner and the engine know of a model.

    Args:
        name: the name in the catalog.
        source: where the description comes from.
        dtype: the dtype of its released weights where no format says otherwise: bf16, fp16 or fp32.
        hidden_size: width of the residual stream.
        vocab_size: rows of the embedding.
        max_position_embeddings: the longest context the model was made for, in tokens.
        layers: the decoder layers, in order.
        norm: the kind of norm used throughout.
        norm_eps: what norms add under the root.
        tie_word_embeddings: the output head is the embedding.
        learned_positions: rows of a learned position embedding; 0 for none.
        lm_head_bias: the output head has a bias.
        embedding_multiplier: embeddings are multiplied by it (Gemma: the root of the width).
        final_logit_softcapping: logits are bent to stay below it by a hyperbolic tangent (Gemma 2).
        weight_format: the format its released files are in; empty when they are plain ``dtype``.
        vision: an image encoder beside the language model.
    """

    name: str
    source: str
    dtype: str
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int
    layers: tuple[Layer, ...]
    norm: Norm = Norm.RMS
    norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    learned_positions: int = 0
    lm_head_bias: bool = False
    embedding_multiplier: float = 1.0
    final_logit_softcapping: float | None = None
    weight_format: str = ""
    vision: SiglipTower | None = None

    def __post_init__(self) -> None:
        require_amounts(self, "norm_eps", "embedding_multiplier", "final_logit_softcapping")

    def runs(self) -> tuple[Run, ...]:
        """Group equal layers, so that 126 of them cost one evaluation."""
        return group_equal(self.layers)

    def layer_weights(self, layer: Layer) -> tuple[Weight, ...]:
        """Return the tensors of one layer of this model."""
        return layer.weights(self.hidden_size, self.norm)

    def input_weights(self) -> tuple[Weight, ...]:
        """Return the tensors before the first layer, towers included."""
        found = [
            matrix("embed_tokens", self.vocab_size, self.hidden_size, TensorRole.EMBEDDING, self._by_row())
        ]
        if self.learned_positions:
            shape = (self.learned_positions, self.hidden_size)
            found.append(Weight("embed_positions.weight", shape, TensorRole.POSITIONS))
        if self.vision is not None:
            found += self.vision.weights(self.hidden_size)
        return tuple(found)

    def output_weights(self) -> tuple[Weight, ...]:
        """Return the tensors after the last layer: the final norm and, unless tied, the head."""
        found = list(self.norm.weights("norm", self.hidden_size))
        if not self.tie_word_embeddings:
            found.append(self.head_weight())
        if self.lm_head_bias:
            found.append(Weight("lm_head.bias", (self.vocab_size,), TensorRole.BIAS, self._by_row()))
        return tuple(found)

    def head_weight(self) -> Weight:
        """Return the output head, which a tied model shares with its embedding."""
        return matrix("lm_head", self.vocab_size, self.hidden_size, TensorRole.HEAD, self._by_row())

    def _by_row(self) -> Split:
        return Split(0, self.vocab_size, "padded vocabulary rows", pad_to=VOCABULARY_PADDING)

    def weights(self) -> Iterator[tuple[Weight, int]]:
        """Iterate over every tensor with the number of times the model holds it."""
        for weight in self.input_weights():
            yield weight, 1
        for run in self.runs():
            for weight in self.layer_weights(run.layer):
                yield weight, run.count
        for weight in self.output_weights():
            yield weight, 1
