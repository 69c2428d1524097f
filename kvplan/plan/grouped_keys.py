"""Keys quantised per channel over groups of tokens (KIVI, arXiv 2402.02750).

A key waits in float16 until its group is complete; the whole group is then quantised at once, each
channel with a scale of its own. Values are stored token by token, as plain formats store them. Layers
that let go of single tokens cannot keep groups whole, so only full attention is stored like this.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.allocation import Allocation, Contiguous
from kvplan.arch.entry import KV, IndexKey, Latent, State
from kvplan.arch.retention import Full
from kvplan.arch.slot import CacheSlot
from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.results import Quantity, computed, fact
from kvplan.storage import DTYPE_BYTES, KvFormat
from kvplan.units import Count, Unit, ceil_div

_KIVI = "arXiv 2402.02750, section 3"


@formula(Unit.BYTES, f"the elements of a group, and a scale for each channel: {_KIVI}")
def key_group_bytes(kv_heads: Count, k_dim: Count, group_tokens: int, bits: int, scale_bytes: int) -> Count:
    """Bytes of the keys of one complete group of tokens in one attention layer."""
    return kv_heads * (ceil_div(group_tokens * k_dim * bits, 8) + k_dim * scale_bytes)


@formula(Unit.BYTES_PER_TOKEN, f"a value per KV head, with its scales: {_KIVI}")
def value_entry_bytes(kv_heads: Count, v_dim: Count, bits: int, scale_bytes: int) -> Count:
    """Bytes of one token's values in one attention layer."""
    return kv_heads * (ceil_div(v_dim * bits, 8) + scale_bytes)


@formula(Unit.BYTES_PER_TOKEN, f"a key per KV head, in float16 until its group is complete: {_KIVI}")
def waiting_key_bytes(kv_heads: Count, k_dim: Count, element_bytes: int) -> Count:
    """Bytes of one token's keys in one attention layer while they wait."""
    return kv_heads * k_dim * element_bytes


@formula(Unit.GROUPS, "a group is complete when its last token is stored")
def complete_groups(context: Count, group_tokens: int) -> Count:
    """Complete groups of keys of a context."""
    return context // group_tokens


@formula(Unit.TOKENS, "tokens since the last complete group")
def waiting_tokens(context: Count, group_tokens: int) -> Count:
    """Tokens whose keys wait for their group to be complete."""
    return context % group_tokens


@formula(Unit.GROUPS, "blocks are whole groups")
def groups_allocated(tokens: Count, group_tokens: int) -> Count:
    """Groups in the blocks allocated."""
    return ceil_div(tokens, group_tokens)


@formula(Unit.BYTES, "values token by token, keys group by group, and the keys that wait")
def grouped_cache_bytes(
    layers: Count,
    tokens: Count,
    value_bytes: Count,
    groups: Count,
    group_bytes: Count,
    waiting: Count,
    waiting_bytes: Count,
) -> Count:
    """Cache bytes of a run of equal layers whose keys are quantised in groups."""
    return layers * (tokens * value_bytes + groups * group_bytes + waiting * waiting_bytes)


@formula(Unit.BYTES_PER_TOKEN, "average over a group, rounded up to a whole byte, without the keys that wait")
def grouped_growth_bytes(layers: Count, value_bytes: Count, group_bytes: Count, group_tokens: int) -> Count:
    """Bytes one more token adds to a run of equal layers, averaged over a group."""
    return ceil_div(layers * (group_tokens * value_bytes + group_bytes), group_tokens)


@dataclass(frozen=True, slots=True)
class GroupedKeys:
    """What the keys of one layer take: a complete group, and a token that waits for its group."""

    group_tokens: Quantity
    group_bytes: Quantity
    waiting_bytes: Quantity


def grouped_keys(entry: KV, kv: KvFormat, source: str) -> GroupedKeys | None:
    """Return what the keys take in a format that quantises them in groups; ``None`` in any other."""
    if not kv.key_group_tokens:
        return None
    kv_heads, k_dim = fact("kv_heads", entry.kv_heads, source), fact("k_dim", entry.k_dim, source)
    group = fact("group_tokens", kv.key_group_tokens, kv.source, Unit.TOKENS)
    bits, scale = fact("bits", kv.bits, kv.source), fact("scale_bytes", kv.scale_bytes, kv.source)
    element = fact("element_bytes", DTYPE_BYTES["fp16"], "fp16", Unit.BYTES)
    return GroupedKeys(
        group,
        computed("group_bytes", key_group_bytes, kv_heads, k_dim, group, bits, scale),
        computed("waiting_bytes", waiting_key_bytes, kv_heads, k_dim, element),
    )


def refuse_ungroupable(
    slot: CacheSlot, kv: KvFormat, allocation: Allocation, context_parallel: int = 1
) -> None:
    """Refuse a format that groups keys where groups cannot be kept whole.

    Raises:
        UsageError: it groups keys, and the layer has none, or the cache is not made of whole groups.
    """
    if not kv.key_group_tokens or isinstance(slot.entry, State):
        return
    plain = kv.name.partition("-")[0]
    if isinstance(slot.entry, Latent):
        raise UsageError(
            f"{kv.name} groups keys per channel, and latent attention caches none",
            hint=f"--kv {plain} stores a latent with a scale of its own",
        )
    if isinstance(slot.entry, IndexKey):
        raise UsageError(
            f"{kv.name} groups keys per channel, and an indexer reads its keys one by one",
            hint=f"--kv {plain} stores such a key with a scale of its own",
        )
    group = kv.key_group_tokens
    if not isinstance(slot.retention, Full):
        raise UsageError(
            f"{kv.name} quantises the keys of {group} tokens together: a window lets go of them one by one",
            hint=f"--kv {plain} has a scale for each token",
        )
    if slot.visible_window is not None:
        raise UsageError(
            f"{kv.name} quantises the keys of {group} tokens together: "
            "some layers look back through a window",
            hint=f"--kv {plain} has a scale for each token",
        )
    if context_parallel > 1:
        raise UsageError(
            f"{kv.name} quantises the keys of {group} tokens together: "
            f"context parallel {context_parallel} deals them to different ranks",
            hint=f"--kv {plain} has a scale for each token",
        )
    _refuse_broken_groups(kv, allocation)


def _refuse_broken_groups(kv: KvFormat, allocation: Allocation) -> None:
    group = kv.key_group_tokens
    if not isinstance(allocation, Contiguous):
        if allocation.block_tokens % group:
            raise UsageError(
                f"{kv.name} quantises the keys of {group} tokens together: "
                f"blocks of {allocation.block_tokens:,} tokens are not whole groups",
                hint=f"--block-size {ceil_div(allocation.block_tokens, group) * group}",
            )
    elif allocation.max_tokens % group:
        raise UsageError(
            f"{kv.name} quantises the keys of {group} tokens together: "
            f"{allocation.max_tokens:,} tokens are not whole groups",
            hint=f"--max-length {max(group, allocation.max_tokens // group * group)}",
        )
