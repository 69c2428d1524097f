"""Where the time of a step goes, and what limits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kvplan.api.given import Echo, Given, given, refuse_drafting
from kvplan.api.load import GpuLike, ModelLike
from kvplan.api.report import Report
from kvplan.checks import require_whole
from kvplan.errors import UsageError, unknown
from kvplan.hardware.runtime_fits import Runtime, RuntimeFit, runtime_fit, runtime_named
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.deployment import Deployment
from kvplan.plan.roofline import Roofline, plan_roofline
from kvplan.plan.roofline_report import roofline_report
from kvplan.plan.roofline_steps import Asked
from kvplan.results import Table
from kvplan.units import LARGEST_COUNT

if TYPE_CHECKING:
    from typing import Unpack

    from kvplan.api.given import PlanOptions
    from kvplan.charts import Chart

PHASES = ("decode", "prefill")
LARGEST_OUTPUT = 1 << 24
LARGEST_PRICE = 1_000_000


def roofline(
    model: ModelLike,
    *,
    gpu: GpuLike | None = None,
    deployment: Deployment | None = None,
    phase: str = "decode",
    batches: Sequence[int] = (1,),
    context: int = 4096,
    new_tokens: int = 1,
    cached: int = 0,
    output_tokens: int | None = None,
    runtime: str = "",
    kernel: bool = False,
    price: float | None = None,
    **options: Unpack[PlanOptions],
) -> Report:
    """Say where the time of a step goes: operator by operator, the least and the expected time.

    ``kvplan.roofline("llama-3.1-8b", gpu="h100-sxm", batches=(1, 64), context=8192)``

    Args:
        model: a name, a file, or a model.
        gpu: a name, a file, or an accelerator; ``options`` are those of :func:`kvplan.deploy`, and
            ``latent_cache``.
        deployment: a whole deployment, instead of ``gpu`` and ``options``.
        phase: ``decode``, a step; or ``prefill``, the reading of whole prompts.
        batches: requests at once; the verdict is about the last.
        context: tokens cached before a decode step, or of each prompt.
        new_tokens: tokens a decode step adds to a request: 5 verifies 4 guesses.
        cached: tokens of each prompt that a shared prefix has in the cache.
        output_tokens: also a closed loop of prompts of ``context`` with so many tokens each.
        runtime: also the times of ``llama.cpp``, ``llama.cpp-2024`` or ``llama.cpp-metal``.
        kernel: also how decode attention maps onto the GPU.
        price: US dollars for an hour of one GPU, to tell costs.

    Raises:
        UsageError: a name is not known, or a value cannot be.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    refuse_drafting(options)
    asked = _asked(phase, batches, context, new_tokens, cached, price, output_tokens)
    if kernel and not asked.decoding:
        raise UsageError("--kernel is of decode attention", hint="--phase decode")
    plan = given(model, gpu, deployment, options)
    asked = replace(asked, runtime=_runtime(runtime, plan.deployment))
    held, timed = plan_capacity(plan.model, plan.deployment), plan_roofline(plan.model, plan.deployment)
    tables, notes = _kernels(plan, held, asked) if kernel else ((), ())
    inputs = (*plan.files, *_echo(phase, asked))
    report = roofline_report(timed, held, asked, inputs, tables, notes)
    batch, tokens = asked.batches[-1], asked.context
    return Report.of(
        report,
        {
            "roofline": lambda: _roofline(held, timed, batch, tokens),
            "step-time": lambda: _step_time(held, timed, batch, tokens),
            "heat-map": lambda: _heat_map(held, timed),
        },
    )


def _asked(
    phase: str,
    batches: Sequence[int],
    context: int,
    new_tokens: int,
    cached: int,
    price: float | None,
    output_tokens: int | None,
) -> Asked:
    if phase not in PHASES:
        raise unknown("phase", phase, PHASES)
    requests = tuple(require_whole("batches", one, LARGEST_COUNT) for one in batches)
    tokens = require_whole("context", context, LARGEST_COUNT)
    added = require_whole("new_tokens", new_tokens, LARGEST_COUNT)
    known = require_whole("cached", cached, LARGEST_COUNT, least=0)
    if not requests:
        raise UsageError("batches: none is given")
    if phase == "prefill" and added != 1:
        raise UsageError("--new-tokens is of decode steps", hint="leave it out, or --phase decode")
    if phase == "decode" and known:
        raise UsageError("--cached is of prompts", hint="leave it out, or --phase prefill")
    if known >= tokens:
        raise UsageError(f"--cached: {known:,} tokens leave none of the {tokens:,} of --context to read")
    if output_tokens is not None:
        if phase == "prefill":
            raise UsageError("--output-tokens is of decode steps", hint="leave it out, or --phase decode")
        output_tokens = require_whole("output_tokens", output_tokens, LARGEST_OUTPUT)
    if price is not None and not 0 < price <= LARGEST_PRICE:
        raise UsageError(f"price: {price!r} is not a price in US dollars such as 2.95")
    return Asked(phase == "decode", requests, tokens, added, known, price, output_tokens)


def _runtime(name: str, deployment: Deployment) -> RuntimeFit | None:
    """Return the constants of the runtime that was named, over the weights as they are stored."""
    if not name:
        return None
    runtime = runtime_named(name)
    if deployment.parallelism.gpus_per_replica != deployment.parallelism.pipeline:
        raise UsageError(f"--runtime: {runtime.value} is timed layer by layer", hint="--pp instead of --tp")
    if (runtime is Runtime.LLAMA_CPP_METAL) == (deployment.device.vendor == "nvidia"):
        raise UsageError(f"--runtime: {runtime.value} is not for {deployment.device.name}")
    stored = "fp16" if deployment.weights.name == "bf16" else deployment.weights.name
    return runtime_fit(runtime, stored)


def _kernels(plan: Given, held: Capacity, asked: Asked) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """Return how decode attention of the last batch maps onto the GPU."""
    from kvplan.plan.kernel_mapping import kernel_mappings
    from kvplan.plan.kernel_report import kernel_notes, kernel_table

    requests = held.replica_batch(asked.batches[-1])
    mappings = kernel_mappings(plan.model, plan.deployment, requests, asked.context, asked.new_tokens)
    return (kernel_table(mappings),), tuple(kernel_notes(mappings))


def _echo(phase: str, asked: Asked) -> Echo:
    return (
        ("phase", phase),
        ("batch", list(asked.batches)),
        ("context_tokens", asked.context),
        ("new_tokens", asked.new_tokens),
        ("cached_tokens", asked.cached),
        ("usd_per_gpu_hour", asked.usd_per_hour),
        ("output_tokens", asked.output),
    )


def _roofline(held: Capacity, timed: Roofline, batch: int, context: int) -> Chart:
    from kvplan.plan.charts.roofline import roofline_chart

    return roofline_chart(timed, batch, context, held.max_batch(context))


def _step_time(held: Capacity, timed: Roofline, batch: int, context: int) -> Chart:
    from kvplan.plan.charts.step_time import step_time_chart

    return step_time_chart(timed, batch, context, held.max_batch(context), held.max_context(batch))


def _heat_map(held: Capacity, timed: Roofline) -> Chart:
    from kvplan.plan.charts.heat_map import heat_map_chart

    return heat_map_chart(held, timed)
