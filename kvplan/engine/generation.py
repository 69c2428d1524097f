"""Generating text with a decoder: prompts are read in chunks, then all requests decode together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Float, Tokens
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.errors import UsageError


class Phase(Enum):
    """What a step does: read a piece of one prompt, or add a token to every request."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, how many tokens to add to it at most, and the tokens that end it sooner."""

    prompt: Tokens
    max_new_tokens: int
    stop_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step as it ran.

    Args:
        phase: prefill or decode.
        requests: requests in the step.
        new_tokens: tokens it processed.
        cached_tokens: tokens its requests had in the cache before.
        seconds: wall time.
        counted: what it multiplied and touched.
        live_bytes, allocated_bytes: of the cache when it ended, over all sequences there.
    """

    phase: Phase
    requests: int
    new_tokens: int
    cached_tokens: int
    seconds: float
    counted: Counter
    live_bytes: int
    allocated_bytes: int


class Chooser(Protocol):
    """Chooses the next token of each request from its logits; a :class:`Sampler` is one."""

    def sample(self, logits: Float, request_ids: Sequence[int], steps: Sequence[int]) -> NDArray[np.int64]:
        """Return a token ``(batch,)`` for each row of logits ``(batch, vocabulary)``."""
        ...


@dataclass(slots=True)
class Generation:
    """The state of a run.

    Args:
        sequences: each request's sequence in the cache.
        tokens: the tokens each request has added.
        logits: the logits each of those was chosen from ``(vocabulary,)``, where they are kept.
        steps: the steps so far.
    """

    sequences: list[int] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    logits: list[list[Float]] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)


def generate(
    decoder: Decoder,
    cache: Cache,
    requests: Sequence[Request],
    chooser: Chooser,
    chunk_tokens: int,
    on_step: Callable[[StepRecord], None] | None = None,
    *,
    on_token: Callable[[int, int], None] | None = None,
    keep_logits: bool = False,
    share_prefixes: bool = True,
) -> Generation:
    """Run all requests to their ends and return their tokens and steps; the sequences stay in the cache.

    The first new token of a request comes from its prompt; the last one is never stored. A run that fails
    leaves none of its sequences behind.

    Args:
        decoder, cache: what runs, and where the sequences are.
        requests: what to run.
        chooser: chooses the tokens; it knows a request by its place among all.
        chunk_tokens: tokens of a prompt read in one step at most.
        on_step: called with every step when it has ended.
        on_token: called with a request's place among all, and a token, as soon as that is chosen.
        keep_logits: keep the logits every token was chosen from.
        share_prefixes: what the cache knows of a prompt is not read again.

    Raises:
        UsageError: a prompt is empty, no token is to be added or read at a time, or a request is longer than
            the cache is for.
        OutOfBlocks: the cache has no room for all of them at once.
    """
    if chunk_tokens < 1:
        raise UsageError(f"a prompt is read at least one token at a time, not {chunk_tokens}")
    if any(not len(request.prompt) or request.max_new_tokens < 1 for request in requests):
        raise UsageError("a request needs a prompt of at least one token, and one token to add")
    runner = _Runner(decoder, cache, chooser, on_step, on_token, keep_logits)
    try:
        for request in requests:
            runner.prefill(request, chunk_tokens, share_prefixes=share_prefixes)
        while going := [i for i, request in enumerate(requests) if not _ended(runner.run.tokens[i], request)]:
            runner.decode(going)
    except BaseException:
        for sequence in runner.run.sequences:
            cache.free(sequence)
        raise
    return runner.run


class _Runner:
    """One run on its way."""

    def __init__(
        self,
        decoder: Decoder,
        cache: Cache,
        chooser: Chooser,
        on_step: Callable[[StepRecord], None] | None,
        on_token: Callable[[int, int], None] | None,
        keep_logits: bool,
    ) -> None:
        self.run = Generation()
        self._decoder, self._cache, self._chooser = decoder, cache, chooser
        self._on_step, self._on_token, self._keep_logits = on_step, on_token, keep_logits

    def prefill(self, request: Request, chunk_tokens: int, *, share_prefixes: bool) -> None:
        """Read a request's prompt, what the cache knows of it aside, and choose its first token."""
        sequence = self._cache.add(request.prompt.tolist() if share_prefixes else ())
        self.run.sequences.append(sequence)
        self.run.tokens.append([])
        self.run.logits.append([])
        known, end = self._cache.length(sequence), len(request.prompt)
        for start in range(known, end, chunk_tokens):
            last = start + chunk_tokens >= end
            batch = [(sequence, request.prompt[start : start + chunk_tokens])]
            logits = self._step(batch, Phase.PREFILL, want_logits=last)
        self._choose(logits, [len(self.run.sequences) - 1])

    def decode(self, going: Sequence[int]) -> None:
        """Add a token to each of these requests."""
        run = self.run
        batch = [(run.sequences[i], np.array([run.tokens[i][-1]])) for i in going]
        self._choose(self._step(batch, Phase.DECODE, want_logits=True), going)

    def _step(self, batch: Sequence[tuple[int, Tokens]], phase: Phase, *, want_logits: bool) -> Float:
        counter, cached = Counter(), sum(self._cache.length(sequence) for sequence, _ in batch)
        wanted = Logits.LAST if want_logits else Logits.NONE
        began = perf_counter()
        logits = self._decoder.forward(
            self._cache, batch, counter, decode=phase is Phase.DECODE, logits=wanted
        )
        seconds = perf_counter() - began
        new = sum(len(tokens) for _, tokens in batch)
        used = self._cache.live_bytes, self._cache.allocated_bytes
        record = StepRecord(phase, len(batch), new, cached, seconds, counter, *used)
        self.run.steps.append(record)
        if self._on_step is not None:
            self._on_step(record)
        return logits

    def _choose(self, logits: Float, indices: Sequence[int]) -> None:
        steps = [len(self.run.tokens[index]) for index in indices]
        chosen = self._chooser.sample(logits, list(indices), steps)
        for row, (index, token) in enumerate(zip(indices, chosen.tolist(), strict=True)):
            self.run.tokens[index].append(token)
            if self._keep_logits:
                self.run.logits[index].append(logits[row])
            if self._on_token is not None:
                self._on_token(index, token)


def _ended(tokens: Sequence[int], request: Request) -> bool:
    return len(tokens) >= request.max_new_tokens or tokens[-1] in request.stop_tokens
