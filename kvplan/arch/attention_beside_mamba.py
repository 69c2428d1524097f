"""Attention and Mamba-2 side by side in one layer (Falcon-H1): both read the same input."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.attention import Attention
from kvplan.arch.buffer import Buffer
from kvplan.arch.limits import Limits
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight
from kvplan.checks import FieldError, require_amounts


@dataclass(frozen=True, slots=True)
class AttentionBesideMamba:
    """Attention and a Mamba-2 on one normalised input, their outputs added (arXiv 2507.22448).

    Args:
        attention: the attention.
        mamba2: the state space.
        attention_in_multiplier, attention_out_multiplier: scale attention's input and its output.
        ssm_in_multiplier, ssm_out_multiplier: scale the state space's input and its output.
    """

    attention: Attention
    mamba2: Mamba2
    attention_in_multiplier: float = 1.0
    attention_out_multiplier: float = 1.0
    ssm_in_multiplier: float = 1.0
    ssm_out_multiplier: float = 1.0

    def __post_init__(self) -> None:
        require_amounts(self, "attention_in_multiplier", "attention_out_multiplier")
        require_amounts(self, "ssm_in_multiplier", "ssm_out_multiplier")
        if self.attention.indexer is not None:
            raise FieldError((("attention", "indexer"), "is for layers with attention alone"))

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return what a token leaves in attention's cache, and one request's state."""
        return (*self.attention.slots(), *self.mamba2.slots())

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the tensors of both."""
        return (*self.attention.weights(hidden_size), *self.mamba2.weights(hidden_size))

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the larger of both's arrays per token: one runs after the other, whose output stays."""
        parts = (self.attention.buffers(hidden_size), self.mamba2.buffers(hidden_size))
        largest = max(parts, key=lambda buffers: sum(buffer.elements for buffer in buffers))
        return (*largest, Buffer("the other's output", hidden_size))

    def scaled_down(self, limits: Limits) -> AttentionBesideMamba:
        """Return both scaled down."""
        return replace(
            self, attention=self.attention.scaled_down(limits), mamba2=self.mamba2.scaled_down(limits)
        )
