"""Softmax attention as a layer runs it: projections, rotation, the cache, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.attention import Attention
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.engine.activations import sigmoid
from kvplan.engine.arrays import Float
from kvplan.engine.attention import attend, decode_reading
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import View
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.visibility import Visibility


class AttentionMixer:
    """One attention layer with its weights.

    Args:
        arch: what the layer is.
        model: the model it is in.
        weights: the layer's tensors by their names in the description.
        layer: its index, which is its place in the cache.
        rotaries: the run's rotations.
    """

    def __init__(
        self, arch: Attention, model: Model, weights: Mapping[str, Float], layer: int, rotaries: Rotaries
    ) -> None:
        self._arch, self._layer = arch, layer
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self._qkv = Linear.joined(
            [weights[f"{name}.weight"] for name in names],
            [weights[f"{name}.bias"] for name in names] if arch.qkv_bias else (),
        )
        self._out = Linear(weights["self_attn.o_proj.weight"], weights.get("self_attn.o_proj.bias"))
        self._q_norm = self._k_norm = None
        if arch.qk_norm:
            offset = model.norm is Norm.RMS_UNIT_OFFSET
            self._q_norm = RMSNorm(weights["self_attn.q_norm.weight"], model.norm_eps, unit_offset=offset)
            self._k_norm = RMSNorm(weights["self_attn.k_norm.weight"], model.norm_eps, unit_offset=offset)
        self._rotary = rotaries.of(arch.rope_parameters, arch.head_dim)
        self._sinks = weights.get("self_attn.sinks")
        self._scale = (arch.query_pre_attn_scalar or arch.head_dim) ** -0.5
        self._visibility = Visibility(arch.sliding_window, arch.sink_tokens, arch.attention_chunk_size)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        norms = (norm.nbytes for norm in (self._q_norm, self._k_norm) if norm is not None)
        sinks = 0 if self._sinks is None else self._sinks.nbytes
        return self._qkv.nbytes + self._out.nbytes + sum(norms) + sinks

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what attention adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        queries, keys, values, gate = self._project(x, step, counter)
        if self._sinks is not None:
            counter.read_weights(self._sinks.nbytes)
        if step.decode:
            step.write(self._layer, keys, values, counter)
            reading = step.reading(self._layer, self._arch.num_attention_heads // keys.shape[1])
            tiles, cap = step.keys_and_values(self._layer), self._arch.attn_logit_softcapping
            mixed = decode_reading(queries, tiles, reading, self._scale, cap, self._sinks, counter)
        elif self._visibility == Visibility():
            step.write(self._layer, keys, values, counter)
            mixed = self._attend_stored(queries, step, counter)
        else:
            mixed = self._attend_passing(queries, keys, values, step, counter)
            step.write(self._layer, keys, values, counter)
        mixed = mixed.reshape(len(x), -1)
        if gate is not None:
            mixed *= gate
        return self._out(mixed, counter)

    def _attend_stored(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend over a cache that keeps everything: the new tokens are in it already."""
        mixed = np.empty((len(queries), self._arch.num_attention_heads, self._arch.head_dim), np.float32)
        for index, start in enumerate(step.starts):
            rows = step.rows(index)
            views = step.after(self._layer, index)
            mixed[rows] = self._attend(queries[rows], start, views, counter)
        return mixed

    def _attend_passing(
        self, queries: Float, keys: Float, values: Float, step: Step, counter: Counter
    ) -> Float:
        """Attend over what a window had in view, and the new tokens beside it.

        The first new tokens still see what the last ones overwrite. The new ones are read as they are
        stored, so that a prompt read in pieces gives what it gives when read at once.
        """
        mixed = np.empty((len(queries), self._arch.num_attention_heads, self._arch.head_dim), np.float32)
        for index, start in enumerate(step.starts):
            rows = step.rows(index)
            fresh = self._fresh(keys[rows], values[rows], start, step)
            uncounted = Counter()
            views = [*step.before(self._layer, index), fresh]
            mixed[rows] = self._attend(queries[rows], start, views, uncounted)
            counter.attention(uncounted.attention_flops)
            seen = step.seen_before(self._layer, index, self._visibility) + step.counts[index]
            counter.read_cache(seen * fresh.tiles.slot_nbytes)
        return mixed

    def _attend(self, queries: Float, start: int, views: list[View], counter: Counter) -> Float:
        softcap = self._arch.attn_logit_softcapping
        return attend(queries, start, views, self._visibility, self._scale, softcap, self._sinks, counter)

    def _fresh(self, keys: Float, values: Float, start: int, step: Step) -> View:
        """Return the new tokens stored as the layer stores them, in tiles of their own."""
        tiles = step.fresh_tiles(self._layer, len(keys))
        slots = np.arange(len(keys))
        blocks = slots // tiles.block_tokens
        tiles.write(blocks, slots % tiles.block_tokens, keys, values)
        return View(tiles, np.arange(int(blocks[-1]) + 1), 0, len(keys), start)

    def _project(self, x: Float, step: Step, counter: Counter) -> tuple[Float, Float, Float, Float | None]:
        """Return queries, keys and values, ``(tokens, heads, head_dim)`` each, and the output's gate."""
        arch, rows = self._arch, len(x)
        width, cached = arch.num_attention_heads * arch.head_dim, arch.num_key_value_heads * arch.head_dim
        joined, gate = self._qkv(x, counter), None
        first = joined.shape[1] - 2 * cached
        if arch.output_gate:
            halves = joined[:, :first].reshape(rows, arch.num_attention_heads, 2, arch.head_dim)
            queries = np.ascontiguousarray(halves[:, :, 0])
            gate = sigmoid(halves[:, :, 1].reshape(rows, width))
        else:
            queries = joined[:, :first].reshape(rows, arch.num_attention_heads, arch.head_dim)
        keys = joined[:, first : first + cached].reshape(rows, arch.num_key_value_heads, arch.head_dim)
        values = joined[:, first + cached :].reshape(rows, arch.num_key_value_heads, arch.head_dim)
        if self._q_norm is not None and self._k_norm is not None:
            queries, keys = self._q_norm(queries, counter), self._k_norm(keys, counter)
        if self._rotary is not None:
            queries = self._rotary.rotate(queries, step.positions)
            keys = self._rotary.rotate(keys, step.positions)
        return queries, keys, values, gate
