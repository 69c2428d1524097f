"""Mamba-2: a state space of heads, each with a matrix for its state and one rate of decay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State, StateDtype
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Split, Weight, bias, heads, matrix, state_groups
from kvplan.checks import LARGEST_AMOUNT, FieldError, require_multiple, require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit


class GateNorm(Enum):
    """Where a Mamba-2's output is normalised beside its gate; the value is its name in model files."""

    AFTER_GATE = "after_gate"
    BEFORE_GATE = "before_gate"


@formula(Unit.FLOPS, "the convolution; the state is added to and read: arXiv 2405.21060, section 2.1")
def mamba2_flops(
    layers: Count,
    tokens: Count,
    conv_kernel: Count,
    head_channels: Count,
    group_channels: Count,
    head_states: Count,
) -> Count:
    """Operations of the recurrence in a run of equal Mamba-2 layers."""
    return (
        2 * layers * tokens * conv_kernel * (head_channels + group_channels)
        + 4 * layers * tokens * head_states
    )


@dataclass(frozen=True, slots=True)
class Mamba2(Recurrent):
    """A recurrent mixer whose heads keep a ``head_dim`` x ``state_size`` matrix each (arXiv 2405.21060).

    Args:
        num_heads: heads.
        head_dim: channels of a head.
        state_size: columns of a head's state.
        n_groups: groups of heads that share what is written to their states and read from them.
        conv_kernel: inputs the causal convolution looks at.
        use_bias: the projection into the heads has a bias.
        use_conv_bias: the convolution has one.
        out_bias: the projection out of the heads has one.
        gate_norm: where the output is normalised; absent where it is only gated.
        ssm_multipliers: what the projected gate, inputs, state inputs, state readings and steps are
            multiplied by (Falcon-H1); absent for none.
        state_dtype: what the released files ask states to be served in; absent where they do not.
    """

    num_heads: int
    head_dim: int
    state_size: int
    n_groups: int
    conv_kernel: int
    use_bias: bool = False
    use_conv_bias: bool = True
    out_bias: bool = False
    gate_norm: GateNorm | None = GateNorm.AFTER_GATE
    ssm_multipliers: tuple[float, float, float, float, float] | None = None
    state_dtype: StateDtype | None = None

    def __post_init__(self) -> None:
        require_sizes(self, "num_heads", "head_dim", "state_size", "n_groups", "conv_kernel")
        require_multiple(self.num_heads, "num_heads", self.n_groups, "n_groups")
        if any(not 0 < factor <= LARGEST_AMOUNT for factor in self.ssm_multipliers or ()):
            raise FieldError((("ssm_multipliers",), f"must be above 0 and at most {LARGEST_AMOUNT:,.0f}"))

    @property
    def width(self) -> int:
        """Channels of all heads."""
        return self.num_heads * self.head_dim

    @property
    def group_width(self) -> int:
        """Channels of all groups: what is written to states, or what is read from them."""
        return self.n_groups * self.state_size

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: convolution inputs, and every head's matrix."""
        of_groups = 2 * self.group_width
        state = State(
            self.width + of_groups,
            self.conv_kernel,
            self.width * self.state_size,
            served_in=self.state_dtype,
            group_channels=of_groups,
            groups=self.n_groups,
        )
        return (CacheSlot(state, PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections, the convolution and what each head has of its own.

        A checkpoint has one ``in_proj`` and one ``conv1d``. Here the rows of groups are apart from those of
        heads, because ranks cut the one and may have to share the other.
        """
        by_head, by_group = self._heads(0), state_groups(0, self.n_groups)
        attention, state, of_groups = TensorRole.ATTENTION, TensorRole.STATE, 2 * self.group_width
        of_heads = 2 * self.width + self.num_heads
        found = [
            matrix("mamba.in_proj", of_heads, hidden_size, attention, by_head),
            matrix("mamba.in_proj_groups", of_groups, hidden_size, attention, by_group),
            Weight("mamba.conv1d.weight", (self.width, 1, self.conv_kernel), state, by_head),
            Weight("mamba.conv1d_groups.weight", (of_groups, 1, self.conv_kernel), state, by_group),
            *(
                Weight(f"mamba.{name}", (self.num_heads,), state, by_head)
                for name in ("dt_bias", "A_log", "D")
            ),
            matrix("mamba.out_proj", hidden_size, self.width, attention, self._heads(1)),
        ]
        if self.gate_norm is not None:
            found.append(Weight("mamba.norm.weight", (self.width,), TensorRole.NORM, by_head))
        if self.use_bias:
            found += [
                bias("mamba.in_proj", of_heads, by_head),
                bias("mamba.in_proj_groups", of_groups, by_group),
            ]
        if self.use_conv_bias:
            found += [
                bias("mamba.conv1d", self.width, by_head),
                bias("mamba.conv1d_groups", of_groups, by_group),
            ]
        if self.out_bias:
            found.append(bias("mamba.out_proj", hidden_size))
        return tuple(found)

    def _heads(self, axis: int) -> Split:
        return heads(axis, self.num_heads, "state-space heads")

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_head, by_group = self._heads(0), state_groups(0, self.n_groups)
        return (
            Buffer("gate, inputs and steps", 2 * self.width + self.num_heads, by_head),
            Buffer("state inputs and readings", 2 * self.group_width, by_group),
            Buffer("convolved inputs", self.width, by_head),
            Buffer("convolved state inputs and readings", 2 * self.group_width, by_group),
            Buffer("recurrence output", self.width, by_head),
            Buffer("gated output", self.width, by_head),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        of_groups = 2 * self.group_width
        return Recurrence(
            inputs=(Product("in_proj", "recurrence inputs", ("in_proj", "in_proj_groups")),),
            flops=mamba2_flops,
            sizes=(
                Size("conv_kernel", self.conv_kernel, cut=False),
                Size("head_channels", self.width),
                Size("group_channels", of_groups, split=state_groups(0, self.n_groups)),
                Size("head_states", self.width * self.state_size),
            ),
            features=3 * self.width + of_groups + self.num_heads,
            outputs=(Product("out_proj", "recurrence output", ("out_proj",)),),
            # The norm of one group is over what every rank has a part of (vLLM, mamba_mixer2.py).
            summed=int(self.gate_norm is not None and self.n_groups == 1),
        )

    def scaled_down(self, limits: Limits) -> Mamba2:
        """Return the mixer with as few heads as a scaled model has, in two groups where it has several."""
        groups = min(self.n_groups, 2)
        each = limits.heads(self.num_heads // self.n_groups, groups)
        return replace(self, num_heads=groups * each, n_groups=groups)
