"""A gated delta net as a layer runs it: its block, on the states the cache keeps."""

from __future__ import annotations

from collections.abc import Mapping

from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.delta_net import DeltaNetBlock
from kvplan.engine.step import Step


class DeltaMixer:
    """One gated delta net with its weights; arguments as :class:`AttentionMixer`'s."""

    def __init__(self, arch: GatedDeltaNet, model: Model, weights: Mapping[str, Float], place: int) -> None:
        self._place = place
        self._block = DeltaNetBlock(arch, weights, model.hidden_size, model.norm_eps)
        self._shape = (arch.linear_num_value_heads, arch.linear_key_head_dim, arch.linear_value_head_dim)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._block.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the net adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        states = step.states(self._place)
        recurrent = states.recurrent.reshape(-1, *self._shape)
        return self._block(x, step.counts, states.conv, recurrent, step.slots, counter)
