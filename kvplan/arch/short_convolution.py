"""Short convolution (LFM2): a gated causal convolution over a few tokens, with no state beside its inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, bias, features, matrix
from kvplan.checks import require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit

_WHAT = "channels of the short convolution"


@formula(Unit.FLOPS, "a multiplication and an addition for each channel and input it looks at")
def short_convolution_flops(layers: Count, tokens: Count, conv_kernel: Count, channels: Count) -> Count:
    """Operations of the convolution in a run of equal short convolutions."""
    return layers * tokens * 2 * conv_kernel * channels


@dataclass(frozen=True, slots=True)
class ShortConvolution(Recurrent):
    """A convolution between two gates, all three made of the layer's input.

    Args:
        conv_dim: channels; as many as the model is wide.
        conv_L_cache: inputs the causal convolution looks at.
        conv_bias: the projections and the convolution have biases.
    """

    conv_dim: int
    conv_L_cache: int  # noqa: N815
    conv_bias: bool = False

    def __post_init__(self) -> None:
        require_sizes(self, "conv_dim", "conv_L_cache")

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: the convolution's inputs alone."""
        return (CacheSlot(State(self.conv_dim, self.conv_L_cache, 0), PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the fused projection, the convolution, and the way out."""
        by_channel, role = features(0, self.conv_dim, _WHAT), TensorRole.ATTENTION
        out = features(1, self.conv_dim, _WHAT)
        conv_shape = (self.conv_dim, 1, self.conv_L_cache)
        found = [
            matrix("conv.in_proj", 3 * self.conv_dim, hidden_size, role, by_channel),
            Weight("conv.conv.weight", conv_shape, TensorRole.STATE, by_channel),
            matrix("conv.out_proj", hidden_size, self.conv_dim, role, out),
        ]
        if self.conv_bias:
            found += [
                bias("conv.in_proj", 3 * self.conv_dim, by_channel),
                bias("conv.conv", self.conv_dim, by_channel),
                bias("conv.out_proj", hidden_size),
            ]
        return tuple(found)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_channel = features(0, self.conv_dim, _WHAT)
        return (
            Buffer("gates and values", 3 * self.conv_dim, by_channel),
            Buffer("gated values", self.conv_dim, by_channel),
            Buffer("convolved values", self.conv_dim, by_channel),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        return Recurrence(
            inputs=(Product("in_proj", "convolution inputs", ("in_proj",)),),
            flops=short_convolution_flops,
            sizes=(
                Size("conv_kernel", self.conv_L_cache, cut=False),
                Size("channels", self.conv_dim),
            ),
            features=4 * self.conv_dim,
            outputs=(Product("out_proj", "convolution output", ("out_proj",)),),
        )

    def scaled_down(self, limits: Limits) -> ShortConvolution:
        """Return the convolution over as many channels as a scaled model is wide."""
        return replace(self, conv_dim=limits.width(self.conv_dim))
