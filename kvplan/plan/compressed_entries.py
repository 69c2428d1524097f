"""What new tokens see, read and write of a cache that compresses runs of ``ratio`` tokens into one entry.

An entry is there once the last token of its run is; until then the run's tokens wait. A step reads the
tokens that waited when it ends their run, and writes those of its own that still wait.
"""

from __future__ import annotations

from kvplan.arch.retention import Compressed, Unfinished
from kvplan.formula import formula
from kvplan.plan.kept_tokens import run_length
from kvplan.results import Quantity, computed
from kvplan.units import Count, Unit, maximum, minimum

_SEEN = "a query sees the entries of all runs that end with it or before: transformers 5.23, deepseek_v4"


def entries_seen(tokens: Count, ratio: int) -> Count:
    """Return the sum of ``count // ratio`` for every count from 1 to ``tokens``."""
    return tokens // ratio * (tokens + 1) - ratio * (tokens // ratio) * (tokens // ratio + 1) // 2


@formula(Unit.PAIRS, _SEEN)
def compressed_pairs(past_tokens: Count, new_tokens: Count, ratio: int) -> Count:
    """Pairs of a new query and an entry it sees."""
    return entries_seen(past_tokens + new_tokens, ratio) - entries_seen(past_tokens, ratio)


@formula(Unit.PAIRS, "the same, less the entries that are not chosen: as many as are past index_topk")
def selected_compressed_pairs(past_tokens: Count, new_tokens: Count, ratio: int, index_topk: int) -> Count:
    """Pairs of a new query and an entry it sees where an indexer chooses its entries."""
    return (
        entries_seen(past_tokens + new_tokens, ratio)
        - entries_seen(past_tokens, ratio)
        - entries_seen(maximum(past_tokens + new_tokens - ratio * index_topk, 0), ratio)
        + entries_seen(maximum(past_tokens - ratio * index_topk, 0), ratio)
    )


# ------------------------------------------------------------------ of one step


@formula(Unit.TOKENS, "the entries of all runs that are whole once the step's tokens are there")
def compressed_step_entries(context: Count, new_tokens: Count, ratio: int) -> Count:
    """Entries that one request's step reads."""
    return (context + new_tokens) // ratio


@formula(Unit.TOKENS, "those chosen for each of its own tokens, and none twice that is in view")
def selected_step_entries(context: Count, new_tokens: Count, ratio: int, index_topk: int) -> Count:
    """Most entries that one request's decode step reads where an indexer chooses them."""
    return minimum((context + new_tokens) // ratio, new_tokens * index_topk)


@formula(Unit.TOKENS, "an entry is written when the last token of its run is there")
def compressed_entries_written(past_tokens: Count, new_tokens: Count, ratio: int) -> Count:
    """Entries that the new tokens complete."""
    return (past_tokens + new_tokens) // ratio - past_tokens // ratio


@formula(Unit.TOKENS, "tokens that wait are read by the step that ends their run")
def waiting_step_read(context: Count, new_tokens: Count, ratio: int) -> Count:
    """Tokens that waited and that one request's step reads."""
    return context % ratio * minimum((context % ratio + new_tokens) // ratio, 1)


@formula(Unit.TOKENS, "new tokens are written that still wait when their step ends")
def waiting_step_written(context: Count, new_tokens: Count, ratio: int) -> Count:
    """Tokens that one request's step writes to wait."""
    return minimum((context + new_tokens) % ratio, new_tokens)


# ------------------------------------------------------------------ of all steps of a phase


@formula(Unit.TOKENS, "each step reads the entries of all runs that are whole once its tokens are there")
def compressed_entries_read(past_tokens: int, new_tokens: int, step_tokens: int, ratio: int) -> Count:
    """Entries read by all steps together."""
    return sum(
        min(start + step_tokens, past_tokens + new_tokens) // ratio
        for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
    )


@formula(Unit.TOKENS, "each new token is a step of its own and reads the entries chosen for it")
def selected_entries_read(past_tokens: int, new_tokens: int, ratio: int, index_topk: int) -> Count:
    """Entries read by all decode steps together where an indexer chooses them."""
    return sum(
        min((position + 1) // ratio, index_topk) for position in range(past_tokens, past_tokens + new_tokens)
    )


@formula(Unit.TOKENS, "tokens that wait are read by the step that ends their run")
def waiting_tokens_read(past_tokens: int, new_tokens: int, step_tokens: int, ratio: int) -> Count:
    """Tokens read by all steps together that had waited."""
    return sum(
        start % ratio
        for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
        if start % ratio + min(step_tokens, past_tokens + new_tokens - start) >= ratio
    )


@formula(Unit.TOKENS, "new tokens are written that still wait when their step ends")
def waiting_tokens_written(past_tokens: int, new_tokens: int, step_tokens: int, ratio: int) -> Count:
    """Tokens written by all steps together to wait."""
    return sum(
        min(stop % ratio, stop - start)
        for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
        for stop in (min(start + step_tokens, past_tokens + new_tokens),)
    )


# ------------------------------------------------------------------ explained


def entry_pairs(
    name: str, retention: Compressed, topk: tuple[Quantity, ...], before: tuple[Quantity, ...], source: str
) -> Quantity:
    """Return the pairs of query and entry, explained; ``topk`` is what an indexer chooses, if one does."""
    law = selected_compressed_pairs if topk else compressed_pairs
    return computed(name, law, *before, run_length(retention, source), *topk)


def entries_read(
    name: str,
    retention: Compressed | Unfinished,
    topk: tuple[Quantity, ...],
    steps: tuple[Quantity, Quantity, Quantity],
    source: str,
) -> Quantity:
    """Return the entries that one layer reads, or the tokens that waited, explained."""
    ratio = run_length(retention, source)
    if isinstance(retention, Unfinished):
        return computed(name, waiting_tokens_read, *steps, ratio)
    if topk:
        return computed(name, selected_entries_read, *steps[:2], ratio, *topk)
    return computed(name, compressed_entries_read, *steps, ratio)


def entries_written(
    name: str, retention: Compressed | Unfinished, steps: tuple[Quantity, Quantity, Quantity], source: str
) -> Quantity:
    """Return the entries that one layer writes, or the tokens that wait, explained."""
    ratio = run_length(retention, source)
    if isinstance(retention, Unfinished):
        return computed(name, waiting_tokens_written, *steps, ratio)
    return computed(name, compressed_entries_written, *steps[:2], ratio)
