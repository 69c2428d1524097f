"""A transformer block that several layers run with the same weights (Zamba2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.adapter import is_adapter
from kvplan.arch.attention import Attention
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.arch.norm import Norm
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, matrix
from kvplan.checks import FieldError, require_sizes
from kvplan.storage import TensorRole

# Norms before attention and before the MLP, and the product behind them.
BLOCK_NORMS = ("shared_block.input_layernorm", "shared_block.pre_ff_layernorm")
BLOCK_OUTPUT = "shared_block_output"


@dataclass(frozen=True, slots=True)
class SharedBlock:
    """Attention and an MLP before a layer's mixer, whose weights other layers use too (arXiv 2411.15242).

    Attention reads the residual stream and the embedding side by side. What the MLP makes of its result goes
    through a matrix of the layer's own and is added to the mixer's input, not to the residual stream.
    Adapters are the layer's own, and so is what attention caches.

    Args:
        number: layers with the same number have one block between them.
        attention: its attention; its input is two hidden sizes wide.
        mlp: its MLP.
    """

    number: int
    attention: Attention
    mlp: MLP

    def __post_init__(self) -> None:
        if self.number:
            require_sizes(self, "number")
        if self.attention.input_streams != 2:
            raise FieldError((("attention", "input_streams"), "must be 2 in a shared block"))
        if self.attention.shares_kv or self.attention.indexer is not None:
            raise FieldError((("attention",), "of a shared block caches its own keys and sees all of them"))

    @property
    def name(self) -> str:
        """Its name, before those of its tensors."""
        return f"blocks.{self.number}"

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return what a token leaves in one layer's cache."""
        return self.attention.slots()

    def weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return the tensors of one layer's use: the block's, its adapters, and the matrix behind it."""
        before_attention, before_mlp = BLOCK_NORMS
        found = (
            *norm.weights(before_attention, 2 * hidden_size),
            *self.attention.weights(hidden_size),
            *norm.weights(before_mlp, hidden_size),
            *self.mlp.weights(hidden_size),
        )
        shared = (w if is_adapter(w) else replace(w, shared_in=self.name) for w in found)
        return (*shared, self.output_weight(hidden_size))

    def output_weight(self, hidden_size: int) -> Weight:
        """Return the layer's own matrix behind the block."""
        return matrix(BLOCK_OUTPUT, hidden_size, hidden_size, TensorRole.MLP)

    def scaled_down(self, limits: Limits) -> SharedBlock:
        """Return the block as small as a scaled model's."""
        return replace(self, attention=self.attention.scaled_down(limits), mlp=self.mlp.scaled_down(limits))
