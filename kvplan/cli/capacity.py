"""``kvplan capacity``: does it fit, how long a context, how many requests."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.deployment import DeploymentOptions, Gpu, ModelName
from kvplan.cli.options import AnswerOptions, Check, Explain, counts, exit_where_no
from kvplan.cli.picture import PlotOptions
from kvplan.cli.plan_option import with_plan
from kvplan.cli.progress import progress
from kvplan.cli.spread import spread


@with_plan()
@spread
def capacity(
    model: ModelName,
    gpu: Gpu,
    *,
    context: Annotated[
        str, typer.Option(metavar="LIST", help="Contexts in tokens: 4k,32k,128k. k is 1,024.")
    ] = "",
    batch: Annotated[
        str, typer.Option(metavar="LIST", help="Requests at once: 1,16,64, or 1..64 for 1, 2, 4 ... 64.")
    ] = "",
    deployment: DeploymentOptions,
    explain: Explain = "",
    check: Check = False,
    picture: PlotOptions,
    answer: AnswerOptions,
) -> None:
    """Say where GPU memory goes, how the KV cache grows, and what fits.

    Example: kvplan capacity llama-3.1-8b --gpu h100-sxm --context 4k,32k --batch 1,16
    """
    from kvplan.api.capacity import capacity as planned
    from kvplan.specs.catalog import find_gpu, find_model

    answer.require_known()
    picture.require_known()
    contexts = counts("--context", context) if context else ()
    batches = counts("--batch", batch) if batch else ()
    options, folder = deployment.typed(), answer.folder()
    files = find_model(model, folder), find_gpu(gpu, folder)
    report = planned(files[0], gpu=files[1], contexts=contexts, batches=batches, **options)
    with progress(quiet=answer.quiet) as steps:
        picture.save(report.chart, steps)
    answer.show_of(files, report, explain=explain)
    if check:
        exit_where_no(report)
