"""The tables of a simulation: the plan beside the run by figure, by layer and by model, and its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite

from kvplan.check.simulation import COUNTED, Check, Simulation
from kvplan.check.simulation_words import differing_checks, named_checks
from kvplan.check.speed import Speed
from kvplan.engine.generation import StepRecord
from kvplan.results import Column, Quantity, Scalar, Shown, Table, fact
from kvplan.specs.layer_pattern import kind_names
from kvplan.units import Unit

EQUAL = "equal to the last unit"
MEASURED = "measured on this machine"
# Labels of the figures whose own are too long for a table, or say nothing without their sentence.
LABELS = {
    "decode_intensity_flops_per_byte": "decode intensity",
    "cached_logit_error": "logit error, at most",
    "transformers_logit_difference": "off transformers",
}


def checks_table(simulation: Simulation) -> Table:
    """Return every figure of the whole run, predicted and measured."""
    checks = simulation.checks
    units = tuple(fact("unit", c.predicted.unit.value, c.label) for c in checks)
    measured = tuple(_measured(c, "measured") for c in checks)
    return Table(
        "checks",
        "The plan against the run",
        (
            Column("name", "figure", tuple(fact("name", c.name, c.label) for c in checks)),
            Column("predicted", "predicted", tuple(replace(c.predicted, name="predicted") for c in checks)),
            Column("measured", "measured", measured),
            Column("unit", "unit", units, shown=False),
            Column("agree", "agree", tuple(fact("agree", c.agree, _agreement(c)) for c in checks)),
        ),
        units=True,
        labels=tuple(_label(c) for c in checks),
    )


def _label(check: Check) -> str:
    return LABELS.get(check.name, check.label)


def _agreement(check: Check) -> str:
    return "measured is at most predicted" if check.at_most else EQUAL


def _measured(check: Check, name: str) -> Quantity:
    """Return a check's measured figure; there is none where the engine made no number of it."""
    value = check.measured.value
    is_number = not isinstance(value, float) or isfinite(value)
    return replace(check.measured, name=name, value=value if is_number else None)


def layers_table(simulation: Simulation) -> Table:
    """Return the bytes in each layer's cache, predicted and measured."""
    ran, pairs = simulation.ran, simulation.layer_checks
    kinds = kind_names(ran.layers)
    numbers = tuple(fact("layer", n, "from the first") for n in range(len(ran.layers)))
    named = tuple(fact("kind", kinds[layer], ran.source) for layer in ran.layers)
    agree = tuple(fact("agree", a.agree and b.agree, EQUAL) for a, b in pairs)
    return Table(
        "layers",
        "The cache of each layer when the run has ended",
        (
            Column("layer", "layer", numbers),
            Column("kind", "kind", named, 3),
            *_beside("live_bytes", "live", [live for live, _ in pairs], (0, 0)),
            *_beside("allocated_bytes", "allocated", [allocated for _, allocated in pairs], (1, 2)),
            Column("agree", "agree", agree, 4),
        ),
        units=True,
    )


def _beside(
    name: str, label: str, checks: Sequence[Check], priorities: tuple[int, int]
) -> tuple[Column, Column]:
    predicted, measured = f"{name}_predicted", f"{name}_measured"
    plan = tuple(replace(c.predicted, name=predicted) for c in checks)
    run = tuple(_measured(c, measured) for c in checks)
    return (
        Column(predicted, f"{label}\npredicted", plan, priorities[0]),
        Column(measured, f"{label}\nmeasured", run, priorities[1]),
    )


def models_table(simulations: Sequence[Simulation]) -> Table:
    """Return a line for each model: how many figures were compared, and which differ."""
    return Table("models", "The plan against the run", _model_columns(simulations), units=True)


def _model_columns(simulations: Sequence[Simulation]) -> tuple[Column, ...]:
    def column(label: str, figure: Callable[[Simulation], Quantity], priority: int = 0) -> Column:
        cells = tuple(figure(simulation) for simulation in simulations)
        return Column(cells[0].name, label, cells, priority)

    columns = (
        column("model", lambda s: fact("model", s.model.name, s.model.source)),
        column("layers", lambda s: fact("layers", len(s.ran.layers), s.ran.source), 3),
        column("KV", lambda s: fact("kv", s.scenario.kv.name, "--kv, or the model's dtype"), 2),
        column("figures", lambda s: fact("figures", len(named_checks(s)), "compared"), 1),
        column("differ", lambda s: fact("differing", len(differing_checks(s)), EQUAL)),
        column("logit error", lambda s: finite("cached_logit_error", s.measurement.errors.cached), 1),
        column("agree", lambda s: fact("agree", s.agree, "every figure agrees")),
    )
    names = tuple(fact("differing_figures", ", ".join(differing_checks(s)), EQUAL) for s in simulations)
    return (*columns, Column("differing_figures", "differing figures", names, shown=False))


def finite(name: str, value: float, unit: Unit = Unit.NONE) -> Quantity:
    """Return a figure counted by the engine; there is none where the engine made no number of it."""
    return fact(name, value if isfinite(value) else None, COUNTED, unit)


def steps_table(simulation: Simulation, speed: Speed) -> Table:
    """Return each step as it ran, and the least time this machine could have taken for it."""
    steps = simulation.measurement.steps
    columns: tuple[tuple[str, Unit, Callable[[StepRecord], Scalar]], ...] = (
        ("phase", Unit.NONE, lambda step: step.phase.value),
        ("requests", Unit.REQUESTS, lambda step: step.requests),
        ("new_tokens", Unit.TOKENS, lambda step: step.new_tokens),
        ("cached_tokens", Unit.TOKENS, lambda step: step.cached_tokens),
        ("seconds", Unit.SECONDS, lambda step: step.seconds),
        ("bound_seconds", Unit.SECONDS, speed.bound_s),
    )
    numbers = tuple(fact("step", number, "in the order they ran") for number in range(len(steps)))
    return Table(
        "steps",
        "Steps",
        (
            Column("step", "step", numbers),
            *(
                Column(name, name, tuple(fact(name, of(step), MEASURED, unit) for step in steps))
                for name, unit, of in columns
            ),
        ),
        Shown.NOT,
    )
