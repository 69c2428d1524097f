"""One chart of one kind: of a plan, or of several models, accelerators and options beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.api.given import given
from kvplan.api.load import GpuLike, ModelLike
from kvplan.api.silence import silent
from kvplan.charts import Chart
from kvplan.checks import require_whole
from kvplan.errors import UsageError, unknown
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.change import Change, parse_changes
from kvplan.plan.charts.frontier import frontier_chart
from kvplan.plan.charts.growth import growth_chart
from kvplan.plan.charts.memory import memory_chart
from kvplan.plan.charts.words import Named
from kvplan.plan.setup import Load, Setup
from kvplan.units import LARGEST_COUNT

if TYPE_CHECKING:
    from kvplan.api.given import PlanOptions
    from kvplan.api.simulate import SimulateOptions

# Of several plans beside each other; of one plan; of a plan and options measured on the engine; of a run.
COMPARED = ("growth", "frontier", "memory")
OF_ONE = ("roofline", "step-time", "heat-map")
KINDS = (*COMPARED, *OF_ONE, "compare", "simulate")
# More than this many things have no colours of their own.
MOST_COMPARED = 8
_OF_SIMULATE = ("kv", "latent_cache")
# What the command line calls an option by another name.
_FLAGS = {"allocation": "alloc", "overhead_bytes": "overhead"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a chart is of.

    Args:
        models: names, files or models; several where the kind compares.
        gpus: names, files or accelerators; likewise, and none for ``simulate``.
        changes: options beside what is planned, each as ``kv=fp8,weights=int4`` or read from that.
        options: what is planned: see :class:`kvplan.api.given.PlanOptions`.
        batch: requests at once; 1 if absent, 16 where options are compared.
        context: tokens of each; what the command of that kind takes if absent.
        measure: measure what options cost in accuracy, for ``compare``.
    """

    models: Sequence[ModelLike]
    gpus: Sequence[GpuLike]
    changes: Iterable[str | tuple[Change, ...]]
    options: PlanOptions
    batch: int | None = None
    context: int | None = None
    measure: bool = True


