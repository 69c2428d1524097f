"""Write docs/formulas.md: every formula of the planner, as ``--explain`` prints it.

    python docs/formulas.py [--check]

With ``--check`` nothing is written, and the exit status is 1 where the page is not what would be written.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pages import code, keep, link, prose, table

import kvplan
from kvplan.formula import Formula
from kvplan.units import Unit

PAGE = Path(__file__).parent / "formulas.md"
HEAD = """<!-- Written by python docs/formulas.py: change the formulas, not this page. -->
<!-- fmt: off -->

# Formulas

Every formula of the planner: {count} of them. Each is a function of one expression, and what stands here is
read from the function that runs, as `--explain` reads it and puts the numbers in. Words are those of
[the glossary](glossary.md); [accounting.md](accounting.md) and [timing.md](timing.md) say how the formulas
are put together.

`//` divides and rounds down, so `-(-a // b)` rounds up; `%` is the rest, `**` a power. Counts may be arrays:
one number for each context or batch of a table. Beside Python's own functions, expressions call:"""

# Modules in the order of a reader; one that is not named here comes last, under OTHERS.
CHAPTERS = {
    "Memory of a GPU": (
        "plan.memory",
        "plan.weights",
        "storage.weight_formats",
        "plan.activation",
        "plan.overhead",
        "plan.capacity_report",
        "plan.capacity_figures",
    ),
    "Cache of a request": (
        "plan.entry_bytes",
        "plan.cache",
        "plan.kept_tokens",
        "plan.grouped_keys",
        "plan.held",
        "plan.lengths",
    ),
    "What tokens see and steps read": (
        "plan.visibility",
        "plan.compressed_entries",
        "plan.requests",
        "plan.phase",
    ),
    "Work of a step": (
        "plan.step_work",
        "plan.run",
        "plan.operator_formulas",
        "arch.gated_delta_net",
        "arch.kimi_delta_attention",
        "arch.lightning_attention",
        "arch.mamba",
        "arch.mamba2",
        "arch.rg_lru",
        "arch.short_convolution",
    ),
    "Time and cost": (
        "plan.time_formulas",
        "plan.roofline_figures",
        "plan.serving",
        "plan.comparison",
        "plan.runtime_step",
    ),
    "Decode attention on a GPU": ("plan.kernel_laws",),
    "Checks of a plan": ("plan.requirement_figures",),
}
OTHERS = "Others"

WIDTH = 100

_LINKED = re.compile(
    r"arXiv (?P<paper>\d{4}\.\d{4,5})"
    r"|(?:https?://)?(?P<address>\b(?:[a-z\d-]+\.)+(?:com|org|io|net|dev|ai)\b(?:/[\w./#-]*[\w/])?)"
)
# Where a long expression may go on in the next line: a clause or an argument, else a sum, else a product.
_BREAK = re.compile(r" (?=(?P<weak>\*|>=)|(?P<middling>[+-] )|(?:for|if|else) )|(?<=,) ")
# What the name of a module does not say.
HEADINGS = {"mamba2": "Mamba-2", "rg_lru": "RG-LRU"}


def formulas() -> list[Formula[..., Any]]:
    """Return every formula of the package, module by module, in the order of the source."""
    found: dict[int, Formula[..., Any]] = {}
    for module in pkgutil.walk_packages(kvplan.__path__, "kvplan."):
        if not module.name.endswith(".__main__"):
            members = vars(importlib.import_module(module.name)).values()
            found |= {id(one): one for one in members if isinstance(one, Formula)}
    return sorted(found.values(), key=lambda one: (module_of(one), one.function.__code__.co_firstlineno))


def module_of(one: Formula[..., Any]) -> str:
    """Return the module of a formula, without the package."""
    return one.function.__module__.removeprefix("kvplan.")


