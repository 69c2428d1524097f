"""Latent attention as a layer runs it: the cache holds the latent alone.

Prompts are read in expanded form: keys and values of every head are made from the latents in view. A
decode step runs absorbed: the matrices that would expand the latents are multiplied into the query and
into the result instead (arXiv 2405.04434, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.latent_attention import LatentAttention
from kvplan.engine.arrays import Float
from kvplan.engine.attention import attend
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.latent_tiles import decode_latent
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.rotary import yarn_score_factor
from kvplan.engine.step import Step
from kvplan.engine.visibility import Visibility
from kvplan.storage import kv_format

_EXPANDED_TILE = 64
# The norms of the latents have this one whatever the model's other norms have
# (transformers 5.23, modeling_deepseek_v3.py).
_LATENT_EPS = 1e-6


class LatentMixer:
    """One latent-attention layer with its weights; arguments as :class:`AttentionMixer`'s, but the model."""

    def __init__(
        self,
        arch: LatentAttention,
        weights: Mapping[str, Float],
        layer: int,
        rotaries: Rotaries,
    ) -> None:
        self._arch, self._layer = arch, layer
        self._q_norm: RMSNorm | None = None
        if arch.q_lora_rank is None:
            self._q = Linear(weights["self_attn.q_proj.weight"], None)
        else:
            self._q_down = Linear(weights["self_attn.q_a_proj.weight"], None)
            self._q_norm = RMSNorm(weights["self_attn.q_a_layernorm.weight"], _LATENT_EPS)
            self._q = Linear(weights["self_attn.q_b_proj.weight"], None)
        self._kv_down = Linear(weights["self_attn.kv_a_proj_with_mqa.weight"], None)
        self._kv_norm = RMSNorm(weights["self_attn.kv_a_layernorm.weight"], _LATENT_EPS)
        heads, expanded = arch.num_attention_heads, arch.qk_nope_head_dim + arch.v_head_dim
        # (heads, nope + v, rank): both forms read it, so it is kept once, as it comes.
        self._kv_up = weights["self_attn.kv_b_proj.weight"].reshape(heads, expanded, arch.kv_lora_rank)
        self._out = Linear(weights["self_attn.o_proj.weight"], None)
        self._scale = arch.qk_head_dim**-0.5 * yarn_score_factor(arch.rope_parameters)
        self._rotary = rotaries.of(arch.rope_parameters, arch.qk_rope_head_dim)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        down = self._q_down.nbytes + self._q_norm.nbytes if self._q_norm is not None else 0
        others = (self._q, self._kv_down, self._kv_norm, self._kv_up, self._out)
        return down + sum(part.nbytes for part in others)

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what attention adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        queries = self._queries(x, step, counter)
        latent, rope_keys = self._latents(x, step, counter)
        step.write(self._layer, latent, rope_keys, counter)
        mixed = self._absorbed(queries, step, counter) if step.decode else self._read(queries, step, counter)
        return self._out(mixed.reshape(len(x), -1), counter)

    def _queries(self, x: Float, step: Step, counter: Counter) -> Float:
        if self._q_norm is not None:
            x = self._q_norm(self._q_down(x, counter), counter)
        found = self._q(x, counter).reshape(len(x), self._arch.num_attention_heads, self._arch.qk_head_dim)
        if self._rotary is not None:
            rotated = np.ascontiguousarray(found[..., self._arch.qk_nope_head_dim :])
            found[..., self._arch.qk_nope_head_dim :] = self._rotary.rotate(rotated, step.positions)
        return found

    def _latents(self, x: Float, step: Step, counter: Counter) -> tuple[Float, Float]:
        joined, rank = self._kv_down(x, counter), self._arch.kv_lora_rank
        latent = self._kv_norm(np.ascontiguousarray(joined[:, :rank]), counter)
        rope_keys = np.ascontiguousarray(joined[:, None, rank:])
        if self._rotary is not None:
            rope_keys = self._rotary.rotate(rope_keys, step.positions)
        return latent, rope_keys[:, 0]

    def _read(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend with every sequence's new tokens to its own; ``(tokens, heads, v_head_dim)``."""
        mixed = np.empty((*queries.shape[:2], self._arch.v_head_dim), np.float32)
        for index in range(len(step.counts)):
            rows = step.rows(index)
            mixed[rows] = self._expanded(queries[rows], step, index, counter)
        return mixed

    def _expanded(self, queries: Float, step: Step, index: int, counter: Counter) -> Float:
        """Attend with keys and values made from every latent in view; ``(tokens, heads, v_head_dim)``."""
        arch, heads = self._arch, self._arch.num_attention_heads
        span, blocks = step.slots_after(self._layer, index)
        latents = step.latents(self._layer)
        latent, rope_keys = latents.rows(blocks, span.stop)
        counter.read_cache(span.stop * latents.slot_nbytes)
        made = np.matmul(latent, self._kv_up.transpose(0, 2, 1)).transpose(1, 0, 2)
        counter.matmul(len(latent), arch.kv_lora_rank, made.shape[1] * made.shape[2])
        counter.read_weights(self._kv_up.nbytes)
        keys = np.empty((len(latent), heads, arch.qk_head_dim), np.float32)
        keys[..., : arch.qk_nope_head_dim] = made[..., : arch.qk_nope_head_dim]
        keys[..., arch.qk_nope_head_dim :] = rope_keys[:, None]
        view, uncounted = _scratch(keys, made[..., arch.qk_nope_head_dim :]), Counter()
        start = step.starts[index]
        mixed = attend(queries, start, [view], Visibility(), self._scale, None, None, uncounted)
        counter.attention(uncounted.attention_flops)
        return mixed

    def _absorbed(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend in the latents' own space with one token of each sequence; ``(tokens, heads, v_head_dim)``.

        Both halves of the expanding matrix are read once for all sequences.
        """
        arch, nope = self._arch, self._arch.qk_nope_head_dim
        absorbed = np.matmul(queries[..., :nope].transpose(1, 0, 2), self._kv_up[:, :nope])
        mixed = np.empty_like(absorbed)
        for index in range(len(queries)):
            span, blocks = step.slots_after(self._layer, index)
            mixed[:, index] = decode_latent(
                np.ascontiguousarray(absorbed[:, index]),
                np.ascontiguousarray(queries[index, :, nope:]),
                step.latents(self._layer),
                blocks,
                span.stop,
                self._scale,
                counter,
            )
        counter.matmul(len(queries), arch.kv_lora_rank, self._kv_up.shape[0] * self._kv_up.shape[1])
        counter.read_weights(self._kv_up.nbytes)
        made: Float = np.matmul(mixed, self._kv_up[:, nope:].transpose(0, 2, 1))
        return made.transpose(1, 0, 2)


def _scratch(keys: Float, values: Float) -> View:
    """Return keys and values as tiles that live as long as one call."""
    count, heads, k_dim = keys.shape
    blocks = -(-count // _EXPANDED_TILE)
    tiles = KVTiles(heads, k_dim, values.shape[2], blocks, _EXPANDED_TILE, kv_format("fp32"))
    slots = np.arange(count)
    tiles.write(slots // _EXPANDED_TILE, slots % _EXPANDED_TILE, keys, values)
    return View(tiles, np.arange(blocks), 0, count)
