"""Cache bytes of a request: what its tokens need (live) and what is handed out for them (allocated).

Every law here takes an integer context or an integer array of contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from kvplan.arch.entry import KV, Entry, Latent, State
from kvplan.arch.model import Run
from kvplan.arch.retention import Full, PerRequest, Retention, Sliding
from kvplan.arch.weight import heads, kv_heads
from kvplan.formula import Formula, formula
from kvplan.plan.deployment import Allocation, Contiguous, Paged
from kvplan.results import Quantity, computed, fact, total
from kvplan.storage import DTYPE_BYTES, KvFormat, StateLayout
from kvplan.units import Count, Unit, ceil_div, maximum, minimum

# ------------------------------------------------------------------ what one token, or one request, stores


@formula(Unit.BYTES_PER_TOKEN, "a key and a value per KV head, with their scales: arXiv 2305.13245")
def attention_entry_bytes(kv_heads: Count, k_dim: Count, v_dim: Count, bits: int, scale_bytes: int) -> Count:
    """Bytes one token leaves in one attention layer."""
    return kv_heads * (ceil_div(k_dim * bits, 8) + ceil_div(v_dim * bits, 8) + 2 * scale_bytes)


@formula(Unit.BYTES_PER_TOKEN, "one latent and one rotary key for all heads: arXiv 2405.04434, section 2.1")
def latent_entry_bytes(kv_lora_rank: Count, qk_rope_head_dim: Count, bits: int, scale_bytes: int) -> Count:
    """Bytes one token leaves in one latent-attention layer, on every tensor-parallel rank."""
    return ceil_div(kv_lora_rank * bits, 8) + ceil_div(qk_rope_head_dim * bits, 8) + 2 * scale_bytes


@formula(Unit.BYTES, "convolution inputs and running state: arXiv 2412.06464")
def state_entry_bytes(
    conv_channels: Count,
    conv_columns: Count,
    conv_bytes: int,
    recurrent_elements: Count,
    recurrent_bytes: int,
) -> Count:
    """Bytes one request holds in one recurrent layer, however long it gets."""
    return conv_channels * conv_columns * conv_bytes + recurrent_elements * recurrent_bytes


# ------------------------------------------------------------------ how many tokens stay, and are paid for


@formula(Unit.TOKENS, "full attention keeps every token")
def all_tokens(context: Count) -> Count:
    """Tokens a full-attention layer keeps."""
    return context


@formula(Unit.TOKENS, "a sliding window keeps the last tokens: arXiv 2310.06825")
def window_tokens(context: Count, window: int) -> Count:
    """Tokens a sliding-window layer keeps."""
    return minimum(context, window)


@formula(Unit.TOKENS, "whole blocks: arXiv 2309.06180")
def paged_tokens(context: Count, block_tokens: int) -> Count:
    """Tokens allocated for a full-attention layer in blocks."""
    return ceil_div(context, block_tokens) * block_tokens


@formula(Unit.TOKENS, "a window of w tokens touches at most ceil((w - 1) / block) + 1 blocks at a time")
def paged_window_tokens(context: Count, window: int, block_tokens: int) -> Count:
    """Most tokens ever allocated for a sliding-window layer in blocks, up to this context."""
    return minimum(ceil_div(context, block_tokens), ceil_div(window - 1, block_tokens) + 1) * block_tokens


@formula(Unit.TOKENS, "a contiguous cache is taken whole when the request arrives")
def contiguous_tokens(context: Count, max_tokens: int) -> Count:
    """Tokens allocated for a full-attention layer of a contiguous cache: the same for every request."""
    return maximum(context, max_tokens)


@formula(Unit.TOKENS, "a ring as long as the window, taken whole when the request arrives")
def ring_tokens(context: Count, window: int, max_tokens: int) -> Count:
    """Tokens allocated for a sliding-window layer of a contiguous cache: the same for every request."""
    return minimum(window, maximum(context, max_tokens))


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


@dataclass(frozen=True, slots=True)
class TokenLaw:
    """A number of tokens as a formula of the context and some constants."""

    formula: Formula[Any]
    constants: tuple[Quantity, ...] = ()

    def tokens(self, context: Count) -> Count:
        """Evaluate the law on a context or an array of them."""
        return self.formula(context, *(q.number for q in self.constants))

    def explained(self, context: int) -> Quantity:
        """Evaluate the law and remember how."""
        asked = fact("context", context, "asked for", Unit.TOKENS)
        return computed("tokens", self.formula, asked, *self.constants)


@dataclass(frozen=True, slots=True)
class CacheRun:
    """Equal layers' cache on one rank: bytes per entry, and the laws of its tokens; none for a state."""

    layers: Quantity
    entry_bytes: Quantity
    live: TokenLaw | None
    allocated: TokenLaw | None

    def bytes(self, law: TokenLaw | None, context: Count) -> Count:
        """Return the bytes of one request under one of the two laws."""
        if law is None:
            return state_of_layers_bytes(self.layers.number, self.entry_bytes.number)
        return cache_of_layers_bytes(self.layers.number, law.tokens(context), self.entry_bytes.number)

    def explained(self, law: TokenLaw | None, context: int) -> Quantity:
        """Return the same bytes and remember how."""
        if law is None:
            return computed("state", state_of_layers_bytes, self.layers, self.entry_bytes)
        return computed("cache", cache_of_layers_bytes, self.layers, law.explained(context), self.entry_bytes)


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of one request over a set of layers, on one rank."""

    runs: tuple[CacheRun, ...]

    def live_bytes(self, context: Count) -> Count:
        """Return the bytes of the tokens that matter, for a context or an array of them."""
        return sum((run.bytes(run.live, context) for run in self.runs), start=context * 0)

    def allocated_bytes(self, context: Count) -> Count:
        """Return the bytes handed out for them, for a context or an array of them."""
        return sum((run.bytes(run.allocated, context) for run in self.runs), start=context * 0)

    def live(self, name: str, context: int) -> Quantity:
        """Return the live bytes at one context, explained."""
        parts = tuple(run.explained(run.live, context) for run in self.runs)
        return total(name, Unit.BYTES, parts, "live")

    def allocated(self, name: str, context: int) -> Quantity:
        """Return the allocated bytes at one context, explained."""
        parts = tuple(run.explained(run.allocated, context) for run in self.runs)
        return total(name, Unit.BYTES, parts, "allocated")

    def growth(self, name: str, label: str) -> Quantity:
        """Return the bytes one more token adds while every layer still grows, explained."""
        parts = tuple(
            computed("growth", growth_of_layers_bytes, run.layers, run.entry_bytes)
            for run in self.runs
            if run.live is not None
        )
        note = "" if parts else "no layer grows with the context"
        return total(name, Unit.BYTES_PER_TOKEN, parts, label, note)

    def state(self, name: str, label: str) -> Quantity:
        """Return the bytes a request holds however short it is, explained."""
        parts = tuple(run.explained(None, 0) for run in self.runs if run.live is None)
        return total(name, Unit.BYTES, parts, label, "" if parts else "no layer keeps a state")


def request_cache(
    runs: Sequence[Run],
    tensor_parallel: int,
    kv: KvFormat,
    state: StateLayout,
    model_dtype: str,
    allocation: Allocation,
    source: str,
) -> Cache:
    """Return the cache of one request over these layers, on one tensor-parallel rank."""
    found = []
    for run in runs:
        slot = run.layer.slot()
        entry = entry_on_rank(slot.entry, tensor_parallel)
        found.append(
            CacheRun(
                fact("layers", run.count, source, Unit.LAYERS),
                _entry_bytes(entry, kv, state, model_dtype, source),
                _live_law(slot.retention, source),
                _allocated_law(slot.retention, allocation, source),
            )
        )
    return Cache(tuple(found))


def entry_on_rank(entry: Entry, tensor_parallel: int) -> Entry:
    """Return the part of an entry one tensor-parallel rank holds.

    KV heads are divided, and kept by several ranks when there are more ranks than heads; a latent is
    kept whole by every rank; a state is divided with its heads, which its layer's weights check.
    """
    match entry:
        case KV(kv_heads=count, k_dim=k_dim, v_dim=v_dim):
            return KV(kv_heads(count).units_per_rank(tensor_parallel), k_dim, v_dim)
        case Latent():
            return entry
        case State(conv_channels=channels, conv_kernel=kernel, recurrent_elements=elements):
            channel_share = heads(0, channels, "state channels").units_per_rank(tensor_parallel)
            element_share = heads(0, elements, "state elements").units_per_rank(tensor_parallel)
            return State(channel_share, kernel, element_share)
        case _ as never:
            assert_never(never)


def _entry_bytes(entry: Entry, kv: KvFormat, state: StateLayout, model_dtype: str, source: str) -> Quantity:
    bits, scale = fact("bits", kv.bits, kv.source), fact("scale_bytes", kv.scale_bytes, kv.source)
    match entry:
        case KV(kv_heads=count, k_dim=k_dim, v_dim=v_dim):
            sizes = (
                fact("kv_heads", count, source),
                fact("k_dim", k_dim, source),
                fact("v_dim", v_dim, source),
            )
            return computed("entry_bytes", attention_entry_bytes, *sizes, bits, scale)
        case Latent(rank=rank, rope_dim=rope_dim):
            sizes2 = (fact("kv_lora_rank", rank, source), fact("qk_rope_head_dim", rope_dim, source))
            return computed("entry_bytes", latent_entry_bytes, *sizes2, bits, scale)
        case State(conv_channels=channels, conv_kernel=kernel, recurrent_elements=elements):
            dtype_bytes = DTYPE_BYTES[model_dtype]
            return computed(
                "entry_bytes",
                state_entry_bytes,
                fact("conv_channels", channels, source),
                fact("conv_columns", kernel - state.columns_dropped, state.source),
                fact("conv_bytes", dtype_bytes, model_dtype),
                fact("recurrent_elements", elements, source),
                fact("recurrent_bytes", state.recurrent_bytes or dtype_bytes, state.source),
            )
        case _ as never:
            assert_never(never)


def _live_law(retention: Retention, source: str) -> TokenLaw | None:
    match retention:
        case Full():
            return TokenLaw(all_tokens)
        case Sliding(window=window):
            return TokenLaw(window_tokens, (fact("window", window, source, Unit.TOKENS),))
        case PerRequest():
            return None
        case _ as never:
            assert_never(never)


def _allocated_law(retention: Retention, allocation: Allocation, source: str) -> TokenLaw | None:
    match retention, allocation:
        case PerRequest(), _:
            return None
        case Full(), Paged(block_tokens=block):
            return TokenLaw(paged_tokens, (fact("block_tokens", block, "--block-size", Unit.TOKENS),))
        case Sliding(window=window), Paged(block_tokens=block):
            sizes = (
                fact("window", window, source, Unit.TOKENS),
                fact("block_tokens", block, "--block-size", Unit.TOKENS),
            )
            return TokenLaw(paged_window_tokens, sizes)
        case Full(), Contiguous(max_tokens=longest):
            return TokenLaw(contiguous_tokens, (fact("max_tokens", longest, "--max-length", Unit.TOKENS),))
        case Sliding(window=window), Contiguous(max_tokens=longest):
            sizes = (
                fact("window", window, source, Unit.TOKENS),
                fact("max_tokens", longest, "--max-length", Unit.TOKENS),
            )
            return TokenLaw(ring_tokens, sizes)
    raise AssertionError((retention, allocation))
