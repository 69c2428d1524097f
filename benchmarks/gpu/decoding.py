"""The whole model: the time of a decode step over batch and context, and the memory it all takes."""

from __future__ import annotations

from collections.abc import Mapping

import memory
import torch
from cells import Cell
from llama import build, decode_call, full_cache, require_right, set_position
from prediction import Plan
from report import MemoryRow, TimeRow, Topic
from sizes import LlamaSizes
from stopwatch import Stopwatch, Timing, release
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaForCausalLM, StaticCache

from kvplan.units import short_count


def measure(
    stopwatch: Stopwatch,
    plan: Plan,
    sizes: LlamaSizes,
    kernels: Mapping[Cell, SDPBackend],
    dtype: torch.dtype,
    chunk_tokens: int,
    *,
    fuse: bool,
) -> tuple[Topic, Topic]:
    """Measure the step of each (batch, context), with its kernel, and the memory where most is used.

    Returns:
        the tables of memory and of steps.

    Raises:
        ValueError: the model's steps do not compute what the model does.
    """
    release()
    on_gpu = stopwatch.device.type == "cuda"
    model = build(sizes, stopwatch.device, dtype)
    require_right(model)
    categories: list[MemoryRow] = [memory.weights_row(model, plan)]
    steps = []
    smallest_first = sorted(kernels, key=lambda cell: cell[0] * (cell[1] + 1))
    for cell in smallest_first:
        release()
        batch, context = cell
        cache = full_cache(model, batch, context + 1)
        categories.append(memory.cache_row(cache, plan, cell))
        with sdpa_kernel(kernels[cell]):
            if on_gpu and cell == smallest_first[-1]:
                categories += memory.driver_rows(model, cache, plan, cell, chunk_tokens)
            timing = _time(stopwatch, model, cache, cell, fuse=fuse)
        kernel = kernels[cell].name.removesuffix("_ATTENTION").lower()
        how = f"{kernel}, {timing.how}{', compiled' if fuse else ''}"
        where = (f"{batch:,}", short_count(context), f"{batch / timing.seconds:,.0f}")
        steps.append(TimeRow(where, timing.seconds, plan.decode_step(batch, context), how))
        del cache
    return memory.topic(categories, asked_driver=on_gpu), _step_topic(steps)


def _time(
    stopwatch: Stopwatch, model: LlamaForCausalLM, cache: StaticCache, cell: Cell, *, fuse: bool
) -> Timing:
    """Time one step, from a token of each request to the next, always at the same place in the cache."""
    batch, context = cell
    token = torch.zeros((batch, 1), dtype=torch.int64, device=stopwatch.device)
    if fuse:
        torch._dynamo.reset()  # each shape is compiled by itself: none is the one too many
    logits = decode_call(torch.compile(model, dynamic=False) if fuse else model, cache, token)
    # The cache moves on with every step by itself: past its end, if nobody sets it back.
    return stopwatch.time([lambda: logits().argmax(-1)], before=lambda: set_position(cache, context))


def _step_topic(rows: list[TimeRow]) -> Topic:
    return Topic(
        "Decode step",
        "From one token of every request to the next, greedy: transformers' Llama over its StaticCache. The "
        "estimate is without the host's part between steps, as a replayed graph waits for none.",
        ("batch", "context", "tokens/s"),
        rows,
    )
