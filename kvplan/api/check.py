"""Does a plan hold: every requirement of its file, on every accelerator it names."""

from __future__ import annotations

import os

from kvplan.api.given import Echo, Given, given, refuse_drafting
from kvplan.api.load import gpu_file, model_file
from kvplan.api.plan import PlanLike, load_plan, options_of
from kvplan.api.report import Report
from kvplan.errors import UsageError
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.check_report import Checked, check_report
from kvplan.plan.requirement_figures import Subject, judge
from kvplan.plan.roofline import plan_roofline
from kvplan.planned import Plan
from kvplan.specs.catalog import digest


def check_plan(plan: PlanLike, *, specs: str | os.PathLike[str] | None = None) -> Report:
    """Say whether every requirement of a plan holds, with what is required, what there is, and the margin.

    ``kvplan.check_plan("plan.yaml").verdict.yes``

    Args:
        plan: its file, or a plan.
        specs: a folder whose ``models`` and ``gpus`` are looked up first.

    Raises:
        UsageError: the plan requires nothing, cannot be deployed as it says, or cannot be known to hold.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    asked = load_plan(plan, specs=specs)
    try:
        return _checked(asked, specs)
    except UsageError as error:
        raise UsageError(f"{asked.label}: {error.message}", hint=error.hint) from None


def _checked(plan: Plan, specs: str | os.PathLike[str] | None) -> Report:
    if not plan.require:
        raise UsageError("there is nothing to check", hint="require: [fits, tpot <= 30 ms]")
    options, model = options_of(plan.deployment), model_file(plan.model, specs)
    if _is_timed(plan):
        refuse_drafting(options)
    on_each = [given(model, gpu_file(gpu, specs), None, options) for gpu in plan.gpus]
    names = [one.deployment.device.name for one in on_each]
    if len(set(names)) < len(names):
        raise UsageError(f"accelerators of one name: {', '.join(names)}")
    checked = [_judged(plan, one) for one in on_each]
    return Report.of(check_report(plan.name, checked, _echo(plan, on_each)), {})


def _is_timed(plan: Plan) -> bool:
    return any(requirement.metric.kind.timed for requirement in plan.require)


def _judged(plan: Plan, one: Given) -> Checked:
    subject = Subject(
        capacity=plan_capacity(one.model, one.deployment),
        roofline=plan_roofline(one.model, one.deployment) if _is_timed(plan) else None,
        price=plan.price,
        output_tokens=plan.workload.output_tokens,
    )
    return Checked(subject, tuple(judge(plan.require, subject)))


def _echo(plan: Plan, on_each: list[Given]) -> Echo:
    """Return what was asked; where there are several accelerators, their files by their names."""
    (model_echo, gpu_echo), files = _split(on_each[0].files), [_split(one.files)[1] for one in on_each]
    if len(files) > 1:
        named = zip(on_each, files, strict=True)
        gpu_echo = tuple((f"{key}.{one.deployment.device.name}", v) for one, echo in named for key, v in echo)
    return (
        ("plan_file", plan.label),
        ("plan_sha256", digest(plan.path)),
        *model_echo,
        *gpu_echo,
        ("usd_per_gpu_hour", plan.price),
        ("output_tokens", plan.workload.output_tokens),
    )


def _split(files: Echo) -> tuple[Echo, Echo]:
    """Return the entries of the model, and those of the accelerator."""
    return files[:2], files[2:]
