"""Time attention over the cache against read bandwidth, sgemm, and PyTorch where it is installed.

    python benchmarks/attention.py [--runs N]

One thread. Within a table, candidates take turns in one process and the figures are medians of CPU time, so
that other jobs on the machine count less; every ratio is of two figures of the same turns. Caches of one
table are 256 MiB or more, so keys and values come from memory.
"""

from __future__ import annotations

import argparse
import os

# Before NumPy is imported. A forced kernel set would be measured instead of the machine's own.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import thread_time

import numpy as np

from kvplan.engine.attention import Settings, Visibility, attend, decode
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.scratch import Scratch
from kvplan.storage import kv_format

try:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    torch.set_num_threads(1)
except ImportError:
    torch = None

K_DIM = 128
SCALE = K_DIM**-0.5
BLOCK = 64
WORKING_SET = 256 << 20
Candidate = Callable[[int], object]


@dataclass(frozen=True)
class Row:
    """A line of a table: what is measured, in which unit, and what it should be at least."""

    name: str
    figure: float
    unit: str
    goal: float


def take_turns(candidates: dict[str, Candidate], runs: int) -> dict[str, float]:
    """Return the median seconds of each candidate; the first turn only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(runs + 1):
        for name, candidate in candidates.items():
            start = thread_time()
            candidate(turn)
            seconds[name].append(thread_time() - start)
    return {name: median(measured[1:]) for name, measured in seconds.items()}


class Batch:
    """Sequences of these lengths in one store, or in as many as make a working set."""

    def __init__(
        self, lengths: Sequence[int], heads: int, kv_heads: int, kv: str = "fp32", shuffled: bool = False
    ) -> None:
        rng = np.random.default_rng(0)
        self.queries = rng.standard_normal((len(lengths), heads, K_DIM), dtype=np.float32)
        sizes = [-(-length // BLOCK) for length in lengths]
        order = rng.permutation(sum(sizes)) if shuffled else np.arange(sum(sizes))
        parts = np.split(order, np.cumsum(sizes)[:-1])
        self.views = []
        scratch = Scratch()
        while sum(views[0][0].tiles.nbytes for views in self.views) < WORKING_SET:
            tiles = filled(kv_heads, len(order), kv, scratch)
            self.views.append([[View(tiles, part, 0, n)] for part, n in zip(parts, lengths, strict=True)])

    def decode(self, turn: int) -> None:
        """Attend with one query for each sequence, in another store each turn."""
        decode(self.queries, self.views[turn % len(self.views)], Settings(SCALE), Counter())

    def read(self, turn: int) -> None:
        """Read a store once."""
        tiles = self.views[turn % len(self.views)][0][0].tiles
        for plane in (tiles.keys, tiles.values):
            for array in plane.arrays.values():
                array.max()


def filled(kv_heads: int, blocks: int, kv: str, scratch: Scratch | None = None) -> KVTiles:
    """Return a store of one block's random tokens, over and over."""
    rng = np.random.default_rng(1)
    tiles = KVTiles(kv_heads, K_DIM, K_DIM, blocks, BLOCK, kv_format(kv), scratch, sequences=1)
    keys, values = rng.standard_normal((2, BLOCK, kv_heads, K_DIM), dtype=np.float32)
    hot = np.zeros(BLOCK, np.int64) if tiles.hot else None
    for block in range(blocks):
        tiles.write(np.full(BLOCK, block), np.arange(BLOCK), keys, values, hot)
    return tiles


