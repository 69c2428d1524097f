"""Kimi delta attention (Kimi-Linear): a gated delta net whose state decays channel by channel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State, StateDtype
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, matrix
from kvplan.checks import require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit

_WHAT = "linear-attention heads"


@formula(Unit.FLOPS, "the convolution; the state is read, corrected and read again: arXiv 2510.26692")
def kimi_delta_flops(
    layers: Count, tokens: Count, conv_kernel: Count, heads: Count, head_dim: Count
) -> Count:
    """Operations of the recurrence in a run of equal layers of Kimi delta attention."""
    return layers * tokens * heads * head_dim * (2 * conv_kernel * 3 + 6 * head_dim)


@dataclass(frozen=True, slots=True)
class KimiDeltaAttention(Recurrent):
    """Linear attention by the delta rule with a decay for each key channel (arXiv 2510.26692).

    Args:
        linear_num_heads: query, key and value heads.
        linear_head_dim: elements of each; also the rank of the decay's and the output gate's projections.
        linear_conv_kernel_dim: inputs the causal convolutions of queries, keys and values look at.
    """

    linear_num_heads: int
    linear_head_dim: int
    linear_conv_kernel_dim: int

    def __post_init__(self) -> None:
        require_sizes(self, *self.__slots__)

    @property
    def width(self) -> int:
        """Elements of all heads."""
        return self.linear_num_heads * self.linear_head_dim

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: convolution inputs and a key x value matrix per head."""
        recurrent = self.width * self.linear_head_dim
        # vLLM keeps this one in float32 whatever the others are in (mamba_utils.py, kda_state_dtype).
        state = State(3 * self.width, self.linear_conv_kernel_dim, recurrent, served_in=StateDtype.FP32)
        return (CacheSlot(state, PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections, the convolutions joined, and the decay's parameters.

        The first halves of the low-rank projections are held whole by every rank.
        """
        by_head, out = heads(0, self.linear_num_heads, _WHAT), heads(1, self.linear_num_heads, _WHAT)
        attention, state, dim = TensorRole.ATTENTION, TensorRole.STATE, self.linear_head_dim
        conv_shape = (3 * self.width, 1, self.linear_conv_kernel_dim)
        return (
            matrix("self_attn.q_proj", self.width, hidden_size, attention, by_head),
            matrix("self_attn.k_proj", self.width, hidden_size, attention, by_head),
            matrix("self_attn.v_proj", self.width, hidden_size, attention, by_head),
            Weight("self_attn.conv1d.weight", conv_shape, state, by_head),
            matrix("self_attn.f_a_proj", dim, hidden_size, attention),
            matrix("self_attn.f_b_proj", self.width, dim, attention, by_head),
            Weight("self_attn.dt_bias", (self.width,), state, by_head),
            Weight("self_attn.A_log", (self.linear_num_heads,), state, by_head),
            # One row a head, as small as the decay's parameters.
            matrix("self_attn.b_proj", self.linear_num_heads, hidden_size, state, by_head),
            matrix("self_attn.g_a_proj", dim, hidden_size, attention),
            matrix("self_attn.g_b_proj", self.width, dim, attention, by_head),
            Weight("self_attn.o_norm.weight", (dim,), TensorRole.NORM),
            matrix("self_attn.o_proj", hidden_size, self.width, attention, out),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_head, width = heads(0, self.linear_num_heads, _WHAT), self.width
        return (
            Buffer("queries, keys, values", 3 * width, by_head),
            Buffer("compressed decay and gate", 2 * self.linear_head_dim),
            Buffer("decay and gate", 2 * width, by_head),
            Buffer("write strength", self.linear_num_heads, by_head),
            Buffer("convolved queries, keys, values", 3 * width, by_head),
            Buffer("recurrence output", width, by_head),
            Buffer("gated output", width, by_head),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        first = ("q_proj", "k_proj", "v_proj", "f_a_proj", "g_a_proj", "b_proj")
        return Recurrence(
            inputs=(
                Product("in_proj", "recurrence inputs", first),
                Product("decay_proj", "decay projection", ("f_b_proj",)),
                Product("gate_proj", "output gate projection", ("g_b_proj",)),
            ),
            flops=kimi_delta_flops,
            sizes=(
                Size("conv_kernel", self.linear_conv_kernel_dim, cut=False),
                Size("heads", self.linear_num_heads),
                Size("head_dim", self.linear_head_dim, cut=False),
            ),
            # Queries, keys and values in, the decay and the gate of each channel, and what is read out.
            features=6 * self.width,
            outputs=(Product("o_proj", "recurrence output", ("o_proj",)),),
        )

    def scaled_down(self, limits: Limits) -> KimiDeltaAttention:
        """Return the layer with as few heads as a scaled model has."""
        return replace(self, linear_num_heads=limits.heads(self.linear_num_heads, 2))
