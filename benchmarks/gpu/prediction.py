"""What kvplan says of each thing that is measured here. No torch: any machine can print it."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.allocation import Contiguous
from kvplan.arch.model import Model
from kvplan.arch.work import NO_WORK, Work
from kvplan.hardware.device import Device
from kvplan.hardware.efficiency import Kernel, kernel_fit
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.operator import Glue
from kvplan.plan.roofline import Part, plan_roofline
from kvplan.plan.step_time import Times
from kvplan.storage import kv_format, state_layout, weight_format
from kvplan.units import GB


@dataclass(frozen=True, slots=True)
class Predicted:
    """One call, or one step.

    Args:
        bound_s: the least it can take.
        estimate_s: what it is expected to take.
        memory_bytes: what has to come from memory or go there: weights and cache.
        moved_bytes: the same with inputs and outputs, which the chip may keep.
        flops: operations.
    """

    bound_s: float
    estimate_s: float
    memory_bytes: float
    moved_bytes: float
    flops: float


@dataclass(frozen=True, slots=True)
class PlannedMemory:
    """The categories of one GPU's memory, in bytes."""

    weights_bytes: int
    cache_bytes: int
    activations_bytes: int
    overhead_bytes: int
    fits: bool

    @property
    def all_bytes(self) -> int:
        """The sum of the categories."""
        return self.weights_bytes + self.cache_bytes + self.activations_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A model on one accelerator, in 16 bits, with a contiguous cache as transformers' StaticCache is."""

    model: Model
    device: Device

    def transfer(self, moved_bytes: int) -> Predicted:
        """Return the times of moving so many bytes, reads and writes together.

        The estimate is what a product's weights are planned to be read with.
        """
        bandwidth = self.device.memory.bandwidth_gb_per_s * GB
        share = kernel_fit(self.device.efficiency, Kernel.GEMM, self.model.dtype).memory_share
        bound_s = moved_bytes / bandwidth
        return Predicted(bound_s, bound_s / share, moved_bytes, moved_bytes, 0)

    def product(self, operator: str, rows: int) -> Predicted:
        """Return the times of one layer's product with so many rows."""
        (found,) = (part for part in self._decode(rows, 1) if part.operator.name == operator)
        return _one_call(found)

    def attention(self, batch: int, context: int) -> Predicted:
        """Return the times of one layer's attention in a decode step behind ``context`` tokens."""
        parts = self._decode(batch, context)
        (found,) = (part for part in parts if part.operator.runs_as is Kernel.DECODE_ATTENTION)
        return _one_call(found)

    def decode_step(self, batch: int, context: int) -> Predicted:
        """Return the times of a decode step without what a serving runtime's host does between steps.

        A step replayed in a loop schedules nothing and streams nothing: nobody waits for the host.
        """
        parts = [part for part in self._decode(batch, context) if part.operator.runs_as is not Glue.HOST]
        times = sum((part.times for part in parts), start=Times())
        return _predicted(times, sum((part.work for part in parts), start=NO_WORK), 1)

    def memory(self, batch: int, context: int, chunk_tokens: int) -> PlannedMemory:
        """Return the memory of ``batch`` requests about to store their token behind ``context`` others."""
        capacity = plan_capacity(self.model, self._deployment(context, chunk_tokens))
        (memory,) = capacity.stages
        return PlannedMemory(
            memory.weights.number,
            memory.needed_bytes(batch, context + 1),
            memory.activations.number,
            memory.overhead.number,
            capacity.fits(batch, context + 1),
        )

    def _decode(self, batch: int, context: int) -> list[Part]:
        """Return the operators of a decode step: of a Llama, one for all of its equal layers."""
        roofline = plan_roofline(self.model, self._deployment(context, 1))
        return [part for timed in roofline.timed(roofline.decode(batch, context)) for part in timed.parts]

    def _deployment(self, context: int, chunk_tokens: int) -> Deployment:
        """Return the deployment that keeps ``context`` tokens of a request and the next one."""
        return Deployment(
            device=self.device,
            parallelism=Parallelism(),
            weights=weight_format(self.model.dtype),
            kv=kv_format(self.model.dtype),
            state=state_layout("transformers"),
            allocation=Contiguous(context + 1),
            max_tokens=context + 1,
            chunk_tokens=chunk_tokens,
        )


def _one_call(part: Part) -> Predicted:
    """Return one of the equal calls that an operator makes in a step: one of each layer."""
    return _predicted(part.times, part.work, part.operator.calls)


def _predicted(times: Times, work: Work, calls: int) -> Predicted:
    return Predicted(
        bound_s=float(times.bound_s) / calls,
        estimate_s=float(times.estimate_s) / calls,
        memory_bytes=float(work.memory_bytes) / calls,
        moved_bytes=float(work.memory_bytes + work.activation_bytes) / calls,
        flops=float(work.flops) / calls,
    )
