"""Bytes of one entry of a cache: what a token, or a request, leaves in one layer."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from kvplan.arch.entry import KV, CompressedKV, Entry, IndexKey, Latent, Pending, State
from kvplan.arch.weight import heads, kv_heads, state_groups
from kvplan.formula import formula
from kvplan.plan.grouped_keys import value_entry_bytes
from kvplan.results import Quantity, computed, fact
from kvplan.storage import DTYPE_BYTES, IndexFormat, KvFormat, StateLayout
from kvplan.units import Count, Unit, ceil_div


@formula(Unit.BYTES_PER_TOKEN, "a key and a value per KV head, with their scales: arXiv 2305.13245")
def attention_entry_bytes(kv_heads: Count, k_dim: Count, v_dim: Count, bits: int, scale_bytes: int) -> Count:
    """Bytes one token leaves in one attention layer."""
    return kv_heads * (ceil_div(k_dim * bits, 8) + ceil_div(v_dim * bits, 8) + 2 * scale_bytes)


@formula(Unit.BYTES_PER_TOKEN, "one latent and one rotary key for all heads: arXiv 2405.04434, section 2.1")
def latent_entry_bytes(kv_lora_rank: Count, qk_rope_head_dim: Count, bits: int, scale_bytes: int) -> Count:
    """Bytes one token leaves in one latent-attention layer, on every tensor-parallel rank."""
    return ceil_div(kv_lora_rank * bits, 8) + ceil_div(qk_rope_head_dim * bits, 8) + 2 * scale_bytes


@formula(Unit.BYTES_PER_TOKEN, "one key for all index heads, with its scales: arXiv 2512.02556, section 2.1")
def index_entry_bytes(index_head_dim: Count, bits: int, scales: Count, scale_bytes: int) -> Count:
    """Bytes one token leaves for an indexer, on every tensor-parallel rank."""
    return ceil_div(index_head_dim * bits, 8) + scales * scale_bytes


@formula(Unit.BYTES_PER_TOKEN, "one vector, key and value of all heads: transformers 5.23, deepseek_v4")
def one_vector_entry_bytes(head_dim: Count, bits: int, scale_bytes: int) -> Count:
    """Bytes of a vector that every head has as key and as value, on every tensor-parallel rank."""
    return ceil_div(head_dim * bits, 8) + scale_bytes


@formula(Unit.BYTES_PER_TOKEN, "what is projected for a compressor, in the model's dtype")
def pending_entry_bytes(elements: Count, element_bytes: int) -> Count:
    """Bytes of one token that waits to be compressed, on every tensor-parallel rank."""
    return elements * element_bytes


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


@formula(Unit.NONE, "guesses that are dropped are taken back out of them: vLLM, mamba_utils.py, num_spec")
def speculative_conv_columns(conv_kernel: Count, speculative_tokens: Count) -> Count:
    """Inputs of a convolution that vLLM keeps where each step checks guessed tokens."""
    return conv_kernel - 1 + speculative_tokens


@formula(Unit.BYTES, "a state behind each guess and one before: vLLM, MambaSpec.num_speculative_blocks")
def speculative_states_bytes(state_bytes: Count, speculative_tokens: Count) -> Count:
    """Bytes one request holds in one recurrent layer where each step checks guessed tokens."""
    return state_bytes * (1 + speculative_tokens)


def entry_on_rank(entry: Entry, tensor_parallel: int) -> Entry:
    """Return the part of an entry one tensor-parallel rank holds.

    KV heads are divided, and kept by several ranks when there are more ranks than heads; a latent is
    kept whole by every rank; a state is divided with its heads, which its layer's weights check, and what
    belongs to groups of heads is kept by several ranks where there are more ranks than groups.
    """
    match entry:
        case KV(kv_heads=count):
            return replace(entry, kv_heads=kv_heads(count).units_per_rank(tensor_parallel))
        case Latent() | IndexKey() | CompressedKV() | Pending():
            return entry
        case State(conv_channels=channels, recurrent_elements=elements, group_channels=grouped):
            groups = state_groups(0, entry.groups).units_per_rank(tensor_parallel)
            of_groups = grouped // entry.groups * groups
            of_heads = heads(0, channels - grouped, "state channels").units_per_rank(tensor_parallel)
            element_share = heads(0, elements, "state elements").units_per_rank(tensor_parallel)
            return replace(
                entry,
                conv_channels=of_groups + (of_heads if channels > grouped else 0),
                recurrent_elements=element_share if elements else 0,
                group_channels=of_groups,
                groups=groups,
            )
        case _ as never:
            assert_never(never)


def bytes_of_entry(entry: Entry, kv: KvFormat, state: StateLayout, model_dtype: str, source: str) -> Quantity:
    """Return the bytes of an entry of one rank; of its value alone where keys are quantised in groups."""
    bits, scale = fact("bits", kv.bits, kv.source), fact("scale_bytes", kv.scale_bytes, kv.source)
    match entry:
        case KV(kv_heads=count, v_dim=v_dim) if kv.key_group_tokens:
            value = (fact("kv_heads", count, source), fact("v_dim", v_dim, source))
            return computed("value_bytes", value_entry_bytes, *value, bits, scale)
        case KV(k_dim=dim, one_vector=True) if not state.lists_twice:
            return _one_vector_bytes(dim, bits, scale, source)
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
        case IndexKey(dim=dim, of_blocks=of_blocks):
            stored = state.block_index_keys if of_blocks else state.index_keys
            return _index_key_bytes(dim, kv, stored, source)
        case CompressedKV(dim=dim):
            return _one_vector_bytes(dim, bits, scale, source)
        case Pending(elements=elements):
            element_bytes = fact("element_bytes", DTYPE_BYTES[model_dtype], model_dtype, Unit.BYTES)
            sizes3 = (fact("elements", elements, source), element_bytes)
            return computed("entry_bytes", pending_entry_bytes, *sizes3)
        case State():
            return _state_bytes(entry, state, model_dtype, source)
        case _ as never:
            assert_never(never)


def _one_vector_bytes(dim: int, bits: Quantity, scale: Quantity, source: str) -> Quantity:
    """Return the bytes of a vector that is key and value."""
    return computed("entry_bytes", one_vector_entry_bytes, fact("head_dim", dim, source), bits, scale)


def _index_key_bytes(dim: int, kv: KvFormat, stored: IndexFormat | None, source: str) -> Quantity:
    """Return the bytes of an indexer's key: in the KV format unless a runtime has one of its own for it."""
    bits, scales, scale_bytes, layout = kv.bits, 1, kv.scale_bytes, kv.source
    if stored is not None:
        bits, scales, scale_bytes = stored.bits, -(-dim // stored.scale_elements), stored.scale_bytes
        layout = stored.source
    return computed(
        "entry_bytes",
        index_entry_bytes,
        fact("index_head_dim", dim, source),
        fact("bits", bits, layout),
        fact("scales", scales, layout),
        fact("scale_bytes", scale_bytes, layout),
    )


def _state_bytes(entry: State, layout: StateLayout, model_dtype: str, source: str) -> Quantity:
    asked = "" if entry.served_in is None else entry.served_in.value
    kept_in = layout.recurrent_format(entry.recurrent_dtype, asked) or model_dtype
    one_state = computed(
        "state_bytes" if layout.speculative_tokens else "entry_bytes",
        state_entry_bytes,
        fact("conv_channels", entry.conv_channels, source),
        _conv_columns(entry, layout, source),
        fact("conv_bytes", DTYPE_BYTES[model_dtype], model_dtype),
        fact("recurrent_elements", entry.recurrent_elements, source),
        fact("recurrent_bytes", DTYPE_BYTES[kept_in], f"{kept_in}: {layout.source}"),
    )
    if not layout.speculative_tokens:
        return one_state
    return computed("entry_bytes", speculative_states_bytes, one_state, _speculative_tokens(layout))


def _conv_columns(entry: State, layout: StateLayout, source: str) -> Quantity:
    """Return how many inputs of a convolution are kept: the same whatever is guessed, where there is none."""
    if not layout.speculative_tokens or not entry.conv_channels:
        columns = layout.conv_columns(entry.conv_kernel, newest_kept=entry.newest_kept)
        return fact("conv_columns", columns, layout.source)
    kernel = fact("conv_kernel", entry.conv_kernel, source)
    return computed("conv_columns", speculative_conv_columns, kernel, _speculative_tokens(layout))


def _speculative_tokens(layout: StateLayout) -> Quantity:
    return fact("speculative_tokens", layout.speculative_tokens, "--speculative-tokens", Unit.TOKENS)
