"""``kvplan capacity``: does it fit, how long a context, how many requests."""

from __future__ import annotations

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
    SpeculativeTokens,
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
    Quiet,
    Specs,
    Verbose,
    chosen_format,
    counts,
    output_path,
    specs_folder,
)
from kvplan.errors import ExitStatus

if TYPE_CHECKING:
    from kvplan.results import Scalar
    from kvplan.specs.catalog import Found

DEFAULT_BATCHES = [1, 16, 64]


def capacity(
    model: ModelName,
    gpu: Gpu,
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
    mtp: Annotated[
        bool, typer.Option("--mtp", help="Hold the layers that predict further tokens, to draft with.")
    ] = False,
    speculative_tokens: SpeculativeTokens = "0",
    context: Annotated[
        str, typer.Option(metavar="LIST", help="Contexts in tokens: 4k,32k,128k. k is 1,024.")
    ] = "",
    batch: Annotated[
        str, typer.Option(metavar="LIST", help="Requests at once: 1,16,64, or 1..64 for 1, 2, 4 ... 64.")
    ] = "",
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
    """Say where GPU memory goes, how the KV cache grows, and what fits.

    Example: kvplan capacity llama-3.1-8b --gpu h100-sxm --context 4k,32k --batch 1,16
    """
    from kvplan.arch.prediction_layer import with_prediction_layers
    from kvplan.cli.reporting import show_report, spec_notes
    from kvplan.plan.capacity import plan_capacity
    from kvplan.plan.capacity_report import capacity_report
    from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model

    shown = chosen_format(format, json)
    contexts, batches = _asked("--context", context), _asked("--batch", batch)
    folder = specs_folder(specs)
    model_file, gpu_file = find_model(model, folder), find_gpu(gpu, folder)
    planned, device = cached_as(load_model(model_file), latent_cache), load_gpu(gpu_file)
    if mtp:
        planned = with_prediction_layers(planned)
    deployment = DeploymentOptions(
        gpus=gpus,
        tp=tp,
        pp=pp,
        dp=dp,
        weights=weights,
        kv=kv,
        state=state,
        alloc=alloc,
        block_size=block_size,
        max_length=max_length,
        chunk=chunk,
        memory_utilization=memory_utilization,
        overhead=overhead,
        ep=ep,
        cp=cp,
        speculative_tokens=speculative_tokens,
    ).deployment(planned, device)
    spec_notes((model_file, gpu_file), quiet=quiet, verbose=verbose)
    shown_contexts = contexts or _default_contexts(deployment.max_tokens)
    usual = None if batches else shown_contexts[len(shown_contexts) // 2]
    report = capacity_report(
        plan_capacity(planned, deployment),
        shown_contexts,
        batches or DEFAULT_BATCHES,
        decide_context=max(contexts) if contexts else usual,
        decide_batch=max(batches, default=1),
        inputs=_echo(model_file, gpu_file, shown_contexts, batches or DEFAULT_BATCHES),
    )
    show_report(report, shown, output_path(output), explain=explain, color=color)
    if check and report.verdict is not None and not report.verdict.yes:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _asked(option: str, text: str) -> list[int]:
    return counts(option, text) if text else []


def _default_contexts(longest: int) -> list[int]:
    """Return a short, a middle and the longest context: 4k, 32k and 128k for a 128k model."""
    return list(dict.fromkeys(max(1, longest // part) for part in (32, 4, 1)))


def _echo(
    model: Found, gpu: Found, contexts: list[int], batches: list[int]
) -> tuple[tuple[str, Scalar | list[int]], ...]:
    from kvplan.specs.catalog import digest

    return (
        ("model_file", model.label),
        ("model_sha256", digest(model.path)),
        ("gpu_file", gpu.label),
        ("gpu_sha256", digest(gpu.path)),
        ("context_tokens", contexts),
        ("batch", batches),
    )
