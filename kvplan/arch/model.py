"""A model: its layers in order, and the tensors outside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from kvplan.arch.altup import AltUp
from kvplan.arch.experts import Experts
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.norm import Norm
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.arch.released import StoredAs, as_released
from kvplan.arch.slot import CacheSlot
from kvplan.arch.tower import Tower
from kvplan.arch.weight import Split, Weight, matrix
from kvplan.checks import FieldError, require_amounts, require_sizes
from kvplan.storage import AsReleased, TensorRole, WeightStorage, weight_format

# Rows of an embedding are padded to a multiple of this before they are cut over ranks
# (vLLM, vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE).
VOCABULARY_PADDING = 64


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` equal layers, wherever they stand."""

    layer: Layer
    count: int


@dataclass(frozen=True, slots=True)
class SlotRun:
    """One slot of ``count`` equal layers."""

    layer: Layer
    slot: CacheSlot
    count: int


def slot_runs(runs: Iterable[Run]) -> tuple[SlotRun, ...]:
    """Return every slot of runs of equal layers, in their order."""
    return tuple(SlotRun(run.layer, slot, run.count) for run in runs for slot in run.layer.slots())


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
        input_only_tokens: rows of the embedding behind the vocabulary's, which the head has no rows for
            (Llama 3.2 Vision).
        learned_positions: positions of a learned position embedding; 0 for none.
        position_offset: rows of that embedding before the first position's (OPT).
        lm_head_bias: the output head has a bias.
        embedding_size: width of the embedding and of the head, with a matrix between each and the residual
            stream; ``hidden_size``, without them, where absent (OPT-350m).
        embedding_multiplier: embeddings are multiplied by it (Gemma: the root of the width).
        embedding_norm: embeddings are normalised (BLOOM).
        residual_multiplier: what a mixer or an MLP adds to the residual stream is multiplied by it (Granite).
        final_norm: the residual stream is normalised behind the last layer; not so in OPT-350m.
        logits_multiplier: logits are multiplied by it (Cohere, Granite).
        final_logit_softcapping: logits are bent to stay below it by a hyperbolic tangent (Gemma 2).
        weight_format: the format its released files are in; empty when they are plain ``dtype``.
        stored_otherwise: tensors outside layers that these files have in another format.
        kv_format: the KV format its files ask for; empty when they ask for none.
        per_layer_input: a second embedding, a part for each layer; every layer then has it too (Gemma 4).
        num_nextn_predict_layers: layers beside the model that predict further tokens; not among ``layers``.
        prediction_stored_otherwise: their tensors that released files have in another format than most; those
            of the last layer where absent.
        altup: residual streams; every layer then has them too (Gemma 3n).
        hyper_connections: residual streams; every layer then has them too (DeepSeek-V4).
        towers: encoders of images or sound beside the language model.
        missing_towers: encoders that are not counted, by name: their weights come on top.
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
    input_only_tokens: int = 0
    learned_positions: int = 0
    position_offset: int = 0
    lm_head_bias: bool = False
    embedding_size: int | None = None
    embedding_multiplier: float = 1.0
    embedding_norm: bool = False
    residual_multiplier: float = 1.0
    final_norm: bool = True
    logits_multiplier: float = 1.0
    final_logit_softcapping: float | None = None
    weight_format: str = ""
    stored_otherwise: tuple[StoredAs, ...] = ()
    kv_format: str = ""
    per_layer_input: PerLayerInput | None = None
    altup: AltUp | None = None
    hyper_connections: HyperConnections | None = None
    num_nextn_predict_layers: int = 0
    prediction_stored_otherwise: tuple[StoredAs, ...] | None = None
    towers: tuple[Tower, ...] = ()
    missing_towers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_sizes(self, "embedding_size")
        require_amounts(self, "norm_eps", "embedding_multiplier", "residual_multiplier")
        require_amounts(self, "logits_multiplier", "final_logit_softcapping")
        if self.input_only_tokens and self.tie_word_embeddings:
            raise FieldError((("input_only_tokens",), "cannot be beside tie_word_embeddings"))
        if self.position_offset and not self.learned_positions:
            raise FieldError((("position_offset",), "needs learned_positions"))
        if self.prediction_stored_otherwise is not None and not self.num_nextn_predict_layers:
            raise FieldError((("prediction_stored_otherwise",), "needs num_nextn_predict_layers"))
        if any(layer.per_layer_input != self.per_layer_input for layer in self.layers):
            raise FieldError((("per_layer_input",), "must be that of every layer"))
        if any(layer.altup != self.altup for layer in self.layers):
            raise FieldError((("altup",), "must be that of every layer"))
        if any(layer.hyper_connections != self.hyper_connections for layer in self.layers):
            raise FieldError((("hyper_connections",), "must be that of every layer"))
        tables = {layer.mlp.hash_vocab_size for layer in self.layers if isinstance(layer.mlp, Experts)}
        if tables - {None, self.vocab_size}:
            raise FieldError((("layers",), f"hash_vocab_size must be vocab_size ({self.vocab_size})"))
        self.places()
        self._require_selections()
        self._require_equal_blocks()

    def _require_equal_blocks(self) -> None:
        """Refuse layers that share a block and do not describe the same one, or store it otherwise."""
        first: dict[str, Layer] = {}
        for index, layer in enumerate(self.layers):
            if layer.shared_block is None:
                continue
            other = first.setdefault(layer.shared_block.name, layer)
            stored = other.stored_otherwise != layer.stored_otherwise
            if other.shared_block != layer.shared_block or stored:
                message = f"layer {index} shares {layer.shared_block.name} with another that has not the same"
                raise FieldError((("layers",), message))

    def _require_selections(self) -> None:
        """Refuse a layer that takes a selection of tokens from an indexer before it where there is none."""
        made = False
        for index, layer in enumerate(self.layers):
            latent = (mixer for mixer in layer.mixers() if isinstance(mixer, LatentAttention))
            indexers = [mixer.indexer for mixer in latent if mixer.indexer is not None]
            made = made or any(not indexer.shared for indexer in indexers)
            if indexers and not made:
                message = f"layer {index} shares a selection of tokens that no layer before it makes"
                raise FieldError((("layers",), message))

    @property
    def residual_streams(self) -> int:
        """Residual streams from layer to layer."""
        if self.hyper_connections is not None:
            return self.hyper_connections.hc_mult
        return 1 if self.altup is None else self.altup.altup_num_inputs

    def runs(self) -> tuple[Run, ...]:
        """Group equal layers, so that 126 of them cost one evaluation."""
        return group_equal(self.layers)

    def text_runs(self) -> tuple[Run, ...]:
        """Return the runs of equal layers that text goes through: all but those for images only."""
        return tuple(run for run in self.runs() if not run.layer.images_only)

    def slot_runs(self) -> tuple[SlotRun, ...]:
        """Return every slot of every run of equal layers."""
        return slot_runs(self.runs())

    def shared_blocks(self) -> dict[str, int]:
        """Return the first layer of each block that layers share, by the block's name."""
        found: dict[str, int] = {}
        for index, layer in enumerate(self.layers):
            if layer.shared_block is not None:
                found.setdefault(layer.shared_block.name, index)
        return found

    def stored_slots(self) -> tuple[CacheSlot, ...]:
        """Return the slots that layers store themselves, each at its place in the cache."""
        return tuple(slot for layer in self.layers for slot in layer.slots() if slot.owned)

    def places(self) -> tuple[tuple[int, ...], ...]:
        """Return each layer's places in the cache, one for each of its slots.

        A slot that is not the layer's own is at the place of the nearest like it in a layer before.

        Raises:
            FieldError: there is none like it.
        """
        nearest: dict[CacheSlot, int] = {}
        found, count = [], 0
        for index, layer in enumerate(self.layers):
            mine = []
            for slot in layer.slots():
                if slot.owned:
                    nearest[slot], count = count, count + 1
                elif replace(slot, owned=True) not in nearest:
                    message = f"layer {index} shares a cache that no layer before it stores"
                    raise FieldError((("layers",), message))
                mine.append(nearest[replace(slot, owned=True)])
            found.append(tuple(mine))
        return tuple(found)

    def shared_places(self) -> frozenset[int]:
        """Return the places in the cache that a layer reads without having stored what is there."""
        return frozenset(
            place
            for places, layer in zip(self.places(), self.layers, strict=True)
            for place, slot in zip(places, layer.slots(), strict=True)
            if not slot.owned
        )

    def own_places(self) -> tuple[tuple[int, ...], ...]:
        """Return the places in the cache of the slots each layer stores itself."""
        return tuple(
            tuple(place for place, slot in zip(places, layer.slots(), strict=True) if slot.owned)
            for places, layer in zip(self.places(), self.layers, strict=True)
        )

    def layer_weights(self, layer: Layer) -> tuple[Weight, ...]:
        """Return the tensors of one layer of this model."""
        return layer.weights(self.hidden_size, self.norm)

    def input_weights(self) -> tuple[Weight, ...]:
        """Return the tensors before the first layer, towers included."""
        rows = self.vocab_size + self.input_only_tokens
        found = [self._vocabulary_matrix("embed_tokens", TensorRole.EMBEDDING, rows)]
        if self.embedding_size is not None:
            found.append(matrix("project_in", self.hidden_size, self.embedding_size, TensorRole.HEAD))
        if self.learned_positions:
            shape = (self.position_offset + self.learned_positions, self.hidden_size)
            found.append(Weight("embed_positions.weight", shape, TensorRole.POSITIONS))
        if self.embedding_norm:
            found += self.norm.weights("embed_norm", self.hidden_size)
        if self.per_layer_input is not None:
            found += self.per_layer_input.outer_weights(self.hidden_size, len(self.layers), self.norm)
        if self.altup is not None:
            found += self.altup.input_weights(self.hidden_size)
        for tower in self.towers:
            found += tower.weights()
        return as_released(found, self.stored_otherwise)

    def output_weights(self) -> tuple[Weight, ...]:
        """Return the tensors after the last layer: the final norm and, unless tied, the head."""
        found = list(self.norm.weights("norm", self.hidden_size) if self.final_norm else ())
        if self.altup is not None:
            found += self.altup.output_weights(self.hidden_size)
        if self.hyper_connections is not None:
            found += self.hyper_connections.output_weights(self.hidden_size)
        if self.embedding_size is not None:
            found.append(matrix("project_out", self.embedding_size, self.hidden_size, TensorRole.HEAD))
        if not self.tie_word_embeddings:
            found.append(self.head_weight())
        if self.lm_head_bias:
            by_row = _by_row(self.vocab_size)
            found.append(Weight("lm_head.bias", (self.vocab_size,), TensorRole.BIAS, by_row))
        return as_released(found, self.stored_otherwise)

    def multiplied_inputs(self) -> tuple[Weight, ...]:
        """Return the tensors before the first layer that are not looked up: a projection, a norm."""
        return tuple(w for w in self.input_weights() if w.role in (TensorRole.HEAD, TensorRole.NORM))

    def multiplied_outputs(self) -> tuple[Weight, ...]:
        """Return the tensors that make logits, the head of a tied model included."""
        return (*self.output_weights(), *((self.head_weight(),) if self.tie_word_embeddings else ()))

    def head_weight(self) -> Weight:
        """Return the output head, which a tied model shares with its embedding."""
        head = self._vocabulary_matrix("lm_head", TensorRole.HEAD, self.vocab_size)
        return as_released((head,), self.stored_otherwise)[0]

    def as_released(self) -> WeightStorage:
        """Return what its released files are stored in: one format, or several, tensor by tensor."""
        base = weight_format(self.weight_format or self.dtype)
        groups = (*self.stored_otherwise, *(g for run in self.runs() for g in run.layer.stored_otherwise))
        others = dict.fromkeys(group.format for group in groups if group.format != base.name)
        return AsReleased(base, tuple(others)) if groups else base

    def weights_of_runs(self, runs: Iterable[Run]) -> Iterator[tuple[Weight, int]]:
        """Iterate over the tensors of runs of equal layers with how many of each are held.

        What layers share is held once, however many of these layers use it.
        """
        shared: set[tuple[str, str]] = set()
        for run in runs:
            for weight in self.layer_weights(run.layer):
                if not weight.shared_in:
                    yield weight, run.count
                elif (weight.shared_in, weight.name) not in shared:
                    shared.add((weight.shared_in, weight.name))
                    yield weight, 1

    def _vocabulary_matrix(self, name: str, role: TensorRole, rows: int) -> Weight:
        """Return a matrix with a row for each token."""
        return matrix(name, rows, self.embedding_size or self.hidden_size, role, _by_row(rows))

    def weights(self) -> Iterator[tuple[Weight, int]]:
        """Iterate over every tensor with the number of times the model holds it."""
        for weight in self.input_weights():
            yield weight, 1
        yield from self.weights_of_runs(self.runs())
        for weight in self.output_weights():
            yield weight, 1


def _by_row(rows: int) -> Split:
    return Split(0, rows, "padded vocabulary rows", pad_to=VOCABULARY_PADDING)
