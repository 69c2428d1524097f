"""What the new tokens of a request see: pairs of query and key, and cached tokens read by each step.

New tokens follow ``past_tokens`` cached ones and are processed ``step_tokens`` at a time. A step stores
its own tokens first and then reads, once, every token that one of its queries sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Sliding, Unfinished
from kvplan.arch.selected import Selected, TopBlocks, TopTokens
from kvplan.arch.slot import Sight
from kvplan.formula import Formula, formula
from kvplan.plan.compressed_entries import entries_read, entry_pairs
from kvplan.plan.kept_tokens import seen_through
from kvplan.results import Quantity, computed, fact
from kvplan.units import Count, Unit, maximum

# ------------------------------------------------------------------ pairs


@formula(
    Unit.PAIRS, "causal triangle: every new token sees all cached ones, the new ones before it, and itself"
)
def full_pairs(past_tokens: Count, new_tokens: Count) -> Count:
    """Pairs of a new query and a key it sees under full attention."""
    return new_tokens * past_tokens + new_tokens * (new_tokens + 1) // 2


@formula(Unit.PAIRS, "the causal triangle, less the keys that have left the window, a triangle too")
def window_pairs(past_tokens: Count, new_tokens: Count, window: int) -> Count:
    """Pairs of a new query and a key it sees through a window, sinks included in its length."""
    return (
        new_tokens * past_tokens
        + new_tokens * (new_tokens + 1) // 2
        - maximum(past_tokens + new_tokens - window, 0) * (past_tokens + new_tokens - window + 1) // 2
        + maximum(past_tokens - window, 0) * (past_tokens - window + 1) // 2
    )


@formula(
    Unit.PAIRS, "a causal triangle for each chunk finished, and for the one begun, less what was done before"
)
def chunk_pairs(past_tokens: Count, new_tokens: Count, chunk: int) -> Count:
    """Pairs of a new query and a key it sees in its own chunk."""
    return (
        ((past_tokens + new_tokens) // chunk - past_tokens // chunk) * chunk * (chunk + 1)
        + (past_tokens + new_tokens) % chunk * ((past_tokens + new_tokens) % chunk + 1)
        - past_tokens % chunk * (past_tokens % chunk + 1)
    ) // 2


@formula(Unit.PAIRS, "the causal triangle, less the keys that are not chosen, a triangle: arXiv 2512.02556")
def selected_pairs(past_tokens: Count, new_tokens: Count, index_topk: int) -> Count:
    """Pairs of a new query and a key it sees where an indexer chooses its keys."""
    return (
        new_tokens * past_tokens
        + new_tokens * (new_tokens + 1) // 2
        - maximum(past_tokens + new_tokens - index_topk, 0) * (past_tokens + new_tokens - index_topk + 1) // 2
        + maximum(past_tokens - index_topk, 0) * (past_tokens - index_topk + 1) // 2
    )


@formula(
    Unit.PAIRS,
    "the causal triangle, less a block for each that is not chosen: one more of them with every block "
    "past the first topk_blocks (transformers 5.23, minimax_m3_vl)",
)
def selected_block_pairs(past_tokens: Count, new_tokens: Count, topk_blocks: int, block_tokens: int) -> Count:
    """Pairs of a new query and a key it sees where an indexer chooses blocks, the query's own among them."""
    return (
        new_tokens * past_tokens
        + new_tokens * (new_tokens + 1) // 2
        - (maximum(past_tokens + new_tokens - topk_blocks * block_tokens, 0) // block_tokens + 1)
        * (
            maximum(past_tokens + new_tokens - topk_blocks * block_tokens, 0)
            + maximum(past_tokens + new_tokens - topk_blocks * block_tokens, 0) % block_tokens
        )
        * block_tokens
        // 2
        + (maximum(past_tokens - topk_blocks * block_tokens, 0) // block_tokens + 1)
        * (
            maximum(past_tokens - topk_blocks * block_tokens, 0)
            + maximum(past_tokens - topk_blocks * block_tokens, 0) % block_tokens
        )
        * block_tokens
        // 2
    )


# ------------------------------------------------------------------ cached tokens read


@formula(Unit.TOKENS, "each step reads its own tokens and all before them")
def full_tokens_read(past_tokens: int, new_tokens: int, step_tokens: int) -> Count:
    """Tokens read by all steps together under full attention."""
    return new_tokens + sum(range(past_tokens, past_tokens + new_tokens, step_tokens))


@formula(Unit.TOKENS, "each step reads its own tokens and those before them that its first query sees")
def window_tokens_read(past_tokens: int, new_tokens: int, step_tokens: int, window: int) -> Count:
    """Tokens read by all steps together through a window, sinks included in its length."""
    return new_tokens + sum(
        min(start, window - 1) for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
    )


@formula(Unit.TOKENS, "each step reads its own tokens and the chunk its first query stands in")
def chunk_tokens_read(past_tokens: int, new_tokens: int, step_tokens: int, chunk: int) -> Count:
    """Tokens read by all steps together in chunks."""
    return new_tokens + sum(
        start % chunk for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
    )


@formula(Unit.TOKENS, "each new token is a step of its own and reads the tokens chosen for it")
def selected_tokens_read(past_tokens: int, new_tokens: int, index_topk: int) -> Count:
    """Tokens read by all decode steps together where an indexer chooses them."""
    return sum(min(position + 1, index_topk) for position in range(past_tokens, past_tokens + new_tokens))


@formula(Unit.TOKENS, "each new token is a step of its own: its own block so far, and whole ones before it")
def selected_block_tokens_read(
    past_tokens: int, new_tokens: int, topk_blocks: int, block_tokens: int
) -> Count:
    """Tokens read by all decode steps together where an indexer chooses blocks of them."""
    return sum(
        min(position // block_tokens, topk_blocks - 1) * block_tokens + position % block_tokens + 1
        for position in range(past_tokens, past_tokens + new_tokens)
    )


# ------------------------------------------------------------------ groups of keys read


@formula(Unit.GROUPS, "each step reads the groups complete once its tokens are stored")
def full_groups_read(past_tokens: int, new_tokens: int, step_tokens: int, group_tokens: int) -> Count:
    """Complete groups of keys read by all steps together under full attention."""
    return sum(
        min(start + step_tokens, past_tokens + new_tokens) // group_tokens
        for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
    )


@formula(Unit.TOKENS, "each step reads the keys behind the last complete group one by one")
def full_waiting_read(past_tokens: int, new_tokens: int, step_tokens: int, group_tokens: int) -> Count:
    """Keys read while they wait for their group, by all steps together under full attention."""
    return sum(
        min(start + step_tokens, past_tokens + new_tokens) % group_tokens
        for start in range(past_tokens, past_tokens + new_tokens, step_tokens)
    )


@formula(Unit.GROUPS, "a group is written once more, quantised, when its last token is stored")
def groups_written(past_tokens: Count, new_tokens: Count, group_tokens: int) -> Count:
    """Groups of keys completed by the new tokens."""
    return (past_tokens + new_tokens) // group_tokens - past_tokens // group_tokens


# ------------------------------------------------------------------ of one request


@dataclass(frozen=True, slots=True)
class Stretch:
    """New tokens of one request: how many are cached before them, and how many make a step."""

    past: Quantity
    new: Quantity
    step: Quantity

    @property
    def steps(self) -> tuple[Quantity, Quantity, Quantity]:
        """All three, in the order of the formulas' parameters."""
        return (self.past, self.new, self.step)


def visible_pairs(name: str, sight: Sight, stretch: Stretch, source: str) -> Quantity:
    """Return the pairs of query and key that one layer works on, explained."""
    before = (stretch.past, stretch.new)
    if isinstance(sight.retention, Compressed):
        topk = () if sight.selected is None else chosen_sizes(sight.selected, source)
        return entry_pairs(name, sight.retention, topk, before, source)
    match sight.selected:
        case TopTokens():
            return computed(name, selected_pairs, *before, *chosen_sizes(sight.selected, source))
        case TopBlocks():
            return computed(name, selected_block_pairs, *before, *chosen_sizes(sight.selected, source))
    return _by_retention(name, (full_pairs, window_pairs, chunk_pairs), sight, before, source)


def tokens_read(name: str, sight: Sight, stretch: Stretch, source: str) -> Quantity:
    """Return the cached tokens that one layer reads, explained; of chosen ones, a token makes a step."""
    before = (stretch.past, stretch.new)
    if isinstance(sight.retention, Compressed | Unfinished):
        topk = () if sight.selected is None else chosen_sizes(sight.selected, source)
        return entries_read(name, sight.retention, topk, stretch.steps, source)
    match sight.selected:
        case TopTokens():
            return computed(name, selected_tokens_read, *before, *chosen_sizes(sight.selected, source))
        case TopBlocks():
            return computed(name, selected_block_tokens_read, *before, *chosen_sizes(sight.selected, source))
    formulas = (full_tokens_read, window_tokens_read, chunk_tokens_read)
    return _by_retention(name, formulas, sight, stretch.steps, source)


def chosen_sizes(selected: Selected, source: str) -> tuple[Quantity, ...]:
    """Return the most that an indexer chooses for a query: tokens, or blocks and how long they are."""
    match selected:
        case TopTokens(tokens=tokens):
            return (fact("index_topk", tokens, source, Unit.TOKENS),)
        case TopBlocks(blocks=blocks, block_tokens=length):
            most = fact("topk_blocks", blocks, source, Unit.BLOCKS)
            return (most, fact("block_tokens", length, source, Unit.TOKENS))
        case _ as never:
            assert_never(never)


def groups_read(name: str, stretch: Stretch, group: Quantity) -> Quantity:
    """Return the complete groups of keys that one full-attention layer reads, explained."""
    return computed(name, full_groups_read, *stretch.steps, group)


def waiting_read(name: str, stretch: Stretch, group: Quantity) -> Quantity:
    """Return the keys one full-attention layer reads while they wait for their group, explained."""
    return computed(name, full_waiting_read, *stretch.steps, group)


def _by_retention(
    name: str,
    formulas: tuple[Formula[Any, Any], Formula[Any, Any], Formula[Any, Any]],
    sight: Sight,
    known: tuple[Quantity, ...],
    source: str,
) -> Quantity:
    """Evaluate the formula for full attention, windows or chunks, its length behind the other inputs."""
    full, window, chunk = formulas
    match sight.retention:
        case Full():
            return computed(name, full, *known)
        case Sliding() as slides:
            return computed(name, window, *known, seen_through(slides, source))
        case Chunked(chunk=length):
            return computed(name, chunk, *known, fact("chunk", length, source, Unit.TOKENS))
        case Compressed() | Unfinished() | PerRequest():
            raise ValueError("what a layer compresses, or keeps of a request, has no formula of tokens")
        case _ as never:
            assert_never(never)
