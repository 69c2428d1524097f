"""The whole decoder: embeddings, layers, and the head, over a batch of sequences of any lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from enum import Enum

import numpy as np

from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.engine.altup import Streams
from kvplan.engine.arrays import Float, Tokens
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.hyper_connections import HyperStreams
from kvplan.engine.layer import DecoderLayer
from kvplan.engine.linear import Linear
from kvplan.engine.norms import make_norm
from kvplan.engine.one_thread import one_blas_thread
from kvplan.engine.passed_by_layer import PassedByLayer
from kvplan.engine.per_layer_inputs import PerLayerInputs
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.shared_block import SharedBlock
from kvplan.engine.watched_mixer import Watch
from kvplan.errors import UsageError


class Logits(Enum):
    """The new tokens whose logits a step makes: of each sequence's last, of every one, or of none."""

    LAST = "last"
    EVERY = "every"
    NONE = "none"


class Decoder:
    """A model with its weights, ready to run in float32.

    Args:
        model: what to run; a vision tower is not.
        weights: every tensor by its name, a layer's as ``layers.N.`` and its name in the description,
            shaped as there (copies first), and a shared block's as ``blocks.N.``; emptied as they are taken
            over.
        max_tokens: longest sequence of the run; positions are made for so many.
        watch: is shown what every layer's mixer returns, where there is one.

    Raises:
        UsageError: the model has learned positions, and fewer than that.
    """

    def __init__(
        self, model: Model, weights: dict[str, Float], max_tokens: int, watch: Watch | None = None
    ) -> None:
        if 0 < model.learned_positions < max_tokens:
            limit = f"{model.learned_positions:,} positions of {model.name}"
            raise UsageError(f"{max_tokens:,} tokens are more than the {limit}")
        self._model, self._max_tokens = model, max_tokens
        of_layers = ("layers.", *(f"{block}." for block in model.shared_blocks()))
        outer = {name: weights.pop(name) for name in list(weights) if not name.startswith(of_layers)}
        embedding = outer["embed_tokens.weight"]
        # A tied head reads the same array: the embedding is then looked up in the head's panels.
        self._embedding = None if model.tie_word_embeddings else embedding
        head = embedding if model.tie_word_embeddings else outer["lm_head.weight"]
        self._head = Linear(head, outer.get("lm_head.bias"))
        self._positions = outer.get("embed_positions.weight")
        self._project_in = _projection(outer, "project_in")
        self._project_out = _projection(outer, "project_out")
        named = [("embed_norm", model.embedding_norm), ("norm", model.final_norm)]
        self._embedding_norm, self._norm = (
            make_norm(model.norm, outer, name, model.norm_eps) if there else None for name, there in named
        )
        self._layer_inputs = None if model.per_layer_input is None else PerLayerInputs(model, outer)
        self._streams = _streams(model, outer)
        rotaries = Rotaries(model, max_tokens)
        self._blocks = _shared_blocks(model, weights, rotaries)
        self._layers = [
            PassedByLayer(_inside(weights, f"layers.{index}"))
            if layer.images_only
            else DecoderLayer(
                model,
                index,
                _inside(weights, f"layers.{index}"),
                rotaries,
                watch,
                None if layer.shared_block is None else self._blocks[layer.shared_block.name],
            )
            for index, layer in enumerate(model.layers)
        ]

    def viewing(self, model: Model) -> Decoder:
        """Return a decoder of the same weights, held once for both, whose attention sees other tokens.

        Args:
            model: this one's with other windows, as :func:`kvplan.arch.what_if.with_window` makes it.

        Raises:
            ValueError: more than that differs.
        """
        if model.places() != self._model.places():
            raise ValueError("what layers cache is kept elsewhere in this model")
        layers = zip(self._model.layers, model.layers, self._layers, strict=True)
        changed = copy(self)
        changed._model = model
        changed._layers = [run if old == new else _viewing(run, new) for old, new, run in layers]
        return changed

    @property
    def weights_nbytes(self) -> int:
        """Bytes of every weight array."""
        tables = (table.nbytes for table in (self._embedding, self._positions) if table is not None)
        outer = (
            self._layer_inputs,
            self._streams,
            self._project_in,
            self._embedding_norm,
            self._norm,
            self._project_out,
            self._head,
        )
        parts = (*self._layers, *self._blocks.values(), *outer)
        return sum(tables) + sum(part.nbytes for part in parts if part is not None)

    def forward(
        self,
        cache: Cache,
        batch: Sequence[tuple[int, Tokens]],
        counter: Counter,
        *,
        decode: bool = False,
        logits: Logits = Logits.LAST,
    ) -> Float:
        """Run new tokens of several sequences and return their logits.

        Args:
            cache: where the sequences are.
            batch: sequences of the cache with the ids of their new tokens.
            counter: what is multiplied and touched is added to it.
            decode: each sequence has one new token behind a prompt that was read before; latent
                attention then runs absorbed.
            logits: of which tokens logits are made.

        Returns:
            ``(tokens, vocabulary)``, sequence by sequence.

        Raises:
            UsageError: a token is none of the vocabulary, or a sequence would get longer than the decoder or
                the cache is for; nothing is changed.
            OutOfBlocks: the cache has no room; nothing is changed.
            ValueError: a key or value is not finite; the sequences can only be freed.
        """
        tokens = np.concatenate([np.empty(0, np.int64), *(new for _, new in batch)])
        self._require(tokens, max((cache.length(sequence) + len(new) for sequence, new in batch), default=0))
        step = cache.begin(batch, decode=decode)
        # Sigmoids overflow and are right. Saying so in each of them would cost a hundredth of a step.
        with one_blas_thread(), np.errstate(over="ignore"):
            x = self._embed(tokens, step.positions, counter)
            given = None if self._layer_inputs is None else self._layer_inputs(tokens, x, counter)
            embedded = x if self._blocks else None
            if self._streams is not None:
                x = self._streams.spread(x, counter)
            for index, layer in enumerate(self._layers):
                x = layer(x, step, counter, embedded if given is None else given[index])
            step.write_held(counter)
            cache.finish(batch)
            match logits:
                case Logits.LAST if len(batch) < len(tokens):
                    x = x[..., step.last_rows, :]
                case Logits.NONE:
                    return np.empty((0, self._model.vocab_size), np.float32)
            return self._logits(x, counter)

    def _require(self, tokens: Tokens, longest: int) -> None:
        """Raise UsageError unless these tokens exist, and a sequence of this length has its positions."""
        if longest > self._max_tokens:
            raise UsageError(f"{longest:,} tokens are more than the {self._max_tokens:,} this decoder is for")
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self._model.vocab_size:
            raise UsageError(f"tokens are numbered 0 to {self._model.vocab_size - 1:,}")

    def _embed(self, tokens: Tokens, positions: Tokens, counter: Counter) -> Float:
        x = self._head.rows(tokens) if self._embedding is None else self._embedding[tokens]
        if self._model.embedding_multiplier != 1:
            x = x * np.float32(self._model.embedding_multiplier)
        if self._project_in is not None:
            x = self._project_in(x, counter)
        if self._positions is not None:
            x = x + self._positions[positions + self._model.position_offset]
        return x if self._embedding_norm is None else self._embedding_norm(x, counter)

    def _logits(self, x: Float, counter: Counter) -> Float:
        if self._streams is not None:
            x = self._streams.joined(x, counter)
        if self._norm is not None:
            x = self._norm(x, counter)
        if self._project_out is not None:
            x = self._project_out(x, counter)
        logits = self._head(x, counter)
        if self._model.logits_multiplier != 1:
            logits *= np.float32(self._model.logits_multiplier)
        cap = self._model.final_logit_softcapping
        return logits if cap is None else np.tanh(logits / np.float32(cap)) * np.float32(cap)


