"""A mixer whose outputs are shown to someone while a model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kvplan.engine.arrays import Float
from kvplan.engine.attention_beside_mamba import AttentionBesideMambaMixer
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.compressed_mixer import CompressedMixer
from kvplan.engine.counter import Counter
from kvplan.engine.delta_mixer import DeltaMixer
from kvplan.engine.expanded_latent_mixer import ExpandedLatentMixer
from kvplan.engine.kimi_delta_mixer import KimiDeltaMixer
from kvplan.engine.latent_mixer import LatentMixer
from kvplan.engine.lightning_mixer import LightningMixer
from kvplan.engine.rg_lru_mixer import RgLruMixer
from kvplan.engine.short_convolution_mixer import ShortConvolutionMixer
from kvplan.engine.state_space_mixer import StateSpaceMixer
from kvplan.engine.step import Step

LinearMixer: TypeAlias = DeltaMixer | KimiDeltaMixer | LightningMixer | RgLruMixer | ShortConvolutionMixer
LatentMixers: TypeAlias = LatentMixer | ExpandedLatentMixer | CompressedMixer
Mixer: TypeAlias = AttentionMixer | LatentMixers | LinearMixer | StateSpaceMixer | AttentionBesideMambaMixer
# Called with the layer's index, what its mixer adds for each new token (tokens, hidden), and the step.
Watch: TypeAlias = Callable[[int, Float, Step], None]


class WatchedMixer:
    """A mixer that shows what it returns; it runs as the one it holds.

    Args:
        mixer: the mixer.
        layer: its layer's index.
        watch: called with every output, which is not to be changed.
    """

    def __init__(self, mixer: Mixer, layer: int, watch: Watch) -> None:
        self._mixer, self._layer, self._watch = mixer, layer, watch

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._mixer.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the mixer adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        found = self._mixer(x, step, counter)
        self._watch(self._layer, found, step)
        return found
