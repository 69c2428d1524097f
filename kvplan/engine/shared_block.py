"""A transformer block that several layers run: its weights once, and each layer's use of them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import numpy as np

from kvplan.arch.model import Model
from kvplan.arch.shared_block import BLOCK_NORMS, BLOCK_OUTPUT
from kvplan.arch.shared_block import SharedBlock as ArchBlock
from kvplan.engine.adapters import Adapters
from kvplan.engine.arrays import Float
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.counter import Counter
from kvplan.engine.feed_forward import DenseBlock
from kvplan.engine.linear import Linear
from kvplan.engine.norms import make_norm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step

_PROJECTIONS = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj"))


class SharedBlock:
    """A block's weights.

    Args:
        arch: its description.
        model: the model it is in.
        index: the first layer that runs it.
        weights: its tensors by their names in the description, adapters not among them.
        rotaries: the run's rotations.
    """

    def __init__(
        self, arch: ArchBlock, model: Model, index: int, weights: Mapping[str, Float], rotaries: Rotaries
    ) -> None:
        before_attention, before_mlp = BLOCK_NORMS
        self.attention_norm = make_norm(model.norm, weights, before_attention, model.norm_eps)
        self.mlp_norm = make_norm(model.norm, weights, before_mlp, model.norm_eps)
        self.attention = AttentionMixer(arch.attention, model, weights, model.places()[index], rotaries)
        self.mlp = DenseBlock(arch.mlp, weights)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that layers share."""
        parts = (self.attention_norm, self.mlp_norm, self.attention, self.mlp)
        return sum(part.nbytes for part in parts)


class BlockUse:
    """A layer's use of a block.

    Args:
        block: the block.
        arch: its description.
        place: where this layer's keys and values are in the cache.
        weights: the layer's own tensors by their names in the description.
    """

    def __init__(self, block: SharedBlock, arch: ArchBlock, place: int, weights: Mapping[str, Float]) -> None:
        self._block, self._output = block, Linear(weights[f"{BLOCK_OUTPUT}.weight"])
        self._adapters = [
            None if rank is None else Adapters(weights, names)
            for rank, names in (
                (arch.attention.adapter_rank, _PROJECTIONS),
                (arch.mlp.adapter_rank, ("mlp.first_step",)),
            )
        ]
        of_attention, of_mlp = self._adapters
        self._attention = block.attention.used_again(place, of_attention)
        self._mlp = block.mlp.used_again(of_mlp)

    def viewing(self, arch: ArchBlock) -> BlockUse:
        """Return a use of the same weights whose attention has other tokens in view."""
        changed = copy(self)
        changed._attention = self._attention.viewing(arch.attention)
        return changed

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's own weights; the block's are counted once, with the block."""
        return self._output.nbytes + sum(part.nbytes for part in self._adapters if part is not None)

    def __call__(self, x: Float, embedded: Float, step: Step, counter: Counter) -> Float:
        """Return what is added to the input of the layer's mixer, ``(tokens, hidden)``.

        ``x`` is the residual stream and ``embedded`` are the embeddings, both ``(tokens, hidden)``.
        """
        both = np.concatenate((x, embedded), axis=1)
        mixed = self._attention(self._block.attention_norm(both, counter), step, counter)
        fed = self._mlp(self._block.mlp_norm(mixed, counter), counter)
        return self._output(fed, counter)
