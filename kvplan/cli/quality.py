"""``kvplan quality``: what cache formats cost a real model on a real text."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.options import AnswerOptions, complete_gpus, count, optional_count, whole_number
from kvplan.cli.picture import PlotOptions
from kvplan.cli.progress import progress
from kvplan.cli.spread import spread
from kvplan.errors import ExitStatus
from kvplan.units import LARGEST_COUNT


@spread
def quality(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="A folder with safetensors, or a .safetensors or .gguf file."),
    ],
    text: Annotated[str, typer.Option(metavar="FILE", help="A text in UTF-8 to read.")],
    *,
    kv: Annotated[
        str,
        typer.Option(
            metavar="FORMATS",
            help="bf16,int8,int4-kivi,window-256+4,int8/window-256: storage, and windows with sink tokens.",
        ),
    ] = "",
    context: Annotated[
        str, typer.Option(metavar="N", help="Tokens that are read before any is scored.")
    ] = "512",
    stride: Annotated[
        str, typer.Option(metavar="N", help="Tokens behind them; all but the first are scored.")
    ] = "512",
    tokens: Annotated[
        str, typer.Option(metavar="N", help="Tokens to score at most; as many as there are, if absent.")
    ] = "",
    when: Annotated[
        str,
        typer.Option(
            metavar="WHEN", help="Quantise tokens as they append, or the context after its prefill."
        ),
    ] = "append",
    greedy: Annotated[
        str, typer.Option(metavar="N", help="Tokens to write greedily, until they differ; 0 for none.")
    ] = "64",
    gpu: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What requests are counted on: a name or a YAML file.",
            autocompletion=complete_gpus,
        ),
    ] = "h100-sxm",
    picture: PlotOptions,
    answer: AnswerOptions,
) -> None:
    """Measure what cache formats cost a real model on a real text, beside what they save.

    Ctrl-C ends it early: the answer is then of what was read, says so, and the exit status is 130.

    Example: kvplan quality my-checkpoint --text book.txt --context 256 --stride 256 --kv int8,window-64+4
    """
    from kvplan.api import quality as api
    from kvplan.cli.streams import say
    from kvplan.specs.catalog import find_gpu

    answer.require_known()
    picture.require_known()
    file = find_gpu(gpu, answer.folder())
    with progress(quiet=answer.quiet) as steps:
        report = api.quality(
            path,
            text,
            kv=kv,
            context=count("--context", context, api.LARGEST_CONTEXT),
            stride=count("--stride", stride, api.LARGEST_CONTEXT),
            tokens=optional_count("--tokens", tokens, LARGEST_COUNT),
            when=when,
            greedy=whole_number("--greedy", greedy, api.LARGEST_CONTEXT),
            gpu=file,
            on_step=steps,
        )
        picture.save(report.chart, steps)
    answer.show_of([file], report)
    asked = dict(report.inputs)
    if asked["partial"]:
        if not answer.quiet:
            say(f"note: the answer is partial: windows read before the interrupt: {asked['windows']}")
        raise typer.Exit(ExitStatus.INTERRUPTED)
