"""One GPU's share of a model: how it is cut, and how its weights and cache are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvplan.allocation import Allocation
from kvplan.arch.model import Model, Run, SlotRun
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, kv_heads
from kvplan.plan.cache import CacheRun, request_cache
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.weights import tensor_bytes
from kvplan.results import Quantity, fact, total
from kvplan.storage import DTYPE_BYTES, KvFormat, StateLayout, WeightFormat, WeightStorage, weight_format
from kvplan.units import Unit


@dataclass(frozen=True, slots=True)
class Rank:
    """What one GPU of a deployment holds of every layer it has."""

    model: Model
    cut: Parallelism
    weights: WeightStorage
    kv: KvFormat
    state: StateLayout
    allocation: Allocation

    def query_heads(self, count: int) -> int:
        """Return the query heads it works on."""
        return heads(0, count).units_per_rank(self.cut.tensor)

    def kv_heads(self, count: int) -> int:
        """Return the KV heads it holds."""
        return kv_heads(count).units_per_rank(self.cut.tensor)

    def bytes_of(self, name: str, weights: Iterable[Weight]) -> Quantity:
        """Return the stored bytes of its pieces of some tensors, explained."""
        parts = (tensor_bytes(w, self.cut.tensor, self.weights, self.model.dtype) for w in weights)
        return total(name, Unit.BYTES, tuple(parts))

    def elements_of(self, name: str, weights: Iterable[Weight]) -> Quantity:
        """Return the elements of its pieces of some matrices that one token uses, explained."""
        pieces = [w.on_rank(self.cut.tensor) for w in weights if w.is_matrix]
        parts = tuple(fact(w.name, w.multiplied_elements, w.dimensions, Unit.PARAMETERS) for w in pieces)
        return total(name, Unit.PARAMETERS, parts)

    def format_of(self, weights: Iterable[Weight]) -> WeightFormat:
        """Return what most elements of some matrices are stored in: a packed format, or a plain dtype."""
        most = max((w for w in weights if w.is_matrix), key=lambda weight: weight.elements)
        packed = most.format_under(self.weights)
        return packed or weight_format(most.plain_dtype(self.weights, self.model.dtype))

    def cached(self, run: Run, slot: CacheSlot) -> CacheRun:
        """Return what a run of equal layers caches in one of their slots."""
        slots = (SlotRun(run.layer, slot, run.count),)
        cache = request_cache(
            slots, self.cut.tensor, self.kv, self.state, self.model.dtype, self.allocation, self.model.source
        )
        (found,) = cache.runs
        return found

    @property
    def plain_format(self) -> WeightFormat:
        """What numbers between operators are in."""
        return weight_format(self.model.dtype)

    @property
    def element_bytes(self) -> Quantity:
        """Bytes of a number between operators."""
        return fact("element_bytes", DTYPE_BYTES[self.model.dtype], self.model.dtype, Unit.BYTES)

    def fact(self, name: str, value: int, unit: Unit = Unit.NONE) -> Quantity:
        """Return a figure of the model's description."""
        return fact(name, value, self.model.source, unit)


def rank_of(model: Model, deployment: Deployment) -> Rank:
    """Return the share that one GPU of a deployment holds."""
    d = deployment
    return Rank(model, d.parallelism, d.weights, d.kv, d.state, d.allocation)
