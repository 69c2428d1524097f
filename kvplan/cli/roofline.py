"""``kvplan roofline``: where the time of a step goes, and what limits it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli.deployment import (
    Alloc,
    BlockSize,
    Chunk,
    Cp,
    DeploymentOptions,
    Dp,
    Ep,
    Gpu,
    Gpus,
    Kv,
    LatentCache,
    MaxLength,
    MemoryUtilization,
    ModelName,
    Overhead,
    Pp,
    State,
    Tp,
    Weights,
    cached_as,
)
from kvplan.cli.options import (
    Color,
    Debug,
    Format,
    Json,
    Output,
    Price,
    Quiet,
    Specs,
    Verbose,
    chosen_format,
    count,
    counts,
    optional_count,
    output_path,
    specs_folder,
    usd,
    whole_number,
)
from kvplan.errors import ExitStatus, UsageError, unknown

if TYPE_CHECKING:
    from kvplan.arch.model import Model
    from kvplan.hardware.runtime_fits import RuntimeFit
    from kvplan.plan.deployment import Deployment
    from kvplan.plan.roofline_steps import Asked
    from kvplan.results import Report, Scalar
    from kvplan.specs.catalog import Found

PHASES = ("decode", "prefill")
LARGEST_OUTPUT = 1 << 24


def roofline(
    model: ModelName,
    gpu: Gpu,
    phase: Annotated[
        str, typer.Option(metavar="NAME", help="decode: a step; prefill: reading whole prompts.")
    ] = "decode",
    batch: Annotated[str, typer.Option(metavar="LIST", help="Requests at once: 1,8,64, or 1..64.")] = "1",
    context: Annotated[
        str, typer.Option(metavar="N", help="Tokens cached before a decode step; tokens of each prompt.")
    ] = "4k",
    new_tokens: Annotated[
        str,
        typer.Option(metavar="N", help="Tokens a decode step adds to a request: 5 verifies 4 guesses."),
    ] = "1",
    cached: Annotated[
        str, typer.Option(metavar="N", help="Tokens of each prompt that a shared prefix has in the cache.")
    ] = "0",
    made: Annotated[
        str,
        typer.Option(
            "--output-tokens", metavar="N", help="Also a closed loop: prompts of --context, N tokens each."
        ),
    ] = "",
    runtime: Annotated[
        str,
        typer.Option(metavar="NAME", help="Also the times of llama.cpp, llama.cpp-2024 or llama.cpp-metal."),
    ] = "",
    kernel: Annotated[
        bool, typer.Option("--kernel", help="Show how decode attention maps onto the GPU.")
    ] = False,
    price: Price = "",
    gpus: Gpus = "",
    tp: Tp = "",
    pp: Pp = "",
    dp: Dp = "",
    ep: Ep = "",
    cp: Cp = "",
    weights: Weights = "",
    kv: Kv = "",
    state: State = "transformers",
    latent_cache: LatentCache = "latent",
    alloc: Alloc = "paged",
    block_size: BlockSize = "16",
    max_length: MaxLength = "",
    chunk: Chunk = "8192",
    memory_utilization: MemoryUtilization = "0.9",
    overhead: Overhead = "",
    explain: Annotated[
        str, typer.Option(metavar="[FIGURE]", help="Derive one figure, a section, or all of them.")
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when it does not fit.")] = False,
    format: Format = "table",
    json: Json = False,
    output: Output = "",
    specs: Specs = "",
    color: Color = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Say where the time of a step goes: operator by operator, the least and the expected time.

    Example: kvplan roofline llama-3.1-8b --gpu h100-sxm --batch 8 --context 4k
    """
    from kvplan.cli.reporting import show_report, spec_notes
    from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model

    shown = chosen_format(format, json)
    if phase not in PHASES:
        raise unknown("phase", phase, PHASES)
    folder = specs_folder(specs)
    model_file, gpu_file = find_model(model, folder), find_gpu(gpu, folder)
    planned, device = cached_as(load_model(model_file), latent_cache), load_gpu(gpu_file)
    deployment = DeploymentOptions(
        gpus=gpus,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        cp=cp,
        weights=weights,
        kv=kv,
        state=state,
        alloc=alloc,
        block_size=block_size,
        max_length=max_length,
        chunk=chunk,
        memory_utilization=memory_utilization,
        overhead=overhead,
    ).deployment(planned, device)
    asked = replace(
        _asked(phase, batch, context, new_tokens, cached, price, made), runtime=_runtime(runtime, deployment)
    )
    spec_notes((model_file, gpu_file), quiet=quiet, verbose=verbose)
    inputs = _echo(model_file, gpu_file, phase, asked)
    report = _report(planned, deployment, asked, kernel=kernel, inputs=inputs)
    show_report(report, shown, output_path(output), explain=explain, color=color)
    if check and report.verdict is not None and not report.verdict.yes:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _asked(
    phase: str, batch: str, context: str, new_tokens: str, cached: str, price: str, made: str
) -> Asked:
    from kvplan.plan.roofline_steps import Asked

    tokens, known = count("--context", context), whole_number("--cached", cached, 1 << 40)
    added = count("--new-tokens", new_tokens)
    if phase == "prefill" and added != 1:
        raise UsageError("--new-tokens is of decode steps", hint="leave it out, or --phase decode")
    if phase == "decode" and known:
        raise UsageError("--cached is of prompts", hint="leave it out, or --phase prefill")
    if known >= tokens:
        raise UsageError(f"--cached: {known:,} tokens leave none of the {tokens:,} of --context to read")
    batches = tuple(counts("--batch", batch))
    output = optional_count("--output-tokens", made, LARGEST_OUTPUT)
    if phase == "prefill" and output is not None:
        raise UsageError("--output-tokens is of decode steps", hint="leave it out, or --phase decode")
    return Asked(phase == "decode", batches, tokens, added, known, usd("--price", price), output)


