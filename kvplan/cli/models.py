"""``kvplan models``: what models there are, what one of them is, and one more from a config.json."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.deployment import ModelName
from kvplan.cli.options import Debug, ListOptions, Output, Quiet, output_path
from kvplan.cli.spread import spread
from kvplan.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="List, show and import models.")


@app.command("list")
@spread
def list_models(
    *,
    answer: ListOptions,
) -> None:
    """List every model a name is known for, with its size and cache.

    Example: kvplan models list
    """
    from kvplan.plan.listing import models_report
    from kvplan.specs.catalog import load_model, names

    answer.require_known()
    found = names("models", answer.folder())
    report = models_report([load_model(one) for one in found.values()])
    answer.show(report)


@app.command()
@spread
def show(
    model: ModelName,
    *,
    answer: ListOptions,
) -> None:
    """Show what a model is: its layers, its parameters by tensor, and what they cache.

    Example: kvplan models show deepseek-v3
    """
    from kvplan.plan.listing import model_report
    from kvplan.specs.catalog import find_model, load_model

    answer.require_known()
    found = load_model(find_model(model, answer.folder()))
    answer.show(model_report(found))


@app.command("import")
def import_model(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A Hugging Face config.json, or a folder holding one.")
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the model; from the file or folder if absent.")
    ] = "",
    source: Annotated[
        str, typer.Option(metavar="TEXT", help="Where the file is from; its path if absent.")
    ] = "",
    output: Output = "",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model file from a config.json; keys that are not understood are refused by name.

    Example: kvplan models import ./my-model --name my-model -o my-model.yaml
    """
    import os
    from pathlib import Path

    from kvplan.checks import NAME, NAME_RULE
    from kvplan.cli.streams import put, say
    from kvplan.plan.weights import parameter_count
    from kvplan.specs.catalog import name_from
    from kvplan.specs.config_json import import_file
    from kvplan.specs.families.common import Identity
    from kvplan.specs.model_yaml import model_yaml

    path = Path(config) / "config.json" if os.path.isdir(config) else Path(config)
    called = name or name_from(path)
    if not NAME.fullmatch(called):
        raise UsageError(f"--name: {called[:40]!r} is no name: {NAME_RULE}")
    model = import_file(path, Identity(called, source or str(path)))
    put(model_yaml(model), output_path(output))
    if not quiet:
        say(f"note: {called}: {parameter_count(model).number:,} parameters in {len(model.layers)} layers")
