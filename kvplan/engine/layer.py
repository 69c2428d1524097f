"""One decoder layer: a mixer and a feed-forward block, joined to the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.engine.arrays import Float
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.counter import Counter
from kvplan.engine.delta_mixer import DeltaMixer
from kvplan.engine.feed_forward import DenseBlock, ExpertBlock
from kvplan.engine.latent_mixer import LatentMixer
from kvplan.engine.norms import make_norm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.watched_mixer import Mixer, Watch, WatchedMixer


class DecoderLayer:
    """Layer number ``index`` of a model, with its weights under the names the description gives them.

    What its mixer returns is shown to ``watch``, where there is one.
    """

    def __init__(
        self,
        model: Model,
        index: int,
        weights: Mapping[str, Float],
        rotaries: Rotaries,
        watch: Watch | None = None,
    ) -> None:
        layer = model.layers[index]
        self._block = layer.block
        self._norms = [
            make_norm(model.norm, weights, name, model.norm_eps) for name in layer.block.norm_names()
        ]
        mixer = _mixer(model, index, weights, rotaries)
        self._mixer = mixer if watch is None else WatchedMixer(mixer, index, watch)
        match layer.mlp:
            case MLP():
                self._mlp: DenseBlock | ExpertBlock = DenseBlock(layer.mlp, weights)
            case Experts():
                self._mlp = ExpertBlock(layer.mlp, weights)
            case _ as never:
                assert_never(never)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return sum(norm.nbytes for norm in self._norms) + self._mixer.nbytes + self._mlp.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return the residual stream ``(tokens, hidden)`` behind this layer."""
        norms, mixer, mlp = self._norms, self._mixer, self._mlp
        match self._block:
            case Block.PRE_NORM:
                x = x + mixer(norms[0](x, counter), step, counter)
                return x + mlp(norms[1](x, counter), counter)
            case Block.SANDWICH:
                x = x + norms[1](mixer(norms[0](x, counter), step, counter), counter)
                return x + norms[3](mlp(norms[2](x, counter), counter), counter)
            case Block.PARALLEL:
                normed = norms[0](x, counter)
                return x + mixer(normed, step, counter) + mlp(normed, counter)
            case Block.PARALLEL_TWO_NORMS:
                mixed = mixer(norms[0](x, counter), step, counter)
                return x + mixed + mlp(norms[1](x, counter), counter)
            case _ as never:
                assert_never(never)


def _mixer(model: Model, index: int, weights: Mapping[str, Float], rotaries: Rotaries) -> Mixer:
    mixer = model.layers[index].mixer
    match mixer:
        case Attention():
            return AttentionMixer(mixer, model, weights, index, rotaries)
        case LatentAttention():
            return LatentMixer(mixer, weights, index, rotaries)
        case GatedDeltaNet():
            return DeltaMixer(mixer, model, weights, index)
        case _ as never:
            assert_never(never)
