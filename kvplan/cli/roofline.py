"""``kvplan roofline``: where the time of a step goes, and what limits it."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.deployment import DeploymentOptions, Gpu, ModelName
from kvplan.cli.options import (
    AnswerOptions,
    Check,
    Explain,
    count,
    counts,
    exit_where_no,
    optional_count,
    usd,
    whole_number,
)
from kvplan.cli.picture import PlotOptions
from kvplan.cli.plan_option import with_plan
from kvplan.cli.progress import progress
from kvplan.cli.spread import spread
from kvplan.units import LARGEST_COUNT


@with_plan(one_of=("context",))
@spread
def roofline(
    model: ModelName,
    gpu: Gpu,
    *,
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
    price: Annotated[str, typer.Option(metavar="USD", help="Price of one GPU for an hour: 2.95.")] = "",
    deployment: DeploymentOptions,
    explain: Explain = "",
    check: Check = False,
    picture: PlotOptions,
    answer: AnswerOptions,
) -> None:
    """Say where the time of a step goes: operator by operator, the least and the expected time.

    Example: kvplan roofline llama-3.1-8b --gpu h100-sxm --batch 8 --context 4k
    """
    from kvplan.api.roofline import LARGEST_OUTPUT
    from kvplan.api.roofline import roofline as planned
    from kvplan.specs.catalog import find_gpu, find_model

    answer.require_known()
    picture.require_known()
    options, folder = deployment.typed(), answer.folder()
    files = find_model(model, folder), find_gpu(gpu, folder)
    report = planned(
        files[0],
        gpu=files[1],
        phase=phase,
        batches=counts("--batch", batch),
        context=count("--context", context),
        new_tokens=count("--new-tokens", new_tokens),
        cached=whole_number("--cached", cached, LARGEST_COUNT),
        output_tokens=optional_count("--output-tokens", made, LARGEST_OUTPUT),
        runtime=runtime,
        kernel=kernel,
        price=usd("--price", price),
        **options,
    )
    with progress(quiet=answer.quiet) as steps:
        picture.save(report.chart, steps)
    answer.show_of(files, report, explain=explain)
    if check:
        exit_where_no(report)
