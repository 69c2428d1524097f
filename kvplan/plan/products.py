"""Products with matrices as operators of a step, and what operators read and write besides."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.arch.adapter import is_adapter
from kvplan.arch.model import Run
from kvplan.arch.weight import Weight
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.law import Law, Of, law
from kvplan.plan.operator import Operator
from kvplan.plan.operator_formulas import activations_bytes, weights_read_bytes
from kvplan.plan.rank import Rank
from kvplan.plan.step_work import matrices_flops
from kvplan.results import fact
from kvplan.units import Unit

TOKENS = Of.TOKENS


def products(
    rank: Rank, run: Run, name: str, label: str, weights: list[Weight], *, absorbed: bool | None = None
) -> Operator:
    """Return products with matrices as one operator: their biases are read with them."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    elements = rank.elements_of("elements", weights)
    one_layer = rank.bytes_of("bytes_of_one_layer", weights)
    return Operator(
        name,
        label,
        Kernel.GEMM,
        run.count,
        rank.format_of(weights),
        matmul_flops=law("matmul_flops", matrices_flops, layers, TOKENS, elements),
        weight_bytes=law("weight_bytes", weights_read_bytes, layers, one_layer),
        activation_bytes=activations(rank, run, features_of(rank, weights)),
        absorbed=absorbed,
    )


def adapter_operators(
    rank: Rank, run: Run, prefix: str, weights: tuple[Weight, ...] | list[Weight]
) -> Iterator[Operator]:
    """Iterate over the two products of low-rank adapters, where there are some among the tensors."""
    adapters = [w for w in weights if is_adapter(w)]
    if adapters:
        yield products(rank, run, f"{prefix}_adapter_a", f"{prefix}, into adapters", adapters[::2])
        yield products(rank, run, f"{prefix}_adapter_b", f"{prefix}, out of adapters", adapters[1::2])


def activations(rank: Rank, run: Run, features: int, tokens: Law | Of = TOKENS) -> Law:
    """Return the law of an operator that reads and writes so many numbers for each token."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    width = fact("features", features, "numbers read and written for a token on this rank")
    return law("activation_bytes", activations_bytes, layers, tokens, width, rank.element_bytes)


def features_of(rank: Rank, weights: list[Weight]) -> int:
    """Return the inputs and outputs of matrices that share their input, on one rank."""
    shapes = [w.on_rank(rank.cut.tensor).shape for w in weights if w.is_matrix]
    return max(columns for _, columns in shapes) + sum(rows for rows, _ in shapes)


def named(weights: tuple[Weight, ...], *names: str) -> list[Weight]:
    """Return the matrices and biases of modules with these last names."""
    return [w for w in weights if w.name.rsplit(".", 1)[0].rsplit(".", 1)[-1] in names]
