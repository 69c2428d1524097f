"""Plans from files, and what they ask of the other functions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from kvplan.plan.change import parse_changes
from kvplan.planned import Plan, PlannedDeployment
from kvplan.specs.catalog import Found, find_gpu, find_model, specs_folder

if TYPE_CHECKING:
    from kvplan.api.given import PlanOptions

# What a plan calls by its name on the command line.
_NAMES = {"alloc": "allocation", "overhead": "overhead_bytes"}

# What stands for a plan: itself, or its file.
PlanLike: TypeAlias = Plan | str | os.PathLike[str]


def load_plan(plan: PlanLike, *, specs: str | os.PathLike[str] | None = None) -> Plan:
    """Return the plan of a YAML file; ``kvplan schema plan`` says what can stand in one.

    Args:
        plan: the file; a plan stays what it is.
        specs: a folder whose ``models`` and ``gpus`` are looked up first.

    Raises:
        SpecError: mistakes in the file: all of them.
        FileError: it cannot be read.
    """
    if isinstance(plan, Plan):
        return plan
    from kvplan.specs.plan_file import read_plan
    from kvplan.specs.strict_yaml import read_yaml

    path = Path(plan)
    return read_plan(read_yaml(path), path, parse_changes, specs_folder(specs))


def files_of_plan(plan: Plan, *, specs: str | os.PathLike[str] | None = None) -> list[Found]:
    """Return the file of a plan, of its model, and of its accelerators."""
    folder = specs_folder(specs)
    gpus = [find_gpu(gpu, folder) for gpu in plan.gpus]
    return [Found(plan.label, plan.path), find_model(plan.model, folder), *gpus]


def options_of(deployment: PlannedDeployment) -> PlanOptions:
    """Return what a plan says of its deployment as the options of the other functions."""
    # A value of each has its option's type: the reader of plan files saw to that.
    said = {_NAMES.get(name, name): value for name, value in deployment.given().items()}
    return cast("PlanOptions", said)
