"""Where the memory of the card goes, beside the categories kvplan plans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cells import Cell
from llama import cache_bytes, decode_call, first_chunk, set_position, weights_bytes
from prediction import Plan
from report import MemoryRow, Topic
from stopwatch import captured
from transformers import LlamaForCausalLM, StaticCache

from kvplan.units import short_count


def weights_row(model: LlamaForCausalLM, plan: Plan) -> MemoryRow:
    """Return the row of the parameters."""
    return MemoryRow("weights", weights_bytes(model), plan.memory(1, 1, 1).weights_bytes, exact=True)


def cache_row(cache: StaticCache, plan: Plan, cell: Cell) -> MemoryRow:
    """Return the row of a cache's keys and values."""
    batch, context = cell
    name = f"KV cache, batch {batch:,}, context {short_count(context)}"
    return MemoryRow(name, cache_bytes(cache), plan.memory(batch, context, 1).cache_bytes, exact=True)


def driver_rows(
    model: LlamaForCausalLM, cache: StaticCache, plan: Plan, cell: Cell, chunk_tokens: int
) -> list[MemoryRow]:
    """Return the rows of what is beside weights and cache, and of all that the driver says is in use.

    A prefill step and a captured decode step run; then the driver is asked, with the graph still there and
    the step's blocks still held by the allocator. Nothing else may have left blocks with it.
    """
    batch, context = cell
    each = max(2, min(chunk_tokens // batch, context))
    planned = plan.memory(batch, context, batch * each)
    activations = _activation_peak_bytes(model, cache, batch, each)
    token = torch.zeros((batch, 1), dtype=torch.int64, device=model.lm_head.weight.device)
    graph = captured(decode_call(model, cache, token), before=lambda: set_position(cache, context))
    free, total = torch.cuda.mem_get_info()
    in_use = total - free
    rest = in_use - weights_bytes(model) - cache_bytes(cache) - activations
    inside = "context, libraries, free blocks" if graph is None else "context, libraries, graph, free blocks"
    where = f"batch {batch:,}, context {short_count(context)}"
    return [
        MemoryRow(f"activations, {batch:,} x {each:,} new tokens", activations, planned.activations_bytes),
        MemoryRow(f"the rest: {inside}", rest, planned.overhead_bytes),
        MemoryRow(f"all in use, {where}", in_use, planned.all_bytes),
    ]


def _activation_peak_bytes(model: LlamaForCausalLM, cache: StaticCache, batch: int, tokens: int) -> int:
    """Return what the allocator hands out at most, at once, during a prefill step."""
    prompts = torch.zeros((batch, tokens), dtype=torch.int64, device=model.lm_head.weight.device)
    first_chunk(model, cache, prompts)  # once before: handles and workspaces are not activations
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    first_chunk(model, cache, prompts)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def topic(rows: Sequence[MemoryRow], *, asked_driver: bool) -> Topic:
    """Return the table of these rows."""
    unasked = "activations and the rest: there is no GPU whose driver could be asked"
    return Topic(
        "Memory by category",
        "Weights, keys and values are sums over the tensors; activations the allocator's peak above them; "
        "all in use is the driver's figure, and the rest what the others leave of it.",
        ("category",),
        rows,
        () if asked_driver else (unasked,),
    )
