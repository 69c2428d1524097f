"""Time a 1,000,000-point (batch x context) grid, and how much faster it is than one call a point.

    python benchmarks/grid.py [--runs N]

Both are timed in the same process, in turns; the figures are medians of the runs. Single calls are
timed on a sample of the grid's points.
"""

from __future__ import annotations

import argparse
import random
from statistics import median
from time import perf_counter

import numpy as np

from kvplan.allocation import Paged
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model
from kvplan.storage import kv_format, state_layout, weight_format

CASES = (("llama-3.1-8b", "h100-sxm", 1), ("gemma-2-9b", "h100-sxm", 1), ("deepseek-v3", "b300-sxm", 4))
SIDE = 1_000
SAMPLE = 2_000


def plan(model_name: str, gpu_name: str, pipeline: int) -> Capacity:
    """Plan a bundled model as released, with a bf16 cache in blocks of 16."""
    model = load_model(find_model(model_name))
    deployment = Deployment(
        device=load_gpu(find_gpu(gpu_name)),
        parallelism=Parallelism(pipeline=pipeline),
        weights=weight_format(model.weight_format or model.dtype),
        kv=kv_format("bf16"),
        state=state_layout("transformers"),
        allocation=Paged(16),
        max_tokens=model.max_position_embeddings,
    )
    return plan_capacity(model, deployment)


def measure(capacity: Capacity, runs: int) -> tuple[float, float]:
    """Return the median seconds of the whole grid, and of one call for one point."""
    batches = np.arange(1, SIDE + 1, dtype=np.int64)
    contexts = np.linspace(1, capacity.deployment.max_tokens, SIDE).astype(np.int64)
    chosen = random.Random(0)
    sample = [(chosen.randrange(SIDE), chosen.randrange(SIDE)) for _ in range(SAMPLE)]
    points = [(int(batches[b]), int(contexts[c])) for b, c in sample]
    grid_seconds, call_seconds = [], []
    for _ in range(runs):
        start = perf_counter()
        grid = capacity.fits_grid(batches, contexts)
        grid_seconds.append(perf_counter() - start)
        start = perf_counter()
        single = [capacity.fits(batch, context) for batch, context in points]
        call_seconds.append((perf_counter() - start) / SAMPLE)
        if single != [bool(grid[b, c]) for b, c in sample]:
            raise SystemExit("the grid and single calls disagree")
    return median(grid_seconds), median(call_seconds)


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description="time a grid of 1,000,000 points")
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    print(f"{SIDE * SIDE:,} points, medians of {runs} alternating runs")
    print(f"{'model':<14} {'stages':>6} {'grid':>10} {'one call':>10} {'faster':>8}")
    for model_name, gpu_name, pipeline in CASES:
        grid, call = measure(plan(model_name, gpu_name, pipeline), runs)
        ratio = call * SIDE * SIDE / grid
        print(f"{model_name:<14} {pipeline:>6} {grid * 1e3:>7.1f} ms {call * 1e6:>7.1f} us {ratio:>7,.0f}x")


if __name__ == "__main__":
    main()
