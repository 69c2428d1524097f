"""Attention of one decode step: a query token for each request over its cached keys and values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from prediction import Plan
from report import TimeRow, Topic
from sizes import LlamaSizes
from stopwatch import Call, Stopwatch, copies, release
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kvplan.units import short_count

FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
# 16-bit inputs and weights, sums in float32: a kernel that skips or repeats a head is far outside.
NEAR = 0.02
Operands = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def measure(
    stopwatch: Stopwatch,
    plan: Plan,
    sizes: LlamaSizes,
    cells: Sequence[tuple[int, int]],
    dtype: torch.dtype,
) -> tuple[Topic, dict[tuple[int, int], SDPBackend]]:
    """Measure one layer's attention for each (batch, context) of ``cells``; return each one's kernel too."""
    rows, skipped, chosen = [], [], {}
    for batch, context in cells:
        where = (f"{batch:,}", short_count(context))
        operands = _operands(stopwatch, sizes, batch, context, dtype)
        kernels = usable(operands[0])
        if not kernels:
            skipped.append(f"batch {where[0]}, context {where[1]}: no fused kernel of torch takes it")
            continue
        timings = {kernel: stopwatch.time([_call(kernel, one) for one in operands]) for kernel in kernels}
        best = min(timings, key=lambda kernel: timings[kernel].seconds)
        chosen[batch, context] = best
        how = f"{best.name.removesuffix('_ATTENTION').lower()}, {timings[best].how}"
        rows.append(TimeRow(where, timings[best].seconds, plan.attention(batch, context), how))
        del operands
        release()
    topic = Topic(
        "Decode attention",
        "One layer by itself: torch's scaled_dot_product_attention, the fastest of its kernels, named; "
        "keys and values read from memory: copies of them are used in turn.",
        ("batch", "context"),
        rows,
        tuple(skipped),
    )
    return topic, chosen


def usable(operands: Operands) -> list[SDPBackend]:
    """Return the kernels that take these operands and give the right answer.

    Raises:
        ValueError: one of them gives another.
    """
    found = []
    expected = _reference(operands)
    for kernel in FUSED:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # each says at length why it does not take them
                result = _call(kernel, operands)()
        except RuntimeError:
            continue
        if (result[:1].float() - expected).norm() > NEAR * expected.norm():
            raise ValueError(f"{kernel.name} is wrong at {tuple(operands[1].shape)}")
        found.append(kernel)
    return found


def _reference(operands: Operands) -> torch.Tensor:
    """Return the attention of the first request in float32, heads spelled out."""
    query, key, value = (one[:1].float() for one in operands)
    group = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(group, 1).transpose(2, 3) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value.repeat_interleave(group, 1)


def _operands(
    stopwatch: Stopwatch, sizes: LlamaSizes, batch: int, context: int, dtype: torch.dtype
) -> list[Operands]:
    """Return copies of a query and a cache that holds the context and the query's own token."""
    query = (batch, sizes.query_heads, 1, sizes.head_dim)
    cached = (batch, sizes.kv_heads, context + 1, sizes.head_dim)
    each = 2 * batch * sizes.kv_heads * (context + 1) * sizes.head_dim * dtype.itemsize
    options = {"dtype": dtype, "device": stopwatch.device}
    return [
        (torch.randn(query, **options), torch.randn(cached, **options), torch.randn(cached, **options))
        for _ in range(copies(stopwatch, each))
    ]


def _call(kernel: SDPBackend, operands: Operands) -> Call:
    query, key, value = operands

    def run() -> torch.Tensor:
        with sdpa_kernel(kernel):
            return scaled_dot_product_attention(query, key, value, enable_gqa=True)

    return run
