"""Gated delta net (Qwen3-Next): linear attention with a short convolution and a running state."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State, StateDtype
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, matrix
from kvplan.checks import require_amounts, require_multiple, require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit


@formula(Unit.FLOPS, "the convolution; the state is read, corrected and read again: arXiv 2412.06464")
def delta_net_flops(
    layers: Count,
    tokens: Count,
    conv_kernel: Count,
    conv_channels: Count,
    value_heads: Count,
    key_head_dim: Count,
    value_head_dim: Count,
) -> Count:
    """Operations of the recurrence in a run of equal gated delta nets."""
    return (
        layers * tokens * (2 * conv_kernel * conv_channels + 6 * value_heads * key_head_dim * value_head_dim)
    )


@dataclass(frozen=True, slots=True)
class GatedDeltaNet(Recurrent):
    """A recurrent mixer whose memory does not grow with the context (arXiv 2412.06464).

    Args:
        linear_num_key_heads: query and key heads.
        linear_num_value_heads: value heads, a multiple of the key heads.
        linear_key_head_dim: elements of a query or key head.
        linear_value_head_dim: elements of a value head.
        linear_conv_kernel_dim: inputs the causal convolution looks at.
        negative_eigenvalues: corrections are written up to twice over, so that a state can turn its sign
            (OLMo Hybrid; arXiv 2411.12537).
        norm_eps: what the norm before the output adds under the root; the model's own where absent.
        state_dtype: what the released files ask states to be served in; absent where they do not.
    """

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    negative_eigenvalues: bool = False
    norm_eps: float | None = None
    state_dtype: StateDtype | None = None

    def __post_init__(self) -> None:
        require_amounts(self, "norm_eps")
        require_sizes(self, "linear_num_key_heads", "linear_num_value_heads", "linear_conv_kernel_dim")
        require_sizes(self, "linear_key_head_dim", "linear_value_head_dim")
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

    @property
    def conv_channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_width + self.value_width

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: convolution inputs and a key x value matrix per value head."""
        recurrent = self.linear_num_value_heads * self.linear_key_head_dim * self.linear_value_head_dim
        kernel = self.linear_conv_kernel_dim
        state = State(self.conv_channels, kernel, recurrent, served_in=self.state_dtype)
        return (CacheSlot(state, PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the fused projections, the convolution, and the per-head decay parameters."""
        by_head = heads(0, self.linear_num_key_heads, "linear-attention key heads")
        out = heads(1, self.linear_num_key_heads, "linear-attention key heads")
        values, attention, state = self.linear_num_value_heads, TensorRole.ATTENTION, TensorRole.STATE
        conv_shape = (self.conv_channels, 1, self.linear_conv_kernel_dim)
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
            Buffer("convolved queries, keys, values", self.conv_channels, by_head),
            Buffer("recurrence output", self.value_width, by_head),
            Buffer("gated output", self.value_width, by_head),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        return Recurrence(
            inputs=(Product("in_proj", "recurrence inputs", ("in_proj_qkvz", "in_proj_ba")),),
            flops=delta_net_flops,
            sizes=(
                Size("conv_kernel", self.linear_conv_kernel_dim, cut=False),
                Size("conv_channels", self.conv_channels),
                Size("value_heads", self.linear_num_value_heads),
                Size("key_head_dim", self.linear_key_head_dim, cut=False),
                Size("value_head_dim", self.linear_value_head_dim, cut=False),
            ),
            features=self.conv_channels + 2 * self.value_width,
            outputs=(Product("out_proj", "recurrence output", ("out_proj",)),),
        )

    def scaled_down(self, limits: Limits) -> GatedDeltaNet:
        """Return the net with as few heads as a scaled model has."""
        keys, values = self.linear_num_key_heads, self.linear_num_value_heads
        kept = min(keys, max(1, limits.query_heads // 2 * keys // values))
        return replace(self, linear_num_key_heads=kept, linear_num_value_heads=kept * (values // keys))
