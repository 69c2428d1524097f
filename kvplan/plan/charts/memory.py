"""What the memory of a GPU is spent on, one bar for every option."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.charts import Axis, Bar, Bars, Chart, Hue
from kvplan.plan.capacity import Capacity
from kvplan.plan.charts.words import Named, size, subject
from kvplan.units import Unit

# Of the pool: another option that leaves so much more is worth naming.
MORE = 1.05


def memory_chart(named: Sequence[Named[Capacity]]) -> Chart:
    """Return a bar for every option: the GPU that is loaded most, against what may be planned of it."""
    several = any(one.of.deployment.parallelism.gpus > 1 for one in named)
    return Chart(
        kind="memory",
        title=_title(named),
        subject=subject(
            [(one.of.model, one.of.deployment) for one in named], "the GPU loaded most" if several else ""
        ),
        panels=(
            Bars(
                Axis("memory of a GPU", Unit.BYTES),
                tuple(map(_bar, named)),
                limit_name="planned",
            ),
        ),
    )


def _bar(one: Named[Capacity]) -> Bar:
    memory = one.of.most_loaded
    parts = (
        ("weights", Hue.WEIGHTS, memory.weights),
        ("activations", Hue.ACTIVATIONS, memory.activations),
        ("runtime's own", Hue.OVERHEAD, memory.overhead),
        ("cache pool", Hue.KV, memory.pool),
    )
    drawn = tuple((name, hue, float(figure.number)) for name, hue, figure in parts)
    return Bar(one.name, drawn, float(memory.total.number))


def _title(named: Sequence[Named[Capacity]]) -> str:
    first = named[0].of.most_loaded
    if first.shortfall.number:
        over = f"{size(first.shortfall.number)} more than is planned"
        return f"No room for a cache: weights and the rest take {over}{_elsewhere(named)}"
    share = first.pool.number / first.total.number
    left = f"{size(first.pool.number)} of {size(first.total.number)} ({share:.0%})"
    return f"{left} is left for the cache{_elsewhere(named)}"


def _elsewhere(named: Sequence[Named[Capacity]]) -> str:
    """Return the option that leaves most, where that is worth naming."""
    most = max(named, key=lambda one: one.of.most_loaded.pool.number)
    left, now = (one.of.most_loaded.pool.number for one in (most, named[0]))
    return f"; {most.name}: {size(left)} left" if left > MORE * now else ""
