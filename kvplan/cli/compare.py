"""``kvplan compare``: a baseline against options, each with what it buys and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.deployment import DeploymentOptions, Gpu, ModelName
from kvplan.cli.options import AnswerOptions, count, exit_where_no, optional_count
from kvplan.cli.picture import PlotOptions
from kvplan.cli.plan_option import with_plan
from kvplan.cli.progress import progress
from kvplan.cli.spread import spread
from kvplan.units import LARGEST_COUNT


@with_plan(one_of=("batch", "context"))
@spread
def compare(
    model: ModelName,
    gpu: Gpu,
    *,
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
        typer.Option("--measure/--no-measure", help="Measure what weights and windows cost in accuracy."),
    ] = True,
    quality: Annotated[
        str,
        typer.Option(metavar="FILE", help="Quote what KV formats cost from this JSON of kvplan quality."),
    ] = "",
    deployment: DeploymentOptions,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when the baseline does not fit.")] = False,
    picture: PlotOptions,
    answer: AnswerOptions,
) -> None:
    """Compare ways to store, cut and serve a model: what each buys, and what it costs in accuracy.

    CHANGES are kv, weights, alloc, chunk, tp, prefix, spec, offload; and what-if kv_heads, mla, window.

    Example: kvplan compare llama-3.1-8b --gpu h100-sxm --context 32k --with prefix=80%
    """
    from kvplan.api.compare import LARGEST_BATCH
    from kvplan.api.compare import compare as compared
    from kvplan.plan.change import parse_changes
    from kvplan.specs.catalog import find_gpu, find_model

    answer.require_known()
    picture.require_known()
    changes = [parse_changes(text) for text in with_ or ()]
    options, folder = deployment.typed(), answer.folder()
    files = find_model(model, folder), find_gpu(gpu, folder)
    with progress(quiet=answer.quiet) as steps:
        report = compared(
            files[0],
            gpu=files[1],
            batch=count("--batch", batch, LARGEST_BATCH),
            context=optional_count("--context", context, LARGEST_COUNT),
            changes=changes,
            only=only,
            what_if=what_if,
            measure=measure,
            quality=quality or None,
            on_step=steps,
            **options,
        )
        picture.save(report.chart, steps)
    answer.show_of(files, report)
    if check:
        exit_where_no(report)
