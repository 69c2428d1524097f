"""``kvplan plot all``: every picture of plan files, and a page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kvplan.cli.options import Debug, Quiet, Specs, Verbose
from kvplan.cli.progress import progress


def plot_all(
    plans: Annotated[list[str], typer.Argument(metavar="PLAN", help="Plan files: kvplan schema plan.")],
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="The folder, made where it is missing.")
    ],
    theme: Annotated[
        str, typer.Option("--theme", metavar="NAME", help="Colours: light, dark, or both.")
    ] = "light",
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Of the pictures: svg or png.")
    ] = "svg",
    specs: Specs = "",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Draw every picture of plans into a folder, with index.md and index.html, and say whether they hold.

    Example: kvplan plot all plan.yaml -o out
    """
    from kvplan.api.plan import files_of_plan, load_plan
    from kvplan.api.plot_all import plot_all as files_of_all
    from kvplan.cli.reporting import spec_notes
    from kvplan.files import require_folder, write_folder
    from kvplan.specs.catalog import specs_folder

    require_folder(Path(output))
    folder = specs_folder(specs)
    loaded = [load_plan(plan, specs=folder) for plan in plans]
    with progress(quiet=quiet) as steps:
        files = files_of_all(loaded, theme=theme, format=format, specs=folder, on_step=steps)
        write_folder(Path(output), files)
    read = dict.fromkeys(file for plan in loaded for file in files_of_plan(plan, specs=folder))
    spec_notes(list(read), quiet=quiet, verbose=verbose)
