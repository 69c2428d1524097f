"""``kvplan plot``: one picture of one kind."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.deployment import DeploymentOptions
from kvplan.cli.options import Debug, Quiet, Specs, Verbose, complete_gpus, complete_models, optional_count
from kvplan.cli.picture import Theme, require_possible, save_picture
from kvplan.cli.progress import progress
from kvplan.cli.spread import spread
from kvplan.errors import UsageError, unknown
from kvplan.units import LARGEST_COUNT


@spread
def plot(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="growth, frontier, memory, roofline, step-time, heat-map, compare or simulate.",
        ),
    ],
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Names or files; several in growth, frontier and memory.",
            autocompletion=complete_models,
        ),
    ],
    *,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu",
            metavar="NAME",
            help="A name or a YAML file; several in growth, frontier and memory, none in simulate.",
            autocompletion=complete_gpus,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The picture: FILE.png or FILE.svg.")
    ],
    theme: Theme = "light",
    context: Annotated[
        str, typer.Option(metavar="N", help="Tokens of each request, where the kind is about some.")
    ] = "",
    batch: Annotated[
        str, typer.Option(metavar="N", help="Requests at once, where the kind is about some.")
    ] = "",
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="CHANGES",
            help="An option beside the plan: kv=fp8,weights=int4; in growth, frontier, memory, compare.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="In compare, measure what weights and windows cost."),
    ] = True,
    deployment: DeploymentOptions,
    specs: Specs = "",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draw a plan, or several beside each other, as one picture.

    Example: kvplan plot frontier llama-3.1-8b --gpu h100-sxm --with kv=fp8 -o frontier.svg
    """
    from kvplan.api.plot import KINDS, Subject, chart
    from kvplan.cli.reporting import spec_notes
    from kvplan.plan.change import parse_changes
    from kvplan.specs.catalog import find_gpu, find_model, specs_folder

    if kind == "all":
        raise UsageError("all stands right behind plot", hint="kvplan plot all PLAN.yaml -o DIR")
    if kind not in KINDS:
        raise unknown("plot", kind, KINDS)
    require_possible(output, theme)
    if not gpu and kind != "simulate":
        raise UsageError(f"a {kind} plot needs --gpu", hint="--gpu h100-sxm")
    changes = [parse_changes(text) for text in with_ or ()]
    options = deployment.typed() if kind != "simulate" else deployment.given()
    folder = specs_folder(specs)
    model_files = [find_model(name, folder) for name in dict.fromkeys(models)]
    gpu_files = [find_gpu(name, folder) for name in dict.fromkeys(gpu or ())]
    subject = Subject(
        model_files,
        gpu_files,
        changes,
        options,
        batch=optional_count("--batch", batch, LARGEST_COUNT),
        context=optional_count("--context", context, LARGEST_COUNT),
        measure=measure,
    )
    with progress(quiet=quiet) as steps:
        save_picture(chart(kind, subject, steps), output, theme, steps)
    spec_notes((*model_files, *gpu_files), quiet=quiet, verbose=verbose)
