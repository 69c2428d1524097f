"""A phase of a run, prefill or decode: its tokens, steps, pairs and cache traffic, summed over requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kvplan.arch.model import Model
from kvplan.arch.retention import Chunked, Full, PerRequest, Retention, Sliding
from kvplan.formula import formula
from kvplan.plan.cache import Stored
from kvplan.plan.requests import Alike, over_requests
from kvplan.plan.visibility import (
    Stretch,
    groups_read,
    groups_written,
    tokens_read,
    visible_pairs,
    waiting_read,
)
from kvplan.results import Quantity, computed, fact
from kvplan.storage import KvFormat
from kvplan.units import Count, Unit, ceil_div


@formula(Unit.STEPS, "a prompt is read in pieces of at most so many tokens")
def prefill_steps(new_tokens: Count, step_tokens: int) -> Count:
    """Steps in which one prompt is read."""
    return ceil_div(new_tokens, step_tokens)


@formula(Unit.STEPS, "a step of its own for each token")
def decode_steps(new_tokens: Count) -> Count:
    """Steps in which one request decodes."""
    return new_tokens


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase runs through the layers, every figure a sum over requests.

    Args:
        name: ``prefill`` or ``decode``.
        absorbed: latent attention runs in the latent's own space, not on expanded keys and values.
        tokens: tokens run through the layers.
        logits: tokens whose logits are made.
        steps: steps, each request's counted by itself.
        pairs: pairs of query and visible key, by what a layer keeps.
        read: cache read, by what a layer keeps.
        written: cache written in a layer that keeps tokens.
    """

    name: str
    absorbed: bool
    tokens: Quantity
    logits: Quantity
    steps: Quantity
    pairs: Mapping[Retention, Quantity]
    read: Mapping[Retention, Stored]
    written: Stored

    def sums(self) -> tuple[Quantity, ...]:
        """Return every sum over requests, each once."""
        stored = [part for amount in (*self.read.values(), self.written) for part in amount.parts()]
        return tuple(dict.fromkeys((self.tokens, self.steps, *self.pairs.values(), *stored)))


@dataclass(frozen=True, slots=True)
class _Counting:
    """Sums over the requests of a phase: where each stands, and the storage of its keys."""

    phase: str
    model: Model
    kv: KvFormat
    several: Sequence[Alike]
    stretch: Callable[[Alike], Stretch]

    def pairs(self, kept: Retention) -> Quantity:
        name, source = f"{self.phase}_{kept_word(kept)}_pairs", self.model.source
        return self._over(name, lambda a: visible_pairs(a.name, kept, self.stretch(a), source))

    def read(self, kept: Retention) -> Stored:
        name, group, source = f"{self.phase}_{kept_word(kept)}", self.group, self.model.source
        tokens = self._over(
            f"{name}_tokens_read", lambda a: tokens_read(a.name, kept, self.stretch(a), source)
        )
        if group is None:
            return Stored(tokens)
        groups = self._over(f"{name}_groups_read", lambda a: groups_read(a.name, self.stretch(a), group))
        waiting = self._over(f"{name}_waiting_read", lambda a: waiting_read(a.name, self.stretch(a), group))
        return Stored(tokens, groups, waiting)

    def written(self, tokens: Quantity) -> Stored:
        group = self.group
        if group is None:
            return Stored(tokens)

        def completed(alike: Alike) -> Quantity:
            stretch = self.stretch(alike)
            return computed(alike.name, groups_written, stretch.past, stretch.new, group)

        return Stored(tokens, self._over(f"{self.phase}_groups_written", completed), tokens)

    @property
    def group(self) -> Quantity | None:
        if not self.kv.key_group_tokens:
            return None
        return fact("group_tokens", self.kv.key_group_tokens, self.kv.source, Unit.TOKENS)

    def _over(self, name: str, figure: Callable[[Alike], Quantity]) -> Quantity:
        return over_requests(name, self.several, figure)


def prefill_phase(model: Model, kv: KvFormat, several: Sequence[Alike], chunk_tokens: int) -> Phase:
    """Return the phase that reads every prompt, each from its start in steps of ``chunk_tokens``."""
    nothing = fact("past_tokens", 0, "a prompt begins with an empty cache", Unit.TOKENS)
    chunk = fact("step_tokens", chunk_tokens, "--chunk", Unit.TOKENS)
    counting = _Counting("prefill", model, kv, several, lambda alike: Stretch(nothing, alike.prompt, chunk))
    requests = sum(alike.count.number for alike in several)
    return _phase(
        counting,
        tokens=over_requests("prefill_tokens", several, lambda a: replace(a.prompt, name=a.name)),
        logits=fact("requests", requests, "logits are made of each prompt's last token", Unit.REQUESTS),
        steps=over_requests(
            "prefill_steps", several, lambda a: computed(a.name, prefill_steps, a.prompt, chunk)
        ),
    )


def decode_phase(model: Model, kv: KvFormat, several: Sequence[Alike]) -> Phase:
    """Return the phase that adds to every prompt, one token a step."""
    one = fact("step_tokens", 1, "decoding adds one token a step", Unit.TOKENS)
    counting = _Counting(
        "decode", model, kv, several, lambda alike: Stretch(alike.prompt, alike.decoded, one)
    )
    tokens = over_requests("decode_tokens", several, lambda alike: alike.decoded)
    return _phase(counting, tokens, tokens, computed("decode_steps", decode_steps, tokens))


def _phase(counting: _Counting, tokens: Quantity, logits: Quantity, steps: Quantity) -> Phase:
    slots = [run.layer.slot() for run in counting.model.runs()]
    kept = dict.fromkeys(slot.retention for slot in slots if not isinstance(slot.retention, PerRequest))
    return Phase(
        name=counting.phase,
        absorbed=counting.phase == "decode",
        tokens=tokens,
        logits=logits,
        steps=steps,
        pairs={retention: counting.pairs(retention) for retention in kept},
        read={retention: counting.read(retention) for retention in kept},
        written=counting.written(tokens),
    )


def kept_word(retention: Retention) -> str:
    """Return what a layer keeps as one word of a figure's name: ``full``, ``window_4096``."""
    match retention:
        case Full():
            return "full"
        case Sliding(window=window):
            return f"window_{window}"
        case Chunked(chunk=chunk):
            return f"chunk_{chunk}"
        case PerRequest():
            return "state"
