"""``--plan FILE``: what a plan file says stands in for the options that are not given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvplan.errors import UsageError

if TYPE_CHECKING:
    from kvplan.planned import Plan

PlanOption = Annotated[
    str, typer.Option("--plan", metavar="FILE", help="A plan file that says what is not said here.")
]
# What a command cannot do without, and how its own parser would call it.
_NEEDED = {"model": "argument 'MODEL'", "gpu": "option '--gpu'"}


def with_plan(
    *, one_of: Collection[str] = (), without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose options a plan file may give, those on the command line coming first.

    Its model and accelerator may then be left out.

    Args:
        one_of: options that take one value of what a plan has several of.
        without: options of the command that mean another thing than in a plan.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        filled = frozenset(signature.parameters) - frozenset(without)

        @wraps(command)
        def run(ctx: typer.Context, plan: str = "", **values: Any) -> None:
            if plan:
                said = _texts(_load(plan, values))
                if values.get("phase") == "prefill":  # a closed loop is of decode steps
                    said.pop("made", None)
                # ParameterSource is not for import in every release of typer.
                typed = {name for name in values if ctx.get_parameter_source(name).name == "COMMANDLINE"}  # type: ignore[union-attr]
                for name in (said.keys() & filled) - typed:
                    values[name] = _value(name, said[name], single=name in one_of)
            _require(values, plan)
            command(**values)

        parameters = [_optional(one) for one in signature.parameters.values()]
        behind = 1 + max(index for index, one in enumerate(parameters) if one.name in _NEEDED)
        parameters.insert(behind, _parameter("plan", PlanOption, default=""))
        parameters.append(_parameter("ctx", typer.Context))
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
        return run

    return decorate


def _load(file: str, values: Mapping[str, Any]) -> Plan:
    from kvplan.api.plan import load_plan
    from kvplan.cli.reporting import spec_notes
    from kvplan.specs.catalog import Found

    plan = load_plan(file, specs=values["specs"])
    spec_notes([Found(plan.label, plan.path)], quiet=values["quiet"], verbose=values["verbose"])
    return plan


def _texts(plan: Plan) -> dict[str, bool | list[str]]:
    """Return what a plan says by the names of parameters, each as it would be typed."""
    said: dict[str, bool | list[str]] = {"model": [plan.model], "gpu": list(plan.gpus)}
    for name, value in plan.deployment.given().items():
        said[name] = value if isinstance(value, bool) else [str(value)]
    load = plan.workload
    lists = {"batch": load.batch, "context": load.context, "with_": plan.compare}
    said |= {name: [str(value) for value in values] for name, values in lists.items() if values}
    if load.output_tokens is not None:
        said["made"] = [str(load.output_tokens)]
    if plan.price is not None:
        said["price"] = [f"{plan.price:.6f}"]
    return said


def _value(name: str, said: bool | list[str], *, single: bool) -> bool | str | list[str]:
    """Return what a plan says as the value of a parameter."""
    if isinstance(said, bool) or name == "with_":
        return said
    if len(said) > 1 and (single or name == "gpu"):
        raise UsageError(f"the plan has several: {', '.join(said)}", hint=f"--{name} says which")
    return ",".join(said)


def _require(values: dict[str, Any], plan: str) -> None:
    for name, called in _NEEDED.items():
        if "gpu" in values and not values[name]:
            assert not plan, "a plan names both"
            raise UsageError(f"missing {called}", hint="kvplan --help")


def _optional(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(default="") if parameter.name in _NEEDED else parameter


def _parameter(name: str, annotation: Any, **default: str) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, **default)
