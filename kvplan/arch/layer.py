"""One layer: a mixer, an MLP, and the norms between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.mlp import MLP
from kvplan.arch.norm import Block, Norm
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight

Mixer: TypeAlias = Attention | LatentAttention | GatedDeltaNet
FeedForward: TypeAlias = MLP | Experts


@dataclass(frozen=True, slots=True)
class Layer:
    """A mixer and an MLP, joined to the residual stream as ``block`` says."""

    mixer: Mixer
    mlp: FeedForward
    block: Block = Block.PRE_NORM

    def slot(self) -> CacheSlot:
        """Return what a token leaves in this layer's cache."""
        return self.mixer.slot()

    def weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return every tensor of the layer, norms first."""
        norms = (w for name in self.block.norm_names() for w in norm.weights(name, hidden_size))
        return (*norms, *self.mixer.weights(hidden_size), *self.mlp.weights(hidden_size))
