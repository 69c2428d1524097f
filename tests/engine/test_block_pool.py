"""The block pool: which blocks it hands out, in pools small enough to follow by hand, and what it refuses."""

import os
import struct
import subprocess
import sys
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pytest

from kvplan.engine.block_pool import (
    AlreadyPublished,
    BlockPool,
    DoubleFree,
    NotAllocated,
    OutOfBlocks,
    block_key,
)
from kvplan.errors import ExitStatus, UsageError

BLOCKS = 11
KEYS = [bytes([letter]) * 16 for letter in b"abcdefghijk"]


def pool_with_holes(*holes):
    """A pool whose only free blocks are these, unknown."""
    pool = BlockPool(BLOCKS)
    pool.allocate(BLOCKS)
    pool.free(holes)
    return pool


def pool_with_cached(*sequences):
    """A pool that served these sequences of blocks, published every block and freed them in this order.

    Block ``b`` holds the content of ``KEYS[b]``; blocks in none of the sequences are live.
    """
    pool = BlockPool(BLOCKS)
    pool.allocate(BLOCKS)
    for sequence in sequences:
        for block in sequence:
            pool.publish(block, KEYS[block])
        pool.free(sequence)
    return pool


def seen(pool):
    """Everything a pool tells about itself."""
    return (
        (pool.num_blocks, pool.num_free, pool.num_used, pool.num_cached),
        [pool.ref_count(block) for block in range(pool.num_blocks)],
        [pool.lookup(key) for key in KEYS],
    )


def one_by_one(pool, count):
    return [pool.allocate(1)[0] for _ in range(count)]


# Which unknown blocks


def test_a_new_pool_hands_out_consecutive_blocks():
    pool = BlockPool(BLOCKS)
    assert seen(pool) == ((11, 11, 0, 0), [0] * 11, [None] * 11)
    assert pool.allocate(3) == [0, 1, 2]
    assert pool.allocate(1) == [3]
    assert pool.allocate(5) == [4, 5, 6, 7, 8]
    assert one_by_one(pool, 2) == [9, 10]
    assert seen(pool) == ((11, 0, 11, 0), [1] * 11, [None] * 11)


@pytest.mark.parametrize(
    ("holes", "count", "expected"),
    [
        ((3, 5, 6, 8, 9, 10), 1, [3]),  # one block goes into the lowest hole
        ((3, 5, 6, 8, 9, 10), 2, [5, 6]),  # the lowest run that is long enough, not the lowest blocks
        ((3, 5, 6, 8, 9, 10), 3, [8, 9, 10]),
        ((0, 1, 2, 3, 7, 8), 2, [0, 1]),  # the lowest one, not the one that fits best
        ((9, 5, 7, 6, 8), 5, [5, 6, 7, 8, 9]),  # neighbours make a run whatever order they were freed in
        ((0, 2, 4, 5, 7, 8), 4, [4, 5, 7, 8]),  # no run of 4: two of 2
        ((0, 2, 4, 5, 7, 8), 3, [0, 4, 5]),  # no run of 3: one of 2 and one of 1
        ((0, 2, 4, 5, 7, 8), 5, [0, 4, 5, 7, 8]),
        ((0, 1, 3, 5, 6, 7), 5, [0, 1, 5, 6, 7]),  # no run of 5: one of 3, one of 2
        ((0, 2, 4, 6, 8, 10), 4, [0, 2, 4, 6]),  # nothing but single blocks
        ((0, 2, 4, 5, 7, 8), 6, [0, 2, 4, 5, 7, 8]),
        ((0, 10), 2, [0, 10]),
        ((2, 3), 0, []),
    ],
)
def test_the_lowest_run_that_is_long_enough_else_shorter_runs(holes, count, expected):
    pool = pool_with_holes(*holes)
    assert pool.allocate(count) == expected
    left = sorted(set(holes) - set(expected))
    assert one_by_one(pool, pool.num_free) == left


def test_a_freed_hole_below_everything_handed_out_since_is_found_again():
    pool = BlockPool(BLOCKS)
    pool.allocate(6)
    pool.free([1, 2])
    assert pool.allocate(1) == [1]
    pool.free([0])
    assert pool.allocate(2) == [6, 7]
    assert one_by_one(pool, 3) == [0, 2, 8]


def test_two_sequences_that_grow_by_a_block_in_turns():
    pool = BlockPool(BLOCKS)
    first, second = pool.allocate(2), pool.allocate(3)
    for _ in range(3):
        first += pool.allocate(1)
        second += pool.allocate(1)
    assert (first, second) == ([0, 1, 5, 7, 9], [2, 3, 4, 6, 8, 10])
    pool.free(first)
    assert pool.allocate(2) == [0, 1]
    pool.free(second)
    assert pool.allocate(6) == [2, 3, 4, 5, 6, 7]


def test_ids_are_plain_integers_whatever_came_in():
    pool = BlockPool(BLOCKS)
    pool.allocate(4)
    pool.share(np.int64(0))
    pool.publish(np.int64(1), KEYS[1])
    assert type(pool.lookup(KEYS[1])) is int
    pool.free(np.array([0, 0, 1, 2, 3]))
    assert (pool.num_free, pool.num_cached) == (11, 1)
    taken = pool.allocate(np.int64(11))
    assert taken == list(range(11))
    assert {type(block) for block in taken} == {int}


def test_an_id_that_is_no_whole_number_is_refused():
    pool = BlockPool(BLOCKS)
    pool.allocate(2)
    with pytest.raises(TypeError):
        pool.free([1.0])
    assert pool.num_used == 2


# Which cached blocks


def test_unknown_blocks_go_before_cached_ones():
    pool = pool_with_cached([0, 1, 2])
    pool.free([8])
    pool.free([5])
    assert (pool.num_free, pool.num_cached) == (5, 3)
    assert one_by_one(pool, 5) == [5, 8, 2, 1, 0]


def test_least_recently_freed_goes_first_and_the_end_of_a_sequence_before_its_start():
    pool = pool_with_cached([3, 4, 5], [0, 1, 2], [9, 7])
    assert one_by_one(pool, 8) == [5, 4, 3, 2, 1, 0, 7, 9]


def test_freed_in_separate_calls_the_first_goes_first():
    assert one_by_one(pool_with_cached([0], [1], [2]), 3) == [0, 1, 2]


def test_evicted_blocks_are_handed_out_ascending_so_that_they_make_runs():
    pool = pool_with_cached([3, 4, 5, 6], [0, 1])
    pool.free([8])
    assert pool.allocate(4) == [4, 5, 6, 8]
    assert pool.allocate(3) == [0, 1, 3]


def test_what_is_evicted_is_forgotten_and_the_rest_is_not():
    pool = pool_with_cached([0, 1, 2, 3])
    assert pool.allocate(2) == [2, 3]
    assert [pool.lookup(key) for key in KEYS[:4]] == [0, 1, None, None]
    assert (pool.num_free, pool.num_used, pool.num_cached) == (2, 9, 2)
    pool.free([2, 3])  # its new owner published nothing
    assert (pool.num_free, pool.num_cached) == (4, 2)
    assert [pool.lookup(key) for key in KEYS[:4]] == [0, 1, None, None]


def test_a_hit_counts_as_use_when_it_is_freed_again():
    pool = pool_with_cached([0, 1, 2], [5, 6])
    for block in (0, 1):
        pool.share(block)
    pool.free([0, 1])
    assert one_by_one(pool, 5) == [2, 6, 5, 1, 0]


def test_a_lookup_alone_is_no_use():
    pool = pool_with_cached([0], [1])
    assert pool.lookup(KEYS[0]) == 0
    assert one_by_one(pool, 2) == [0, 1]


# Owners


def test_a_shared_block_is_free_when_its_last_owner_lets_go():
    pool = BlockPool(BLOCKS)
    blocks = pool.allocate(2)
    for block in blocks:
        pool.share(block)
    pool.share(1)
    assert [pool.ref_count(block) for block in (0, 1, 2)] == [2, 3, 0]
    assert (pool.num_free, pool.num_used) == (9, 2)
    pool.free(blocks)
    pool.free(blocks)
    assert [pool.ref_count(block) for block in (0, 1)] == [0, 1]
    assert pool.allocate(2) == [2, 3]
    assert pool.allocate(1) == [0]
    pool.free([1])
    assert pool.allocate(1) == [1]


def test_a_block_may_be_named_as_often_as_it_has_owners():
    pool = BlockPool(BLOCKS)
    pool.allocate(2)
    pool.share(0)
    pool.free([0, 1, 0])
    assert (pool.num_free, pool.num_used) == (11, 0)
    assert pool.allocate(11) == list(range(11))


@pytest.mark.parametrize("named", ["live", "cached", "shared"])
def test_sharing_keeps_the_content_known(named):
    pool = pool_with_cached([0, 1])
    if named == "live":
        pool.publish(4, KEYS[4])
    block = {"live": 4, "cached": 0, "shared": 0}[named]
    pool.share(block)
    if named == "shared":
        pool.share(block)
    assert pool.lookup(KEYS[block]) == block
    assert pool.ref_count(block) == {"live": 2, "cached": 1, "shared": 2}[named]


# What is refused, and changes nothing


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        ([3], 3),  # freed before
        ([2], 2),  # free and cached
        ([10], 10),  # never handed out
        ([11], 11),
        ([-1], -1),  # what pads a block table
        ([5, 6, 3], 3),
        ([0, 5, 1, 0, 0], 0),  # two owners, named three times
        ([6, 5, 6], 6),
        ([1, 2, 2], 2),
    ],
)
def test_double_free_names_the_block_and_changes_nothing(blocks, named):
    def make():
        pool = BlockPool(BLOCKS)
        pool.allocate(10)
        for block in (1, 2):
            pool.publish(block, KEYS[block])
        pool.share(0)
        pool.free([2])
        pool.free([3, 4])
        return pool

    pool, untouched = make(), make()
    with pytest.raises(DoubleFree, match=rf"^block {named} is freed more often than it has owners$") as error:
        pool.free(blocks)
    assert error.value.block == named
    assert seen(pool) == seen(untouched)
    assert one_by_one(pool, 4) == one_by_one(untouched, 4) == [3, 4, 10, 2]
    for block in (0, 0, 1, 5, 6, 7, 8, 9):
        pool.free([block])
    assert pool.num_used == 4


@pytest.mark.parametrize("count", [6, 12, 1000])
def test_out_of_blocks_takes_nothing_and_evicts_nothing(count):
    pool, untouched = pool_with_cached([0, 1, 2]), pool_with_cached([0, 1, 2])
    for each in (pool, untouched):
        each.free([6, 9])
    with pytest.raises(OutOfBlocks) as error:
        pool.allocate(count)
    assert (error.value.needed, error.value.free) == (count, 5)
    assert seen(pool) == seen(untouched)
    assert pool.allocate(5) == untouched.allocate(5) == [0, 1, 2, 6, 9]


def test_out_of_blocks_is_for_the_person_who_chose_the_size():
    error = OutOfBlocks(5, 3)
    assert isinstance(error, UsageError)
    assert error.exit_status is ExitStatus.USAGE
    assert error.lines() == (
        "out of cache blocks: 5 needed, 3 free"
        "   (give the cache more blocks, or run fewer or shorter sequences)",
    )


@pytest.mark.parametrize("block", [7, 11, -1, -11])
@pytest.mark.parametrize("use", ["share", "publish", "forget"])
def test_a_block_nobody_knows_cannot_be_used(use, block):
    pool = pool_with_holes(7)
    before = seen(pool)
    arguments = (block, KEYS[0]) if use == "publish" else (block,)
    with pytest.raises(NotAllocated, match=rf"^block {block} has no owner and no known content$") as error:
        getattr(pool, use)(*arguments)
    assert error.value.block == block
    assert seen(pool) == before
    assert pool.allocate(1) == [7]


def test_only_an_owner_can_publish():
    pool = pool_with_cached([4])
    with pytest.raises(NotAllocated):
        pool.publish(4, KEYS[5])
    assert (pool.lookup(KEYS[4]), pool.lookup(KEYS[5])) == (4, None)


@pytest.mark.parametrize("block", [11, -1])
def test_a_block_outside_the_pool_has_no_owners_to_count(block):
    with pytest.raises(NotAllocated):
        BlockPool(BLOCKS).ref_count(block)


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="a pool cannot have -1 blocks"):
        BlockPool(-1)
    pool = BlockPool(BLOCKS)
    with pytest.raises(ValueError, match="cannot allocate -1 blocks"):
        pool.allocate(-1)
    assert pool.num_free == 11


def test_a_pool_of_nothing_has_nothing_to_give():
    pool = BlockPool(0)
    assert pool.allocate(0) == []
    with pytest.raises(OutOfBlocks):
        pool.allocate(1)


# Content


def test_the_first_publisher_of_a_key_wins():
    pool = BlockPool(BLOCKS)
    pool.allocate(2)
    pool.publish(1, KEYS[0])
    pool.publish(0, KEYS[0])
    assert pool.lookup(KEYS[0]) == 1
    pool.free([0])
    assert (pool.num_cached, pool.lookup(KEYS[0])) == (0, 1)
    assert pool.allocate(1) == [0]
    pool.forget(0)  # the private copy knows no key, so the public one keeps it
    assert pool.lookup(KEYS[0]) == 1


def test_a_private_copy_can_be_published_once_the_first_is_evicted():
    pool = pool_with_cached([0])
    pool.publish(1, KEYS[0])
    assert pool.allocate(1) == [0]
    assert pool.lookup(KEYS[0]) is None
    pool.publish(1, KEYS[0])
    assert pool.lookup(KEYS[0]) == 1


def test_publishing_again_is_harmless_under_the_same_key_and_refused_under_another():
    pool = BlockPool(BLOCKS)
    pool.allocate(1)
    pool.publish(0, KEYS[0])
    pool.publish(0, KEYS[0])
    with pytest.raises(
        AlreadyPublished, match=r"^block 0 is known under another key; forget that one first$"
    ):
        pool.publish(0, KEYS[1])
    assert (pool.lookup(KEYS[0]), pool.lookup(KEYS[1])) == (0, None)
    pool.forget(0)
    pool.publish(0, KEYS[1])
    assert (pool.lookup(KEYS[0]), pool.lookup(KEYS[1])) == (None, 0)


def test_a_forgotten_live_block_is_not_cached_when_it_is_freed():
    pool = BlockPool(BLOCKS)
    pool.allocate(2)
    pool.publish(0, KEYS[0])
    pool.forget(0)
    pool.forget(0)
    assert (pool.lookup(KEYS[0]), pool.ref_count(0)) == (None, 1)
    pool.free([0])
    assert (pool.num_free, pool.num_cached) == (10, 0)


def test_a_forgotten_cached_block_goes_with_the_unknown():
    pool = pool_with_cached([4, 5], [0])
    pool.forget(0)
    assert (pool.num_free, pool.num_cached, pool.lookup(KEYS[0])) == (3, 2, None)
    assert one_by_one(pool, 3) == [0, 5, 4]


# What went wrong in other engines


def test_a_revived_block_is_not_evicted_by_the_allocation_made_right_after():
    # vLLM issue 37076: use after free under eviction pressure. Every free block is cached, the hit is on the
    # one next in line to be evicted, and the same request takes everything else that is free.
    pool = BlockPool(BLOCKS)
    pool.allocate(BLOCKS)
    for block in range(BLOCKS):
        pool.publish(block, KEYS[block])
    pool.free(range(BLOCKS))
    hit = pool.lookup(KEYS[10])
    pool.share(hit)
    assert pool.allocate(10) == list(range(10))
    assert (pool.lookup(KEYS[10]), pool.ref_count(10)) == (10, 1)
    with pytest.raises(OutOfBlocks):
        pool.allocate(1)


def test_a_hit_is_not_counted_as_free_any_more():
    # vLLM pull request 6849: blocks of the hit were counted as room for the rest of the same request.
    pool = pool_with_cached([0, 1, 2])
    pool.share(0)
    with pytest.raises(OutOfBlocks) as error:
        pool.allocate(3)
    assert (error.value.needed, error.value.free) == (3, 2)
    assert pool.lookup(KEYS[0]) == 0