def _runtime(name: str, deployment: Deployment) -> RuntimeFit | None:
    """Return the constants of the runtime that was named, over the weights as they are stored."""
    from kvplan.hardware.runtime_fits import Runtime, runtime_fit, runtime_named

    if not name:
        return None
    runtime = runtime_named(name)
    if deployment.parallelism.gpus_per_replica != deployment.parallelism.pipeline:
        raise UsageError(f"--runtime: {runtime.value} is timed layer by layer", hint="--pp instead of --tp")
    if (runtime is Runtime.LLAMA_CPP_METAL) == (deployment.device.vendor == "nvidia"):
        raise UsageError(f"--runtime: {runtime.value} is not for {deployment.device.name}")
    stored = "fp16" if deployment.weights.name == "bf16" else deployment.weights.name
    return runtime_fit(runtime, stored)


def _report(
    model: Model,
    deployment: Deployment,
    asked: Asked,
    *,
    kernel: bool,
    inputs: tuple[tuple[str, Scalar | list[int]], ...],
) -> Report:
    from kvplan.plan.capacity import plan_capacity
    from kvplan.plan.roofline import plan_roofline
    from kvplan.plan.roofline_report import roofline_report

    capacity, timed = plan_capacity(model, deployment), plan_roofline(model, deployment)
    if not kernel:
        return roofline_report(timed, capacity, asked, inputs)
    from kvplan.plan.kernel_mapping import kernel_mappings
    from kvplan.plan.kernel_report import kernel_notes, kernel_table

    if not asked.decoding:
        raise UsageError("--kernel is of decode attention", hint="--phase decode")
    requests = capacity.replica_batch(asked.batches[-1])
    mappings = kernel_mappings(model, deployment, requests, asked.context, asked.new_tokens)
    return roofline_report(timed, capacity, asked, inputs, (kernel_table(mappings),), kernel_notes(mappings))


def _echo(model: Found, gpu: Found, phase: str, asked: Asked) -> tuple[tuple[str, Scalar | list[int]], ...]:
    from kvplan.specs.catalog import digest

    return (
        ("model_file", model.label),
        ("model_sha256", digest(model.path)),
        ("gpu_file", gpu.label),
        ("gpu_sha256", digest(gpu.path)),
        ("phase", phase),
        ("batch", list(asked.batches)),
        ("context_tokens", asked.context),
        ("new_tokens", asked.new_tokens),
        ("cached_tokens", asked.cached),
        ("usd_per_gpu_hour", asked.usd_per_hour),
        ("output_tokens", asked.output),
    )
