"""Whether a model can be cut and packed the way a deployment asks."""

from __future__ import annotations

from math import gcd

from kvplan.arch.model import Model
from kvplan.arch.weight import Weight
from kvplan.errors import UsageError
from kvplan.storage import AsReleased, WeightStorage

_SUGGESTED = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64)


def refuse_impossible(
    model: Model, tensor_parallel: int, storage: WeightStorage, expert_parallel: int = 1
) -> None:
    """Refuse a parallel size or a weight format that no runtime can use with this model.

    Raises:
        UsageError: some tensor cannot be cut, shared or packed; sizes that work are named.
    """
    tensors = [weight for weight, _ in model.weights()]
    _refuse_idle_format(model, tensors, storage)
    if expert_parallel > 1:
        _refuse_uneven_experts(model, tensors, expert_parallel)
    problem = _problem(tensors, tensor_parallel, storage, expert_parallel)
    if problem:
        sizes = [str(n) for n in _SUGGESTED if not _problem(tensors, n, storage, expert_parallel)]
        raise UsageError(problem, hint=f"tensor parallel sizes that do: {', '.join(sizes)}")


def _refuse_idle_format(model: Model, tensors: list[Weight], storage: WeightStorage) -> None:
    if isinstance(storage, AsReleased):
        return
    if storage.applies_to and not any(weight.role in storage.applies_to for weight in tensors):
        roles = " or ".join(sorted(role.value for role in storage.applies_to))
        raise UsageError(f"{storage.name} stores {roles} weights only, and {model.name} has none")


def _refuse_uneven_experts(model: Model, tensors: list[Weight], ranks: int) -> None:
    stacks = [weight for weight in tensors if weight.routed]
    if not stacks:
        raise UsageError(f"expert parallel {ranks}: {model.name} has no routed experts", hint="--ep 1")
    for stack in stacks:
        if stack.copies % ranks:
            common = gcd(*(s.copies for s in stacks))
            sizes = [str(n) for n in range(1, common + 1) if common % n == 0]
            raise UsageError(
                stack.why_experts_do_not_divide(ranks),
                hint=f"expert parallel sizes that do: {', '.join(sizes)}",
            )


def _problem(tensors: list[Weight], ranks: int, storage: WeightStorage, expert_parallel: int) -> str:
    if expert_parallel > 1:
        tensors = [weight for weight in tensors if not weight.routed]
    for weight in tensors:
        if weight.split is not None and not weight.split.divides(ranks):
            return weight.split.why_not(ranks)
    for weight in tensors:
        packed = weight.format_under(storage)
        if packed is not None and not weight.packs_whole_tiles(packed, ranks):
            piece = weight.on_rank(ranks).dimensions
            groups = f"{packed.name} groups of {packed.tile_columns}"
            return f"{weight.name} on each of {ranks} ranks is {piece}: not whole {groups}"
    return ""
