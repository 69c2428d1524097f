"""Gated delta net (Qwen3-Next): linear attention with a short convolution and a running state."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, matrix
from kvplan.checks import require_multiple, require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class GatedDeltaNet:
    """A recurrent mixer whose memory does not grow with the context (arXiv 2412.06464).

    Args:
        linear_num_key_heads: query and key heads.
        linear_num_value_heads: value heads, a multiple of the key heads.
        linear_key_head_dim: elements of a query or key head.
        linear_value_head_dim: elements of a value head.
        linear_conv_kernel_dim: inputs the causal convolution looks at.
    """

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int

    def __post_init__(self) -> None:
        require_sizes(self, *self.__slots__)
        require_multiple(
            self.linear_num_value_heads,
            "linear_num_value_heads",
            self.linear_num_key_heads,
            "linear_num_key_heads",
        )

    @property
    def key_width(self) -> int:
        """Elements of all key heads."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_width(self) -> int:
        """Elements of all value heads."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    def slot(self) -> CacheSlot:
        """Return one request's state: convolution inputs and a key x value matrix per value head."""
        recurrent = self.linear_num_value_heads * self.linear_key_head_dim * self.linear_value_head_dim
        conv_channels = 2 * self.key_width + self.value_width
        return CacheSlot(State(conv_channels, self.linear_conv_kernel_dim, recurrent), PerRequest())

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the fused projections, the convolution, and the per-head decay parameters."""
        by_head = heads(0, self.linear_num_key_heads, "linear-attention key heads")
        out = heads(1, self.linear_num_key_heads, "linear-attention key heads")
        values, attention, state = self.linear_num_value_heads, TensorRole.ATTENTION, TensorRole.STATE
        conv_channels = 2 * self.key_width + self.value_width
        conv_shape = (conv_channels, 1, self.linear_conv_kernel_dim)
        qkvz = 2 * self.key_width + 2 * self.value_width
        return (
            matrix("linear_attn.in_proj_qkvz", qkvz, hidden_size, attention, by_head),
            # Two rows a head: released quantised files leave it alone, as they do the decay parameters.
            matrix("linear_attn.in_proj_ba", 2 * values, hidden_size, state, by_head),
            Weight("linear_attn.conv1d.weight", conv_shape, state, by_head),
            Weight("linear_attn.dt_bias", (values,), state, by_head),
            Weight("linear_attn.A_log", (values,), state, by_head),
            Weight("linear_attn.norm.weight", (self.linear_value_head_dim,), TensorRole.NORM),
            matrix("linear_attn.out_proj", hidden_size, self.value_width, attention, out),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_head = heads(0, self.linear_num_key_heads, "linear-attention key heads")
        return (
            Buffer("queries, keys, values, gate", 2 * self.key_width + 2 * self.value_width, by_head),
            Buffer("decay and write strength", 2 * self.linear_num_value_heads, by_head),
            Buffer("convolved queries, keys, values", 2 * self.key_width + self.value_width, by_head),
            Buffer("recurrence output", self.value_width, by_head),
            Buffer("gated output", self.value_width, by_head),
            Buffer("projected output", hidden_size),
        )
