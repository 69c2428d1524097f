"""The time of a step: the least it can take (bound), and what it is expected to take (estimate).

Bound: each operator takes as long as its operations at the dense peak, or its weights and cache at full
bandwidth, whichever is longer; activations may stay on the chip, launches may cost nothing, sums may be made
in the network. Estimate: the same with measured constants, activations and launches.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvplan.arch.work import Step
from kvplan.plan.law import Law
from kvplan.units import Amount


class Limit(Enum):
    """What most of a time is spent on."""

    MEMORY = "memory"
    COMPUTE = "compute"
    LATENCY = "latency"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Times:
    """How long an operator, or a step, takes; numbers or grids of them.

    Args:
        bound_s: the least it can take.
        memory_s, compute_s, network_s, launch_s: what the estimate is made of: each operator's longer one of
            memory and compute, and its launches and exchanges.
    """

    bound_s: Amount = 0.0
    memory_s: Amount = 0.0
    compute_s: Amount = 0.0
    network_s: Amount = 0.0
    launch_s: Amount = 0.0

    @property
    def estimate_s(self) -> Amount:
        """What it is expected to take."""
        return self.memory_s + self.compute_s + self.network_s + self.launch_s

    def __add__(self, other: Times) -> Times:
        return Times(
            self.bound_s + other.bound_s,
            self.memory_s + other.memory_s,
            self.compute_s + other.compute_s,
            self.network_s + other.network_s,
            self.launch_s + other.launch_s,
        )

    def scaled(self, count: Amount) -> Times:
        """Return the times of this done ``count`` times."""
        return Times(
            self.bound_s * count,
            self.memory_s * count,
            self.compute_s * count,
            self.network_s * count,
            self.launch_s * count,
        )

    @property
    def limit(self) -> Limit:
        """What most of the estimate is spent on; of numbers, not grids."""
        spent = {
            Limit.MEMORY: self.memory_s,
            Limit.COMPUTE: self.compute_s,
            Limit.NETWORK: self.network_s,
            Limit.LATENCY: self.launch_s,
        }
        return max(spent, key=lambda limit: float(spent[limit]))


@dataclass(frozen=True, slots=True)
class Timing:
    """The laws of an operator's times; absent where it has no such part.

    Args:
        bound: the least time.
        memory, compute: expected times of moving and of multiplying, of which the longer one counts.
        network: expected time of an exchange.
        launch: expected time of all its launches.
    """

    bound: Law | None = None
    memory: Law | None = None
    compute: Law | None = None
    network: Law | None = None
    launch: Law | None = None

    def at(self, step: Step) -> Times:
        """Return the times in a step, or in a grid of them."""
        memory_s, compute_s = _at(self.memory, step), _at(self.compute, step)
        return Times(
            bound_s=_at(self.bound, step),
            memory_s=memory_s * (memory_s >= compute_s),
            compute_s=compute_s * (compute_s > memory_s),
            network_s=_at(self.network, step),
            launch_s=_at(self.launch, step),
        )

    def estimated(self, step: Step) -> tuple[Law, ...]:
        """Return the laws that make up the estimate of one step."""
        memory_s, compute_s = _at(self.memory, step), _at(self.compute, step)
        longer = self.compute if compute_s > memory_s else self.memory
        return tuple(law for law in (longer, self.network, self.launch) if law is not None)


def _at(law: Law | None, step: Step) -> Amount:
    return 0.0 if law is None else law.at(step)
