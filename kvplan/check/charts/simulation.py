"""A run beside its plan: every figure predicted and measured, and the cache as it filled, step by step."""

from __future__ import annotations

from collections.abc import Iterable

from kvplan.charts import Axis, Chart, Curves, Dot, Dots, Hue, Limit, Line, Spacing
from kvplan.check.simulation import Check, Simulation
from kvplan.check.simulation_words import load_in_words
from kvplan.plan.charts.words import requests
from kvplan.units import Unit

_HUES = {Unit.BYTES: Hue.KV, Unit.FLOPS: Hue.DECODE}
MOST_NAMED = 3


def simulation_chart(simulation: Simulation) -> Chart:
    """Return every figure on or off the line where both say the same, and the cache over the steps."""
    scenario, ran = simulation.scenario, simulation.ran
    size = f"{len(ran.layers)} layers x {ran.hidden_size} hidden"
    if simulation.continuation is None:
        prompts = f"{min(scenario.prompt_tokens):,} to {max(scenario.prompt_tokens):,}"
        load = (
            f"{requests(len(scenario.prompt_tokens))} of {prompts} tokens, {scenario.new_tokens:,} new each"
        )
        size = f"scaled down to {size}"
    else:
        load = load_in_words(simulation)
    return Chart(
        kind="simulate",
        title=_title(simulation),
        subject=f"{simulation.model.name}, {size} · {scenario.kv.name} KV · {load}",
        panels=(_figures(simulation.checks), _cache(simulation)),
        notes=("allocated: in whole blocks, as handed out; live: what a token still reads",),
    )


def _figures(checks: Iterable[Check]) -> Dots:
    """Return the exact figures that are not 0; sums of others are named where they are wrong."""
    dots = []
    for check in checks:
        predicted, measured = check.predicted.value, check.measured.value
        assert isinstance(predicted, int | float)
        assert isinstance(measured, int | float)
        if check.at_most or not predicted or not measured:
            continue
        named = not check.agree or not check.name.startswith("roofline")
        hue = _HUES.get(check.predicted.unit, Hue.LAUNCH)
        dots.append(Dot(check.label if named else "", float(predicted), float(measured), hue=hue))
    units = "B, FLOP, blocks"
    return Dots(
        Axis(f"predicted ({units})", Unit.NONE, Spacing.TENFOLD),
        Axis(f"measured ({units})", Unit.NONE, Spacing.TENFOLD),
        tuple(dots),
        equal="measured = predicted",
    )


def _cache(simulation: Simulation) -> Curves:
    """Return the cache's bytes after every step, the plan for the end, and what was reserved."""
    steps = simulation.measurement.steps
    at = tuple(float(index) for index in range(1, len(steps) + 1))
    planned = simulation.prediction.cache_allocated_bytes.number
    reserved = simulation.measurement.cache_bytes
    return Curves(
        Axis("steps run", Unit.STEPS),
        Axis("cache in use", Unit.BYTES),
        (
            Line("allocated", at, tuple(float(step.allocated_bytes) for step in steps), Hue.KV, stepped=True),
            Line("live", at, tuple(float(step.live_bytes) for step in steps), Hue.MEASURED, stepped=True),
        ),
        (
            Limit("planned for the end", float(planned)),
            *((Limit("reserved", float(reserved)),) if reserved != planned else ()),
        ),
    )


def _title(simulation: Simulation) -> str:
    """Say how many figures agree, and which do not."""
    layers = [check for pair in simulation.layer_checks for check in pair]
    count, wrong = len(simulation.checks) + len(layers), simulation.disagreeing
    if not wrong:
        return f"The plan holds: {count} of {count} figures agree, to the byte and the FLOP"
    labels = list(dict.fromkeys(check.label for check in wrong))
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    differ = "differs" if len(wrong) == 1 else "differ"
    return f"{len(wrong)} of {count} figures {differ}: {', '.join(labels[:MOST_NAMED])}{more}"
