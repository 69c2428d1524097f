"""A scenario run on the engine, and what was counted while it ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.model import Model
from kvplan.check.scenario import Scenario
from kvplan.engine.cache import Cache
from kvplan.engine.choices import Choices, EarlierChoices
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.engine.generation import Generation, Phase, Request, StepRecord, generate
from kvplan.engine.random_weights import random_weights
from kvplan.engine.sampling import Sampler
from kvplan.storage import KvFormat, kv_format

Float = NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Cache bytes of one layer when a run has ended, over all its requests."""

    live: int
    allocated: int


@dataclass(frozen=True, slots=True)
class LogitErrors:
    """How far logits are from those of every sequence read again at once, in float32.

    Args:
        cached: the largest difference of a decode over float32 caches, as a share of the largest logit.
        stored: the root mean square difference with the scenario's own storage, as a share of the
            logits' root mean square.
        same_greedy: share of tokens that float32 caches would have chosen too.
    """

    cached: float
    stored: float
    same_greedy: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything counted and timed in one run.

    Args:
        weights_bytes: of the arrays the decoder holds.
        layers: each layer's cache bytes at the end.
        blocks: blocks in use at the end.
        cache_bytes: of all arrays of the cache: what is reserved.
        prefill, decode: what each phase multiplied and touched.
        steps: every step.
        errors: what cached decoding costs in accuracy.
    """

    weights_bytes: int
    layers: tuple[LayerBytes, ...]
    blocks: int
    cache_bytes: int
    prefill: Counter
    decode: Counter
    steps: tuple[StepRecord, ...]
    errors: LogitErrors


class Replay:
    """Chooses the tokens another run chose, whatever the logits."""

    def __init__(self, tokens: Sequence[Sequence[int]]) -> None:
        self._tokens = tokens

    def sample(self, logits: Float, request_ids: Sequence[int], steps: Sequence[int]) -> NDArray[np.int64]:
        """Return the recorded token of each request at its step, ``(batch,)``."""
        return np.array([self._tokens[r][s] for r, s in zip(request_ids, steps, strict=True)])


def measure(model: Model, scenario: Scenario, on_step: Progress) -> Measurement:
    """Run a scenario on a model with weights drawn from its seed, and return what was counted.

    Args:
        model: small enough to run; see :func:`kvplan.arch.scale_down.scaled_down`.
        scenario: what to run.
        on_step: called with a word for what is going on whenever a step ends.
    """
    decoder = Decoder(model, random_weights(model, scenario.seed), scenario.longest)
    generator = np.random.default_rng([scenario.seed, 1])
    requests = [
        Request(generator.integers(0, model.vocab_size, length), scenario.new_tokens)
        for length in scenario.prompt_tokens
    ]
    choices = Choices()
    cache = _cache(model, scenario, scenario.kv, choices)
    run = generate(
        decoder,
        cache,
        requests,
        Sampler(),
        scenario.chunk_tokens,
        lambda _: on_step("running"),
        keep_logits=True,
        share_prefixes=False,
    )
    layers = tuple(
        LayerBytes(
            sum(cache.live_nbytes(place, sequence) for place in places for sequence in run.sequences),
            sum(cache.allocated_nbytes(place, sequence) for place in places for sequence in run.sequences),
        )
        for places in model.own_places()
    )
    return Measurement(
        decoder.weights_nbytes,
        layers,
        sum(cache.held_blocks(sequence) for sequence in run.sequences),
        cache.nbytes,
        _counted(run.steps, Phase.PREFILL),
        _counted(run.steps, Phase.DECODE),
        tuple(run.steps),
        _errors(model, scenario, decoder, requests, run, choices, on_step),
    )


def _cache(model: Model, scenario: Scenario, kv: KvFormat, choices: Choices | EarlierChoices) -> Cache:
    sequences = len(scenario.prompt_tokens)
    return Cache(model, kv, scenario.allocation, scenario.longest, sequences, choices=choices)


def _counted(steps: Sequence[StepRecord], phase: Phase) -> Counter:
    found = Counter()
    for step in steps:
        if step.phase is phase:
            found.add(step.counted)
    return found


def _errors(
    model: Model,
    scenario: Scenario,
    decoder: Decoder,
    requests: Sequence[Request],
    run: Generation,
    choices: Choices,
    on_step: Progress,
) -> LogitErrors:
    """Compare decode logits with those of each whole sequence read at once into an empty cache.

    What indexers and routers chose is taken over where it is a matter of rounding
    (:mod:`kvplan.engine.choices`).
    """
    plain = kv_format("fp32")
    cached = run
    if scenario.kv != plain:
        choices = Choices()
        cached = generate(
            decoder,
            _cache(model, scenario, plain, choices),
            requests,
            Replay(run.tokens),
            scenario.chunk_tokens,
            lambda _: on_step("the same run with float32 caches"),
            keep_logits=True,
            share_prefixes=False,
        )
    recomputed = []
    for slot, (request, tokens) in enumerate(zip(requests, run.tokens, strict=True)):
        cache = _cache(model, scenario, plain, choices.of_sequence(slot))
        whole = np.concatenate([request.prompt, np.array(tokens[:-1], np.int64)])
        logits = decoder.forward(cache, [(cache.add(), whole)], Counter(), logits=Logits.EVERY)
        recomputed.append(logits[len(request.prompt) - 1 :])
        on_step("reading every sequence again at once")
    expected = np.concatenate(recomputed)
    found, stored = (np.concatenate([np.stack(rows) for rows in of.logits]) for of in (cached, run))
    return LogitErrors(
        cached=float(np.abs(found - expected).max() / np.abs(expected).max()),
        stored=float(np.sqrt(np.square(stored - expected).mean() / np.square(expected).mean())),
        same_greedy=float((stored.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )
