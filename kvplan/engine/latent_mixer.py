"""Latent attention as a layer runs it: the cache holds the latent alone.

Prompts are read in expanded form: keys and values of every head are made from the latents in view. A
decode step runs absorbed: the matrices that would expand the latents are multiplied into the query and
into the result instead (arXiv 2405.04434, section 2.1.2). Where an indexer chooses tokens, a prompt still
reads every latent in view, once a step, and leaves out of it what is not chosen; decode reads what is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kvplan.arch.latent_attention import LatentAttention
from kvplan.engine.arrays import Float
from kvplan.engine.attention import Settings, attend
from kvplan.engine.chosen_attention import attend_chosen
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.latent_attention import decode_latent
from kvplan.engine.latent_projections import LatentProjections
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.token_indexer import TokenIndexer
from kvplan.engine.visibility import Visibility
from kvplan.storage import kv_format

_EXPANDED_TILE = 64


class LatentMixer:
    """One latent-attention layer with its weights.

    Args:
        arch: what the layer is.
        weights: the layer's tensors by their names in the description.
        places: where its latents are in the cache, and the keys of its indexer if it has its own.
        rotaries: the run's rotations.
    """

    def __init__(
        self,
        arch: LatentAttention,
        weights: Mapping[str, Float],
        places: Sequence[int],
        rotaries: Rotaries,
    ) -> None:
        self._arch, self._place = arch, places[0]
        self._parts = LatentProjections(arch, weights, rotaries)
        self._indexer: TokenIndexer | None = None
        if arch.indexer is not None and not arch.indexer.shared:
            self._indexer = TokenIndexer(arch.indexer, arch, weights, places[1], rotaries)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._parts.nbytes + (0 if self._indexer is None else self._indexer.nbytes)

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what attention adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        compressed = self._parts.compressed(x, counter)
        queries = self._parts.queries(compressed, step, counter)
        step.write_rows(self._place, self._parts.latents(x, step, counter), counter)
        if self._indexer is not None:
            # Layers behind this one may share the choice.
            step.chosen = self._indexer(x, compressed, step, counter)
        mixed = self._absorbed(queries, step, counter) if step.decode else self._read(queries, step, counter)
        return self._parts.out(mixed.reshape(len(x), -1), counter)

    def _read(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend with every sequence's new tokens to its own; ``(tokens, heads, v_head_dim)``."""
        mixed = np.empty((*queries.shape[:2], self._arch.v_head_dim), np.float32)
        for index in range(len(step.counts)):
            rows = step.rows(index)
            mixed[rows] = self._expanded(queries[rows], step, index, counter)
        return mixed

    def _expanded(self, queries: Float, step: Step, index: int, counter: Counter) -> Float:
        """Attend with keys and values made from every latent in view; ``(tokens, heads, v_head_dim)``."""
        latent, rope_keys = step.read_rows(self._place, index, counter)
        keys, values = self._parts.expand(latent, rope_keys, counter)
        if self._arch.indexer is not None:
            chosen = step.chosen[index][None]
            return attend_chosen(queries, keys, values, chosen, self._parts.scale, counter)
        view, uncounted = _scratch(keys, values), Counter()
        start = step.starts[index]
        mixed = attend(queries, start, [view], Visibility(), Settings(self._parts.scale), uncounted)
        counter.attention(uncounted.attention_flops)
        return mixed

    def _absorbed(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend in the latents' own space with one token of each sequence; ``(tokens, heads, v_head_dim)``.

        Both halves of the expanding matrix are read once for all sequences.
        """
        arch, nope, up = self._arch, self._arch.qk_nope_head_dim, self._parts.up
        absorbed = np.matmul(queries[..., :nope].transpose(1, 0, 2), up[:, :nope])
        mixed = np.empty_like(absorbed)
        for index in range(len(queries)):
            span, blocks = step.slots_after(self._place, index)
            mixed[:, index] = decode_latent(
                np.ascontiguousarray(absorbed[:, index]),
                np.ascontiguousarray(queries[index, :, nope:]),
                step.rows_of_tokens(self._place),
                blocks,
                span.stop,
                self._parts.scale,
                counter,
                None if arch.indexer is None else np.flatnonzero(step.chosen[index][0]),
            )
        counter.matmul(len(queries), arch.kv_lora_rank, up.shape[0] * up.shape[1], up.nbytes)
        made: Float = np.matmul(mixed, up[:, nope:].transpose(0, 2, 1))
        return made.transpose(1, 0, 2)


def _scratch(keys: Float, values: Float) -> View:
    """Return keys and values as tiles that live as long as one call."""
    count, heads, k_dim = keys.shape
    blocks = -(-count // _EXPANDED_TILE)
    tiles = KVTiles(heads, k_dim, values.shape[2], blocks, _EXPANDED_TILE, kv_format("fp32"))
    slots = np.arange(count)
    tiles.write(slots // _EXPANDED_TILE, slots % _EXPANDED_TILE, keys, values)
    return View(tiles, np.arange(blocks), 0, count)
