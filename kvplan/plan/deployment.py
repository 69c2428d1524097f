"""How a model is deployed: the accelerators, how the model is cut over them, and how things are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.allocation import Allocation
from kvplan.errors import UsageError
from kvplan.hardware.device import Device
from kvplan.storage import KvFormat, StateLayout, WeightStorage


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many ways the model and a request are cut, and how many replicas there are.

    Args:
        tensor: ranks that share every layer's heads and features.
        pipeline: stages that share the layers.
        data: replicas, each with requests of its own.
        expert: ranks that share the routed experts, whole ones on each: all GPUs of a pipeline stage, which
            are the same GPUs, so this takes none of its own (vLLM's expert-parallel group); 1 means that the
            tensor-parallel ranks of every replica cut each expert.
        context: ranks that share the tokens of a request, each with its tensor-parallel share of the weights.

    Raises:
        UsageError: ``expert`` is neither 1 nor all GPUs of a pipeline stage.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        if self.expert not in (1, self.gpus_per_stage):
            raise UsageError(
                f"expert parallel {self.expert} needs {self.expert} GPUs in each pipeline stage: "
                f"{self.degrees} has {self.gpus_per_stage}",
                hint=" or ".join(f"--ep {size}" for size in sorted({1, self.gpus_per_stage})),
            )

    @property
    def gpus(self) -> int:
        """Accelerators of the whole deployment."""
        return self.gpus_per_replica * self.data

    @property
    def gpus_per_replica(self) -> int:
        """Accelerators that work on one request together."""
        return self.tensor * self.pipeline * self.context

    @property
    def gpus_per_stage(self) -> int:
        """Accelerators that hold the same layers, or parts of them."""
        return self.tensor * self.data * self.context

    @property
    def gpus_that_talk(self) -> int:
        """Accelerators that exchange data while a step runs: a replica's, or all that share experts."""
        return self.gpus if self.expert > 1 else self.gpus_per_replica

    @property
    def degrees(self) -> str:
        """The degrees that multiply to the GPUs, as people write them."""
        return f"tp {self.tensor} x {self.degrees_beside_tensor}"

    @property
    def degrees_beside_tensor(self) -> str:
        """The same without the tensor-parallel one."""
        shared = f" x cp {self.context}" if self.context > 1 else ""
        return f"pp {self.pipeline} x dp {self.data}{shared}"


def parallelism(
    gpus: int | None,
    tensor: int | None,
    pipeline: int | None,
    data: int | None,
    expert: int | None = None,
    context: int | None = None,
) -> Parallelism:
    """Complete the degrees a user gave: what is left of ``gpus`` becomes tensor parallel.

    Without ``gpus``, so does what is left of ``expert``, as many GPUs as a pipeline stage has.

    Raises:
        UsageError: the degrees do not multiply to the number of accelerators, or the experts are shared by
            some of them only.
    """
    if gpus is None and expert is not None and expert > 1:
        tensor, data = _ranks_that_share(expert, tensor, data, context or 1)
    cut = Parallelism(1, pipeline or 1, data or 1, context=context or 1)
    if tensor is None:
        if gpus is not None and gpus % cut.gpus:
            raise UsageError(f"{gpus} GPUs cannot be cut into {cut.degrees_beside_tensor}")
        tensor = 1 if gpus is None else gpus // cut.gpus
    cut = replace(cut, tensor=tensor)
    if gpus is not None and cut.gpus != gpus:
        if pipeline is not None or data is not None or gpus % cut.gpus:
            raise UsageError(
                f"{cut.degrees} is {cut.gpus} GPUs, not the {gpus} of --gpus",
                hint="leave --gpus out, or one of the degrees",
            )
        cut = replace(cut, data=gpus // cut.gpus)
    return replace(cut, expert=expert or 1)


def _ranks_that_share(
    experts: int, tensor: int | None, data: int | None, context: int
) -> tuple[int | None, int | None]:
    """Complete the tensor-parallel, else the data-parallel degree, where as many ranks share the experts."""
    rest, left_over = divmod(experts, (tensor or 1) * (data or 1) * context)
    if left_over:
        return tensor, data
    return (rest, data) if tensor is None else (tensor, rest if data is None else data)


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
    weights: WeightStorage
    kv: KvFormat
    state: StateLayout
    allocation: Allocation
    max_tokens: int
    utilization_bp: int = 9_000
    chunk_tokens: int = 8_192
    overhead_bytes: int | None = None
