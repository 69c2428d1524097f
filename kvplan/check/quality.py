"""What cache formats cost a real model on a real text: losses, divergence and greedy texts, token by token.

A text is cut into windows. Each is read by the model once with a float32 cache and once with every format;
behind the context, every token is scored by the logits of the one before it. The first token behind the
context is given, so a window of ``context + stride`` tokens has ``stride - 1`` scores.

A format quantises as a server does: what a token leaves is quantised when it is stored, and read like that
by that very token. A chunk of many tokens does so as well (:mod:`kvplan.engine.attention_mixer`), but for
keys that are scaled by groups: those wait in float16 until their group is full, and a chunk that ends the
group would show it full to all of its tokens. So such chunks end one token before a group does, and that
token is a chunk of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.model import Model
from kvplan.check.quality_formats import ALLOCATION, CacheFormat
from kvplan.engine.arrays import Float, Tokens
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.storage import KvFormat, kv_format

Progress = Callable[[str], None]
Scores = NDArray[np.float64]

# Tokens read at once, and rows of logits that are made into probabilities at once.
CHUNK_TOKENS = 256
ROWS_AT_ONCE = 32


class When(Enum):
    """When a cache is quantised: as tokens are appended, or all at once when the context has been read."""

    APPEND = "append"
    PREFILL = "prefill"


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a text is read.

    Args:
        context: tokens of each window that are read first.
        stride: tokens behind them; all but the first are scored.
        when: when formats quantise.
        greedy: tokens each format writes greedily behind the context; 0 for none.
        begin: tokens that begin every window, of the context's, as the tokenizer begins every text with them.
    """

    context: int
    stride: int
    when: When = When.APPEND
    greedy: int = 0
    begin: tuple[int, ...] = ()

    @property
    def scored(self) -> int:
        """Tokens that a window scores."""
        return self.stride - 1

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.context + max(self.stride, self.greedy)

    def windows(self, tokens: int) -> int:
        """Return how many windows a text of so many tokens has; the strides of two never overlap."""
        return max(0, (tokens - self._of_text) // self.stride)

    def window(self, ids: Tokens, index: int) -> Tokens:
        """Return the tokens of a window; ``ids`` are those of the text, without what begins it."""
        start = index * self.stride
        window = np.array(self.begin, np.int64), ids[start : start + self._of_text + self.stride]
        return np.concatenate(window)

    @property
    def _of_text(self) -> int:
        """Tokens of the context that are of the text."""
        return self.context - len(self.begin)


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What one window has shown of one format.

    Args:
        losses: of each scored token, in nats.
        divergences: Kullback-Leibler divergence of each prediction from the reference's, in nats.
        same_top: whether the likeliest token is the reference's.
        greedy: tokens written greedily that are the reference's before one differs; absent where none did.
    """

    losses: Scores
    divergences: Scores
    same_top: NDArray[np.bool_]
    greedy: int | None


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured.

    Args:
        model: what ran.
        protocol: how the text was read.
        formats: what was measured, the float32 reference aside.
        reference: losses of each window, with a float32 cache.
        scores: of each format in the order of ``formats``, window by window.
        asked: windows that were to be read; fewer were where the run was interrupted.
    """

    model: Model
    protocol: Protocol
    formats: tuple[CacheFormat, ...]
    reference: tuple[Scores, ...]
    scores: tuple[tuple[WindowScores, ...], ...]
    asked: int

    @property
    def windows(self) -> int:
        """Windows that were read."""
        return len(self.reference)

    @property
    def partial(self) -> bool:
        """Whether the run ended before all windows were read."""
        return self.windows < self.asked


def measure_quality(
    model: Model,
    weights: dict[str, Float],
    ids: Tokens,
    formats: Sequence[CacheFormat],
    protocol: Protocol,
    windows: int,
    on_step: Progress,
) -> Quality:
    """Read windows of a text with every format; an interrupt leaves what whole windows have shown.

    Args:
        model: with positions for ``protocol.longest`` tokens.
        weights: every tensor by its engine name; emptied as they are taken over.
        ids: tokens of the text, enough for so many windows.
        formats: what to measure; the model can take each
            (:func:`kvplan.check.quality_formats.require_possible`).
        protocol: how windows are read.
        windows: how many.
        on_step: called with what goes on whenever something else does.

    Raises:
        KeyboardInterrupt: before one window was read.
    """
    decoder = Decoder(model, weights, protocol.longest)
    readers = [_Reader.of(decoder, model, one, protocol) for one in (CacheFormat(), *formats)]
    clock = _Clock(windows, [one.name for one in (CacheFormat(), *formats)], on_step)
    read: list[tuple[Scores, tuple[WindowScores, ...]]] = []
    try:
        for index in range(windows):
            read.append(_read_window(readers, protocol.window(ids, index), clock))
    except KeyboardInterrupt:
        if not read:
            raise
    reference = tuple(losses for losses, _ in read)
    by_format = tuple(zip(*(scores for _, scores in read), strict=True))
    return Quality(model, protocol, tuple(formats), reference, by_format, windows)


class _Clock:
    """Says which window and format is being read, and about how long is left once one was."""

    def __init__(self, windows: int, names: Sequence[str], on_step: Progress) -> None:
        self._windows, self._names, self._on_step = windows, names, on_step
        self._began, self._done = monotonic(), 0

    def __call__(self) -> None:
        window, index = divmod(self._done, len(self._names))
        words = f"window {window + 1} of {self._windows}: {self._names[index]}"
        if self._done:
            left = (monotonic() - self._began) / self._done * (self._windows * len(self._names) - self._done)
            words += f", about {int(left) // 60}:{int(left) % 60:02d} left"
        self._on_step(words)
        self._done += 1


def _read_window(
    readers: Sequence[_Reader], tokens: Tokens, clock: _Clock
) -> tuple[Scores, tuple[WindowScores, ...]]:
    """Return the reference's losses on a window, and what each format has shown on it."""
    first, *others = readers
    clock()
    reference = first.reference(tokens)
    scores = []
    for reader in others:
        clock()
        scores.append(reader.scores(tokens, reference))
    return reference.losses, tuple(scores)


@dataclass(frozen=True, slots=True)
class _Reference:
    """A window as read with a float32 cache: the one thing that is kept whole, for one window at a time.

    Args:
        log_probabilities: ``(scored, vocabulary)``.
        losses: ``(scored,)``.
        text: tokens written greedily behind the context.
    """

    log_probabilities: Float
    losses: Scores
    text: Tokens


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads windows with one format."""

    decoder: Decoder
    model: Model
    kv: KvFormat
    protocol: Protocol

    @classmethod
    def of(cls, decoder: Decoder, model: Model, one: CacheFormat, protocol: Protocol) -> _Reader:
        """Return the reader of a format, which runs on the weights of ``decoder``."""
        kept = one.of(model)
        return cls(decoder if kept is model else decoder.viewing(kept), kept, one.kv, protocol)

    def reference(self, tokens: Tokens) -> _Reference:
        """Read a window, and keep what others are compared with."""
        sequence = self._begin(tokens)
        text = self._write(sequence)
        kept = np.empty((self.protocol.scored, self.model.vocab_size), np.float32)
        for rows, logits in self._predictions(sequence, tokens):
            kept[rows] = logits
        following = tokens[self.protocol.context + 1 :]
        losses = -kept[np.arange(len(kept)), following].astype(np.float64)
        return _Reference(kept, losses, text)

    def scores(self, tokens: Tokens, reference: _Reference) -> WindowScores:
        """Read a window, and compare it with the reference."""
        sequence = self._begin(tokens)
        greedy = self._agreed(sequence, reference.text)
        scored = self.protocol.scored
        losses, divergences = np.empty(scored), np.empty(scored)
        same_top = np.empty(scored, np.bool_)
        following = tokens[self.protocol.context + 1 :]
        for rows, found in self._predictions(sequence, tokens):
            expected = reference.log_probabilities[rows]
            losses[rows] = -found[np.arange(len(found)), following[rows]]
            divergences[rows] = divergence(expected, found)
            same_top[rows] = found.argmax(axis=1) == expected.argmax(axis=1)
        return WindowScores(losses, divergences, same_top, greedy)

    def _begin(self, tokens: Tokens) -> _Sequence:
        """Read the context."""
        after = self.protocol.when is When.PREFILL
        kv = kv_format("fp32") if after else self.kv
        sequence = _Sequence.empty(self.decoder, self.model, kv, self.protocol.longest)
        first = sequence.read_all(tokens[: self.protocol.context])
        if after:
            sequence.cache.pass_through(sequence.id, self.kv)
        return _Sequence(self.decoder, sequence.cache, sequence.id, kv, int(first.argmax()))

    def _write(self, sequence: _Sequence) -> Tokens:
        """Return what is written greedily behind the context."""
        text = [sequence.next_token]
        fork = sequence.fork()
        while len(text) < self.protocol.greedy:
            logits = fork.decode(text[-1])
            text.append(int(logits.argmax()))
        fork.free()
        return np.array(text[: self.protocol.greedy], np.int64)

    def _agreed(self, sequence: _Sequence, text: Tokens) -> int | None:
        """Return how many tokens written greedily are those of a text; ``None`` for all of it.

        The text is read, not written: up to the first token that differs both are the same.
        """
        if not len(text):
            return None
        chosen = [np.array([sequence.next_token])]
        if len(text) > 1:
            fork = sequence.fork()
            chosen += [logits.argmax(axis=1) for logits in fork.read(text[:-1])]
            fork.free()
        differs = np.flatnonzero(np.concatenate(chosen) != text)
        return int(differs[0]) if len(differs) else None

    def _predictions(self, sequence: _Sequence, tokens: Tokens) -> Iterator[tuple[slice, Float]]:
        """Read what is behind the context; iterate over rows of log-probabilities of the tokens scored."""
        start = 0
        for logits in sequence.read(tokens[self.protocol.context : -1]):
            for first in range(0, len(logits), ROWS_AT_ONCE):
                part = logits[first : first + ROWS_AT_ONCE]
                yield slice(start + first, start + first + len(part)), log_probabilities(part)
            start += len(logits)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A text in a cache, which grows as a server's would.

    Args:
        decoder, cache: what reads it, and where it is.
        id: its name there.
        kv: what the cache is stored in.
        next_token: the likeliest token behind what was read.
    """

    decoder: Decoder
    cache: Cache
    id: int
    kv: KvFormat
    next_token: int = 0

    @classmethod
    def empty(cls, decoder: Decoder, model: Model, kv: KvFormat, longest: int) -> _Sequence:
        """Return an empty text in a cache of its own, which has room for a fork."""
        cache = Cache(model, kv, ALLOCATION, longest, 2)
        return cls(decoder, cache, cache.add(), kv)

    def fork(self) -> _Sequence:
        """Return a copy that goes on by itself."""
        return _Sequence(self.decoder, self.cache, self.cache.fork(self.id), self.kv, self.next_token)

    def free(self) -> None:
        """Forget the text."""
        self.cache.free(self.id)

    def read_all(self, tokens: Tokens) -> Float:
        """Read tokens; return the logits ``(vocabulary,)`` of the last."""
        *before, last = self._chunks(tokens)
        for chunk in before:
            self._forward(chunk, Logits.NONE)
        logits: Float = self._forward(last, Logits.LAST)[0]
        return logits

    def read(self, tokens: Tokens) -> Iterator[Float]:
        """Read tokens; iterate over the logits ``(some tokens, vocabulary)`` of all of them."""
        for chunk in self._chunks(tokens):
            yield self._forward(chunk, Logits.EVERY)

    def decode(self, token: int) -> Float:
        """Read one token as a decode step does; return its logits ``(vocabulary,)``."""
        logits: Float = self._forward(np.array([token]), Logits.LAST, decode=True)[0]
        return logits

    def _chunks(self, tokens: Tokens) -> Iterator[Tokens]:
        start = self.cache.length(self.id)
        for first, end in chunks(start, start + len(tokens), self.kv.key_group_tokens):
            yield tokens[first - start : end - start]

    def _forward(self, tokens: Tokens, logits: Logits, *, decode: bool = False) -> Float:
        return self.decoder.forward(self.cache, [(self.id, tokens)], Counter(), decode=decode, logits=logits)


def chunks(start: int, stop: int, group: int) -> Iterator[tuple[int, int]]:
    """Iterate over the chunks in which positions are read, as (first, end).

    A token that ends a group of ``group`` keys is a chunk of its own, so that none before it in the group
    sees the group full; with no groups (0) a chunk has ``CHUNK_TOKENS`` at most.
    """
    first = start
    while first < stop:
        end = first + CHUNK_TOKENS
        if group:
            last_of_group = first - first % group + group - 1
            end = first + 1 if first == last_of_group else last_of_group
        yield first, min(end, stop)
        first = end


def log_probabilities(logits: Float) -> Float:
    """Return the logarithms of the probabilities that logits ``(rows, vocabulary)`` mean."""
    shifted: Float = logits - logits.max(axis=1, keepdims=True)
    totals = np.exp(shifted).sum(axis=1, dtype=np.float64)
    shifted -= np.log(totals).astype(np.float32)[:, None]
    return shifted


def divergence(expected: Float, found: Float) -> Scores:
    """Return the Kullback-Leibler divergence of ``found`` from ``expected``, row by row, in nats.

    Both are log-probabilities ``(rows, vocabulary)``.
    """
    sums: Scores = (np.exp(expected) * (expected - found)).sum(axis=1, dtype=np.float64)
    return sums
