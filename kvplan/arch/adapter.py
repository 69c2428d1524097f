"""Low-rank adapters that belong to a model: two narrow products whose result is added to a wide one's."""

from __future__ import annotations

from kvplan.arch.weight import Split, Weight, matrix
from kvplan.storage import TensorRole

_INTO, _OUT = "_adapter_a", "_adapter_b"


def adapter(
    name: str, rows: int, columns: int, rank: int, role: TensorRole, split: Split | None
) -> tuple[Weight, Weight]:
    """Return the two matrices beside the matrix of this name, ``rows`` x ``columns`` (arXiv 2106.09685).

    Every rank of a tensor-parallel group holds the first whole, as its result is narrow.
    """
    return (
        matrix(f"{name}{_INTO}", rank, columns, role),
        matrix(f"{name}{_OUT}", rows, rank, role, split),
    )


def is_adapter(weight: Weight) -> bool:
    """Whether a tensor is one of an adapter's."""
    return weight.name.endswith((f"{_INTO}.weight", f"{_OUT}.weight"))
