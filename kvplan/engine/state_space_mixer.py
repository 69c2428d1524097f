"""A Mamba or a Mamba-2 as a layer runs it: its block, on the states the cache keeps."""

from __future__ import annotations

from collections.abc import Mapping

from kvplan.arch.mamba import Mamba
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.mamba import MambaBlock
from kvplan.engine.mamba2 import Mamba2Block
from kvplan.engine.step import Step


class StateSpaceMixer:
    """One state space with its weights; arguments as :class:`AttentionMixer`'s."""

    def __init__(self, arch: Mamba | Mamba2, model: Model, weights: Mapping[str, Float], place: int) -> None:
        self._place = place
        self._block = (
            MambaBlock(arch, weights, model.hidden_size, model.norm_eps)
            if isinstance(arch, Mamba)
            else Mamba2Block(arch, weights, model.hidden_size, model.norm_eps)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._block.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what it adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        states = step.states(self._place)
        return self._block(x, step.counts, states.conv, states.recurrent, step.slots, counter)
