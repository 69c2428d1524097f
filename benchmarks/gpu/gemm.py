"""Products of the model's shapes, as its layers run them: few rows in decode, many in prefill."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from prediction import Plan
from report import TimeRow, Topic
from sizes import LlamaSizes, Product
from stopwatch import Stopwatch, Timing, copies, release

from kvplan.units import short_count


def measure(
    stopwatch: Stopwatch, plan: Plan, sizes: LlamaSizes, rows: Sequence[int], dtype: torch.dtype
) -> Topic:
    """Measure every product of a layer, and the output head, with so many rows each."""
    found = []
    for product in sizes.products():
        _require_same_product(plan, product)
        weights = _weights(stopwatch, product, dtype)
        for count in rows:
            timing = _time(stopwatch, weights, count)
            predicted = plan.product(product.operator, count)
            shape = f"{short_count(product.inputs)} x {short_count(product.outputs)}"
            found.append(
                TimeRow((product.operator, shape, f"{count:,}"), timing.seconds, predicted, timing.how)
            )
        del weights
        release()
    return Topic(
        "Matrix products",
        "One product by itself, random operands, weights read from memory: copies of them are used in turn.",
        ("product", "weight", "rows"),
        found,
    )


def _weights(stopwatch: Stopwatch, product: Product, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return copies of a weight, laid out as ``torch.nn.Linear`` keeps it."""
    count = copies(stopwatch, product.inputs * product.outputs * dtype.itemsize)
    shape = (product.outputs, product.inputs)
    # Random numbers: a card draws less power over zeros, and so clocks higher.
    return [torch.randn(shape, dtype=dtype, device=stopwatch.device) for _ in range(count)]


def _time(stopwatch: Stopwatch, weights: Sequence[torch.Tensor], rows: int) -> Timing:
    outputs, inputs = weights[0].shape
    x = torch.randn((rows, inputs), dtype=weights[0].dtype, device=stopwatch.device)
    # One output for all: its place is taken before the clock starts.
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    return stopwatch.time([partial(torch.mm, x, w.t(), out=y) for w in weights])


def _require_same_product(plan: Plan, product: Product) -> None:
    """Raise ValueError where kvplan speaks of another matrix than the one measured.

    Operations tell: the bytes kvplan gives the head have the final norm's few in them.
    """
    planned = plan.product(product.operator, 1).flops
    if planned != 2 * product.inputs * product.outputs:
        raise ValueError(f"{product} is not what kvplan plans: {planned:,.0f} FLOPs for a row")
