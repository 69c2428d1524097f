"""One layer: a mixer, an MLP, or both, and the norms between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from kvplan.arch.altup import AltUp
from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.limits import Limits
from kvplan.arch.mamba import Mamba
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.norm import Block, Norm
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.arch.recurrent import Recurrent
from kvplan.arch.released import StoredAs, as_released
from kvplan.arch.residual import ResidualFactors
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.shared_block import SharedBlock
from kvplan.arch.short_convolution import ShortConvolution
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, matrix
from kvplan.checks import FieldError
from kvplan.storage import TensorRole

LinearMixer: TypeAlias = GatedDeltaNet | KimiDeltaAttention | LightningAttention | RgLru | ShortConvolution
SingleMixer: TypeAlias = Attention | LatentAttention | CompressedAttention | LinearMixer | Mamba | Mamba2
Mixer: TypeAlias = SingleMixer | AttentionBesideMamba | CrossAttention
FeedForward: TypeAlias = MLP | Experts


@dataclass(frozen=True, slots=True)
class Layer:
    """A mixer and an MLP, joined to the residual stream as ``block`` says; one of them may be absent.

    ``stored_otherwise``: its tensors that released files have in another format than the model's.
    ``per_layer_input``: a part of a second embedding that the layer adds to its residual stream.
    ``altup``: residual streams of which the layer runs on one (Gemma 3n).
    ``hyper_connections``: residual streams that mixer and MLP read, feed and mix anew (DeepSeek-V4).
    ``output_scale``: the layer's output is multiplied by a number that is no parameter (Gemma 4).
    ``predicts``: it drafts a further token, from the embedding of the last and the residual stream behind the
    model; these parts come before it, and a norm behind it (DeepSeek-V3; the engine has no such layers).
    ``shared_block``: attention and an MLP before the mixer, which have their weights in common with other
    layers' (Zamba2).
    ``residual_factors``: what the residual and the parts' outputs are multiplied by before they are added.
    """

    mixer: Mixer | None
    mlp: FeedForward | None
    block: Block = Block.PRE_NORM
    stored_otherwise: tuple[StoredAs, ...] = ()
    residual_factors: ResidualFactors | None = None
    per_layer_input: PerLayerInput | None = None
    altup: AltUp | None = None
    output_scale: bool = False
    predicts: bool = False
    hyper_connections: HyperConnections | None = None
    shared_block: SharedBlock | None = None

    def __post_init__(self) -> None:
        if self.mixer is None and self.mlp is None:
            raise FieldError(((), "a layer has a mixer, an MLP, or both"))
        if self.block.is_parallel and (self.mixer is None or self.mlp is None):
            raise FieldError((("block",), f"{self.block.value} needs a mixer and an MLP"))
        if self.residual_factors is not None and not self.block.scales_residual:
            raise FieldError((("residual_factors",), f"are not for {self.block.value}"))
        if self.altup is not None:
            whole = self.mixer is not None and self.mlp is not None and self.per_layer_input is not None
            if self.block is not Block.SANDWICH or not whole:
                raise FieldError(
                    (("altup",), "needs a sandwich of a mixer and an MLP, and a per_layer_input")
                )

        if self.hyper_connections is not None:
            plain = self.residual_factors is None and self.altup is None and self.per_layer_input is None
            whole = self.mixer is not None and self.mlp is not None and not self.output_scale
            if self.block is not Block.PRE_NORM or not (plain and whole):
                raise FieldError((("hyper_connections",), "needs a plain pre_norm of a mixer and an MLP"))

        if self.shared_block is not None:
            alone = isinstance(self.mixer, Mamba | Mamba2) and self.mlp is None
            if not (alone and self.block is Block.PRE_NORM and self.per_layer_input is None):
                raise FieldError((("shared_block",), "needs a plain pre_norm of a state space alone"))

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return what a token, or a request, leaves in this layer's cache: a shared block's first."""
        of_block = () if self.shared_block is None else self.shared_block.slots()
        return of_block if self.mixer is None else (*of_block, *self.mixer.slots())

    def mixers(self) -> tuple[SingleMixer, ...]:
        """Return the mixers that text runs one by one: none, the one there is, or two."""
        if self.shared_block is not None:
            assert isinstance(self.mixer, Mamba | Mamba2)
            return (self.shared_block.attention, self.mixer)
        if isinstance(self.mixer, AttentionBesideMamba):
            return (self.mixer.attention, self.mixer.mamba2)
        return () if self.mixer is None or isinstance(self.mixer, CrossAttention) else (self.mixer,)

    def blocks_of_mixers(self) -> tuple[Mixer, ...]:
        """Return the mixers whose arrays are alive at different times: two side by side are one of them."""
        of_block = () if self.shared_block is None else (self.shared_block.attention,)
        return of_block if self.mixer is None else (*of_block, self.mixer)

    def feed_forwards(self) -> tuple[FeedForward, ...]:
        """Return the MLPs that text runs: none, the layer's own, or a shared block's."""
        if self.shared_block is not None:
            return (self.shared_block.mlp,)
        return () if self.mlp is None else (self.mlp,)

    @property
    def images_only(self) -> bool:
        """Whether text passes the layer by, its MLP too, unless there is an image to attend to."""
        return isinstance(self.mixer, CrossAttention)

    def norm_names(self) -> tuple[str, ...]:
        """Return the names of the layer's norms."""
        return self.block.norm_names(mixer=self.mixer is not None, mlp=self.mlp is not None)

    def weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return every tensor of the layer, norms first."""
        scales = (w for name in self.norm_names() for w in norm.weights(name, hidden_size))
        norms = as_released(scales, self.stored_otherwise)
        parts = (part for part in (self.mixer, self.mlp) if part is not None)
        of_parts = (w for part in parts for w in self.weights_of(part, hidden_size))
        given, own = self.input_weights(hidden_size, norm), self._own_weights(hidden_size, norm)
        of_block = self.block_weights(hidden_size, norm)
        return (*norms, *of_block, *of_parts, *given, *self.stream_weights(hidden_size), *own)

    def input_weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return what the layer has for its part of a second embedding, and for streams."""
        extras = (self.per_layer_input, self.altup)
        found = [w for part in extras if part is not None for w in part.layer_weights(hidden_size, norm)]
        return as_released(found, self.stored_otherwise)

    def block_weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return the tensors of a shared block, and those of this layer's use of it."""
        found = () if self.shared_block is None else self.shared_block.weights(hidden_size, norm)
        return as_released(found, self.stored_otherwise)

    def stream_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return what makes the weights of hyper-connections."""
        found = () if self.hyper_connections is None else self.hyper_connections.layer_weights(hidden_size)
        return as_released(found, self.stored_otherwise)

    def _own_weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return what is the layer's own, and no part's: its scale, and what joins a prediction layer."""
        found = [Weight("layer_scalar", (1,), TensorRole.NORM, trained=False)] if self.output_scale else []
        if self.predicts:
            for name in ("enorm", "hnorm", "shared_head.norm"):
                found += norm.weights(name, hidden_size)
            # Quantised releases leave it alone, as they do the head (DeepSeek-V3's index of tensors).
            found.append(matrix("eh_proj", hidden_size, 2 * hidden_size, TensorRole.HEAD))
        return tuple(found)

    def weights_of(self, part: Mixer | FeedForward | Recurrent, hidden_size: int) -> tuple[Weight, ...]:
        """Return the tensors of the mixer, or of the MLP, with what they are released in."""
        return as_released(part.weights(hidden_size), self.stored_otherwise)

    def scaled_down(self, limits: Limits) -> Layer:
        """Return the layer as small as a scaled model's."""
        mixer, mlp, given = self.mixer, self.mlp, self.per_layer_input
        return replace(
            self,
            per_layer_input=None if given is None else given.scaled_down(limits.vocabulary),
            mixer=None if mixer is None else mixer.scaled_down(limits),
            mlp=None if mlp is None else mlp.scaled_down(limits),
            shared_block=None if self.shared_block is None else self.shared_block.scaled_down(limits),
        )
