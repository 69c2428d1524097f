"""What ``kvplan roofline`` reckons with, summed over the steps of a run: the same figures by another way.

The phases of a run have formulas of their own, closed sums over requests. Here every step is taken by itself,
operator by operator, and added up: both must come to what the engine counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvplan.allocation import Allocation
from kvplan.arch.model import Model
from kvplan.arch.work import Step, decode_step, prefill_step
from kvplan.plan.deployment import Parallelism
from kvplan.plan.operator import Operator
from kvplan.plan.operators import stage_operators
from kvplan.plan.rank import Rank
from kvplan.plan.requests import Request
from kvplan.plan.stages import pipeline_stages
from kvplan.results import Quantity, fact, total
from kvplan.storage import KvFormat, state_layout, weight_format
from kvplan.units import Unit


@dataclass(frozen=True, slots=True)
class RunWork:
    """What all steps of a run multiply and touch, each a sum over operators."""

    matmul_flops: Quantity
    attention_flops: Quantity
    kv_read_bytes: Quantity
    kv_write_bytes: Quantity


def run_work(
    model: Model,
    requests: Sequence[Request],
    kv: KvFormat,
    allocation: Allocation,
    chunk_tokens: int,
    engine_dtype: str,
) -> RunWork:
    """Return the work of a run on one device: prompts in steps of ``chunk_tokens``, then a token a step."""
    storage, layout = weight_format(engine_dtype), state_layout("transformers")
    rank = Rank(model, Parallelism(), storage, kv, layout, allocation)
    (stage,) = pipeline_stages(model, 1)
    operators = stage_operators(rank, stage)
    steps = [step for request in requests for step in _steps(request, chunk_tokens)]

    def summed(name: str, unit: Unit) -> Quantity:
        parts = tuple(part for one in operators if (part := _over(steps, one, name, unit)).value)
        return total(f"roofline_{name}", unit, parts)

    return RunWork(
        summed("matmul_flops", Unit.FLOPS),
        summed("attention_flops", Unit.FLOPS),
        summed("kv_read_bytes", Unit.BYTES),
        summed("kv_write_bytes", Unit.BYTES),
    )


def _steps(request: Request, chunk_tokens: int) -> Iterator[Step]:
    """Iterate over the steps of one request, decode steps as one grid of them."""
    import numpy as np

    for start in range(0, request.prompt_tokens, chunk_tokens):
        tokens = min(chunk_tokens, request.prompt_tokens - start)
        yield prefill_step(1, tokens, start, last=start + tokens == request.prompt_tokens)
    if request.output_tokens > 1:
        last = request.prompt_tokens + request.output_tokens - 1
        yield decode_step(1, np.arange(request.prompt_tokens, last, dtype=np.int64))


def _over(steps: Sequence[Step], operator: Operator, name: str, unit: Unit) -> Quantity:
    """Return one amount of an operator, summed over the steps it runs in."""
    import numpy as np

    law = getattr(operator, name)
    amount = 0
    for step in steps:
        if law is not None and operator.runs_in(step):
            each = np.broadcast_to(law.at(step), np.shape(step.context))
            amount += int(each.sum())
    return fact(operator.name, amount, "summed over the steps it runs in", unit)
