"""``kvplan gpus``: what accelerators there are, and what is known of one."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.options import (
    Color,
    Debug,
    Format,
    Json,
    Output,
    Specs,
    chosen_format,
    complete_gpus,
    output_path,
    specs_folder,
)

app = typer.Typer(no_args_is_help=True, help="List and show accelerators.")


@app.command("list")
def list_gpus(
    format: Format = "table",
    json: Json = False,
    output: Output = "",
    specs: Specs = "",
    color: Color = "auto",
    debug: Debug = False,
) -> None:
    """List every accelerator a name is known for, with its memory and dense peaks.

    Example: kvplan gpus list
    """
    from kvplan.cli.reporting import show_report
    from kvplan.plan.listing import gpus_report
    from kvplan.specs.catalog import load_gpu, names

    shown = chosen_format(format, json)
    found = names("gpus", specs_folder(specs))
    report = gpus_report([load_gpu(one) for one in found.values()])
    show_report(report, shown, output_path(output), color=color)


@app.command()
def show(
    gpu: Annotated[
        str, typer.Argument(metavar="GPU", help="A name or a YAML file.", autocompletion=complete_gpus)
    ],
    format: Format = "table",
    json: Json = False,
    output: Output = "",
    specs: Specs = "",
    color: Color = "auto",
    debug: Debug = False,
) -> None:
    """Show everything known of an accelerator, with its sources.

    Example: kvplan gpus show h100-sxm
    """
    from kvplan.cli.reporting import show_report
    from kvplan.plan.listing import gpu_report
    from kvplan.specs.catalog import find_gpu, load_gpu

    shown = chosen_format(format, json)
    found = load_gpu(find_gpu(gpu, specs_folder(specs)))
    show_report(gpu_report(found), shown, output_path(output), color=color)
