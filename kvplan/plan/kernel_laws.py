"""How decode attention lies on an accelerator: tiles, thread blocks, splits, waves.

A thread block takes the queries of one KV head of one request, and one split of its keys and values.
"""

from __future__ import annotations

from fractions import Fraction

from kvplan.formula import formula
from kvplan.units import Unit

_FA2 = "FlashAttention-2: csrc/flash_attn/src/flash_fwd_launch_template.h, run_mha_fwd_splitkv_dispatch"
_HEURISTIC = "FlashAttention-2: csrc/flash_attn/flash_api.cpp, num_splits_heuristic"
_OCCUPANCY = "CUDA C++ Programming Guide: thread blocks resident on a multiprocessor"

# FlashAttention-2 combines at most so many partial results.
MOST_SPLITS = 128

# ------------------------------------------------------------------ rows


@formula(
    Unit.NONE, "query heads of one KV head, for every new token: arXiv 2305.13245; FlashAttention's pack_gqa"
)
def packed_query_rows(query_heads: int, kv_heads: int, new_tokens: int) -> int:
    """Rows of queries that share one KV head's keys and values."""
    return query_heads // kv_heads * new_tokens


@formula(Unit.NONE, "whole matrix instructions, as few as hold the rows, and no more than the kernel takes")
def rows_per_block(rows: int, mma_rows: int, most_rows: int) -> int:
    """Rows of queries a thread block has room for."""
    return min(-(-rows // mma_rows) * mma_rows, most_rows)


@formula(Unit.NONE, "rows that do not fit one thread block take more, each reading the same keys and values")
def blocks_of_rows(rows: int, block_rows: int) -> int:
    """Thread blocks that share the rows of one KV head."""
    return -(-rows // block_rows)


@formula(Unit.SHARE, "a matrix instruction multiplies all its rows, empty ones included")
def row_use(rows: int, row_blocks: int, block_rows: int) -> float:
    """Share of the rows multiplied that belong to a query."""
    return rows / (row_blocks * block_rows)


# ------------------------------------------------------------------ shared memory


@formula(Unit.TOKENS, _FA2)
def published_tile_tokens(k_dim: int) -> int:
    """Tokens of a tile of keys and values where shared memory is no limit."""
    return 256 if k_dim <= 64 else 128 if k_dim <= 128 else 64


@formula(Unit.TOKENS, "kvplan: halved until one thread block fits the shared memory of an SM")
def fitted_tile_tokens(published_tokens: int, halvings: int) -> int:
    """Tokens of a tile of keys and values."""
    return published_tokens >> halvings


@formula(Unit.BYTES, "keys and values as they are stored; they are dequantised on their way to registers")
def tile_bytes(tokens: int, token_bytes: int) -> int:
    """Bytes of one KV head's keys and values of so many tokens."""
    return tokens * token_bytes


@formula(Unit.BYTES, "values token by token, keys in whole groups: arXiv 2402.02750")
def grouped_tile_bytes(tokens: int, value_bytes: int, group_tokens: int, group_bytes: int) -> int:
    """Bytes of one KV head's keys and values of so many tokens, the keys quantised in groups."""
    return tokens * value_bytes + -(-tokens // group_tokens) * group_bytes


@formula(Unit.BYTES, "the queries stay, tiles of keys and values pass through the stages")
def block_shared_bytes(block_rows: int, k_dim: int, element_bytes: int, stages: int, tile_bytes: int) -> int:
    """Shared memory of one thread block."""
    return block_rows * k_dim * element_bytes + stages * tile_bytes


@formula(Unit.BYTES, "KiB of the accelerator's file")
def shared_memory_bytes(shared_memory_kib: int) -> int:
    """Shared memory of one SM."""
    return shared_memory_kib * 1024


@formula(Unit.NONE, _OCCUPANCY)
def resident_blocks(most_blocks: int, shared_memory_bytes: int, block_bytes: int, reserved_bytes: int) -> int:
    """Thread blocks that are on an SM at once, by its shared memory and its registers."""
    return min(most_blocks, shared_memory_bytes // (block_bytes + reserved_bytes))


@formula(Unit.NONE, "SMs x thread blocks on each")
def block_slots(sm_count: int, blocks_per_sm: int) -> int:
    """Thread blocks that run at once."""
    return sm_count * blocks_per_sm


# ------------------------------------------------------------------ splits


@formula(Unit.NONE, "tiles of the tokens in view, the last one perhaps not full")
def tiles_in_view(kv_tokens: int, tile_tokens: int) -> int:
    """Tiles of keys and values that one thread block would walk through by itself."""
    return -(-kv_tokens // tile_tokens)


@formula(
    Unit.NONE,
    "a thread block for each request, KV head and block of rows: FlashAttention-2, arXiv 2307.08691",
)
def unsplit_blocks(requests: int, kv_heads: int, row_blocks: int) -> int:
    """Thread blocks where no sequence is split."""
    return requests * kv_heads * row_blocks


@formula(
    Unit.NONE,
    "a thread block for every SM, as far as there are tiles: Flash-Decoding, pytorch.org/blog/flash-decoding",
)
def splits_for_every_sm(unsplit_blocks: int, sm_count: int, tiles: int) -> int:
    """Splits of each sequence that give every SM a thread block."""
    return min(-(-sm_count // unsplit_blocks), tiles)


@formula(Unit.NONE, f"fewest splits within 85% of the best wave use: {_HEURISTIC}")
def chosen_splits(unsplit_blocks: int, slots: int, tiles: int) -> int:
    """Splits of each sequence that a published kernel chooses."""
    return next(
        splits
        for splits in candidate_splits(unsplit_blocks, slots, tiles)
        if 20 * wave_share(unsplit_blocks * splits, slots)
        >= 17
        * max(wave_share(unsplit_blocks * s, slots) for s in candidate_splits(unsplit_blocks, slots, tiles))
    )


def candidate_splits(unsplit_blocks: int, slots: int, tiles: int) -> tuple[int, ...]:
    """Return the numbers of splits that are tried, fewest first.

    One only where the thread blocks fill four fifths of the slots without splitting; a number that leaves
    each split as many tiles as a smaller one does would leave some splits empty.
    """
    if 5 * unsplit_blocks >= 4 * slots:
        return (1,)
    most = min(MOST_SPLITS, slots, tiles)
    return (1, *(s for s in range(2, most + 1) if -(-tiles // s) != -(-tiles // (s - 1))))


def wave_share(thread_blocks: int, slots: int) -> Fraction:
    """Return the share of the slots of all waves that a grid uses, exactly."""
    return Fraction(thread_blocks, -(-thread_blocks // slots) * slots)


@formula(Unit.NONE, "tiles divided over the splits, rounded up")
def tiles_of_split(tiles: int, splits: int) -> int:
    """Tiles of the longest split."""
    return -(-tiles // splits)


@formula(Unit.NONE, "the grid: requests x KV heads x blocks of rows x splits")
def grid_blocks(requests: int, kv_heads: int, row_blocks: int, splits: int) -> int:
    """Thread blocks of the whole grid."""
    return requests * kv_heads * row_blocks * splits


@formula(Unit.TOKENS, "whole tiles, and no more than are in view")
def tokens_of_split(kv_tokens: int, tiles_per_split: int, tile_tokens: int) -> int:
    """Tokens whose keys and values the busiest thread block reads."""
    return min(kv_tokens, tiles_per_split * tile_tokens)


@formula(
    Unit.BYTES,
    "float32 rows of values and one log-sum-exp each, written by every split and read to be combined",
)
def partial_result_bytes(
    requests: int, kv_heads: int, rows: int, splits: int, v_dim: int, element_bytes: int
) -> int:
    """Bytes written and read because sequences are split."""
    return 2 * requests * kv_heads * rows * splits * (v_dim + 1) * element_bytes if splits > 1 else 0


# ------------------------------------------------------------------ waves


@formula(
    Unit.NONE,
    "as many thread blocks at a time as there are slots: docs.nvidia.com, GPU Performance Background",
)
def wave_count(thread_blocks: int, slots: int) -> int:
    """Waves in which the grid runs."""
    return -(-thread_blocks // slots)


@formula(Unit.SHARE, "what the full waves before it leave to the last one")
def last_wave_share(thread_blocks: int, waves: int, slots: int) -> float:
    """Share of the slots that work in the last wave."""
    return (thread_blocks - (waves - 1) * slots) / slots


@formula(Unit.SHARE, "thread blocks over the slots of all waves")
def wave_use(thread_blocks: int, waves: int, slots: int) -> float:
    """Share of the slots of all waves that work."""
    return thread_blocks / (waves * slots)
