"""What a plan file says: a model on accelerators, the load it carries, and what must hold of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from kvplan.requirement import Requirement


@dataclass(frozen=True, slots=True)
class PlannedDeployment:
    """How the model is deployed: what the options of the same names mean; ``None`` where nothing is said.

    Args:
        gpus: number of accelerators.
        tp, pp, dp, ep, cp: tensor, pipeline, data, expert and context parallel degrees.
        weights: storage of weights, by name.
        kv: storage of keys and values, by name.
        state: storage of recurrent states, by name.
        latent_cache: ``latent`` or ``expanded``.
        mtp: layers that predict further tokens are held.
        speculative_tokens: guessed tokens a step checks.
        alloc: ``paged`` or ``contiguous``.
        block_size: tokens in a block of the paged cache.
        max_length: longest context allowed, in tokens.
        chunk: tokens of the largest prefill step.
        memory_utilization: share of each accelerator's memory to plan with.
        overhead: the runtime's own memory on each accelerator, in bytes.
    """

    gpus: int | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    cp: int | None = None
    weights: str | None = None
    kv: str | None = None
    state: str | None = None
    latent_cache: str | None = None
    mtp: bool | None = None
    speculative_tokens: int | None = None
    alloc: str | None = None
    block_size: int | None = None
    max_length: int | None = None
    chunk: int | None = None
    memory_utilization: float | None = None
    overhead: int | None = None

    def given(self) -> dict[str, int | float | str | bool]:
        """Return what is said, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}


@dataclass(frozen=True, slots=True)
class Workload:
    """The load to carry.

    Args:
        batch: requests at once, one or several numbers of them; empty where nothing is said.
        context: tokens of each, the same way; of its prompt where ``output_tokens`` are made.
        output_tokens: tokens each request makes in a closed loop; ``None`` where none is asked for.
    """

    batch: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan file.

    Args:
        path: the file.
        label: how a report names the file.
        name: the plan's own name.
        model: a name, or a path from the current folder.
        gpus: names, or paths from the current folder, of the accelerators it is planned for, each alone.
        deployment: how the model is deployed on either of them.
        workload: the load.
        price: US dollars for an accelerator and hour; ``None`` where nothing is said.
        compare: what is compared, as typed behind ``kvplan compare --with``.
        require: what must hold, with the load it is asked at.
    """

    path: Path
    label: str
    name: str
    model: str
    gpus: tuple[str, ...]
    deployment: PlannedDeployment = PlannedDeployment()
    workload: Workload = Workload()
    price: float | None = None
    compare: tuple[str, ...] = ()
    require: tuple[Requirement, ...] = ()
