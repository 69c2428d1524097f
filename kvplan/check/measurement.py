"""Requests run on the engine, and what was counted while they ran."""

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
from kvplan.engine.sampling import Sampler
from kvplan.storage import KvFormat, kv_format

Float = NDArray[np.float32]
Progress = Callable[[str], None]
OnToken = Callable[[int, int], None]
OnLogits = Callable[[NDArray[np.int64], Float], None]


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
        tokens: what was added to each request.
        errors: what cached decoding costs in accuracy.
    """

    weights_bytes: int
    layers: tuple[LayerBytes, ...]
    blocks: int
    cache_bytes: int
    prefill: Counter
    decode: Counter
    steps: tuple[StepRecord, ...]
    tokens: tuple[tuple[int, ...], ...]
    errors: LogitErrors


class Replay:
    """Chooses the tokens another run chose, whatever the logits."""

    def __init__(self, tokens: Sequence[Sequence[int]]) -> None:
        self._tokens = tokens

    def sample(self, logits: Float, request_ids: Sequence[int], steps: Sequence[int]) -> NDArray[np.int64]:
        """Return the recorded token of each request at its step, ``(batch,)``."""
        return np.array([self._tokens[r][s] for r, s in zip(request_ids, steps, strict=True)])


def measure(
    model: Model,
    weights: dict[str, Float],
    requests: Sequence[Request],
    scenario: Scenario,
    on_step: Progress,
    *,
    on_token: OnToken | None = None,
    on_logits: OnLogits | None = None,
) -> Measurement:
    """Run requests, every token the best one, and return what was counted.

    Args:
        model: what runs.
        weights: every tensor by its name; emptied as they are taken over.
        requests: prompts of the scenario's lengths, and what ends them.
        scenario: how they are read and stored.
        on_step: called with a word for what is going on whenever a step ends.
        on_token: called with a request's place and every token it adds; decode steps are not told then.
        on_logits: called with every sequence's tokens ``(n,)``, and the logits ``(n, vocabulary)`` of reading
            them at once with a float32 cache.
    """
    decoder = Decoder(model, weights, scenario.longest)
    choices = Choices()
    cache = _cache(model, scenario, scenario.kv, choices)

    def tell(step: StepRecord) -> None:
        if on_token is None or step.phase is Phase.PREFILL:
            on_step("running")

    run = generate(
        decoder,
        cache,
        requests,
        Sampler(),
        scenario.chunk_tokens,
        tell,
        on_token=on_token,
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
        tuple(tuple(tokens) for tokens in run.tokens),
        _errors(model, scenario, decoder, requests, run, choices, on_step, on_logits),
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
    on_logits: OnLogits | None,
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
        if on_logits is not None:
            on_logits(whole, logits)
    expected = np.concatenate(recomputed)
    found, stored = (np.concatenate([np.stack(rows) for rows in of.logits]) for of in (cached, run))
    return LogitErrors(
        cached=float(np.abs(found - expected).max() / np.abs(expected).max()),
        stored=float(np.sqrt(np.square(stored - expected).mean() / np.square(expected).mean())),
        same_greedy=float((stored.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )
