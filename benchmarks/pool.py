"""Time the block pool: how many blocks a second are allocated and freed, and what a fork costs.

    python benchmarks/pool.py [--runs N]

A sequence is 32,768 tokens: 512 blocks of 64. The figures are medians of the runs, which take turns, in
processor time: a pool waits for nothing but the processor, and a neighbour's share of it is not the
pool's. The first case is a list of free ids without owners, content or order: what the calls alone cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import cycle
from statistics import median
from time import process_time

from kvplan.engine.block_pool import BlockPool, block_key

BLOCK_TOKENS = 64
SEQUENCE = 512
ROUNDS = 10
SIZES = (4_096, 65_536, 1_048_576)


class BareList:
    """A list of free ids, as little as an allocator can be."""

    def __init__(self, num_blocks: int) -> None:
        self.blocks = list(range(num_blocks))

    def allocate(self, count: int) -> list[int]:
        """Take blocks from the end."""
        taken = self.blocks[-count:]
        del self.blocks[-count:]
        return taken

    def free(self, blocks: list[int]) -> None:
        """Put blocks back."""
        self.blocks += blocks


def one_at_a_time(pool: BlockPool | BareList) -> None:
    """Allocate one block and free it, 512 times."""
    for _ in range(SEQUENCE):
        pool.free(pool.allocate(1))


def grown(pool: BlockPool) -> None:
    """Grow a sequence by a block at a time, then free it whole."""
    blocks: list[int] = []
    for _ in range(SEQUENCE):
        blocks += pool.allocate(1)
    pool.free(blocks)


def whole(pool: BlockPool) -> None:
    """Allocate a sequence in one call, free it in another."""
    pool.free(pool.allocate(SEQUENCE))


def fill_with_holes(pool: BlockPool) -> None:
    """Leave every second block free, so that no two are consecutive."""
    pool.free(pool.allocate(pool.num_blocks)[::2])


def fill_with_cached(pool: BlockPool) -> Callable[[BlockPool], None]:
    """Make every block a cached one; return the case that evicts 512, publishes and frees them."""
    # More keys than blocks: one that comes round again has been evicted for long.
    keys = cycle([number.to_bytes(16, "little") for number in range(pool.num_blocks + 2 * SEQUENCE)])

    def serve(pool: BlockPool, count: int = SEQUENCE) -> None:
        blocks = pool.allocate(count)
        for block in blocks:
            pool.publish(block, next(keys))
        pool.free(blocks)

    serve(pool, pool.num_blocks)
    return serve


def fork(pool: BlockPool) -> None:
    """Share the 512 blocks of a sequence, then free what was shared."""
    for block in range(SEQUENCE):
        pool.share(block)
    pool.free(range(SEQUENCE))


def cases(num_blocks: int) -> dict[str, Callable[[], None]]:
    """Return what is timed, each on a pool of its own and worth 512 blocks."""
    pools = [BlockPool(num_blocks) for _ in range(6)]
    fill_with_holes(pools[3])
    pools[5].allocate(SEQUENCE)
    serve, bare = fill_with_cached(pools[4]), BareList(num_blocks)
    return {
        "a bare list: allocate(1), free": lambda: one_at_a_time(bare),
        "allocate(1), free": lambda: one_at_a_time(pools[0]),
        "allocate(1) x 512, free(512)": lambda: grown(pools[1]),
        "allocate(512), free(512)": lambda: whole(pools[2]),
        "the same, every second block live": lambda: whole(pools[3]),
        "the same, evicting and publishing": lambda: serve(pools[4]),
        "share x 512, free(512)": lambda: fork(pools[5]),
    }


def block_seconds(timed: dict[str, Callable[[], None]], runs: int) -> dict[str, float]:
    """Return the median seconds a block of each case."""
    found: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(runs):
        for name, case in timed.items():
            start = process_time()
            for _ in range(ROUNDS):
                case()
            found[name].append((process_time() - start) / (ROUNDS * SEQUENCE))
    return {name: median(times) for name, times in found.items()}


def key_seconds(runs: int) -> float:
    """Return the median seconds to compute the key of one block."""
    tokens = list(range(100_000, 100_000 + BLOCK_TOKENS))
    times = []
    for _ in range(runs):
        start = process_time()
        key = None
        for _ in range(SEQUENCE):
            key = block_key(key, tokens)
        times.append((process_time() - start) / SEQUENCE)
    return median(times)


def main() -> None:
    """Print a line for each case, a column for each size of the pool."""
    parser = argparse.ArgumentParser(description="time the block pool")
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    found = [block_seconds(cases(size), runs) for size in SIZES]
    print(f"million blocks a second of processor time, medians of {runs} runs in turns")
    print(f"{'blocks in the pool':<36}" + "".join(f"{size:>12,}" for size in SIZES))
    for name in found[0]:
        print(f"{name:<36}" + "".join(f"{1e-6 / seconds[name]:>12.2f}" for seconds in found))
    forked = found[0]["share x 512, free(512)"] * SEQUENCE
    print(f"sharing a sequence of {SEQUENCE} blocks and freeing it: {forked * 1e6:.0f} us")
    key = key_seconds(runs)
    print(f"key of {BLOCK_TOKENS} tokens: {key * 1e6:.1f} us; of a sequence: {key * SEQUENCE * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