def chart(kind: str, of: Subject, on_step: Callable[[str], None] = silent) -> Chart:
    """Return a chart of one kind.

    Raises:
        UsageError: there is no such kind, it does not show what is asked for, or a value cannot be.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    if kind not in KINDS:
        raise unknown("plot", kind, KINDS)
    changes = [parse_changes(one) if isinstance(one, str) else one for one in of.changes]
    changes = list(dict.fromkeys(changes))
    if kind in COMPARED:
        return _compared(kind, of, changes, on_step)
    if len(of.models) != 1 or len(of.gpus) > 1:
        several = "models" if len(of.models) != 1 else "accelerators"
        raise UsageError(f"a {kind} plot is of one plan, not of {several} beside each other")
    if kind == "simulate":
        return _simulation(of, changes, on_step)
    gpu = of.gpus[0] if of.gpus else None
    if kind == "compare":
        from kvplan.api.compare import compare

        batch, only = 16 if of.batch is None else of.batch, bool(changes)
        return compare(
            of.models[0],
            gpu=gpu,
            batch=batch,
            context=of.context,
            changes=changes,
            only=only,
            measure=of.measure,
            on_step=on_step,
            **of.options,
        ).chart()
    if changes:
        raise UsageError(f"a {kind} plot shows no options beside each other: leave out --with")
    from kvplan.api.roofline import roofline

    batch, context = of.batch or 1, of.context or 4096
    return roofline(of.models[0], gpu=gpu, batches=(batch,), context=context, **of.options).chart(kind)


def _simulation(of: Subject, changes: Sequence[tuple[Change, ...]], on_step: Callable[[str], None]) -> Chart:
    """Return the chart of a run; refuse by name what a run does not have."""
    from kvplan.api.simulate import simulate

    others = [_FLAGS.get(name, name) for name in of.options if name not in _OF_SIMULATE]
    extra = [f"--{name.replace('_', '-')}" for name in others]
    extra += ["--gpu"] * bool(of.gpus) + ["--with"] * bool(changes)
    extra += ["--batch"] * (of.batch is not None) + ["--context"] * (of.context is not None)
    if extra:
        raise UsageError(
            f"a simulate plot is of a run on this machine: leave out {', '.join(extra)}",
            hint="kvplan simulate --plot says more of the run",
        )
    run: SimulateOptions = {
        "kv": of.options.get("kv"),
        "latent_cache": of.options.get("latent_cache", "latent"),
    }
    return simulate(of.models[0], on_step=on_step, **run).chart()


# ------------------------------------------------------------------ several plans


def _compared(
    kind: str, of: Subject, changes: Sequence[tuple[Change, ...]], on_step: Callable[[str], None]
) -> Chart:
    if not of.models:
        raise UsageError("no model is named", hint="llama-3.1-8b")
    if kind == "growth" and len(of.gpus) > 1:
        # The cache grows the same way on each: the others are how far it can.
        named = _plans(of, of.gpus[:1], changes, on_step)
        return growth_chart(named, _plans(of, of.gpus, (), on_step))
    named = _plans(of, of.gpus or (None,), changes, on_step)
    if kind == "growth":
        return growth_chart(named)
    if kind == "memory":
        return memory_chart(named)
    longest = named[0].of.deployment.max_tokens
    context = (
        max(1, longest // 4) if of.context is None else require_whole("context", of.context, LARGEST_COUNT)
    )
    return frontier_chart(named, context)


def _plans(
    of: Subject,
    gpus: Sequence[GpuLike | None],
    changes: Sequence[tuple[Change, ...]],
    on_step: Callable[[str], None],
) -> list[Named[Capacity]]:
    """Return every model on every accelerator, as planned and with every option, named by what differs."""
    options = ((), *changes)
    if len(of.models) * len(gpus) * len(options) > MOST_COMPARED:
        raise UsageError(
            f"more than {MOST_COMPARED} plans cannot be told apart", hint="fewer models, --gpu or --with"
        )
    found: list[Named[Capacity]] = []
    for model in of.models:
        for gpu in gpus:
            plan = given(model, gpu, None, of.options)
            setup = Setup(plan.model, plan.deployment, Load(1, 1))
            for changed in options:
                name = _name(setup, changed, of, several_gpus=len(gpus) > 1, several_options=bool(changes))
                on_step(f"planning {name}")
                found.append(Named(name, _planned(setup, changed)))
    return found


def _name(
    setup: Setup,
    changed: tuple[Change, ...],
    of: Subject,
    *,
    several_gpus: bool,
    several_options: bool,
) -> str:
    """Return what a plan is called beside the others: only what sets it apart."""
    as_planned = f"{setup.deployment.kv.name} KV, {setup.deployment.weights.name} weights"
    option = ", ".join(change.label for change in changed) or as_planned
    parts = [
        *([setup.model.name] if len(of.models) > 1 else []),
        *([setup.deployment.device.name] if several_gpus else []),
        *([option] if several_options else []),
    ]
    return ", ".join(parts) or setup.model.name


def _planned(setup: Setup, changes: tuple[Change, ...]) -> Capacity:
    """Return a plan with an option.

    Raises:
        UsageError: the option does not go with the plan, or changes nothing that these kinds show.
    """
    name = ",".join(change.name for change in changes)
    changed = setup
    for change in changes:
        try:
            changed = change.applied(changed)
        except UsageError as error:
            raise UsageError(f"--with {name}: {error.message}", hint=error.hint) from None
    if changes and (changed.model, changed.deployment) == (setup.model, setup.deployment):
        raise UsageError(
            f"--with {name} changes how requests are served, not what one takes",
            hint="kvplan plot compare shows what it buys",
        )
    return plan_capacity(changed.model, changed.deployment)
