"""A named weight tensor: its shape, its role, and how tensor and expert parallelism divide it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from kvplan.errors import UsageError
from kvplan.storage import AsReleased, TensorRole, WeightFormat, WeightStorage, weight_format


@dataclass(frozen=True, slots=True)
class Split:
    """How one axis of a tensor is cut over the ranks of a tensor-parallel group.

    Args:
        axis: the axis that is cut.
        units: indivisible pieces of that axis (heads; the axis length where any cut is possible).
        what: the pieces' name, for the message when they do not divide.
        replicate: more ranks than pieces is allowed: each rank then keeps one piece (KV heads).
        pad_to: pieces are first padded to a multiple of this (vocabulary rows); 1 for none.
    """

    axis: int
    units: int
    what: str
    replicate: bool = False
    pad_to: int = 1

    def divides(self, ranks: int) -> bool:
        """Whether every rank can hold as many pieces as the others."""
        units = self._padded(ranks)
        return units % ranks == 0 or (self.replicate and ranks % units == 0)

    def units_per_rank(self, ranks: int) -> int:
        """Return how many pieces one rank holds.

        Raises:
            UsageError: the pieces do not divide by the ranks.
        """
        if not self.divides(ranks):
            raise UsageError(self.why_not(ranks))
        return max(1, self._padded(ranks) // ranks)

    def why_not(self, ranks: int) -> str:
        """Return the sentence that says why the ranks cannot share the pieces."""
        return f"tensor parallel {ranks} does not divide the model's {self._padded(ranks):,} {self.what}"

    def _padded(self, ranks: int) -> int:
        return self.units if ranks == 1 else -(-self.units // self.pad_to) * self.pad_to


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor, or one stack of ``copies`` equal tensors (experts).

    Args:
        name: the name as in a Llama-like checkpoint, without the layer's prefix.
        shape: one tensor's shape, output features first.
        role: decides whether a storage format applies.
        split: how tensor parallelism cuts it; ``None`` when every rank holds all of it.
        copies: number of equal tensors under this name.
        active_copies: how many of them one token uses.
        passes: how often a token is multiplied with it.
        trained: false for a buffer: it takes memory but is no parameter.
        released_in: the format or dtype its released file has it in, where that is not the model's by role.
        shared_in: the block it is of, where layers that run this block have the tensor between them; empty
            where each layer has its own.
    """

    name: str
    shape: tuple[int, ...]
    role: TensorRole
    split: Split | None = None
    copies: int = 1
    active_copies: int = 1
    trained: bool = True
    passes: int = 1
    released_in: str = ""
    shared_in: str = ""

    @property
    def elements(self) -> int:
        """Elements of all copies."""
        return self.copies * prod(self.shape)

    @property
    def active_elements(self) -> int:
        """Elements one token's forward pass uses."""
        return min(self.active_copies, self.copies) * prod(self.shape)

    @property
    def multiplied_elements(self) -> int:
        """Elements one token is multiplied with, each as often as it is."""
        return self.passes * self.active_elements

    @property
    def is_matrix(self) -> bool:
        """Whether vectors are multiplied with it: scales of norms and rates of decay may be tables too."""
        return len(self.shape) == 2 and self.name.endswith(".weight") and self.role is not TensorRole.NORM

    def full_name(self, index: int) -> str:
        """Return its name in the model, as a tensor of layer number ``index``."""
        return f"{self.shared_in or f'layers.{index}'}.{self.name}"

    @property
    def routed(self) -> bool:
        """Whether this is a stack of experts that a router chooses from."""
        return self.copies > 1 and self.role is not TensorRole.TOWER

    def on_rank(self, tensor_parallel: int, expert_parallel: int = 1) -> Weight:
        """Return the piece of this tensor that one rank holds: a cut of it, or some experts whole.

        Raises:
            UsageError: the pieces do not divide by the ranks.
        """
        if expert_parallel > 1 and self.routed:
            if self.copies % expert_parallel:
                raise UsageError(self.why_experts_do_not_divide(expert_parallel))
            return replace(self, copies=self.copies // expert_parallel)
        if self.split is None or tensor_parallel == 1:
            return self
        split = self.split
        length = self.shape[split.axis]
        per_unit = length // split.units
        rank_length = per_unit * split.units_per_rank(tensor_parallel)
        shape = (*self.shape[: split.axis], rank_length, *self.shape[split.axis + 1 :])
        return replace(self, shape=shape)

    def why_experts_do_not_divide(self, expert_parallel: int) -> str:
        """Return the sentence that says why the ranks cannot share these experts."""
        return f"expert parallel {expert_parallel} does not divide the model's {self.copies:,} routed experts"

    @property
    def dimensions(self) -> str:
        """The shape as people write it: ``14,336 x 4,096``."""
        return " x ".join(f"{length:,}" for length in self.shape)

    def format_under(self, storage: WeightStorage) -> WeightFormat | None:
        """Return the tiled format this tensor is packed in, or ``None`` where it stays a plain array.

        Only matrices are packed; buffers never are. The answer is that of the whole tensor, as a file
        stores it, whatever a rank holds of it.
        """
        own, by_role = self._format(storage)
        applies = self.role in own.applies_to if by_role else bool(own.applies_to)
        return own.for_columns(self.shape[1]) if applies and self.trained and self.is_matrix else None

    def _format(self, storage: WeightStorage) -> tuple[WeightFormat, bool]:
        """Return the format this tensor is stored in, and whether its role has a say in that."""
        if not isinstance(storage, AsReleased):
            return storage, True
        return (weight_format(self.released_in), False) if self.released_in else (storage.base, True)

    def packs_whole_tiles(self, packed: WeightFormat, tensor_parallel: int) -> bool:
        """Whether one rank's piece of this matrix is made of whole tiles, where the format asks for it."""
        rows, columns = self.on_rank(tensor_parallel).shape
        if not packed.whole_tiles or self.split is None or tensor_parallel == 1:
            return True
        return not (columns % packed.tile_columns if self.split.axis else rows % packed.tile_rows)

    def plain_dtype(self, storage: WeightStorage, model_dtype: str) -> str:
        """Return the number format of this tensor where it stays a plain array.

        A tower keeps the model's dtype, as it is stored in a file of its own; other buffers are float32.
        """
        if self.role is TensorRole.TOWER:
            return model_dtype
        if not self.trained:
            return "fp32"
        return self._format(storage)[0].others or model_dtype


def matrix(
    name: str, rows: int, columns: int, role: TensorRole, split: Split | None = None, *, passes: int = 1
) -> Weight:
    """Return the weight of a linear layer from ``columns`` inputs to ``rows`` outputs."""
    return Weight(f"{name}.weight", (rows, columns), role, split, passes=passes)


def bias(name: str, length: int, split: Split | None = None) -> Weight:
    """Return the bias of a linear layer with ``length`` outputs."""
    return Weight(f"{name}.bias", (length,), TensorRole.BIAS, split)


def heads(axis: int, count: int, what: str = "query heads") -> Split:
    """Cut an axis by whole heads."""
    return Split(axis, count, what)


def kv_heads(count: int) -> Split:
    """Cut the output axis by KV heads; with more ranks than heads, each head is kept by several ranks."""
    return Split(0, count, "KV heads", replicate=True)


def state_groups(axis: int, count: int) -> Split:
    """Cut an axis by groups of state-space heads; with more ranks than groups, several keep each."""
    return Split(axis, count, "state-space groups", replicate=True)


def features(axis: int, count: int, what: str = "intermediate features") -> Split:
    """Cut an axis anywhere the ranks divide it."""
    return Split(axis, count, what)