def chapters(found: Iterable[Formula[..., Any]]) -> Iterator[tuple[str, dict[str, list[Formula[..., Any]]]]]:
    """Iterate over the chapters: title, and formulas by module."""
    modules = {name: list(ones) for name, ones in groupby(found, module_of)}
    named = {name for names in CHAPTERS.values() for name in names}
    for title, names in (*CHAPTERS.items(), (OTHERS, tuple(name for name in modules if name not in named))):
        if names:
            yield title, {name: modules[name] for name in names}


def heading(module: str) -> str:
    """Return the heading of a module, in words."""
    name = module.rpartition(".")[2]
    return HEADINGS.get(name, name.replace("_", " ").capitalize())


def about(thing: object) -> str:
    """Return the first paragraph of a docstring."""
    return prose((inspect.getdoc(thing) or "").partition("\n\n")[0])


def helpers(found: Iterable[Formula[..., Any]]) -> dict[str, str]:
    """Return what the functions return that expressions call, by name; Python's own are known."""
    called: dict[str, str] = {}
    for one in found:
        for node in ast.walk(ast.parse(one.expression())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
                function = one.function.__globals__.get(name, getattr(builtins, name, None))
                if inspect.isfunction(function):
                    called[name] = about(function).removeprefix("Return ")
    return dict(sorted(called.items()))


def broken(text: str, indent: str = "") -> str:
    """Return an expression in lines that fit a page, each cut where fewest brackets are open."""
    places = [(_rank(text, found), found.start()) for found in _BREAK.finditer(text)]
    if len(indent + text) <= WIDTH or not places:
        return indent + text
    best, _ = min(places)
    lines, start = [""], 0
    for stop in (*(place for rank, place in places if rank == best), len(text)):
        piece = text[start:stop].strip()
        longer = f"{lines[-1]} {piece}".strip()
        if len(f"{indent}    {longer}") <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(piece)
        start = stop
    first, *others = (line for line in lines if line)
    return "\n".join((broken(first, indent), *(broken(line, f"{indent}    ") for line in others)))


def _rank(text: str, place: re.Match[str]) -> tuple[int, int]:
    """Return how bad a place to cut at is: brackets that are open there, then what is cut."""
    before = text[: place.start()]
    return before.count("(") - before.count(")"), 2 if place["weak"] else 1 if place["middling"] else 0


def sourced(text: str) -> str:
    """Return a source, its papers and addresses linked."""

    def linked(found: re.Match[str]) -> str:
        paper, address = found["paper"], found["address"]
        return f"[{found[0]}](https://{f'arxiv.org/abs/{paper}' if paper else address})"

    return _LINKED.sub(linked, prose(text))


def entry(one: Formula[..., Any]) -> Iterator[str]:
    """Iterate over the paragraphs about a formula."""
    unit = "No unit of its own." if one.unit is Unit.NONE else f"In {code(one.unit.value)}."
    yield f"#### {code(one.name)}"
    yield f"{prose(inspect.getdoc(one.function) or '')} {unit}"
    yield f"```python\n{broken(f'{one.name} = {one.expression()}')}\n```"
    yield f"Source: {sourced(one.source)}."


def contents(title: str, modules: dict[str, list[Formula[..., Any]]]) -> str:
    """Return a chapter's lines of the contents."""
    lines = [f"- {link(title)}"]
    for module, ones in modules.items():
        names = ", ".join(link(one.name, code(one.name)) for one in ones)
        lines.append(f"  - {link(heading(module))}: {names}")
    return "\n".join(lines)


def generated() -> str:
    """Return the page."""
    found = formulas()
    whole = list(chapters(found))
    parts = [
        HEAD.format(count=len(found)),
        table(("function", "returns"), ((code(name), said) for name, said in helpers(found).items())),
        "## Contents",
        "\n".join(contents(title, modules) for title, modules in whole),
    ]
    for title, modules in whole:
        parts.append(f"## {title}")
        for module, ones in modules.items():
            parts += [f"### {heading(module)}", about(importlib.import_module(f"kvplan.{module}"))]
            parts += [part for one in ones for part in entry(one)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(keep(PAGE, lambda _: generated(), __doc__ or ""))
