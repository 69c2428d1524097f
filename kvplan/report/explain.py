"""How a figure came about: the formula that ran, the numbers in it, and where each is from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvplan.errors import unknown
from kvplan.report.words import exact
from kvplan.results import Quantity, Report, Scalar

_INDENT = "  "


def chosen(report: Report, name: str) -> list[tuple[str, Quantity]]:
    """Return the figures that ``--explain NAME`` means: one, a whole section, or ``all``.

    Raises:
        UsageError: there is no such figure; the closest names are suggested.
    """
    figures = dict(report.figures())
    if name == "all":
        return list(figures.items())
    found = [(n, q) for n, q in figures.items() if n == name or n.startswith(f"{name}.")]
    if not found:
        found = [(n, q) for n, q in figures.items() if n.endswith(f".{name}")]
    if not found:
        sections = [section.key for section in report.sections]
        raise unknown("figure", name, [*figures, *sections], see="--explain all shows every figure")
    return found


def render_explained(report: Report, name: str) -> str:
    """Return the derivation of the figures called ``name``, indented by depth."""
    return "\n\n".join("\n".join(_lines(n, q, "")) for n, q in chosen(report, name)) + "\n"


def explained_data(report: Report, name: str) -> list[dict[str, Any]]:
    """Return the derivation of the figures called ``name`` as plain data."""
    return [_data(n, q) for n, q in chosen(report, name)]


def _lines(name: str, quantity: Quantity, indent: str) -> Iterator[str]:
    inner = indent + _INDENT
    if quantity.formula is not None:
        yield f"{indent}{name} = {quantity.formula.expression()}"
        yield f"{inner}= {_substituted(quantity)}"
        yield f"{inner}= {exact(quantity)}   [{quantity.formula.source}]"
    elif quantity.parts:
        yield f"{indent}{name} = {' + '.join(_part_name(part) for part in quantity.parts)}"
        yield f"{inner}= {' + '.join(str(part.value) for part in quantity.parts)}"
        yield f"{inner}= {exact(quantity)}   [sum of its parts]"
    else:
        source = f"   [{quantity.source}]" if quantity.source else ""
        yield f"{indent}{name} = {exact(quantity)}{source}"
    if quantity.note:
        yield f"{inner}({quantity.note})"
    for child in _children(quantity):
        yield from _lines(child.name, child, inner)


def _children(quantity: Quantity) -> tuple[Quantity, ...]:
    """Return what a figure was made from, each only once where parts repeat."""
    return tuple(dict.fromkeys((*quantity.inputs, *quantity.parts)))


def _part_name(part: Quantity) -> str:
    return part.name.replace(" ", "_")


def _substituted(quantity: Quantity) -> str:
    assert quantity.formula is not None
    return quantity.formula.substituted(_named_inputs(quantity))


def _named_inputs(quantity: Quantity) -> dict[str, int]:
    assert quantity.formula is not None
    return dict(zip(quantity.formula.parameters, (q.number for q in quantity.inputs), strict=True))


def _data(name: str, quantity: Quantity) -> dict[str, Any]:
    data: dict[str, Scalar | list[dict[str, Any]]] = {
        "name": name,
        "value": quantity.value,
        "unit": quantity.unit.value,
    }
    if quantity.formula is not None:
        data["formula"] = quantity.formula.expression()
        data["substituted"] = _substituted(quantity)
        data["source"] = quantity.formula.source
    elif quantity.source:
        data["source"] = quantity.source
    if quantity.note:
        data["note"] = quantity.note
    if quantity.inputs:
        data["inputs"] = [_data(q.name, q) for q in quantity.inputs]
    if quantity.parts:
        data["parts"] = [_data(q.name, q) for q in quantity.parts]
    return data
