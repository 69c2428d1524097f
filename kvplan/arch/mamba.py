"""Mamba (Mamba-1): a selective state space, each channel with a small state of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Split, Weight, bias, features, matrix
from kvplan.checks import require_amounts, require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit


class StateNorm(Enum):
    """How a Mamba's steps, inputs and outputs are normalised; the value is its name in model files.

    ``rms_norm``: by three RMS norms with weights (Jamba). ``unit``: without weights (FalconMamba).
    """

    RMS = "rms_norm"
    UNIT = "unit"


@formula(Unit.FLOPS, "the convolution; the state is added to and read: arXiv 2312.00752, section 3.2")
def mamba_flops(
    layers: Count, tokens: Count, conv_kernel: Count, intermediate_size: Count, state_size: Count
) -> Count:
    """Operations of the recurrence in a run of equal Mamba layers."""
    return layers * tokens * intermediate_size * (2 * conv_kernel + 4 * state_size)


@dataclass(frozen=True, slots=True)
class Mamba(Recurrent):
    """A recurrent mixer with a state of ``state_size`` numbers a channel (arXiv 2312.00752).

    Args:
        intermediate_size: channels.
        state_size: numbers in the state of each.
        conv_kernel: inputs the causal convolution looks at.
        time_step_rank: what the step of a token is made from, before it is widened to every channel.
        use_bias: the projections into the channels and out of them have a bias.
        use_conv_bias: the convolution has one.
        state_norm: how a token's step, its input to the state and its reading of it are normalised;
            absent where they are not.
        state_norm_eps: what those norms add under the root; the model's own where absent.
    """

    intermediate_size: int
    state_size: int
    conv_kernel: int
    time_step_rank: int
    use_bias: bool = False
    use_conv_bias: bool = True
    state_norm: StateNorm | None = None
    state_norm_eps: float | None = None

    def __post_init__(self) -> None:
        require_sizes(self, "intermediate_size", "state_size", "conv_kernel", "time_step_rank")
        require_amounts(self, "state_norm_eps")

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: convolution inputs, and every channel's state."""
        state = State(self.intermediate_size, self.conv_kernel, self.intermediate_size * self.state_size)
        return (CacheSlot(state, PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections, the convolution, the rates of decay and, where there are any, norms."""
        inner, rank, state = self.intermediate_size, self.time_step_rank, TensorRole.STATE
        rows, columns = self._channels(0), self._channels(1)
        found = [
            matrix("mamba.in_proj", 2 * inner, hidden_size, TensorRole.ATTENTION, rows),
            Weight("mamba.conv1d.weight", (inner, 1, self.conv_kernel), state, rows),
            # Runtimes leave these two as they are, whatever the others are packed in.
            matrix("mamba.x_proj", rank + 2 * self.state_size, inner, state, columns),
            matrix("mamba.dt_proj", inner, rank, state, rows),
            bias("mamba.dt_proj", inner, rows),
            Weight("mamba.A_log", (inner, self.state_size), state, rows),
            Weight("mamba.D", (inner,), state, rows),
            matrix("mamba.out_proj", hidden_size, inner, TensorRole.ATTENTION, columns),
        ]
        if self.use_bias:
            found += [bias("mamba.in_proj", 2 * inner, rows), bias("mamba.out_proj", hidden_size)]
        if self.use_conv_bias:
            found.append(bias("mamba.conv1d", inner, rows))
        if self.state_norm is StateNorm.RMS:
            widths = {"dt": rank, "b": self.state_size, "c": self.state_size}
            found += [
                Weight(f"mamba.{name}_layernorm.weight", (width,), TensorRole.NORM)
                for name, width in widths.items()
            ]
        return tuple(found)

    def _channels(self, axis: int) -> Split:
        return features(axis, self.intermediate_size, "state-space channels")

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        inner, by_channel = self.intermediate_size, self._channels(0)
        return (
            Buffer("inputs and gate", 2 * inner, by_channel),
            Buffer("convolved inputs", inner, by_channel),
            Buffer("steps, inputs and readings of the state", self.time_step_rank + 2 * self.state_size),
            Buffer("steps of every channel", inner, by_channel),
            Buffer("gated output", inner, by_channel),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        read = self.time_step_rank + 2 * self.state_size
        return Recurrence(
            inputs=(
                Product("in_proj", "recurrence inputs", ("in_proj",)),
                Product("x_proj", "steps and state inputs", ("x_proj",)),
                Product("dt_proj", "steps of every channel", ("dt_proj",)),
            ),
            flops=mamba_flops,
            sizes=(
                Size("conv_kernel", self.conv_kernel, cut=False),
                Size("intermediate_size", self.intermediate_size),
                Size("state_size", self.state_size, cut=False),
            ),
            features=5 * self.intermediate_size,
            outputs=(Product("out_proj", "recurrence output", ("out_proj",)),),
            summed=read,
        )

    def scaled_down(self, limits: Limits) -> Mamba:
        """Return the mixer with as few channels as a scaled model has."""
        return replace(
            self,
            intermediate_size=limits.width(self.intermediate_size),
            time_step_rank=limits.width(self.time_step_rank),
        )
