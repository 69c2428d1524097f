"""``kvplan schema``: the JSON Schema of spec files, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.options import Debug, Output, output_path
from kvplan.errors import unknown


def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="model, gpu or plan.")],
    output: Output = "",
    debug: Debug = False,
) -> None:
    """Print the JSON Schema of model, GPU or plan files.

    Example: kvplan schema model -o model.schema.json
    """
    from kvplan.cli.streams import put
    from kvplan.report.export import render_json
    from kvplan.specs.schema import KINDS
    from kvplan.specs.schema import schema as schema_of

    if kind not in KINDS:
        raise unknown("schema", kind, KINDS)
    put(render_json(schema_of(kind)), output_path(output))
