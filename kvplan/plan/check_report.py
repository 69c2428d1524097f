"""The answer of ``kvplan check``: each requirement of a plan, what there is, and whether that is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvplan.plan.cache_notes import cache_notes
from kvplan.plan.capacity_report import hardware_notes
from kvplan.plan.deployment import Deployment
from kvplan.plan.requirement_figures import Judged, Subject
from kvplan.plan.time_notes import time_notes
from kvplan.requirement import Metric, Requirement
from kvplan.results import Column, Facts, Quantity, Report, Scalar, Shown, Table, Verdict, fact
from kvplan.units import Unit, gib, short_count


@dataclass(frozen=True, slots=True)
class Checked:
    """A plan on one kind of accelerator: what it was judged on, and what came of it."""

    subject: Subject
    judged: tuple[Judged, ...]

    @property
    def deployment(self) -> Deployment:
        """The deployment that was judged."""
        return self.subject.capacity.deployment

    @property
    def failed(self) -> tuple[Judged, ...]:
        """The requirements that are not met."""
        return tuple(one for one in self.judged if not one.met)


def check_report(
    name: str, checked: Sequence[Checked], inputs: tuple[tuple[str, Scalar | list[int]], ...]
) -> Report:
    """Return the whole answer on a plan of this name, for every accelerator it is checked on."""
    return Report(
        command="check",
        heading=_heading(name, checked),
        sections=(_plan(name, checked[0]), _table(checked)),
        verdict=Verdict(
            yes=not any(one.failed for one in checked),
            text=_verdict(checked),
            key="holds",
        ),
        notes=_notes(checked),
        inputs=inputs,
    )


def _heading(name: str, checked: Sequence[Checked]) -> str:
    first = checked[0].deployment
    gpus = " or ".join(
        f"{one.deployment.parallelism.gpus} x {one.deployment.device.label}" for one in checked
    )
    stored = f"{first.weights.name} weights, {first.kv.name} KV"
    return f"{name}: {checked[0].subject.capacity.model.name}  {stored}   on {gpus}"


def _plan(name: str, first: Checked) -> Facts:
    """Return what was checked, for machines."""
    model = first.subject.capacity.model
    figures = (fact("name", name, "the plan"), fact("model", model.name, model.source))
    return Facts("plan", "Plan", figures, Shown.NOT)


# ------------------------------------------------------------------ the table


def _table(checked: Sequence[Checked]) -> Table:
    """Return a row for each requirement on each accelerator, which is named where there are several."""
    rows = [(one.deployment.device.name, judged) for one in checked for judged in one.judged]
    several = len(checked) > 1

    def column(key: str, label: str, cells: Sequence[Quantity], priority: int = 0) -> Column:
        return Column(key, label, tuple(cells), priority)

    def asked(key: str, values: Sequence[Scalar], unit: Unit = Unit.NONE) -> Column:
        return Column(key, "", tuple(fact(key, value, "the plan", unit) for value in values), shown=False)

    requirements = [judged.requirement for _, judged in rows]
    texts = tuple(_sentence(requirement) for requirement in requirements)
    gpus = [fact("gpu", gpu, "the plan") for gpu, _ in rows]
    columns = (
        column("gpu", "GPU" if several else "requirement", gpus),
        asked("name", [requirement.name for requirement in requirements]),
        Column(
            "requirement", "requirement", tuple(fact("requirement", t, "the plan") for t in texts), 0, several
        ),
        asked("metric", [requirement.metric.kind.word for requirement in requirements]),
        asked("batch", [requirement.batch for requirement in requirements], Unit.REQUESTS),
        asked("context_tokens", [requirement.context for requirement in requirements], Unit.TOKENS),
        asked("unit", [requirement.metric.kind.unit.value or None for requirement in requirements]),
        column("required", "required", [judged.required for _, judged in rows], 1),
        column("got", "got", [judged.got for _, judged in rows]),
        column("margin", "margin", [judged.margin for _, judged in rows]),
        column("margin_share", "share", [judged.margin_share for _, judged in rows], 2),
        column("met", "met", [fact("met", judged.met, "got against required") for _, judged in rows]),
    )
    labels = () if several else texts
    return Table("requirements", "Requirements", columns, handy_units=True, labels=labels, named_by=2)


def _sentence(requirement: Requirement) -> str:
    """Return a requirement with the load it is asked at, wherever that is from."""
    said, kind = requirement.text.partition(" at ")[0], requirement.metric.kind
    load = ((word, getattr(requirement, word)) for word in kind.loads)
    at = " ".join(f"{word} {short_count(value)}" for word, value in load)
    return f"{said} at {at}" if at else said


# ------------------------------------------------------------------ words


def _verdict(checked: Sequence[Checked]) -> str:
    holding = [one.deployment.device.name for one in checked if not one.failed]
    failing = [_failing(one) for one in checked if one.failed]
    count = len(checked[0].judged)
    every = "the one requirement holds" if count == 1 else f"all {count} requirements hold"
    held = [f"{every} on {' and '.join(holding)}"] if holding else []
    said = "; ".join([*failing, *held])
    return f"{said[:1].upper()}{said[1:]}."


def _failing(one: Checked) -> str:
    verb = "is" if len(one.failed) == 1 else "are"
    missed = ", ".join(f"{_sentence(judged.requirement)} ({_said(judged)})" for judged in one.failed)
    return f"{len(one.failed)} of {len(one.judged)} {verb} not met on {one.deployment.device.name}: {missed}"


def _said(judged: Judged) -> str:
    """Return what there is instead of what is required."""
    if judged.got.value is None or not judged.requirement.metric.kind.side:
        return "it does not fit"
    value = judged.got.amount
    match judged.got.unit:
        case Unit.BYTES:
            return f"{gib(int(value))} GiB"
        case Unit.SECONDS:
            return f"{1e3 * value:,.4g} ms"
        case Unit.USD:
            return f"{value:.4g} USD"
        case Unit.TOKENS_PER_SECOND:
            return f"{value:,.4g} tokens/s" if value < 1e4 else f"{value:,.0f} tokens/s"
    return f"{value:,} {judged.got.unit.value}"


def _notes(checked: Sequence[Checked]) -> tuple[str, ...]:
    """Return why requests do not fit, then what to know of the figures, each sentence once."""
    several = len(checked) > 1
    why = [reason for one in checked for reason in _reasons(one, several)]
    return tuple(dict.fromkeys([*why, *(note for one in checked for note in _of_figures(one))]))


def _reasons(one: Checked, several: bool) -> Iterator[str]:
    where = f" on {one.deployment.device.name}" if several else ""
    for judged in one.judged:
        if judged.reason:
            yield f"{_sentence(judged.requirement)}{where}: {judged.reason}"


def _of_figures(one: Checked) -> Iterator[str]:
    metrics = {judged.requirement.metric for judged in one.judged}
    if metrics & {Metric.KV_POOL, Metric.WEIGHTS} and one.deployment.parallelism.gpus > 1:
        yield "kv_pool and weights are of the GPU where one growing request runs out first"
    if Metric.FITS in metrics and one.subject.output_tokens is not None:
        yield f"fits counts the {one.subject.output_tokens:,} tokens that each request makes, too"
    yield from cache_notes(one.subject.capacity.model, one.deployment)
    yield from hardware_notes(one.subject.capacity)
    if metrics & {Metric.TPOT, Metric.TOKENS_PER_S, Metric.COST}:
        yield f"tpot, tokens_per_s and cost are of {_what_is_timed(one.subject)}"
    if any(metric.kind.timed for metric in metrics):
        yield from time_notes(one.subject.capacity.model, [one.deployment])


def _what_is_timed(subject: Subject) -> str:
    if subject.output_tokens is None:
        return "decode steps alone, no prompt read between them (workload: output_tokens)"
    made = short_count(subject.output_tokens)
    return f"a closed loop: prompts of the context, {made} tokens each, prompts read between tokens"
