"""Every picture of plan files, with a page that shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvplan.api.check import check_plan
from kvplan.api.given import PlanOptions, given
from kvplan.api.load import gpu_file, model_file
from kvplan.api.plan import PlanLike, load_plan, options_of
from kvplan.api.plot import COMPARED, MOST_COMPARED, OF_ONE, Subject, chart
from kvplan.api.report import Report
from kvplan.api.silence import silent
from kvplan.charts import Chart
from kvplan.errors import UsageError, unknown
from kvplan.plan.capacity import plan_capacity
from kvplan.planned import Plan

if TYPE_CHECKING:
    from kvplan.report.index import Drawn, PlanPage
    from kvplan.report.plots.theme import Theme

FORMATS = ("svg", "png")
BOTH = "both"
INDEX_FILES = ("index.md", "index.html")


def plot_all(
    plans: Iterable[PlanLike],
    *,
    theme: str = "light",
    format: str = "svg",
    specs: str | os.PathLike[str] | None = None,
    on_step: Callable[[str], None] = silent,
) -> dict[str, bytes]:
    """Return the files of a folder: every picture of every plan, ``index.md``, and ``index.html``.

    The HTML has the pictures in it. ``kvplan.plot_all(["plan.yaml"])["plan/frontier.svg"]``

    Args:
        plans: their files, or plans.
        theme: ``light``, ``dark``, or ``both``: the page then follows what its reader prefers.
        format: ``svg`` or ``png``.
        specs: a folder whose ``models`` and ``gpus`` are looked up first.
        on_step: called with what goes on, whenever something else does.

    Raises:
        UsageError: two plans of one name, or a plan cannot be deployed as it says.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    require_format(format)
    themes = themes_named(theme)
    loaded = [load_plan(plan, specs=specs) for plan in plans]
    _require_names(loaded)
    # All of them before anything long: what is wrong with the last plan is said at once.
    planned = [_Planned.of(plan, specs) for plan in loaded]
    pages = [_page(one, themes, format, on_step) for one in planned]
    from kvplan.report.index_html import render_index_html
    from kvplan.report.index_markdown import render_index_markdown

    files = {d.file: d.data for page in pages for picture in page.pictures for d in picture.drawn}
    on_step("writing the page")
    texts = (render_index_markdown(pages), render_index_html(pages))
    return files | {name: text.encode() for name, text in zip(INDEX_FILES, texts, strict=True)}


def themes_named(name: str) -> tuple[Theme, ...]:
    """Return the theme of this name, or both; raises UsageError where there is none."""
    from kvplan.report.plots.theme import THEMES

    if name == BOTH:
        return tuple(THEMES.values())
    if name not in THEMES:
        raise unknown("theme", name, (*THEMES, BOTH))
    return (THEMES[name],)


def require_format(name: str) -> None:
    """Refuse a format that pictures do not have; raises UsageError."""
    if name not in FORMATS:
        raise unknown("picture format", name, FORMATS)


def _require_names(plans: Sequence[Plan]) -> None:
    """Refuse plans whose pictures would lie in one folder, or in place of the page."""
    if not plans:
        raise UsageError("there is no plan to draw", hint="kvplan schema plan")
    names: dict[str, Plan] = {}
    for plan in plans:
        if plan.name in INDEX_FILES:
            raise UsageError(f"{plan.label}: a plan named {plan.name!r} would take the place of the page")
        if (other := names.setdefault(plan.name, plan)) is not plan:
            raise UsageError(
                f"{other.label} and {plan.label} are both named {plan.name!r}",
                hint="name: says what a plan is called",
            )


# ------------------------------------------------------------------ what is drawn


