"""The recurrent block of Griffin (RecurrentGemma): a short convolution and a gated linear recurrence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.activation import Activation
from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, bias, heads, matrix
from kvplan.checks import require_multiple, require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit

_WHAT = "blocks of RG-LRU gates"


@formula(Unit.FLOPS, "the convolution, two block-diagonal gates, and a decay and a sum: arXiv 2402.19427")
def rg_lru_flops(
    layers: Count, tokens: Count, conv_kernel: Count, lru_width: Count, block_width: Count
) -> Count:
    """Operations of the recurrence in a run of equal recurrent blocks."""
    return layers * tokens * lru_width * (2 * conv_kernel + 4 * block_width + 2)


@dataclass(frozen=True, slots=True)
class RgLru(Recurrent):
    """A real-gated linear recurrent unit between two branches (arXiv 2402.19427, sections 2.3 and 2.4).

    Args:
        lru_width: channels of the recurrence.
        num_attention_heads: blocks that each gate's matrix is made of; they divide the channels.
        conv1d_width: inputs the causal convolution looks at.
        hidden_activation: the function of the other branch.
    """

    lru_width: int
    num_attention_heads: int
    conv1d_width: int = 4
    hidden_activation: Activation = Activation.GELU_TANH

    def __post_init__(self) -> None:
        require_sizes(self, "lru_width", "num_attention_heads", "conv1d_width")
        require_multiple(self.lru_width, "lru_width", self.num_attention_heads, "num_attention_heads")

    @property
    def block_width(self) -> int:
        """Channels of one block of the gates."""
        return self.lru_width // self.num_attention_heads

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: convolution inputs without the newest, and a number per channel."""
        state = State(self.lru_width, self.conv1d_width, self.lru_width, newest_kept=False)
        return (CacheSlot(state, PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the two branches, the convolution, the gates, and the way out; all have biases."""
        count, width, block = self.num_attention_heads, self.lru_width, self.block_width
        by_block, out = heads(0, count, _WHAT), heads(1, count, _WHAT)
        attention, state = TensorRole.ATTENTION, TensorRole.STATE
        return (
            matrix("temporal_block.linear_x", width, hidden_size, attention, by_block),
            bias("temporal_block.linear_x", width, by_block),
            matrix("temporal_block.linear_y", width, hidden_size, attention, by_block),
            bias("temporal_block.linear_y", width, by_block),
            Weight("temporal_block.conv_1d.weight", (width, 1, self.conv1d_width), state, by_block),
            bias("temporal_block.conv_1d", width, by_block),
            Weight("temporal_block.rg_lru.recurrent_param", (width,), state, by_block),
            Weight("temporal_block.rg_lru.input_gate_weight", (count, block, block), state, by_block),
            Weight("temporal_block.rg_lru.input_gate_bias", (width,), TensorRole.BIAS, by_block),
            Weight("temporal_block.rg_lru.recurrent_gate_weight", (count, block, block), state, by_block),
            Weight("temporal_block.rg_lru.recurrent_gate_bias", (width,), TensorRole.BIAS, by_block),
            matrix("temporal_block.linear_out", hidden_size, width, attention, out),
            bias("temporal_block.linear_out", hidden_size),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_block, width = heads(0, self.num_attention_heads, _WHAT), self.lru_width
        return (
            Buffer("both branches", 2 * width, by_block),
            Buffer("convolved branch", width, by_block),
            Buffer("gates", 2 * width, by_block),
            Buffer("recurrence output", width, by_block),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        return Recurrence(
            inputs=(Product("in_proj", "recurrence inputs", ("linear_x", "linear_y")),),
            flops=rg_lru_flops,
            sizes=(
                Size("conv_kernel", self.conv1d_width, cut=False),
                Size("lru_width", self.lru_width),
                Size("block_width", self.block_width, cut=False),
            ),
            features=3 * self.lru_width,
            outputs=(Product("out_proj", "recurrence output", ("linear_out",)),),
        )

    def scaled_down(self, limits: Limits) -> RgLru:
        """Return the block with as few gate blocks as a scaled model has heads, each as wide as it was."""
        kept = limits.heads(self.num_attention_heads, 4)
        return replace(self, lru_width=kept * self.block_width, num_attention_heads=kept)
