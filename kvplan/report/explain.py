"""How a figure came about: the formula that ran, the numbers in it, and where each is from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, TypeAlias

from kvplan.errors import unknown
from kvplan.report.words import exact
from kvplan.results import Quantity, Report, Shown, Table

_INDENT = "  "
# Sources up to this many characters stand behind their number, longer ones below everything.
_SHORT = 24
# The parts of a longer sum are named in the lines below it only.
_NAMED_PARTS = 5

_Origin: TypeAlias = tuple[int, int]


def chosen(report: Report, name: str) -> list[tuple[str, Quantity]]:
    """Return the figures that ``--explain NAME`` means: one, a row, a whole section, or ``all``.

    ``all`` leaves out what a report only measured and does not show.

    Raises:
        UsageError: there is no such figure; the closest names are suggested.
    """
    hidden = _told_elsewhere(report)
    figures = {n: q for n, q in report.figures() if id(q) not in hidden}
    if name == "all":
        silent = _only_measured(report)
        return [(n, q) for n, q in figures.items() if id(q) not in silent]
    found = [(n, q) for n, q in figures.items() if n == name or n.startswith(f"{name}.")]
    if not found:
        found = [(n, q) for n, q in figures.items() if f".{name}." in f".{n}."]
    if not found:  # "cache_live", as the table calls cache_live_bytes
        found = [(n, q) for n, q in figures.items() if f".{name}_" in f".{n}"]
    if not found:
        sections = [section.key for section in report.sections]
        words = [word for n in figures for word in n.split(".")[1:] if not word.isdigit()]
        known = dict.fromkeys([*figures, *sections, *([] if "." in name else words)])
        raise unknown("figure", name, known, see="--explain all shows every figure")
    return found


def _told_elsewhere(report: Report) -> set[int]:
    """Return the cells of columns for machines, such as the unit of the figure beside."""
    return {
        id(quantity)
        for section in report.sections
        if isinstance(section, Table)
        for column in section.columns
        if not column.shown
        for quantity in column.cells
    }


def _only_measured(report: Report) -> set[int]:
    """Return the underived cells of tables that no reader sees, such as the time of every step."""
    return {
        id(quantity)
        for section in report.sections
        if isinstance(section, Table) and section.shown is Shown.NOT
        for column in section.columns
        for quantity in column.cells
        if not _is_derived(quantity)
    }


def render_explained(report: Report, name: str) -> str:
    """Return the derivation of the figures called ``name``, indented by depth, sources at the end."""
    writer = _Writer(report)
    blocks = ["\n".join(writer.figure(n, q)) for n, q in chosen(report, name)]
    sources = [f"[{number}] {source}" for source, number in writer.sources.items()]
    return "\n\n".join([*blocks, *(["\n".join(sources)] if sources else [])]) + "\n"


def explained_data(report: Report, name: str) -> list[dict[str, Any]]:
    """Return the derivation of the figures called ``name`` as plain data, down to the last input."""
    return [_data(n, q) for n, q in chosen(report, name)]


class _Writer:
    """Writes derivations; a figure the report also shows is named, not derived again."""

    def __init__(self, report: Report) -> None:
        self.sources: dict[str, int] = {}
        self._shown: dict[_Origin, str] = {}
        for name, quantity in report.figures():
            self._shown.setdefault(_origin(quantity), name)
        self._written: dict[_Origin, str] = {}

    def figure(self, name: str, quantity: Quantity) -> Iterator[str]:
        """Iterate over the lines of one figure; one that was derived above is named."""
        above = self._written.setdefault(_origin(quantity), name)
        if above != name:
            yield f"{name} = {exact(quantity)}   (as {above})"
        else:
            yield from self._lines(name, quantity, "")

    def _lines(self, name: str, quantity: Quantity, indent: str) -> Iterator[str]:
        if not quantity.formula and len(quantity.parts) == 1:
            yield from self._lines(name, quantity.parts[0], indent)
            return
        inner = indent + _INDENT
        if quantity.formula is not None:
            yield f"{indent}{name} = {quantity.formula.expression()}"
            yield f"{inner}= {_substituted(quantity)}"
            yield f"{inner}= {exact(quantity)}{self._behind(quantity.formula.source)}"
        elif quantity.parts:
            yield from _sum(name, quantity, indent)
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
            if _origin(child) in self._shown:
                yield f"{indent}{child.name} = {exact(child)}   (--explain {self._shown[_origin(child)]})"
            elif not self._is_fact(child):
                yield from self._lines(child.name, child, indent)

    def _is_fact(self, quantity: Quantity) -> bool:
        return _origin(quantity) not in self._shown and not (quantity.formula or quantity.parts)

    def _behind(self, source: str) -> str:
        """Return where a number is from: in a few words, or by its number among the sources below."""
        if len(source) <= _SHORT:
            return f"   {source if source.startswith('(') else f'({source})'}" if source else ""
        return f"   [{self.sources.setdefault(source, len(self.sources) + 1)}]"


def _is_derived(quantity: Quantity) -> bool:
    return bool(quantity.inputs or quantity.parts)


def _origin(quantity: Quantity) -> _Origin:
    """Return what a figure shares with itself under another name: what it was derived from, if anything."""
    return (id(quantity.inputs), id(quantity.parts)) if _is_derived(quantity) else (id(quantity), 0)


def _sum(name: str, quantity: Quantity, indent: str) -> Iterator[str]:
    """Write a sum; the names of many parts are left to the lines below, which give each one's value."""
    inner, parts = indent + _INDENT, quantity.parts
    numbers = " + ".join(str(part.value) for part in parts)
    if len(parts) <= _NAMED_PARTS:
        yield f"{indent}{name} = {' + '.join(part.name.replace(' ', '_') for part in parts)}"
        yield f"{inner}= {numbers}"
    else:
        yield f"{indent}{name} = {numbers}"
    yield f"{inner}= {exact(quantity)}"


def _substituted(quantity: Quantity) -> str:
    assert quantity.formula is not None
    values = (q.amount for q in quantity.inputs)
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
