"""``kvplan compare``: a baseline against options, each with what it buys and what it costs."""

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
    MaxLength,
    MemoryUtilization,
    ModelName,
    Overhead,
    Pp,
    State,
    Tp,
    Weights,
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
    count,
    output_path,
    specs_folder,
)
from kvplan.cli.progress import progress
from kvplan.cli.streams import terminal
from kvplan.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from kvplan.arch.model import Model
    from kvplan.plan.deployment import Deployment
    from kvplan.plan.setup import Setup
    from kvplan.results import Scalar
    from kvplan.specs.catalog import Found

USUAL_CONTEXT = 8192
LARGEST_BATCH = 1 << 20


def compare(
    model: ModelName,
    gpu: Gpu,
    context: Annotated[
        str, typer.Option(metavar="N", help="Tokens of each request; 8k, or the model's limit, if absent.")
    ] = "",
    batch: Annotated[str, typer.Option(metavar="N", help="Requests at once.")] = "16",
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="CHANGES", help="An option of your own: kv=fp8,weights=int4."),
    ] = None,
    only: Annotated[
        bool, typer.Option("--only", help="Compare the options of --with and no others.")
    ] = False,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="Also options that make another model: fewer KV heads, windows.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Measure what options cost in accuracy."),
    ] = True,
    gpus: Gpus = "",
    tp: Tp = "",
    pp: Pp = "",
    dp: Dp = "",
    ep: Ep = "",
    cp: Cp = "",
    weights: Weights = "",
    kv: Kv = "",
    state: State = "transformers",
    alloc: Alloc = "paged",
    block_size: BlockSize = "16",
    max_length: MaxLength = "",
    chunk: Chunk = "8192",
    memory_utilization: MemoryUtilization = "0.9",
    overhead: Overhead = "",
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when the baseline does not fit.")] = False,
    format: Format = "table",
    json: Json = False,
    output: Output = "",
    specs: Specs = "",
    color: Color = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Compare ways to store, cut and serve a model: what each buys, and what it costs in accuracy.

    CHANGES are kv, weights, alloc, chunk, tp, prefix, spec, offload; and what-if kv_heads, mla, window.

    Example: kvplan compare llama-3.1-8b --gpu h100-sxm --context 32k --with prefix=80%
    """
    from kvplan.check.comparison import compare as compared
    from kvplan.cli.reporting import show_report, spec_notes
    from kvplan.plan.change import parse_changes, usual_changes
    from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model

    shown = chosen_format(format, json)
    terminal(color)  # an unknown setting is refused before anything runs
    own = [parse_changes(text) for text in with_ or ()]
    if only and not own:
        raise UsageError("--only needs a --with", hint="--with kv=fp8")
    folder = specs_folder(specs)
    model_file, gpu_file = find_model(model, folder), find_gpu(gpu, folder)
    planned, device = load_model(model_file), load_gpu(gpu_file)
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
    setup = _setup(planned, deployment, batch, context)
    spec_notes((model_file, gpu_file), quiet=quiet, verbose=verbose)
    options = [*(() if only else usual_changes(setup)), *own]
    with progress(quiet=quiet) as steps:
        done = compared(setup, list(dict.fromkeys(options)), steps, what_if=what_if or only, measured=measure)
    from kvplan.check.comparison_report import comparison_report

    report = comparison_report(done, _echo(model_file, gpu_file, setup))
    show_report(report, shown, output_path(output), explain="", color=color)
    if check and report.verdict is not None and not report.verdict.yes:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _setup(model: Model, deployment: Deployment, batch: str, context: str) -> Setup:
    from kvplan.plan.setup import Load, Setup

    longest = deployment.max_tokens
    tokens = count("--context", context) if context else min(USUAL_CONTEXT, longest)
    if tokens > longest:
        raise UsageError(
            f"--context: {tokens:,} tokens are more than the {longest:,} allowed", hint="--max-length"
        )
    return Setup(model, deployment, Load(count("--batch", batch, LARGEST_BATCH), tokens))


def _echo(model: Found, gpu: Found, setup: Setup) -> tuple[tuple[str, Scalar | list[int]], ...]:
    from kvplan.specs.catalog import digest

    return (
        ("model_file", model.label),
        ("model_sha256", digest(model.path)),
        ("gpu_file", gpu.label),
        ("gpu_sha256", digest(gpu.path)),
        ("batch", setup.load.batch),
        ("context_tokens", setup.load.context),
    )
