"""Options that several commands have, written once: a dataclass of them, spread over a command's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with one option for every field of a parameter that is a dataclass.

    A field's type, ``Annotated`` with what typer needs, and its default are those of the option; options
    come in the order of the parameters, then of their fields. The command gets the dataclass.

    Raises:
        TypeError: two of the options have one name.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups = {name: hints[name] for name in signature.parameters if is_dataclass(hints[name])}
    parameters = [one for own in signature.parameters.values() for one in _spread(own, hints)]
    if len({parameter.name for parameter in parameters}) != len(parameters):
        raise TypeError(f"{command.__name__}: two options of one name")

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return run


def _spread(own: inspect.Parameter, hints: dict[str, Any]) -> Iterator[inspect.Parameter]:
    """Iterate over what stands for a parameter: itself, or one parameter for each field of its dataclass."""
    kind, group = inspect.Parameter.KEYWORD_ONLY, hints[own.name]
    if not is_dataclass(group):
        yield own.replace(kind=kind, annotation=group)
        return
    typed = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(field.name, kind, default=default, annotation=typed[field.name])
