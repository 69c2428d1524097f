"""The short convolution of LFM2 at run time: values gated, convolved over a few tokens, and gated again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.short_convolution import ShortConvolution
from kvplan.engine.arrays import Float
from kvplan.engine.causal_convolution import CausalConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.step import Step


class ShortConvolutionMixer:
    """One short convolution with its weights; arguments as :class:`AttentionMixer`'s, but the model."""

    def __init__(self, arch: ShortConvolution, weights: Mapping[str, Float], place: int) -> None:
        self._arch, self._place = arch, place
        self._in = Linear(weights["conv.in_proj.weight"], weights.get("conv.in_proj.bias"))
        self._convolution = CausalConvolution(weights["conv.conv.weight"], weights.get("conv.conv.bias"))
        self._out = Linear(weights["conv.out_proj.weight"], weights.get("conv.out_proj.bias"))

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._in.nbytes + self._convolution.nbytes + self._out.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the layer adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        states = step.states(self._place)
        before, after, values = np.split(self._in(x, counter), 3, axis=1)
        convolved = self._convolution(before * values, step.counts, states.conv, step.slots)
        self._count(len(x), len(step.counts) * states.slot_nbytes, counter)
        convolved *= after
        return self._out(convolved, counter)

    def _count(self, rows: int, touched: int, counter: Counter) -> None:
        """Count the convolution, its filters, and the inputs that are kept."""
        counter.attention(rows * self._convolution.flops)
        counter.read_weights(self._convolution.nbytes)
        counter.read_cache(touched)
        counter.write_cache(touched)
