"""Cache bytes of a request: what its tokens need (live) and what is handed out for them (allocated).

Every law here takes an integer context or an integer array of contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.allocation import Allocation
from kvplan.arch.entry import KV
from kvplan.arch.model import SlotRun
from kvplan.arch.retention import Compressed, Full, Unfinished
from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.plan.entry_bytes import bytes_of_entry, entry_on_rank
from kvplan.plan.grouped_keys import (
    GroupedKeys,
    complete_groups,
    grouped_cache_bytes,
    grouped_growth_bytes,
    grouped_keys,
    groups_allocated,
    refuse_ungroupable,
    waiting_tokens,
)
from kvplan.plan.kept_tokens import TokenLaw, allocated_law, context_ranks, live_law, run_length
from kvplan.results import Quantity, computed, fact, total
from kvplan.storage import KvFormat, StateLayout
from kvplan.units import Count, Unit, ceil_div


@formula(Unit.BYTES, "layers x tokens x bytes per token")
def cache_of_layers_bytes(layers: Count, tokens: Count, entry_bytes: Count) -> Count:
    """Cache bytes of a run of equal layers."""
    return layers * tokens * entry_bytes


@formula(Unit.BYTES, "layers x bytes per request")
def state_of_layers_bytes(layers: Count, entry_bytes: Count) -> Count:
    """State bytes of a run of equal recurrent layers."""
    return layers * entry_bytes


@formula(Unit.BYTES_PER_TOKEN, "layers x bytes per token, while every layer still grows")
def growth_of_layers_bytes(layers: Count, entry_bytes: Count) -> Count:
    """Bytes one more token adds to a run of equal layers before any window is full."""
    return layers * entry_bytes


@formula(Unit.BYTES_PER_TOKEN, "layers x bytes per token over the ranks that share tokens, rounded up")
def growth_of_shared_layers_bytes(layers: Count, entry_bytes: Count, context_parallel: int) -> Count:
    """Bytes one more token adds to a run of equal layers on each context-parallel rank, on average."""
    return ceil_div(layers * entry_bytes, context_parallel)


@formula(Unit.BYTES_PER_TOKEN, "an entry for every run of ratio tokens, rounded up")
def growth_of_compressed_layers_bytes(layers: Count, entry_bytes: Count, ratio: int) -> Count:
    """Bytes one more token adds on average to a run of equal layers that compress runs of tokens."""
    return ceil_div(layers * entry_bytes, ratio)


@formula(Unit.BYTES_PER_TOKEN, "a window is kept by every rank: it grows by the tokens all of them take")
def growth_of_repeated_layers_bytes(layers: Count, entry_bytes: Count, context_parallel: int) -> Count:
    """Bytes a run of layers that every rank keeps whole grows by while each rank takes one token."""
    return layers * entry_bytes * context_parallel


@dataclass(frozen=True, slots=True)
class Stored:
    """An amount of cache: tokens and, where keys are quantised in groups, groups and tokens that wait."""

    tokens: Quantity
    groups: Quantity | None = None
    waiting: Quantity | None = None

    def parts(self) -> tuple[Quantity, ...]:
        """Return the figures there are."""
        return tuple(part for part in (self.tokens, self.groups, self.waiting) if part is not None)


@dataclass(frozen=True, slots=True)
class CacheRun:
    """Equal layers' cache on one rank: bytes per entry, and the laws of its tokens; none for a state.

    Args:
        layers: how many there are that store it.
        entry_bytes: what each token leaves in one of them, or each request in a state; without the keys
            where those are quantised in groups.
        live: tokens that matter.
        allocated: tokens paid for.
        keys: what the keys take, where they are quantised in groups.
        shared_by: the ranks that share these layers' tokens; ``None`` where each has all of them.
        ratio: the tokens that are compressed into an entry; ``None`` where each has its own.
        waits: these are tokens that wait to be compressed: room for them is taken at once.
    """

    layers: Quantity
    entry_bytes: Quantity
    live: TokenLaw | None
    allocated: TokenLaw | None
    keys: GroupedKeys | None = None
    shared_by: Quantity | None = None
    ratio: Quantity | None = None
    waits: bool = False

    def live_bytes(self, context: Count) -> Count:
        """Return the bytes of one request's tokens that matter, for a context or an array of them."""
        if self.live is None:
            return state_of_layers_bytes(self.layers.number, self.entry_bytes.number)
        tokens = self.live.tokens(context)
        if self.keys is None:
            return cache_of_layers_bytes(self.layers.number, tokens, self.entry_bytes.number)
        group = self.keys.group_tokens.number
        groups, waiting = complete_groups(context, group), waiting_tokens(context, group)
        return self._grouped_bytes(self.keys, tokens, groups, waiting)

    def allocated_bytes(self, context: Count) -> Count:
        """Return the bytes handed out for one request, for a context or an array of them."""
        if self.allocated is None:
            return state_of_layers_bytes(self.layers.number, self.entry_bytes.number)
        tokens = self.allocated.tokens(context)
        if self.keys is None:
            return cache_of_layers_bytes(self.layers.number, tokens, self.entry_bytes.number)
        group = self.keys.group_tokens.number
        return self._grouped_bytes(self.keys, tokens, groups_allocated(tokens, group), group)

    def _grouped_bytes(self, keys: GroupedKeys, tokens: Count, groups: Count, waiting: Count) -> Count:
        return grouped_cache_bytes(
            self.layers.number,
            tokens,
            self.entry_bytes.number,
            groups,
            keys.group_bytes.number,
            waiting,
            keys.waiting_bytes.number,
        )

    def live_of(self, context: Quantity) -> Quantity:
        """Return the live bytes of one request, explained."""
        if self.live is None:
            return self.state()
        return self.bytes_of("cache", self.layers, self.live_tokens(context))

    def allocated_of(self, context: Quantity) -> Quantity:
        """Return the allocated bytes of one request, explained."""
        if self.allocated is None:
            return self.state()
        return self.bytes_of("cache", self.layers, self.allocated_tokens(context))

    def state(self) -> Quantity:
        """Return the bytes of one request's state, explained."""
        return computed("state", state_of_layers_bytes, self.layers, self.entry_bytes)

    def live_tokens(self, context: Quantity) -> Stored:
        """Return what a request of this context has in view, explained."""
        assert self.live is not None
        tokens = self.live.explained("tokens", context)
        if self.keys is None:
            return Stored(tokens)
        group = self.keys.group_tokens
        return Stored(
            tokens,
            computed("groups", complete_groups, context, group),
            computed("waiting", waiting_tokens, context, group),
        )

    def allocated_tokens(self, context: Quantity) -> Stored:
        """Return what is handed out for a request of this context, explained."""
        assert self.allocated is not None
        tokens = self.allocated.explained("tokens", context)
        if self.keys is None:
            return Stored(tokens)
        group = self.keys.group_tokens
        room = fact("waiting", group.number, "room for one whole group from the first token on", Unit.TOKENS)
        return Stored(tokens, computed("groups", groups_allocated, tokens, group), room)

    def bytes_of(self, name: str, layers: Quantity, stored: Stored) -> Quantity:
        """Return the bytes of an amount of cache in so many of these layers, explained."""
        if self.keys is None or stored.groups is None or stored.waiting is None:
            return computed(name, cache_of_layers_bytes, layers, stored.tokens, self.entry_bytes)
        return computed(
            name,
            grouped_cache_bytes,
            layers,
            stored.tokens,
            self.entry_bytes,
            stored.groups,
            self.keys.group_bytes,
            stored.waiting,
            self.keys.waiting_bytes,
        )

    def growth(self) -> Quantity:
        """Return the bytes one more token adds while the layers still grow, explained."""
        if self.shared_by is not None:
            sizes = (self.layers, self.entry_bytes, self.shared_by)
            return computed("growth", growth_of_shared_layers_bytes, *sizes)
        if self.ratio is not None:
            return computed(
                "growth", growth_of_compressed_layers_bytes, self.layers, self.entry_bytes, self.ratio
            )
        if self.keys is None:
            return computed("growth", growth_of_layers_bytes, self.layers, self.entry_bytes)
        keys = self.keys
        grouped = (self.layers, self.entry_bytes, keys.group_bytes, keys.group_tokens)
        return computed("growth", grouped_growth_bytes, *grouped)

    def growth_per_turn(self, ranks: Quantity) -> Quantity:
        """Return the bytes one rank takes while each of so many takes a token of its own, explained."""
        if self.shared_by is not None:
            return computed("growth", growth_of_layers_bytes, self.layers, self.entry_bytes)
        one_token = self.entry_bytes if self.ratio is None else self.growth()
        layers = self.layers if self.ratio is None else fact("layers", 1, "all of them", Unit.LAYERS)
        return computed("growth", growth_of_repeated_layers_bytes, layers, one_token, ranks)


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of one request over a set of layers, on one rank."""

    runs: tuple[CacheRun, ...]

    def live_bytes(self, context: Count) -> Count:
        """Return the bytes of the tokens that matter, for a context or an array of them."""
        return sum((run.live_bytes(context) for run in self.runs), start=context * 0)

    def allocated_bytes(self, context: Count) -> Count:
        """Return the bytes handed out for them, for a context or an array of them."""
        return sum((run.allocated_bytes(context) for run in self.runs), start=context * 0)

    def live(self, name: str, context: int) -> Quantity:
        """Return the live bytes at one context, explained."""
        asked = fact("context", context, "asked for", Unit.TOKENS)
        return total(name, Unit.BYTES, tuple(run.live_of(asked) for run in self.runs), "live")

    def allocated(self, name: str, context: int) -> Quantity:
        """Return the allocated bytes at one context, explained."""
        asked = fact("context", context, "asked for", Unit.TOKENS)
        return total(name, Unit.BYTES, tuple(run.allocated_of(asked) for run in self.runs), "allocated")

    def growth(self, name: str, label: str) -> Quantity:
        """Return the bytes one more token adds while every layer still grows, explained."""
        parts = tuple(run.growth() for run in self.runs if run.live is not None and not run.waits)
        note = "" if parts else "no layer grows with the context"
        return total(name, Unit.BYTES_PER_TOKEN, parts, label, note)

    def growth_per_turn(self, name: str, ranks: Quantity) -> Quantity:
        """Return the bytes one rank takes while each of so many takes a token of its own, explained."""
        growing = (run for run in self.runs if run.live is not None and not run.waits)
        parts = tuple(run.growth_per_turn(ranks) for run in growing)
        return total(name, Unit.BYTES_PER_TOKEN, parts)

    def state(self, name: str, label: str) -> Quantity:
        """Return the bytes a request holds however short it is, explained."""
        nothing = fact("context", 0, "an empty request", Unit.TOKENS)
        parts = tuple(
            run.allocated_of(nothing) if run.waits else run.state()
            for run in self.runs
            if run.live is None or run.waits
        )
        return total(name, Unit.BYTES, parts, label, "" if parts else "no layer keeps a state")


def request_cache(
    runs: Sequence[SlotRun],
    tensor_parallel: int,
    kv: KvFormat,
    state: StateLayout,
    model_dtype: str,
    allocation: Allocation,
    source: str,
    context_parallel: int = 1,
) -> Cache:
    """Return the cache of one request in these slots, in their order, on one tensor-parallel rank.

    With context-parallel ranks it is that of the fullest of them.

    Raises:
        UsageError: the format cannot be kept in this allocation, the heads cannot be divided, or it is not
            known what is kept for guessed tokens.
    """
    if state.speculative_tokens and any(isinstance(run.slot.retention, Unfinished) for run in runs):
        raise UsageError("what is kept to take guesses back that were compressed is not modelled")
    found = []
    for run in runs:
        slot = run.slot
        refuse_ungroupable(slot, kv, allocation, context_parallel)
        shared = context_parallel > 1 and isinstance(slot.retention, Full)
        entry = entry_on_rank(slot.entry, tensor_parallel)
        found.append(
            CacheRun(
                _storing(run, source),
                bytes_of_entry(entry, kv, state, model_dtype, source),
                live_law(slot.retention, source, context_parallel),
                allocated_law(slot.retention, allocation, source, context_parallel),
                grouped_keys(entry, kv, source) if isinstance(entry, KV) else None,
                context_ranks(context_parallel) if shared else None,
                run_length(slot.retention, source) if isinstance(slot.retention, Compressed) else None,
                isinstance(slot.retention, Unfinished),
            )
        )
    return Cache(tuple(found))


def _storing(run: SlotRun, source: str) -> Quantity:
    """Return how many layers store a slot's entries: none of those that read another layer's."""
    if run.slot.owned:
        return fact("layers", run.count, source, Unit.LAYERS)
    return fact("layers", 0, "they read what a layer before them has stored", Unit.LAYERS)
