"""What the charts of plans have in common: names, and the line that says what they are of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kvplan.arch.model import Model
from kvplan.plan.deployment import Deployment
from kvplan.units import GIB, KIB, MIB

T = TypeVar("T")

# More names than this are counted.
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Named(Generic[T]):
    """Something that is compared, and what it is called on the chart."""

    name: str
    of: T


def subject(of: Sequence[tuple[Model, Deployment]], load: str) -> str:
    """Return what a chart is of: models, accelerators, what storage they have in common, and the load."""
    models = _listed((model.name for model, _ in of), "models")
    counts = ((deployment.parallelism.gpus, deployment.device.name) for _, deployment in of)
    gpus = _listed((f"{count} x {device}" for count, device in counts), "deployments")
    weights, kv = {d.weights.name for _, d in of}, {d.kv.name for _, d in of}
    stored = [f"{weights.pop()} weights"] if len(weights) == 1 else []
    stored += [f"{kv.pop()} KV"] if len(kv) == 1 else []
    return " · ".join(part for part in (f"{models} on {gpus}", ", ".join(stored), load) if part)


def size(byte_count: int) -> str:
    """Return bytes in the largest unit that gives one or more, with one decimal below 100."""
    for unit, word in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if byte_count >= unit:
            amount = byte_count / unit
            return f"{amount:,.{0 if amount >= 99.95 else 1}f} {word}"
    return f"{byte_count} B"


def requests(count: int) -> str:
    """Return ``1 request``, ``13 requests``."""
    return f"{count:,} request{'' if count == 1 else 's'}"


def upper_first(sentence: str) -> str:
    """Return a sentence with its first letter large."""
    return sentence[:1].upper() + sentence[1:]


def _listed(names: Iterable[str], what: str) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(different) if len(different) <= MOST_NAMED else f"{len(different)} {what}"
