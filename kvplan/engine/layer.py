"""One decoder layer: a mixer and a feed-forward block, joined to the residual stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import TypeAlias, assert_never

import numpy as np

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.hyper_connections import MIXER_CONNECTION, MLP_CONNECTION
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.layer import Mixer as ArchMixer
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mamba import Mamba
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.residual import ResidualFactors
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.short_convolution import ShortConvolution
from kvplan.engine.altup import AltUpUpdate
from kvplan.engine.arrays import Float
from kvplan.engine.attention_beside_mamba import AttentionBesideMambaMixer
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.compressed_mixer import CompressedMixer
from kvplan.engine.counter import Counter
from kvplan.engine.delta_mixer import DeltaMixer
from kvplan.engine.expanded_latent_mixer import ExpandedLatentMixer
from kvplan.engine.expert_block import ExpertBlock
from kvplan.engine.feed_forward import DenseBlock
from kvplan.engine.hyper_connections import HyperUpdate
from kvplan.engine.kimi_delta_mixer import KimiDeltaMixer
from kvplan.engine.latent_mixer import LatentMixer
from kvplan.engine.lightning_mixer import LightningMixer
from kvplan.engine.norms import AnyNorm, make_norm
from kvplan.engine.per_layer_inputs import LayerInput
from kvplan.engine.residual_sum import ResidualSum
from kvplan.engine.rg_lru_mixer import RgLruMixer
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.shared_block import BlockUse, SharedBlock
from kvplan.engine.short_convolution_mixer import ShortConvolutionMixer
from kvplan.engine.state_space_mixer import StateSpaceMixer
from kvplan.engine.step import Step
from kvplan.engine.watched_mixer import Mixer, Watch, WatchedMixer

AnyMixer: TypeAlias = Mixer | WatchedMixer
BesideParts: TypeAlias = LayerInput | AltUpUpdate | HyperUpdate | BlockUse


class DecoderLayer:
    """Layer number ``index`` of a model, with its weights under the names the description gives them.

    What its mixer returns is shown to ``watch``, where there is one. ``block`` is the one it shares with
    other layers, if it does.
    """

    def __init__(
        self,
        model: Model,
        index: int,
        weights: Mapping[str, Float],
        rotaries: Rotaries,
        watch: Watch | None = None,
        block: SharedBlock | None = None,
    ) -> None:
        layer = model.layers[index]
        self._use: BlockUse | None = None
        if layer.shared_block is not None:
            assert block is not None
            self._use = BlockUse(block, layer.shared_block, model.places()[index][0], weights)
        self._block, self._is_parallel = layer.block, layer.block.is_parallel
        factors, multiplier = layer.residual_factors or ResidualFactors(), model.residual_multiplier
        self._add_mixed = ResidualSum(factors.mixer_alpha, factors.mixer_beta * multiplier)
        self._add_fed = ResidualSum(factors.mlp_alpha, factors.mlp_beta * multiplier)
        self._norms = [make_norm(model.norm, weights, name, model.norm_eps) for name in layer.norm_names()]
        self._mixer: AnyMixer | None = None
        if layer.mixer is not None:
            mixer = _mixer(layer.mixer, model, index, weights, rotaries)
            self._mixer = mixer if watch is None else WatchedMixer(mixer, index, watch)
        self._mlp = None if layer.mlp is None else _feed_forward(layer.mlp, model, weights)
        arch = layer.per_layer_input
        self._layer_input = None if arch is None else LayerInput(arch, model, weights)
        self._altup = None if layer.altup is None else AltUpUpdate(layer.altup, model, weights)
        self._output_scale = weights.get("layer_scalar")
        self._hyper: list[HyperUpdate] = []
        if layer.hyper_connections is not None:
            hyper, eps = layer.hyper_connections, model.norm_eps
            names = (MIXER_CONNECTION, MLP_CONNECTION)
            self._hyper = [HyperUpdate(name, hyper, weights, eps) for name in names]

    def viewing(self, layer: Layer) -> DecoderLayer:
        """Return a layer of the same weights whose attention has other tokens in view.

        Raises:
            ValueError: something else differs in ``layer``, or the mixer is watched.
        """
        changed = copy(self)
        match layer.mixer, self._mixer:
            case Attention() as arch, AttentionMixer() as mixer:
                changed._mixer = mixer.viewing(arch)
            case AttentionBesideMamba() as arch, AttentionBesideMambaMixer() as mixer:
                changed._mixer = mixer.viewing(arch)
            case _ if self._use is not None and layer.shared_block is not None:
                changed._use = self._use.viewing(layer.shared_block)
            case _:
                raise ValueError("only attention can have other tokens in view")
        return changed

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        parts = (part for part in self._parts() if part is not None)
        return sum(part.nbytes for part in parts)

    def _parts(
        self,
    ) -> tuple[AnyNorm | AnyMixer | DenseBlock | ExpertBlock | BesideParts | Float | None, ...]:
        beside = (self._use, self._layer_input, self._altup, self._output_scale, *self._hyper)
        return (*self._norms, self._mixer, self._mlp, *beside)

    def __call__(self, x: Float, step: Step, counter: Counter, given: Float | None = None) -> Float:
        """Return the residual stream ``(tokens, hidden)`` behind this layer.

        ``given`` is the layer's input ``(tokens, size)``, where it takes a part of a second embedding, or the
        embeddings ``(tokens, hidden)``, where it runs a shared block. With several streams the residual is
        ``(streams, tokens, hidden)``.
        """
        if self._altup is not None:
            return self._in_streams(self._altup, x, step, counter, given)
        if self._hyper:
            return self._in_hyper_connections(x, step, counter)
        if self._use is not None:
            return self._behind_block(self._use, x, step, counter, given)
        x = self._mixed_and_fed(x, step, counter)
        if self._layer_input is not None and given is not None:
            x = x + self._layer_input(x, given, counter)
        if self._output_scale is not None:
            counter.read_weights(self._output_scale.nbytes)
            x = x * self._output_scale
        return x

    def _behind_block(
        self, use: BlockUse, x: Float, step: Step, counter: Counter, embedded: Float | None
    ) -> Float:
        """Return the residual stream behind a mixer whose input a shared block adds to (Zamba2)."""
        assert self._mixer is not None
        assert embedded is not None
        (norm,) = self._norms
        mixed = self._mixer(norm(x + use(x, embedded, step, counter), counter), step, counter)
        return self._add_mixed(x, mixed)

    def _in_streams(
        self, altup: AltUpUpdate, streams: Float, step: Step, counter: Counter, given: Float | None
    ) -> Float:
        """Return the streams behind a layer that runs on one of them (Gemma 3n)."""
        before_mixer, behind_mixer, before_mlp, behind_mlp = self._norms
        mixer, own_input = self._mixer, self._layer_input
        assert mixer is not None
        assert own_input is not None
        assert given is not None

        def layer(x: Float, laurel: Callable[[Float], Float]) -> Float:
            normed = before_mixer(x, counter)
            product = laurel(normed)
            mixed = behind_mixer(mixer(normed, step, counter), counter)
            x = (x + mixed + product) * np.float32(2**-0.5)
            return x + behind_mlp(self._feed(before_mlp(x, counter), x, step, counter), counter)

        return altup(streams, layer, lambda x: own_input(x, given, counter), counter)

    def _in_hyper_connections(self, streams: Float, step: Step, counter: Counter) -> Float:
        """Return the streams behind a layer whose parts each read and mix them (DeepSeek-V4)."""
        (around_mixer, around_mlp), (before_mixer, before_mlp) = self._hyper, self._norms
        mixer = self._mixer
        assert mixer is not None
        streams = around_mixer(streams, lambda x: mixer(before_mixer(x, counter), step, counter), counter)
        return around_mlp(streams, lambda x: self._feed(before_mlp(x, counter), x, step, counter), counter)

    def _mixed_and_fed(self, x: Float, step: Step, counter: Counter) -> Float:
        if self._is_parallel:
            return self._side_by_side(x, step, counter)
        norms, mixer = iter(self._norms), self._mixer
        if mixer is not None:
            add = self._add_mixed
            x = self._joined(x, lambda rows: mixer(rows, step, counter), norms, add, counter)
        if self._mlp is not None:
            add = self._add_fed
            x = self._joined(x, lambda rows: self._feed(rows, x, step, counter), norms, add, counter)
        return x

    def _feed(self, normed: Float, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the MLP gives; experts may read the residual stream itself, and see the step."""
        assert self._mlp is not None
        if isinstance(self._mlp, ExpertBlock):
            return self._mlp(normed, counter, x, step)
        return self._mlp(normed, counter)

    def _joined(
        self,
        x: Float,
        part: Callable[[Float], Float],
        norms: Iterator[AnyNorm],
        add: ResidualSum,
        counter: Counter,
    ) -> Float:
        """Return the residual stream behind a mixer or an MLP, which takes its norms from ``norms``."""
        match self._block:
            case Block.PRE_NORM:
                return add(x, part(next(norms)(x, counter)))
            case Block.NORMED_RESIDUAL:
                normed = next(norms)(x, counter)
                return add(normed, part(normed))
            case Block.SANDWICH:
                added = part(next(norms)(x, counter))
                return add(x, next(norms)(added, counter))
            case Block.POST_NORM:
                return add(x, next(norms)(part(x), counter))
            case Block.RESIDUAL_NORM:
                return next(norms)(add(x, part(x)), counter)
            case Block.PARALLEL | Block.PARALLEL_TWO_NORMS:
                raise AssertionError("a parallel block's parts are not joined one by one")

    def _side_by_side(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return the residual stream behind a mixer and an MLP that read the same one."""
        assert self._mixer is not None
        normed = self._norms[0](x, counter)
        mixed = self._mixer(normed, step, counter)
        if self._block is Block.PARALLEL_TWO_NORMS:
            normed = self._norms[1](x, counter)
        return self._add_fed(self._add_mixed(x, mixed), self._feed(normed, x, step, counter))


def _feed_forward(mlp: FeedForward, model: Model, weights: Mapping[str, Float]) -> DenseBlock | ExpertBlock:
    match mlp:
        case MLP():
            return DenseBlock(mlp, weights)
        case Experts():
            return ExpertBlock(mlp, weights, model.norm_eps)
        case _ as never:
            assert_never(never)


def _mixer(
    mixer: ArchMixer, model: Model, index: int, weights: Mapping[str, Float], rotaries: Rotaries
) -> Mixer:
    of_block = model.layers[index].shared_block
    places = model.places()[index][0 if of_block is None else len(of_block.slots()) :]
    match mixer:
        case Attention():
            return AttentionMixer(mixer, model, weights, places, rotaries)
        case LatentAttention(expanded_cache=True):
            return ExpandedLatentMixer(mixer, weights, places[0], rotaries)
        case LatentAttention():
            return LatentMixer(mixer, weights, places, rotaries)
        case CompressedAttention():
            return CompressedMixer(mixer, model, weights, places, rotaries)
        case GatedDeltaNet():
            return DeltaMixer(mixer, model, weights, places[0])
        case KimiDeltaAttention():
            return KimiDeltaMixer(mixer, model, weights, places[0])
        case LightningAttention():
            return LightningMixer(mixer, weights, places[0], index, len(model.layers))
        case RgLru():
            return RgLruMixer(mixer, weights, places[0])
        case ShortConvolution():
            return ShortConvolutionMixer(mixer, weights, places[0])
        case Mamba() | Mamba2():
            return StateSpaceMixer(mixer, model, weights, places[0])
        case AttentionBesideMamba():
            return AttentionBesideMambaMixer(mixer, model, weights, places, rotaries)
        case CrossAttention():
            raise AssertionError("a layer for images only is passed by")
        case _ as never:
            assert_never(never)
