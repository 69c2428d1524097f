"""What other weights or another model cost in accuracy: a model scaled down runs with them and without.

Its weights are random. The reference is the model as released; it and every run beside it have float32
caches and float32 arithmetic, so that what is found is of the weights or the model alone. Every run is fed
the reference's tokens, so that errors do not grow with the texts that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.allocation import Paged
from kvplan.arch.entry import State
from kvplan.arch.experts import Experts
from kvplan.arch.model import Model
from kvplan.arch.scale_down import scaled_down
from kvplan.check.measurement import Replay
from kvplan.engine.cache import Cache
from kvplan.engine.decoder import Decoder
from kvplan.engine.generation import Chooser, Request, generate
from kvplan.engine.random_weights import named_weights, random_weights
from kvplan.engine.sampling import Sampler
from kvplan.engine.step import Step
from kvplan.engine.stored_weights import stored_weights
from kvplan.errors import UsageError
from kvplan.storage import WeightStorage, kv_format

Float = NDArray[np.float32]

# All prompts are longer than a scaled window, so that one slides before the first token is compared.
PROMPT_TOKENS = (160, 192, 224, 256)
NEW_TOKENS = 32
# Blocks of whole tiles.
_ALLOCATION = Paged(64)

_RANDOM = "weights are random: the outlier channels of trained ones are not in it; the cache is float32"
_NEAREST = "weights are rounded to nearest, without the calibration of AWQ or GPTQ"
_EVEN = "random attention is spread evenly, where trained attention stays near: a window costs more here"
_ROUTERS = "random routers choose between near equals: a small error can change the experts"


@dataclass(frozen=True, slots=True)
class EngineError:
    """How far a run is from the reference, over the tokens both were asked for.

    Args:
        attention_error: root mean square difference of what attention layers add in decode steps, all
            layers together, as a share of its root mean square; absent where no layer reads a cache of
            tokens. A layer's output has in it what its input has caught from the layers before.
        logit_error: the same of the logits.
        same_greedy: share of tokens for which the largest logit is the reference's.
        tokens: rows of logits compared.
        note: what the figures do not say.
    """

    attention_error: float | None
    logit_error: float
    same_greedy: float
    tokens: int
    note: str


class PriceBench:
    """A model scaled down and run once, to which other weights and models are compared.

    Args:
        model: at its real size.
        seed: of the weights and the prompts.

    Raises:
        UsageError: what the model's released format does to weights is not known, or it has too few
            positions.
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        self._model, self._scaled = model, scaled_down(model)
        self._released = model.as_released()
        drawn = random_weights(self._scaled, seed)
        self._weights = stored_weights(self._scaled, drawn, self._released, model.dtype)
        self._requests = [Request(prompt, NEW_TOKENS) for prompt in prompts(self._scaled, seed)]
        self._reference = self._run(self._scaled, self._weights, Sampler())

    def price(self, weights: WeightStorage | None = None, model: Model | None = None) -> EngineError:
        """Run other weights, another model or both, and return how far that is from the reference.

        Args:
            weights: storage of the weights; absent, as released.
            model: the model changed in what its layers keep in view, and run on the same weights.

        Raises:
            UsageError: it cannot be run on the same weights, or its weight format is one whose error is not
                known here; the message says which.
        """
        scaled = self._scaled if model is None else self._changed(model)
        reference = self._reference
        found = self._run(scaled, self._weights_of(weights), Replay(reference.tokens))
        return EngineError(
            _share(found.attention, reference.attention) if len(reference.attention) else None,
            _share(found.logits, reference.logits),
            float((found.logits.argmax(axis=1) == reference.logits.argmax(axis=1)).mean()),
            len(reference.logits),
            "; ".join(self._notes(weights, model)),
        )

    def _notes(self, weights: WeightStorage | None, model: Model | None) -> list[str]:
        notes = [_RANDOM]
        if any(isinstance(layer.mlp, Experts) for layer in self._scaled.layers):
            notes.append(_ROUTERS)
        if weights not in (None, self._released):
            notes.append(_NEAREST)
        if model is not None:
            notes.append(_EVEN)
        return notes

    def _weights_of(self, storage: WeightStorage | None) -> Mapping[str, Float]:
        """Return the weights in a format; the released one gives back what it gave before."""
        if storage is None or storage == self._released:
            return self._weights
        return stored_weights(self._scaled, self._weights, storage, self._model.dtype)

    def _changed(self, model: Model) -> Model:
        """Return a changed model scaled down as the reference is, or say why it is not measured."""
        scaled = scaled_down(model, like=self._model)
        if _shapes(scaled) != _shapes(self._scaled):
            raise UsageError("not measured: the changed model needs other weights, trained for it")
        if scaled.layers == self._scaled.layers and model.layers != self._model.layers:
            raise UsageError("not measured: scaled down, both models keep the same tokens in view")
        return scaled

    def _run(self, model: Model, weights: Mapping[str, Float], chooser: Chooser) -> _Run:
        longest = max(PROMPT_TOKENS) + NEW_TOKENS
        cache = Cache(model, kv_format("fp32"), _ALLOCATION, longest, len(self._requests))
        outputs = _AttentionOutputs(model)
        decoder = Decoder(model, dict(weights), longest, outputs.watch)
        run = generate(
            decoder, cache, self._requests, chooser, longest, keep_logits=True, share_prefixes=False
        )
        return _Run(run.tokens, np.concatenate([np.stack(rows) for rows in run.logits]), outputs.joined())


def prompts(model: Model, seed: int) -> list[NDArray[np.int64]]:
    """Return the prompts every run of a model reads, of ``PROMPT_TOKENS`` tokens each."""
    generator = np.random.default_rng([seed, 1])
    return [generator.integers(0, model.vocab_size, length) for length in PROMPT_TOKENS]


@dataclass(frozen=True, slots=True)
class _Run:
    """What is compared: each request's tokens, their logits in order, and attention's outputs in order."""

    tokens: list[list[int]]
    logits: Float
    attention: Float


class _AttentionOutputs:
    """What attention layers add in decode steps; layers with a state per request are left out."""

    def __init__(self, model: Model) -> None:
        self._layers = {
            index
            for index, layer in enumerate(model.layers)
            if any(not isinstance(slot.entry, State) for slot in layer.slots())
        }
        self._found: list[Float] = []

    def watch(self, layer: int, outputs: Float, step: Step) -> None:
        """Keep a copy of one layer's outputs ``(batch, hidden)`` of a decode step."""
        if step.decode and layer in self._layers:
            self._found.append(outputs.copy())

    def joined(self) -> Float:
        """Return all that was kept, ``(rows, hidden)``; no row where no layer reads a cache of tokens."""
        return np.concatenate(self._found) if self._found else np.empty((0, 0), np.float32)


def _share(found: Float, expected: Float) -> float:
    """Return the root mean square of the difference as a share of that of what is expected."""
    difference = np.square(found.astype(np.float64) - expected).sum()
    return float(np.sqrt(difference / np.square(expected, dtype=np.float64).sum()))


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: (weight.copies, *weight.shape) for name, weight in named_weights(model)}