def test_an_evicted_block_is_not_found_under_what_it_held_before():
    # kvcached issue 362, vLLM pull request 4761: a block reused for another prefix kept its old hash.
    pool = pool_with_cached([0])
    assert pool.allocate(1) == [0]
    pool.publish(0, KEYS[1])
    assert (pool.lookup(KEYS[0]), pool.lookup(KEYS[1])) == (None, 0)
    pool.free([0])
    assert (pool.lookup(KEYS[0]), pool.lookup(KEYS[1])) == (None, 0)
    pool.allocate(1)
    assert (pool.lookup(KEYS[0]), pool.lookup(KEYS[1])) == (None, None)


def test_a_block_named_twice_is_not_free_twice():
    # vLLM issue 42571: free([b, b]) put b into the free queue twice, and two requests were given it.
    pool = pool_with_cached([0])
    pool.share(0)
    pool.share(0)
    pool.free([0, 0])
    assert (pool.num_free, pool.num_cached) == (1, 1)
    assert pool.allocate(1) == [0]
    with pytest.raises(OutOfBlocks):
        pool.allocate(1)


def test_a_start_left_in_the_cache_is_never_cut_off_from_below():
    # llm-d-inference-sim issue 704: chained keys are of no use once an ancestor is evicted.
    pool = pool_with_cached([2, 6, 1, 9])
    for kept in (3, 2, 1, 0):
        pool.allocate(1)
        assert [pool.lookup(KEYS[block]) is not None for block in (2, 6, 1, 9)] == [True] * kept + [False] * (
            4 - kept
        )


# Keys


def test_a_key_is_the_keyed_hash_of_little_endian_token_ids():
    first = blake2b(struct.pack("<3q", 7, 0, 128_255), digest_size=16).digest()
    assert block_key(None, [7, 0, 128_255]) == first
    second = blake2b(struct.pack("<3q", 7, 0, 128_255), digest_size=16, key=first).digest()
    assert block_key(first, [7, 0, 128_255]) == second
    assert len(first) == len(second) == 16


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", ">i8", "uint32", "uint64"])
def test_a_key_does_not_depend_on_how_tokens_are_kept(dtype):
    tokens = [3, 1, 4, 1, 5]
    array = np.array(tokens, dtype)
    assert block_key(None, array) == block_key(None, tokens) == block_key(None, tuple(tokens))
    assert block_key(None, np.repeat(array, 2)[::2]) == block_key(None, tokens)


def test_a_key_is_the_same_in_every_process():
    code = "from kvplan.engine.block_pool import block_key; print(block_key(block_key(None, [1]), [2]).hex())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {block_key(block_key(None, [1]), [2]).hex()}


def every_split(tokens):
    """Every way to cut a sequence of tokens into consecutive blocks."""
    for cuts in range(1 << (len(tokens) - 1)):
        bounds = [0, *(place + 1 for place in range(len(tokens) - 1) if cuts >> place & 1), len(tokens)]
        yield [tokens[start:stop] for start, stop in pairwise(bounds)]


def test_different_splits_of_the_same_tokens_have_different_keys():
    found = set()
    for blocks in every_split([0, 0, 0, 0, 0, 0, 0]):
        key = None
        for tokens in blocks:
            key = block_key(key, tokens)
        found.add(key)
    assert len(found) == 64


def test_a_key_depends_on_all_that_came_before():
    chains = [([1, 2], [3, 4]), ([2, 1], [3, 4]), ([1, 2], [4, 3]), ([1, 2], [3, 4, 0]), ([0, 1, 2], [3, 4])]
    assert len({block_key(block_key(None, first), second) for first, second in chains}) == len(chains)
    parent = block_key(None, [1, 2])
    assert block_key(parent, [3]) != block_key(None, [*struct.unpack("<2q", parent), 3])


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        np.array([], np.int64),
        [1.0, 2.0],
        np.ones(3),
        [[1, 2], [3, 4]],
        [True, False],
        ["a"],
        [2**70],
        5,
        [None],
    ],
    ids=repr,
)
def test_tokens_must_be_one_row_of_whole_numbers(tokens):
    with pytest.raises(ValueError, match=r"^a block's tokens must be one row of whole numbers, not "):
        block_key(None, tokens)
