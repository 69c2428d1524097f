"""An operator of a step: what runs as one kernel or a few together, and the laws of its work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from kvplan.arch.work import Step, Work
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.law import Law
from kvplan.storage import Format


class Collective(Enum):
    """How GPUs exchange what they made; the value is the operator's name."""

    ALL_REDUCE = "all_reduce"
    CONTEXT_ALL_REDUCE = "context_all_reduce"
    ALL_GATHER = "all_gather"
    ALL_TO_ALL = "all_to_all"
    SEND = "send"


class Glue(Enum):
    """What stands between the large kernels."""

    LAYER = "norms, rotations and activations of a layer, with their launches"
    INSIDE = "small kernels whose launches a layer's glue counts: cache writes, lookups"
    HOST = "what the host does between steps: scheduling, sampling, launching the graph"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of equal layers on one GPU, all of those layers together.

    Args:
        name: its key: ``qkv_proj``, ``attention_window_1024``.
        label: what a person calls it.
        runs_as: the kind of kernel, or of exchange.
        calls: how often a step runs it: once a layer, or more.
        format: what its weights, or its cache, are stored in.
        matmul_flops ... collective_bytes: the laws of its :class:`~kvplan.arch.work.Work`; absent for none.
        least_weight_bytes: weights it reads at least, where ``weight_bytes`` is an expected figure.
        ranks: GPUs that take part in an exchange.
        absorbed: runs in steps that work on latents in their own space only, or only in others; in both if
            absent.
    """

    name: str
    label: str
    runs_as: Kernel | Collective | Glue
    calls: int
    format: Format
    matmul_flops: Law | None = None
    attention_flops: Law | None = None
    weight_bytes: Law | None = None
    kv_read_bytes: Law | None = None
    kv_write_bytes: Law | None = None
    activation_bytes: Law | None = None
    collective_bytes: Law | None = None
    least_weight_bytes: Law | None = None
    ranks: int = 1
    absorbed: bool | None = None

    def laws(self) -> Iterable[tuple[str, Law]]:
        """Iterate over the amounts it has, each named as in :class:`~kvplan.arch.work.Work`."""
        for name in Work.__slots__:
            law = getattr(self, name)
            if law is not None:
                yield name, law

    @property
    def tells_requests_apart(self) -> bool:
        """Whether it works on each request's own cache, and not on all tokens alike."""
        caches = (self.kv_read_bytes, self.kv_write_bytes)
        return self.absorbed is not None or any(cache is not None for cache in caches)

    def runs_in(self, step: Step) -> bool:
        """Whether a step has this operator."""
        return self.absorbed is None or self.absorbed == step.absorbed

    def work(self, step: Step) -> Work:
        """Return what it multiplies and moves in a step, or in a grid of them."""
        return Work(**{name: law.at(step) for name, law in self.laws()}) if self.runs_in(step) else Work()