def torch_decode(lengths: Sequence[int], heads: int, kv_heads: int) -> dict[str, Candidate]:
    """Return PyTorch's two ways to attend with grouped queries."""
    if torch is None:
        return {}
    shape = (len(lengths), kv_heads, lengths[0], K_DIM)
    keys, values = torch.randn(shape), torch.randn(shape)
    rows = torch.randn(len(lengths), kv_heads, heads // kv_heads, K_DIM)
    apart = rows.reshape(len(lengths), heads, 1, K_DIM)
    return {
        "torch, query group as rows": lambda turn: sdpa(rows, keys, values),
        "torch, enable_gqa": lambda turn: sdpa(apart, keys, values, enable_gqa=True),
    }


def best(seconds: dict[str, float], word: str) -> float | None:
    """Return the least seconds of candidates whose name begins so, if there are any."""
    return min((s for name, s in seconds.items() if name.startswith(word)), default=None)


def decode_rows(runs: int) -> list[Row]:
    """Decode 8 x 4096 tokens of a float32 cache."""
    lengths = [4096] * 8
    contiguous, shuffled = Batch(lengths, 32, 8), Batch(lengths, 32, 8, shuffled=True)
    seconds = take_turns(
        {"read": contiguous.read, "decode": contiguous.decode, "shuffled": shuffled.decode}
        | torch_decode(lengths, 32, 8),
        runs,
    )
    rows = [
        Row("GQA 32/8, blocks in order", seconds["read"] / seconds["decode"], "of read bandwidth", 0.65),
        Row("GQA 32/8, blocks in random order", seconds["decode"] / seconds["shuffled"], "x in order", 0.80),
    ]
    peer = best(seconds, "torch")
    return rows if peer is None else [*rows, Row("GQA 32/8", peer / seconds["decode"], "x torch SDPA", 3.0)]


def many_head_rows(runs: int) -> list[Row]:
    """Decode with as many kv heads as query heads, and with lengths that differ."""
    multi = Batch([4096] * 2, 32, 32)
    lengths = np.random.default_rng(2).integers(1, 4097, 32).tolist()
    mixed = Batch(lengths, 32, 8)
    seconds = take_turns(
        {"read": multi.read, "decode": multi.decode, "read mixed": mixed.read, "mixed": mixed.decode}, runs
    )
    valid = sum(lengths) / sum(-(-n // BLOCK) * BLOCK for n in lengths)
    return [
        Row("MHA 32/32", seconds["read"] / seconds["decode"], "of read bandwidth", 0.70),
        Row(
            "32 lengths of 1 to 4096",
            valid * seconds["read mixed"] / seconds["mixed"],
            "of read bandwidth",
            0.58,
        ),
    ]


def format_rows(runs: int) -> list[Row]:
    """Decode 8 x 4096 tokens of every format."""
    goals = {
        "int8": 0.65,
        "int4": 0.58,
        "bf16": 0.60,
        "fp8": 0.50,
        "fp16": 0.45,
        "int8-kivi": 0,
        "int4-kivi": 0,
    }
    batches = {kv: Batch([4096] * 8, 32, 8, kv) for kv in ("fp32", *goals)}
    seconds = take_turns({kv: batch.decode for kv, batch in batches.items()}, runs)
    return [
        Row(f"GQA 32/8, {kv}", seconds["fp32"] / seconds[kv], "x fp32", goal) for kv, goal in goals.items()
    ]


def prefill_rows(runs: int) -> list[Row]:
    """Prefill one sequence, 8 query and 2 kv heads, against sgemm of 2048 x 2048."""
    left = np.random.default_rng(3).standard_normal((2048, 2048), dtype=np.float32)
    product = np.empty_like(left)
    rows = []
    for tokens in (4096, 8192):
        prefill = Prefill(tokens)
        seconds = take_turns(
            {"sgemm": lambda turn: np.matmul(left, left, out=product), "attend": prefill.attend}
            | torch_prefill(tokens),
            runs,
        )
        rate = prefill.flops() / seconds["attend"]
        rows.append(Row(f"{tokens} tokens", rate / (2 * 2048**3 / seconds["sgemm"]), "of sgemm", 0.75))
        peer = best(seconds, "torch")
        if peer is not None:
            rows.append(Row(f"{tokens} tokens", peer / seconds["attend"], "x torch SDPA", 0.95))
        rows.append(Row(f"{tokens} tokens, work areas", prefill.scratch_mib(), "MiB (at most)", 32))
    return rows


class Prefill:
    """A prompt of so many tokens, stored already, and its queries."""

    def __init__(self, tokens: int) -> None:
        self.queries = np.random.default_rng(4).standard_normal((tokens, 8, K_DIM), dtype=np.float32)
        self.view = View(filled(2, tokens // BLOCK, "fp32"), np.arange(tokens // BLOCK), 0, tokens)
        self.counter = Counter()

    def attend(self, turn: int = 0) -> np.ndarray:
        """Attend with every query; counts in a new counter."""
        self.counter = Counter()
        return attend(self.queries, 0, [self.view], Visibility(), Settings(SCALE), self.counter)

    def flops(self) -> int:
        """Return the floating-point operations of the last call."""
        return self.counter.attention_flops

    def scratch_mib(self) -> float:
        """Return the most memory a call takes beside its result, with work areas that start empty."""
        self.view.tiles.scratch.clear()
        tracemalloc.start()
        out = self.attend()
        peak = tracemalloc.get_traced_memory()[1] - out.nbytes
        tracemalloc.stop()
        return peak / 2**20


def torch_prefill(tokens: int) -> dict[str, Candidate]:
    """Return PyTorch's two ways to prefill with grouped queries."""
    if torch is None:
        return {}
    queries, keys = torch.randn(1, 8, tokens, K_DIM), torch.randn(1, 2, tokens, K_DIM)
    repeated = keys.repeat_interleave(4, dim=1)
    return {
        "torch, enable_gqa": lambda turn: sdpa(queries, keys, keys, is_causal=True, enable_gqa=True),
        "torch, repeated keys": lambda turn: sdpa(queries, repeated, repeated, is_causal=True),
    }


def main() -> None:
    """Print one table after another."""
    parser = argparse.ArgumentParser(description="time attention over the cache")
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    peer = "torch is not installed: left out" if torch is None else f"torch {torch.__version__}"
    print(f"medians of {runs} alternating runs, one thread, NumPy {np.__version__}, {peer}")
    sections = (
        ("decode, float32", decode_rows, runs),
        ("decode, float32", many_head_rows, runs),
        ("decode, other formats", format_rows, runs),
        ("prefill, float32", prefill_rows, max(1, runs // 3)),
    )
    for title, rows, turns in sections:
        for row in rows(turns):
            goal = f"goal {row.goal:.2f}" if row.goal else ""
            print(f"{title:<22} {row.name:<34} {row.figure:>7.2f} {row.unit:<18} {goal}", flush=True)


if __name__ == "__main__":
    main()
