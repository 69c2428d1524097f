"""How many tokens of a request a layer keeps (live), and how many are paid for (allocated).

Every law here takes an integer context or an integer array of contexts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any, assert_never

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Retention, Sliding, Unfinished
from kvplan.formula import Formula, formula
from kvplan.results import Quantity, computed, fact
from kvplan.units import Count, Unit, ceil_div, maximum, minimum


@formula(Unit.TOKENS, "full attention keeps every token")
def all_tokens(context: Count) -> Count:
    """Tokens a full-attention layer keeps."""
    return context


@formula(
    Unit.TOKENS,
    "tokens are dealt to the ranks in turn, the first has most: vLLM, cp_kv_cache_interleave_size 1",
)
def tokens_of_rank(tokens: Count, context_parallel: int) -> Count:
    """Tokens of a request, or of a step, that the fullest context-parallel rank has."""
    return ceil_div(tokens, context_parallel)


@formula(Unit.TOKENS, "a sliding window keeps the last tokens: arXiv 2310.06825")
def window_tokens(context: Count, window: int) -> Count:
    """Tokens a sliding-window layer keeps."""
    return minimum(context, window)


@formula(Unit.TOKENS, "the first tokens stay beside the last ones: arXiv 2309.17453")
def window_and_sinks(window: int, sink_tokens: int) -> Count:
    """Most tokens a query sees through a window with sinks."""
    return window + sink_tokens


@formula(Unit.TOKENS, "a query sees back to the first token of its own chunk, and no further")
def chunk_tokens(context: Count, chunk: int) -> Count:
    """Tokens a chunked-attention layer keeps, of a context of at least one."""
    return (context - 1) % chunk + 1


@formula(Unit.TOKENS, "one entry for every whole run of tokens: transformers 5.23, DeepseekV4HCACache")
def compressed_entries(context: Count, ratio: int) -> Count:
    """Entries a layer keeps that compresses runs of tokens."""
    return context // ratio


@formula(Unit.TOKENS, "what is behind the last whole run: transformers 5.23, store_compression_weights")
def unfinished_tokens(context: Count, ratio: int) -> Count:
    """Tokens that wait to be compressed."""
    return context % ratio


@formula(Unit.TOKENS, "whole blocks: arXiv 2309.06180")
def paged_tokens(context: Count, block_tokens: int) -> Count:
    """Tokens allocated for a full-attention layer in blocks."""
    return ceil_div(context, block_tokens) * block_tokens


@formula(Unit.TOKENS, "whole blocks of a rank's tokens: vLLM, kv_cache_interface.py, max_memory_usage_bytes")
def paged_tokens_of_rank(context: Count, context_parallel: int, block_tokens: int) -> Count:
    """Tokens allocated for a full-attention layer in blocks on one context-parallel rank."""
    return ceil_div(ceil_div(context, context_parallel), block_tokens) * block_tokens


@formula(Unit.TOKENS, "a window of w tokens touches at most ceil((w - 1) / block) + 1 blocks at a time")
def paged_window_tokens(context: Count, window: int, block_tokens: int) -> Count:
    """Most tokens ever allocated for a sliding-window layer in blocks, up to this context."""
    return minimum(ceil_div(context, block_tokens), ceil_div(window - 1, block_tokens) + 1) * block_tokens


@formula(Unit.TOKENS, "the blocks of the sinks stay beside the ceil((w - 1) / block) + 1 a window can touch")
def paged_sink_window_tokens(context: Count, window: int, sink_tokens: int, block_tokens: int) -> Count:
    """Most tokens ever allocated for a sliding-window layer with sinks in blocks, up to this context."""
    return block_tokens * minimum(
        ceil_div(context, block_tokens),
        ceil_div(window - 1, block_tokens) + 1 + ceil_div(sink_tokens, block_tokens),
    )


@formula(
    Unit.TOKENS, "chunks begin at multiples of gcd(chunk, block): no chunk touches more blocks at a time"
)
def paged_chunk_tokens(context: Count, chunk: int, block_tokens: int) -> Count:
    """Most tokens allocated for a chunked-attention layer in blocks, up to this context.

    Blocks go when the next one would be one more than a chunk can ever touch.
    """
    return block_tokens * minimum(
        ceil_div(context, block_tokens), ceil_div(chunk - gcd(chunk, block_tokens), block_tokens) + 1
    )


@formula(Unit.TOKENS, "whole blocks of entries")
def paged_entries(context: Count, ratio: int, block_tokens: int) -> Count:
    """Entries allocated in blocks for a layer that compresses runs of tokens."""
    return ceil_div(context // ratio, block_tokens) * block_tokens


@formula(Unit.TOKENS, "the longest request's entries, taken whole when the request arrives")
def contiguous_entries(context: Count, ratio: int, max_tokens: int) -> Count:
    """Entries allocated in a contiguous cache for a layer that compresses runs of tokens."""
    return maximum(context, max_tokens) // ratio


@formula(Unit.TOKENS, "the last token of a run need not wait: taken whole when the request arrives")
def waiting_room(context: Count, ratio: int) -> Count:
    """Tokens allocated for those that wait to be compressed: the same for every request."""
    return context * 0 + ratio - 1


@formula(Unit.TOKENS, "a contiguous cache is taken whole when the request arrives")
def contiguous_tokens(context: Count, max_tokens: int) -> Count:
    """Tokens allocated for a full-attention layer of a contiguous cache: the same for every request."""
    return maximum(context, max_tokens)


@formula(Unit.TOKENS, "a rank's share of a contiguous cache, taken whole when the request arrives")
def contiguous_tokens_of_rank(context: Count, context_parallel: int, max_tokens: int) -> Count:
    """Tokens allocated for a full-attention layer of a contiguous cache on one context-parallel rank."""
    return ceil_div(maximum(context, max_tokens), context_parallel)


@formula(Unit.TOKENS, "a ring as long as the window, taken whole when the request arrives")
def ring_tokens(context: Count, window: int, max_tokens: int) -> Count:
    """Tokens allocated for a sliding or chunked layer of a contiguous cache: the same for every request."""
    return minimum(window, maximum(context, max_tokens))


@dataclass(frozen=True, slots=True)
class TokenLaw:
    """A number of tokens as a formula of the context and some constants."""

    formula: Formula[Any, Count]
    constants: tuple[Quantity, ...] = ()

    def tokens(self, context: Count) -> Count:
        """Evaluate the law on a context or an array of them."""
        return self.formula(context, *(q.number for q in self.constants))

    def explained(self, name: str, context: Quantity) -> Quantity:
        """Evaluate the law and remember how."""
        return computed(name, self.formula, context, *self.constants)


def context_ranks(context_parallel: int) -> Quantity:
    """Return the number of ranks that share the tokens of a request."""
    return fact("context_parallel", context_parallel, "--cp")


def live_law(retention: Retention, source: str, context_parallel: int = 1) -> TokenLaw | None:
    """Return how many tokens matter under a retention; ``None`` for what does not grow with tokens.

    Context-parallel ranks share the tokens of full attention; what a window or a chunk keeps, each has whole.
    """
    match retention:
        case Full() if context_parallel > 1:
            return TokenLaw(tokens_of_rank, (context_ranks(context_parallel),))
        case Full():
            return TokenLaw(all_tokens)
        case Sliding():
            return TokenLaw(window_tokens, (seen_through(retention, source),))
        case Chunked(chunk=chunk):
            return TokenLaw(chunk_tokens, (fact("chunk", chunk, source, Unit.TOKENS),))
        case Compressed():
            return TokenLaw(compressed_entries, (run_length(retention, source),))
        case Unfinished():
            return TokenLaw(unfinished_tokens, (run_length(retention, source),))
        case PerRequest():
            return None
        case _ as never:
            assert_never(never)


def allocated_law(
    retention: Retention, allocation: Allocation, source: str, context_parallel: int = 1
) -> TokenLaw | None:
    """Return how many tokens are paid for; ``None`` for what does not grow with tokens."""
    shared = context_ranks(context_parallel) if context_parallel > 1 else None
    match allocation:
        case Paged(block_tokens=block):
            units = fact("block_tokens", block, "--block-size", Unit.TOKENS)
            return _paged_law(retention, units, source, shared)
        case Contiguous(max_tokens=longest):
            units = fact("max_tokens", longest, "--max-length", Unit.TOKENS)
            return _ring_law(retention, units, source, shared)
        case _ as never:
            assert_never(never)


def seen_through(window: Sliding, source: str) -> Quantity:
    """Return the most tokens a query sees through a window, its sinks included."""
    last = fact("window", window.window, source, Unit.TOKENS)
    if not window.sink_tokens:
        return last
    return computed("window", window_and_sinks, last, _sinks(window, source))


def run_length(retention: Compressed | Unfinished, source: str) -> Quantity:
    """Return how many tokens are compressed into one entry."""
    return fact("ratio", retention.ratio, source, Unit.TOKENS)


def _paged_law(
    retention: Retention, block: Quantity, source: str, shared: Quantity | None
) -> TokenLaw | None:
    match retention:
        case Full() if shared is not None:
            return TokenLaw(paged_tokens_of_rank, (shared, block))
        case Full():
            return TokenLaw(paged_tokens, (block,))
        case Sliding(window=window, sink_tokens=0):
            return TokenLaw(paged_window_tokens, (fact("window", window, source, Unit.TOKENS), block))
        case Sliding(window=window):
            last = fact("window", window, source, Unit.TOKENS)
            return TokenLaw(paged_sink_window_tokens, (last, _sinks(retention, source), block))
        case Chunked(chunk=chunk):
            return TokenLaw(paged_chunk_tokens, (fact("chunk", chunk, source, Unit.TOKENS), block))
        case Compressed():
            return TokenLaw(paged_entries, (run_length(retention, source), block))
        case Unfinished():
            return TokenLaw(waiting_room, (run_length(retention, source),))
        case PerRequest():
            return None
        case _ as never:
            assert_never(never)


def _ring_law(
    retention: Retention, longest: Quantity, source: str, shared: Quantity | None
) -> TokenLaw | None:
    match retention:
        case Full() if shared is not None:
            return TokenLaw(contiguous_tokens_of_rank, (shared, longest))
        case Full():
            return TokenLaw(contiguous_tokens, (longest,))
        case Sliding():
            return TokenLaw(ring_tokens, (seen_through(retention, source), longest))
        case Chunked(chunk=chunk):
            return TokenLaw(ring_tokens, (fact("chunk", chunk, source, Unit.TOKENS), longest))
        case Compressed():
            return TokenLaw(contiguous_entries, (run_length(retention, source), longest))
        case Unfinished():
            return TokenLaw(waiting_room, (run_length(retention, source),))
        case PerRequest():
            return None
        case _ as never:
            assert_never(never)


def _sinks(window: Sliding, source: str) -> Quantity:
    return fact("sink_tokens", window.sink_tokens, source, Unit.TOKENS)
