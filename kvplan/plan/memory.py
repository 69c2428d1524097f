"""The memory of one GPU: what is planned, what is spent, and what is left for the cache."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.model import Model
from kvplan.formula import formula
from kvplan.plan.activation import activation_bytes
from kvplan.plan.cache import Cache, request_cache
from kvplan.plan.deployment import Deployment
from kvplan.plan.overhead import overhead_bytes
from kvplan.plan.stages import Stage
from kvplan.plan.weights import weights_bytes
from kvplan.results import Quantity, computed, fact
from kvplan.units import Count, Unit


@formula(Unit.BYTES, "the share of the driver's total that may be planned, rounded down")
def planned_bytes(memory_bytes: Count, utilization_bp: int) -> Count:
    """Bytes of one GPU that the plan may use; ``utilization_bp`` is in ten-thousandths."""
    return memory_bytes * utilization_bp // 10_000


@formula(Unit.BYTES, "what weights, activations and overhead leave of the plan")
def pool_bytes(total: int, weights: int, activations: int, overhead: int) -> Count:
    """Bytes left for the cache; 0 where nothing is."""
    return max(0, total - weights - activations - overhead)


@formula(Unit.BYTES, "how far weights, activations and overhead pass the plan")
def short_bytes(total: int, weights: int, activations: int, overhead: int) -> Count:
    """Bytes missing before the first byte of cache; 0 where none are."""
    return max(0, weights + activations + overhead - total)


@dataclass(frozen=True, slots=True)
class StageMemory:
    """The memory of one GPU of a pipeline stage, and the cache a request needs there."""

    stage: Stage
    total: Quantity
    weights: Quantity
    activations: Quantity
    overhead: Quantity
    pool: Quantity
    shortfall: Quantity
    cache: Cache

    def fits(self, requests: int, context: int) -> bool:
        """Whether this many requests of this context, allocated, are within the pool."""
        return not self.shortfall.number and self.needed_bytes(requests, context) <= self.pool.number

    def needed_bytes(self, requests: int, context: int) -> int:
        """Return the cache bytes allocated here for this many requests of this context."""
        allocated = self.cache.allocated_bytes(context)
        assert isinstance(allocated, int)
        return requests * allocated


def stage_memory(model: Model, stage: Stage, deployment: Deployment) -> StageMemory:
    """Return the memory plan of one GPU of a stage, every figure explained."""
    device, ranks = deployment.device, deployment.parallelism.tensor
    read = "driver_mib" if device.memory.driver_mib is not None else "sold_gb: no driver reading is known"
    total = computed(
        "total_bytes",
        planned_bytes,
        fact("memory_bytes", device.memory_bytes, f"{device.name}: {read}", Unit.BYTES),
        fact("utilization_bp", deployment.utilization_bp, "--memory-utilization, in ten-thousandths"),
        label="total planned",
    )
    weights = weights_bytes(model, stage, ranks, deployment.weights, deployment.parallelism.expert)
    activations = activation_bytes(model, stage, deployment)
    overhead = overhead_bytes(deployment)
    spent = (total, weights, activations, overhead)
    cache = request_cache(
        stage.slot_runs(),
        ranks,
        deployment.kv,
        deployment.state,
        model.dtype,
        deployment.allocation,
        model.source,
        deployment.parallelism.context,
    )
    return StageMemory(
        stage,
        total,
        weights,
        activations,
        overhead,
        computed("kv_pool_bytes", pool_bytes, *spent, label="KV pool"),
        computed("shortfall_bytes", short_bytes, *spent, label="short by"),
        cache,
    )