def _viewing(run: DecoderLayer | PassedByLayer, layer: Layer) -> DecoderLayer:
    """Return a layer with other tokens in view; raises ValueError where it has no attention of its own."""
    if isinstance(run, PassedByLayer):
        raise ValueError("a layer that is passed by views nothing")
    return run.viewing(layer)


def _streams(model: Model, weights: Mapping[str, Float]) -> Streams | HyperStreams | None:
    """Return what makes several residual streams, and one of them in the end, where there are any."""
    if model.hyper_connections is not None:
        return HyperStreams(model.hyper_connections, weights, model.norm_eps)
    return None if model.altup is None else Streams(model.altup, weights)


def _projection(weights: Mapping[str, Float], name: str) -> Linear | None:
    """Return the matrix between the residual stream and a narrower embedding, where there is one."""
    weight = weights.get(f"{name}.weight")
    return None if weight is None else Linear(weight)


def _shared_blocks(model: Model, weights: dict[str, Float], rotaries: Rotaries) -> dict[str, SharedBlock]:
    """Return the blocks that layers share, by their names."""
    found = {}
    for name, index in model.shared_blocks().items():
        arch = model.layers[index].shared_block
        assert arch is not None
        found[name] = SharedBlock(arch, model, index, _inside(weights, name), rotaries)
    return found


def _inside(weights: dict[str, Float], whole: str) -> Mapping[str, Float]:
    """Return the tensors of a layer or a block by their names in it; they are taken out of ``weights``."""
    prefix = f"{whole}."
    names = [name for name in weights if name.startswith(prefix)]
    return {name[len(prefix) :]: weights.pop(name) for name in names}
