"""How a model is deployed: the accelerators, how the model is cut over them, and how things are stored."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.allocation import Allocation
from kvplan.errors import UsageError
from kvplan.hardware.device import Device
from kvplan.storage import KvFormat, StateLayout, WeightFormat


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many ways the model is cut by tensor and pipeline, and how many replicas there are."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def gpus(self) -> int:
        """Accelerators of the whole deployment."""
        return self.tensor * self.pipeline * self.data

    @property
    def gpus_per_replica(self) -> int:
        """Accelerators that work on one request together."""
        return self.tensor * self.pipeline


def parallelism(gpus: int | None, tensor: int | None, pipeline: int | None, data: int | None) -> Parallelism:
    """Complete the degrees a user gave: what is left of ``gpus`` becomes tensor parallel.

    Raises:
        UsageError: the degrees do not multiply to the number of accelerators.
    """
    others = (pipeline or 1) * (data or 1)
    if tensor is None:
        if gpus is not None and gpus % others:
            raise UsageError(f"{gpus} GPUs cannot be cut into pp {pipeline or 1} x dp {data or 1}")
        tensor = 1 if gpus is None else gpus // others
    found = Parallelism(tensor, pipeline or 1, data or 1)
    if gpus is not None and found.gpus != gpus:
        if pipeline is None and data is None and gpus % tensor == 0:
            return Parallelism(tensor, 1, gpus // tensor)
        degrees = f"tp {found.tensor} x pp {found.pipeline} x dp {found.data}"
        raise UsageError(
            f"{degrees} is {found.gpus} GPUs, not the {gpus} of --gpus",
            hint="leave --gpus out, or one of the degrees",
        )
    return found


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that is decided about a deployment.

    Args:
        device: the accelerator; all are alike.
        parallelism: how the model is cut over them.
        weights: storage of the weights.
        kv: storage of cached keys and values.
        state: storage of recurrent state.
        allocation: how cache memory is handed out.
        utilization_bp: share of each device's memory that may be planned, in ten-thousandths.
        chunk_tokens: tokens of the largest prefill step.
        max_tokens: longest context a request may have.
        overhead_bytes: what the runtime takes beside all that; ``None`` for typical figures.
    """

    device: Device
    parallelism: Parallelism
    weights: WeightFormat
    kv: KvFormat
    state: StateLayout
    allocation: Allocation
    max_tokens: int
    utilization_bp: int = 9_000
    chunk_tokens: int = 8_192
    overhead_bytes: int | None = None
