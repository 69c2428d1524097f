"""How a figure came about: the formula that ran, the numbers in it, and where each is from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from kvplan.errors import unknown
from kvplan.report.words import exact
from kvplan.results import Quantity, Report

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
    """Return the derivation of the figures called ``name``, indented by depth, sources at the end."""
    writer = _Writer(report)
    blocks = ["\n".join(writer.figure(n, q)) for n, q in chosen(report, name)]
    sources = [f"[{number}] {source}" for source, number in writer.sources.items()]
    return "\n\n".join([*blocks, "\n".join(sources)]) + "\n"


def explained_data(report: Report, name: str) -> list[dict[str, Any]]:
    """Return the derivation of the figures called ``name`` as plain data, down to the last input."""
    return [_data(n, q) for n, q in chosen(report, name)]


class _Writer:
    """Writes derivations; a figure the report also shows is named, not derived again."""

    def __init__(self, report: Report) -> None:
        self.sources: dict[str, int] = {}
        self._shown = {id(quantity): name for name, quantity in report.figures()}

    def figure(self, name: str, quantity: Quantity) -> Iterator[str]:
        """Iterate over the lines of one figure."""
        yield from self._lines(name, quantity, "")

    def _lines(self, name: str, quantity: Quantity, indent: str) -> Iterator[str]:
        if not quantity.formula and len(quantity.parts) == 1:
            yield from self._lines(name, quantity.parts[0], indent)
            return
        inner = indent + _INDENT
        if quantity.formula is not None:
            yield f"{indent}{name} = {quantity.formula.expression()}"
            yield f"{inner}= {_substituted(quantity)}"
            yield f"{inner}= {exact(quantity)}   {self._cited(quantity.formula.source)}"
        elif quantity.parts:
            yield f"{indent}{name} = {' + '.join(part.name.replace(' ', '_') for part in quantity.parts)}"
            yield f"{inner}= {' + '.join(str(part.value) for part in quantity.parts)}"
            yield f"{inner}= {exact(quantity)}"
        else:
            yield f"{indent}{name} = {exact(quantity)}{self._behind(quantity.source)}"
        if quantity.note:
            yield f"{inner}({quantity.note})"
        yield from self._children(quantity, inner)

    def _children(self, quantity: Quantity, indent: str) -> Iterator[str]:
        """Write what a figure was made from: facts of one source share a line, the rest follows."""
        children = tuple(dict.fromkeys((*quantity.inputs, *quantity.parts)))
        facts = [child for child in children if self._is_fact(child)]
        for source, group in groupby(facts, key=lambda child: child.source):
            yield f"{indent}{', '.join(f'{q.name} = {exact(q)}' for q in group)}{self._behind(source)}"
        for child in children:
            if id(child) in self._shown:
                yield f"{indent}{child.name} = {exact(child)}   (--explain {self._shown[id(child)]})"
            elif not self._is_fact(child):
                yield from self._lines(child.name, child, indent)

    def _is_fact(self, quantity: Quantity) -> bool:
        return id(quantity) not in self._shown and not (quantity.formula or quantity.parts)

    def _behind(self, source: str) -> str:
        return f"   {self._cited(source)}" if source else ""

    def _cited(self, source: str) -> str:
        return f"[{self.sources.setdefault(source, len(self.sources) + 1)}]"


def _substituted(quantity: Quantity) -> str:
    assert quantity.formula is not None
    values = (q.number for q in quantity.inputs)
    return quantity.formula.substituted(dict(zip(quantity.formula.parameters, values, strict=True)))


def _data(name: str, quantity: Quantity) -> dict[str, Any]:
    data: dict[str, Any] = {"name": name, "value": quantity.value, "unit": quantity.unit.value}
    if quantity.formula is not None:
        data["formula"] = quantity.formula.expression()
        data["substituted"] = _substituted(quantity)
        data["source"] = quantity.formula.source
    elif quantity.source:
        data["source"] = quantity.source
    if quantity.note:
        data["note"] = quantity.note
    for key, children in (("inputs", quantity.inputs), ("parts", quantity.parts)):
        if children:
            data[key] = [_data(child.name, child) for child in children]
    return data
