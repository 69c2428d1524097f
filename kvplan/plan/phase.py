"""A phase of a run, prefill or decode: its tokens, steps, pairs and cache traffic, summed over requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from kvplan.arch.entry import IndexKey
from kvplan.arch.model import Model
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Retention, Sliding, Unfinished
from kvplan.arch.selected import TopBlocks, TopTokens
from kvplan.arch.slot import CacheSlot, Sight
from kvplan.formula import formula
from kvplan.plan.cache import Stored
from kvplan.plan.compressed_entries import entries_written
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
        pairs: pairs of query and visible key, by what a layer sees.
        read: cache read, by what a layer sees. Prefill reads all that is in view once a step, and leaves out
            of it what an indexer has not chosen; decode reads what is chosen alone.
        written: cache written in a layer that keeps tokens, by what it keeps.
    """

    name: str
    absorbed: bool
    tokens: Quantity
    logits: Quantity
    steps: Quantity
    pairs: Mapping[Sight, Quantity]
    read: Mapping[Sight, Stored]
    written: Mapping[Retention, Stored]

    def sums(self) -> tuple[Quantity, ...]:
        """Return every sum over requests, each once."""
        amounts = (*self.read.values(), *self.written.values())
        stored = [part for amount in amounts for part in amount.parts()]
        return tuple(dict.fromkeys((self.tokens, self.steps, *self.pairs.values(), *stored)))


@dataclass(frozen=True, slots=True)
class _Counting:
    """Sums over the requests of a phase: where each stands, and the storage of its keys."""

    phase: str
    model: Model
    kv: KvFormat
    several: Sequence[Alike]
    stretch: Callable[[Alike], Stretch]

    def pairs(self, sight: Sight) -> Quantity:
        name, source = f"{self.phase}_{sight_word(sight)}_pairs", self.model.source
        return self._over(name, lambda a: visible_pairs(a.name, sight, self.stretch(a), source))

    def read(self, sight: Sight) -> Stored:
        name, group, source = f"{self.phase}_{sight_word(sight)}", self.group, self.model.source
        seen = sight if self.absorbed else Sight(sight.retention)
        tokens = self._over(
            f"{name}_tokens_read", lambda a: tokens_read(a.name, seen, self.stretch(a), source)
        )
        if group is None:
            return Stored(tokens)
        groups = self._over(f"{name}_groups_read", lambda a: groups_read(a.name, self.stretch(a), group))
        waiting = self._over(f"{name}_waiting_read", lambda a: waiting_read(a.name, self.stretch(a), group))
        return Stored(tokens, groups, waiting)

    def written(self, retention: Retention, tokens: Quantity) -> Stored:
        if isinstance(retention, Compressed | Unfinished):
            name, source = f"{self.phase}_{kept_word(retention)}_written", self.model.source
            return Stored(
                self._over(name, lambda a: entries_written(a.name, retention, self.stretch(a).steps, source))
            )
        group = self.group
        if group is None:
            return Stored(tokens)

        def completed(alike: Alike) -> Quantity:
            stretch = self.stretch(alike)
            return computed(alike.name, groups_written, stretch.past, stretch.new, group)

        return Stored(tokens, self._over(f"{self.phase}_groups_written", completed), tokens)

    @property
    def absorbed(self) -> bool:
        return self.phase == "decode"

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
    slots = [run.slot for run in counting.model.slot_runs()]
    slots = [slot for slot in slots if not isinstance(slot.retention, PerRequest)]
    kept = dict.fromkeys(slot.sight for slot in slots)
    # Queries see nothing of what waits to be compressed.
    seen = [sight for sight in kept if not isinstance(sight.retention, Unfinished)]
    return Phase(
        name=counting.phase,
        absorbed=counting.absorbed,
        tokens=tokens,
        logits=logits,
        steps=steps,
        pairs={sight: counting.pairs(sight) for sight in seen},
        read={sight: counting.read(sight) for sight in kept},
        written={slot.retention: counting.written(slot.retention, tokens) for slot in slots},
    )


def slot_word(slot: CacheSlot) -> str:
    """Return a slot as one word of a figure's name: ``full``, ``window_4096``, ``top_2048``, ``index``."""
    return "index" if isinstance(slot.entry, IndexKey) else sight_word(slot.sight)


def sight_word(sight: Sight) -> str:
    """Return what a layer sees as one word of a figure's name: ``full``, ``top_2048``, ``top_16x128``."""
    match sight.selected:
        case TopTokens(tokens=tokens):
            return f"top_{tokens}"
        case TopBlocks(blocks=blocks, block_tokens=length):
            return f"top_{blocks}x{length}"
        case None:
            return kept_word(sight.retention)
        case _ as never:
            assert_never(never)


def kept_word(retention: Retention) -> str:
    """Return what a layer keeps as one word of a figure's name: ``full``, ``window_4096``."""
    match retention:
        case Full():
            return "full"
        case Sliding(window=window):
            return f"window_{window}"
        case Chunked(chunk=chunk):
            return f"chunk_{chunk}"
        case Compressed(ratio=ratio):
            return f"compressed_{ratio}"
        case Unfinished(ratio=ratio):
            return f"waiting_{ratio}"
        case PerRequest():
            return "state"
