"""``kvplan gpus``: what accelerators there are, and what is known of one."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.options import ListOptions, complete_gpus
from kvplan.cli.spread import spread

app = typer.Typer(no_args_is_help=True, help="List and show accelerators.")


@app.command("list")
@spread
def list_gpus(
    *,
    answer: ListOptions,
) -> None:
    """List every accelerator a name is known for, with its memory and dense peaks.

    Example: kvplan gpus list
    """
    from kvplan.plan.listing import gpus_report
    from kvplan.specs.catalog import load_gpu, names

    answer.require_known()
    found = names("gpus", answer.folder())
    report = gpus_report([load_gpu(one) for one in found.values()])
    answer.show(report)


@app.command()
@spread
def show(
    gpu: Annotated[
        str, typer.Argument(metavar="GPU", help="A name or a YAML file.", autocompletion=complete_gpus)
    ],
    *,
    answer: ListOptions,
) -> None:
    """Show everything known of an accelerator, with its sources.

    Example: kvplan gpus show h100-sxm
    """
    from kvplan.plan.listing import gpu_report
    from kvplan.specs.catalog import find_gpu, load_gpu

    answer.require_known()
    found = load_gpu(find_gpu(gpu, answer.folder()))
    answer.show(gpu_report(found))