@dataclass(frozen=True, slots=True)
class _Planned:
    """A plan that can be deployed, and what its pictures are of.

    Args:
        subject: its model on all of its accelerators, with the options it compares.
        gpus: the names of the accelerators.
        checked: whether it holds; ``None`` where it requires nothing.
    """

    plan: Plan
    subject: Subject
    gpus: tuple[str, ...]
    checked: Report | None

    @classmethod
    def of(cls, plan: Plan, specs: str | os.PathLike[str] | None) -> _Planned:
        """Return a plan with what it comes to; raises UsageError where an accelerator does not take it."""
        options, model = options_of(plan.deployment), model_file(plan.model, specs)
        files = [gpu_file(gpu, specs) for gpu in plan.gpus]
        try:
            on_each = [given(model, file, None, options) for file in files]
            capacities = [plan_capacity(one.model, one.deployment) for one in on_each]
            names = tuple(one.deployment.device.name for one in capacities)
            if len(set(names)) < len(names):
                raise UsageError(f"accelerators of one name: {', '.join(names)}")
        except UsageError as error:
            raise UsageError(f"{plan.label}: {error.message}", hint=error.hint) from None
        checked = check_plan(plan, specs=specs) if plan.require else None
        # The heaviest load, of what a request can have.
        load, longest = plan.workload, min(one.deployment.max_tokens for one in capacities)
        batch, context = max(load.batch, default=None), max(load.context, default=None)
        context = None if context is None else min(context, longest)
        return cls(plan, Subject([model], files, plan.compare, options, batch, context), names, checked)

    def on(self, index: int) -> Subject:
        """Return what pictures of one accelerator are of."""
        return replace(self.subject, gpus=[self.subject.gpus[index]])


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A picture to draw: its name, its kind, and what it is of."""

    name: str
    kind: str
    of: Subject


def _page(
    planned: _Planned, themes: Sequence[Theme], format: str, on_step: Callable[[str], None]
) -> PlanPage:
    """Return what is said and shown of a plan; what a kind refuses to show is left out, and named."""
    from kvplan.report.index import Picture, PlanPage

    def step(doing: str) -> None:
        on_step(f"{plan.name}: {doing}")

    plan, pictures = planned.plan, []
    refused: dict[str, list[str]] = {}
    options = _shown_options(planned)
    shown = options[: MOST_COMPARED - 1]
    for option in options[len(shown) :]:
        reason = f"more options than the {len(shown)} that can be told apart"
        refused.setdefault(reason, []).append(option)
    for wanted in _wanted(planned, shown):
        try:
            made = chart(wanted.kind, wanted.of, step)
        except UsageError as error:
            refused.setdefault(error.message, []).append(wanted.name)
            continue
        step(f"drawing {wanted.name}")
        stem = f"{plan.name}/{wanted.name}"
        pictures.append(Picture(wanted.name, made, tuple(_drawn(made, stem, themes, format))))
    left_out = [f"{', '.join(names)}: {reason}" for reason, names in refused.items()]
    return PlanPage(plan.name, planned.checked, tuple(pictures), tuple(left_out))


def _drawn(made: Chart, stem: str, themes: Sequence[Theme], format: str) -> Iterator[Drawn]:
    """Iterate over a chart in every theme; the files of the second one on are named by theirs."""
    from kvplan.report.index import Drawn
    from kvplan.report.plots.draw import draw
    from kvplan.report.plots.save import picture

    for index, theme in enumerate(themes):
        ending = f"-{theme.name}" if index else ""
        yield Drawn(theme, f"{stem}{ending}.{format}", picture(draw(made, theme), f".{format}"))


def _wanted(planned: _Planned, options: Sequence[str]) -> Iterator[_Wanted]:
    """Iterate over the pictures of a plan, in the order they are shown; some are of options beside it."""
    alone = [(planned.on(index), gpu) for index, gpu in enumerate(planned.gpus)]
    together = len(alone) * (1 + len(options)) <= MOST_COMPARED
    for kind in COMPARED:
        if together:
            yield _Wanted(kind, kind, replace(planned.subject, changes=options))
        else:
            yield from _on_each(kind, alone, options)
    for kind in OF_ONE:
        yield from _on_each(kind, alone, ())
    if planned.plan.compare:
        yield from _on_each("compare", alone, planned.plan.compare)
    yield _Wanted("simulate", "simulate", _run(planned.subject))


def _on_each(kind: str, alone: Sequence[tuple[Subject, str]], options: Sequence[str]) -> Iterator[_Wanted]:
    """Iterate over pictures of each accelerator, which names them where there are several."""
    for subject, gpu in alone:
        name = f"{kind}-{gpu}" if len(alone) > 1 else kind
        yield _Wanted(name, kind, replace(subject, changes=options))


def _shown_options(planned: _Planned) -> list[str]:
    """Return the options that change what memory holds, on every accelerator."""
    subjects = [planned.on(index) for index in range(len(planned.gpus))]
    return [option for option in planned.plan.compare if all(_is_shown(option, one) for one in subjects)]


def _is_shown(option: str, of: Subject) -> bool:
    """Whether an option goes with a plan, and changes what memory holds; others are for ``compare``."""
    try:
        chart("memory", replace(of, changes=[option]))
    except UsageError:
        return False
    return True


def _run(of: Subject) -> Subject:
    """Return a run on this machine of what is planned: its model, and how that is cached."""
    options: PlanOptions = {}
    if "kv" in of.options:
        options["kv"] = of.options["kv"]
    if "latent_cache" in of.options:
        options["latent_cache"] = of.options["latent_cache"]
    return Subject(of.models, (), (), options)
