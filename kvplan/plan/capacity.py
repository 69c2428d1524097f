"""What a deployment can hold: requests at a context, context at a batch, over numbers or whole grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.arch.model import Model
from kvplan.errors import UsageError
from kvplan.plan.cache import Cache, request_cache
from kvplan.plan.cutting import refuse_impossible
from kvplan.plan.deployment import Deployment
from kvplan.plan.memory import StageMemory, stage_memory
from kvplan.plan.search import largest
from kvplan.plan.stages import pipeline_stages
from kvplan.units import LARGEST_COUNT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# int64 arithmetic is exact, but a figure past this is a mistake, and floats would round it.
LARGEST_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class Capacity:
    """A model under a deployment: the memory of every pipeline stage, and what fits in all of them."""

    model: Model
    deployment: Deployment
    stages: tuple[StageMemory, ...]

    @property
    def whole_cache(self) -> Cache:
        """The cache of one request over all layers, as if one GPU held them: each byte once."""
        d, model = self.deployment, self.model
        return request_cache(model.slot_runs(), 1, d.kv, d.state, model.dtype, d.allocation, model.source)

    @property
    def most_loaded(self) -> StageMemory:
        """The stage that decides: short by most, else the first to run out as one request grows."""

        def room(memory: StageMemory) -> tuple[int, int, int]:
            reach = largest(lambda tokens: memory.fits(1, tokens), LARGEST_COUNT)
            return (-memory.shortfall.number, reach, memory.pool.number)

        return min(self.stages, key=room)

    def tightest(self, batch: int, context: int) -> StageMemory:
        """The stage with the least room left when this many requests of this context are held."""
        requests = self.replica_batch(batch)
        return min(self.stages, key=lambda m: m.pool.number - m.needed_bytes(requests, context))

    def replica_batch(self, batch: int) -> int:
        """Return the requests the fullest replica serves when ``batch`` are spread evenly."""
        return -(-batch // self.deployment.parallelism.data)

    def fits(self, batch: int, context: int) -> bool:
        """Whether ``batch`` requests of ``context`` tokens fit, on every stage and within the limit."""
        if context > self.deployment.max_tokens:
            return False
        requests = self.replica_batch(batch)
        return all(memory.fits(requests, context) for memory in self.stages)

    def max_batch(self, context: int) -> int:
        """Return the most requests of ``context`` tokens that fit, over all replicas; 0 for none."""
        return largest(lambda batch: self.fits(batch, context), LARGEST_COUNT)

    def max_context(self, batch: int) -> int:
        """Return the longest context ``batch`` requests can have; 0 where none fits."""
        return largest(lambda tokens: self.fits(batch, tokens), self.deployment.max_tokens)

    def fits_grid(
        self, batches: npt.NDArray[np.int64], contexts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Return :meth:`fits` for every pair: batches (B,) x contexts (C,) -> (B, C).

        Raises:
            UsageError: the largest corner is past 2^53 bytes, where int64 products may wrap.
        """
        import numpy as np

        self._refuse_overflow(int(batches.max(initial=0)), int(contexts.max(initial=0)))
        requests = -(-batches // self.deployment.parallelism.data)
        fits = np.broadcast_to(contexts <= self.deployment.max_tokens, (len(batches), len(contexts)))
        for memory in self.stages:
            needed = np.multiply.outer(requests, memory.cache.allocated_bytes(contexts))
            fits = fits & (needed <= memory.pool.number) & (memory.shortfall.number == 0)
        return fits

    def _refuse_overflow(self, batch: int, context: int) -> None:
        for memory in self.stages:
            corner = memory.needed_bytes(batch, context)
            if corner > LARGEST_EXACT:
                raise UsageError(
                    f"batch {batch:,} x context {context:,} is {corner:,} bytes of cache, past 2^53",
                    hint="ask for a smaller grid",
                )


def plan_capacity(model: Model, deployment: Deployment) -> Capacity:
    """Plan the memory of every stage of a deployment.

    Raises:
        UsageError: the model cannot be cut or packed that way.
    """
    cut = deployment.parallelism
    refuse_impossible(model, cut.tensor, deployment.weights, cut.expert)
    stages = pipeline_stages(model, cut.pipeline)
    return Capacity(model, deployment, tuple(stage_memory(model, stage, deployment) for stage in stages))
