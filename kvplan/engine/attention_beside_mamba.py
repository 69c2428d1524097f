"""Attention and a Mamba-2 on the same input, as a layer of Falcon-H1 runs them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import numpy as np

from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.counter import Counter
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.state_space_mixer import StateSpaceMixer
from kvplan.engine.step import Step


class AttentionBesideMambaMixer:
    """Both of them with their weights.

    Args:
        arch: what they are.
        model: the model they are in.
        weights: the layer's tensors by their names in the description.
        places: where attention's keys and values are in the cache, and where the states are.
        rotaries: the run's rotations.
    """

    def __init__(
        self,
        arch: AttentionBesideMamba,
        model: Model,
        weights: Mapping[str, Float],
        places: tuple[int, ...],
        rotaries: Rotaries,
    ) -> None:
        self._arch = arch
        self._attention = AttentionMixer(arch.attention, model, weights, places[:1], rotaries)
        self._mamba = StateSpaceMixer(arch.mamba2, model, weights, places[1])

    def viewing(self, arch: AttentionBesideMamba) -> AttentionBesideMambaMixer:
        """Return a layer of the same weights whose attention has other tokens in view."""
        changed = copy(self)
        changed._arch, changed._attention = arch, self._attention.viewing(arch.attention)
        return changed

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._attention.nbytes + self._mamba.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what both add for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        arch = self._arch
        attended = self._attention(_scaled(x, arch.attention_in_multiplier), step, counter)
        recalled = self._mamba(_scaled(x, arch.ssm_in_multiplier), step, counter)
        return _scaled(recalled, arch.ssm_out_multiplier) + _scaled(attended, arch.attention_out_multiplier)


def _scaled(x: Float, multiplier: float) -> Float:
    return x if multiplier == 1 else x * np.float32(multiplier)
