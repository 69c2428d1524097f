"""Time the engine's linear layer against the products NumPy and torch would do with the same weight.

    python benchmarks/linear.py [--runs N]

All candidates run in the same process, in turns and on one thread; the figures are medians of CPU time.
Every product reads another copy of its weight, so that weights come from memory as a model's do. torch is
left out where it is not installed. The kernels OpenBLAS has for the processor decide; they are printed.
"""

from __future__ import annotations

import argparse
import os

# Before NumPy is imported. A forced kernel set would be measured instead of the machine's own.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)

from collections.abc import Callable
from itertools import cycle
from statistics import median
from time import thread_time

import numpy as np

from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear, has_uncopied_products

SHAPES = ((512, 2_048), (2_048, 8_192))
ROWS = (1, 2, 4, 8, 16, 32, 128, 512)
# Past any last-level cache that a core has to itself.
COLD_BYTES = 1 << 27

Product = Callable[[np.ndarray], np.ndarray]


def candidates(inputs: int, outputs: int) -> dict[str, Product]:
    """Return the products to compare, each over its own copies of one weight."""
    weight = np.random.default_rng(0).standard_normal((outputs, inputs), dtype=np.float32)
    copies = max(2, COLD_BYTES // weight.nbytes)
    panels = cycle([Linear(weight) for _ in range(copies)])
    stored = cycle(list(np.repeat(weight[np.newaxis], copies, axis=0)))
    turned = cycle(list(np.repeat(np.ascontiguousarray(weight.T)[np.newaxis], copies, axis=0)))
    counter = Counter()
    found: dict[str, Product] = {
        "panels": lambda x: next(panels)(x, counter),
        "x @ W.T": lambda x: x @ next(stored).T,
        "x @ W": lambda x: x @ next(turned),
    }
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(1)
    tensors = cycle([torch.from_numpy(weight.copy()) for _ in range(copies)])
    found["torch"] = lambda x: torch.nn.functional.linear(torch.from_numpy(x), next(tensors)).numpy()
    return found


def measure(products: dict[str, Product], x: np.ndarray, runs: int) -> dict[str, float]:
    """Return the median seconds of each product with ``x``."""
    expected = products["x @ W.T"](x)
    seconds: dict[str, list[float]] = {name: [] for name in products}
    for _ in range(runs + 1):
        for name, product in products.items():
            start = thread_time()
            result = product(x)
            seconds[name].append(thread_time() - start)
            if not np.allclose(result, expected, rtol=1e-3, atol=1e-3):
                raise SystemExit(f"{name} is not the product")
    # The first run of each also allocates and loads.
    return {name: median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    """Print one line for each shape and number of rows."""
    parser = argparse.ArgumentParser(description="time linear layers")
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    kernels = "OpenBLAS with AVX-512 kernels" if has_uncopied_products() else "no uncopied products"
    print(f"GB/s of weights (GFLOP/s), medians of {runs} alternating runs; {kernels}")
    for inputs, outputs in SHAPES:
        products = candidates(inputs, outputs)
        names = "".join(f"{name:>16}" for name in products)
        print(f"{inputs} x {outputs:<6} rows{names}   panels / best other")
        for rows in ROWS:
            x = np.random.default_rng(rows).standard_normal((rows, inputs), dtype=np.float32)
            found = measure(products, x, runs)
            nbytes, flops = 4e-9 * inputs * outputs, 2e-9 * rows * inputs * outputs
            cells = "".join(f"{nbytes / s:>8.1f} ({flops / s:>5.1f})" for s in found.values())
            best = min(seconds for name, seconds in found.items() if name != "panels")
            print(f"{rows:>17}{cells}   {best / found['panels']:.2f}x")


if __name__ == "__main__":
    main()
