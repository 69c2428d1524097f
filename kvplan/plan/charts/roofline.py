"""Operators of a decode step and of a prompt under the roofs of the accelerator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log10

from kvplan.arch.work import Step
from kvplan.charts import Chart, Dot, Hue, Roof, UnderRoof
from kvplan.hardware.efficiency import Kernel
from kvplan.hardware.peak import peak_flops_per_s, peak_format
from kvplan.plan.charts.places import doublings
from kvplan.plan.charts.words import requests, subject
from kvplan.plan.operator import Collective, Glue
from kvplan.plan.roofline import Roofline, Timed
from kvplan.plan.step_time import Limit
from kvplan.units import GB, short_count

# Operators that take less of their step than this are left out.
LEAST_SHARE = 0.005
# Dots of one kind that are nearer than so many powers of ten, on both axes, are one.
NEAR = 0.35
_WORDS = {
    Kernel.GEMM: "weights",
    Kernel.EXPERTS: "experts",
    Kernel.DECODE_ATTENTION: "attention",
    Kernel.PREFILL_ATTENTION: "attention",
    Kernel.LATENT_ATTENTION: "attention",
}
_SETS_SPEED = {
    Limit.MEMORY: "memory sets its speed",
    Limit.COMPUTE: "arithmetic sets its speed",
    Limit.NETWORK: "exchange between GPUs takes most of its time",
    Limit.LATENCY: "launches take most of its time",
}


def roofline_chart(roofline: Roofline, batch: int, context: int, most_batch: int) -> Chart:
    """Return decode operators at a batch, those of one prompt, and the step's path to ``most_batch``."""
    decode = _dots(roofline.timed(roofline.decode(batch, context)), Hue.DECODE, "decode")
    prefill = _dots(roofline.timed(*roofline.prefill(1, context)), Hue.PREFILL, "prefill")
    path = sorted({*doublings(max(most_batch, batch)), batch})
    roofs = _roofs(roofline)
    return Chart(
        kind="roofline",
        title=_title(roofline, roofs[0], batch, context),
        subject=subject(
            [(roofline.model, roofline.deployment)],
            f"decode of {requests(batch)} of {short_count(context)}, and one such prompt",
        ),
        panels=(
            UnderRoof(
                roofs,
                (*prefill, *decode),
                tuple(_whole(roofline, one, context, one in (1, batch, path[-1])) for one in path),
            ),
        ),
        notes=(
            "speed: operations over the expected time; area: share of the time of the step; "
            "line: the whole decode step as its batch grows",
        ),
    )


# ------------------------------------------------------------------ operators


@dataclass(frozen=True, slots=True)
class _Group:
    """Operators of one kind that stand near each other: what they do, and how long it takes them."""

    kind: str
    labels: tuple[str, ...]
    flops: float
    moved: float
    taken: float

    @property
    def place(self) -> tuple[float, float]:
        """Where it stands, in powers of ten: FLOP a byte, and FLOP/s."""
        return log10(self.flops / self.moved), log10(self.flops / self.taken)

    def near(self, other: _Group) -> bool:
        """Whether both are one to the eye."""
        pairs = zip(self.place, other.place, strict=True)
        return self.kind == other.kind and all(abs(a - b) < NEAR for a, b in pairs)

    def joined(self, other: _Group) -> _Group:
        """Return both as one."""
        return _Group(
            self.kind,
            tuple(dict.fromkeys(self.labels + other.labels)),
            self.flops + other.flops,
            self.moved + other.moved,
            self.taken + other.taken,
        )


def _dots(operators: Sequence[Timed], hue: Hue, phase: str) -> tuple[Dot, ...]:
    """Return a dot for operators that multiply and read, as large as their share of the time."""
    whole = sum(float(timed.times.estimate_s) for timed in operators)
    groups = _joined(group for timed in operators if (group := _group(timed)))
    shown = [group for group in groups if group.taken > LEAST_SHARE * whole]
    return tuple(
        Dot(
            f"{phase}: {_name(group, [one for one in shown if one.kind == group.kind])}",
            group.flops / group.moved,
            group.flops / group.taken,
            group.taken / whole,
            hue,
        )
        for group in shown
    )


def _group(timed: Timed) -> _Group | None:
    """Return an operator by itself; ``None`` where it multiplies nothing, or is no kernel of its own."""
    kind, work = timed.parts[0].operator.runs_as, timed.work
    if isinstance(kind, Collective | Glue) or not work.flops or not work.memory_bytes:
        return None
    word = "states" if timed.name == "recurrence" else _WORDS[kind]
    return _Group(
        word, (timed.label,), float(work.flops), float(work.memory_bytes), float(timed.times.estimate_s)
    )


def _joined(groups: Iterable[_Group]) -> list[_Group]:
    """Return groups of those that are one to the eye, the longest taken first."""
    found: list[_Group] = []
    for group in sorted(groups, key=lambda one: -one.taken):
        near = next((index for index, other in enumerate(found) if other.near(group)), None)
        if near is None:
            found.append(group)
        else:
            found[near] = found[near].joined(group)
    return found


def _name(group: _Group, alike: Sequence[_Group]) -> str:
    """Return the kind where it, or most of it, is in one place, else the largest and how many more."""
    if len(alike) == 1:
        return group.kind
    if len(group.labels) > 1 and 2 * group.taken > sum(one.taken for one in alike):
        return f"most {group.kind}"
    more = f" and {len(group.labels) - 1} more" if len(group.labels) > 1 else ""
    return group.labels[0] + more


# ------------------------------------------------------------------ the whole step, and the roofs


def _whole(roofline: Roofline, batch: int, context: int, named: bool) -> Dot:
    step: tuple[Step, int] = roofline.decode(batch, context)
    work, taken = roofline.work(step), float(roofline.times(step).estimate_s)
    name = f"batch {batch:,}" if named else ""
    return Dot(name, float(work.flops / work.memory_bytes), float(work.flops) / taken)


def _roofs(roofline: Roofline) -> tuple[Roof, ...]:
    """Return a roof for every rate that operators multiply at, that of most weights first."""
    device = roofline.deployment.device
    found: dict[float, str] = {}
    formats = [roofline.deployment.weights.multiplied_in]
    formats += [one.format.multiplied_in for one, _ in roofline.operators if isinstance(one.runs_as, Kernel)]
    for several in formats:
        found.setdefault(peak_flops_per_s(device, several), peak_format(device, several))
    bandwidth = device.memory.bandwidth_gb_per_s * GB
    return tuple(Roof(f"{name} dense", rate, bandwidth) for rate, name in found.items())


def _title(roofline: Roofline, roof: Roof, batch: int, context: int) -> str:
    step = roofline.decode(batch, context)
    work = roofline.work(step)
    times = roof.ridge / float(work.flops / work.memory_bytes)
    load = f"Decode of {requests(batch)} of {short_count(context)}"
    where = f"is {times:.3g} times below the ridge" if times > 1 else "is past the ridge"
    return f"{load} {where}: {_SETS_SPEED[roofline.times(step).limit]}"
