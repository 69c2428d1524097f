"""Softmax attention as a layer runs it: projections, rotation, the cache, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np

from kvplan.arch.attention import Attention, OutputGate
from kvplan.arch.model import Model
from kvplan.arch.temperature import TemperatureTuning
from kvplan.engine.activations import sigmoid
from kvplan.engine.adapters import Adapters
from kvplan.engine.alibi import alibi_slopes
from kvplan.engine.arrays import Float, Tokens
from kvplan.engine.attention import Settings, attend, decode_reading
from kvplan.engine.block_selector import BlockSelector
from kvplan.engine.chosen_attention import attend_chosen
from kvplan.engine.counter import Counter
from kvplan.engine.kv_codecs import F32
from kvplan.engine.kv_tiles import View
from kvplan.engine.linear import Linear
from kvplan.engine.qk_norms import AnyQkNorm, UnitNorm, make_qk_norm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.visibility import Flags, Visibility


class AttentionMixer:
    """One attention layer with its weights.

    Args:
        arch: what the layer is.
        model: the model it is in.
        weights: the layer's tensors by their names in the description.
        places: where its keys and values are in the cache, and the keys of its indexer if it has one.
        rotaries: the run's rotations.
    """

    def __init__(
        self,
        arch: Attention,
        model: Model,
        weights: Mapping[str, Float],
        places: Sequence[int],
        rotaries: Rotaries,
    ) -> None:
        self._arch, self._place = arch, places[0]
        self._is_read_again = self._place in model.shared_places() and not arch.shares_kv
        names = [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        names = [name for name in names if f"{name}.weight" in weights]
        self._qkv = Linear.joined(
            [weights[f"{name}.weight"] for name in names],
            [weights[f"{name}.bias"] for name in names] if arch.qkv_bias else (),
        )
        # Of a layer that makes its own keys: where they are behind the queries, and before the values.
        cached = arch.num_key_value_heads
        end = self._qkv.outputs - (0 if arch.k_eq_v else cached * arch.value_dim)
        self._keys = slice(end - cached * arch.head_dim, end)
        gated = "self_attn.g_proj.weight" in weights
        self._gate = Linear(weights["self_attn.g_proj.weight"]) if gated else None
        own = "self_attn.q_proj_adapter_a.weight" in weights
        self._adapters = Adapters(weights, names) if own else None
        self._out = Linear(weights["self_attn.o_proj.weight"], weights.get("self_attn.o_proj.bias"))
        self._q_norm = make_qk_norm(arch.qk_norm, model, weights, "self_attn.q_norm")
        self._k_norm = None
        if not arch.shares_kv:
            self._k_norm = make_qk_norm(arch.qk_norm, model, weights, "self_attn.k_norm")
        self._v_norm = UnitNorm(model.norm_eps) if arch.v_norm else None
        self._rotary = rotaries.of(arch.rope_parameters, arch.head_dim)
        gates_queries = arch.output_gate is OutputGate.QUERY
        self._turns_together = self._q_norm is None and self._k_norm is None and not gates_queries
        self._sinks = weights.get("self_attn.sinks")
        scale = arch.attention_multiplier or (arch.query_pre_attn_scalar or arch.head_dim) ** -0.5
        cap, slopes = arch.attn_logit_softcapping, _slopes(arch, scale)
        self._settings = Settings(scale, cap, self._sinks, slopes)
        self._visibility = _visibility(arch)
        self._selector: BlockSelector | None = None
        if arch.indexer is not None:
            self._selector = BlockSelector(arch.indexer, arch, model, weights, places[1], rotaries)

    def viewing(self, arch: Attention) -> AttentionMixer:
        """Return a layer of the same weights, held together with this one, with other tokens in view.

        ``arch`` differs from this layer's in its window and sink tokens only.
        """
        changed = copy(self)
        changed._arch, changed._visibility = arch, _visibility(arch)
        return changed

    def used_again(self, place: int, adapters: Adapters | None) -> AttentionMixer:
        """Return this attention with the same weights, and a place in the cache and adapters of its own."""
        found = copy(self)
        found._place, found._adapters = place, adapters
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        norms = (self._q_norm, self._k_norm)
        parts = (self._qkv, self._adapters, self._gate, self._out, *norms, self._sinks, self._selector)
        return sum(part.nbytes for part in parts if part is not None)

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what attention adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        queries, made, gate = self._project(x, step, counter)
        if self._sinks is not None:
            counter.read_weights(self._sinks.nbytes)
        if step.decode or self._visibility == Visibility():
            if made is not None:
                step.write(self._place, *made, counter)
            if self._selector is not None:
                mixed = self._attend_chosen(queries, self._selector(x, step, counter), step, counter)
            else:
                attend_over = self._decode if step.decode else self._attend_stored
                mixed = attend_over(queries, step, counter)
        else:
            mixed = self._attend_passing(queries, *(made or step.held(self._place)), step, counter)
            if made is not None:
                self._store_passing(*made, step, counter)
        if gate is not None:
            mixed *= gate
        return self._out(mixed.reshape(len(x), -1), counter)

    def _decode(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend with one query a sequence over what is in view, the new tokens included."""
        tiles = step.keys_and_values(self._place)
        group = self._arch.num_attention_heads // self._arch.num_key_value_heads
        aged, window = self._settings.slopes is not None, self._arch.visible_window
        reading = step.reading(self._place, group, aged=aged, window=window)
        return decode_reading(queries, tiles, reading, self._settings, counter)

    def _attend_stored(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend over a cache that keeps everything: the new tokens are in it already."""
        mixed = self._no_values(queries)
        for index, start in enumerate(step.starts):
            rows = step.rows(index)
            views = step.after(self._place, index)
            mixed[rows] = self._attend(queries[rows], start, views, counter)
        return mixed

    def _attend_chosen(self, queries: Float, chosen: Sequence[Flags], step: Step, counter: Counter) -> Float:
        """Attend over the tokens ``(kv_heads, n, in view)`` that an indexer has chosen for each sequence.

        A prompt still reads all that is in view, once a step; decode reads what is chosen for each KV head.
        """
        mixed, nbytes = self._no_values(queries), step.keys_and_values(self._place).slot_nbytes
        for index, flags in enumerate(chosen):
            rows, kv_heads = step.rows(index), len(flags)
            read = int(flags.sum()) // kv_heads if step.decode else flags.shape[2]
            counter.read_cache(read * nbytes)
            positions = np.flatnonzero(flags.any(axis=(0, 1)))
            keys, values = step.tokens_at(self._place, index, positions)
            seen = flags[:, :, positions]
            mixed[rows] = attend_chosen(queries[rows], keys, values, seen, self._settings.scale, counter)
        return mixed

    def _attend_passing(
        self, queries: Float, keys: Float, values: Float, step: Step, counter: Counter
    ) -> Float:
        """Attend over what a window had in view, and the new tokens beside it.

        The first new tokens still see what the last ones overwrite. The new ones are read as they are
        stored, so that a prompt read in pieces gives what it gives when read at once.
        """
        mixed = self._no_values(queries)
        for index, start in enumerate(step.starts):
            rows = step.rows(index)
            fresh = self._fresh(keys[rows], values[rows], start, step)
            uncounted = Counter()
            views = [*step.before(self._place, index), fresh]
            mixed[rows] = self._attend(queries[rows], start, views, uncounted)
            counter.attention(uncounted.attention_flops)
            seen = step.seen_before(self._place, index, self._visibility) + step.counts[index]
            counter.read_cache(seen * fresh.tiles.slot_nbytes)
        return mixed

    def _store_passing(self, keys: Float, values: Float, step: Step, counter: Counter) -> None:
        """Store new tokens of a window, later where a layer behind still reads what they overwrite."""
        if self._is_read_again:
            step.hold(self._place, keys, values)
        else:
            step.write(self._place, keys, values, counter)

    def _no_values(self, queries: Float) -> Float:
        """Return room for what the heads of these queries give, ``(tokens, heads, value_dim)``."""
        return np.empty((*queries.shape[:2], self._arch.value_dim), np.float32)

    def _attend(self, queries: Float, start: int, views: list[View], counter: Counter) -> Float:
        return attend(queries, start, views, self._visibility, self._settings, counter)

    def _fresh(self, keys: Float, values: Float, start: int, step: Step) -> View:
        """Return the new tokens stored as the layer stores them, in tiles of their own."""
        tiles = step.fresh_tiles(self._place, len(keys))
        slots = np.arange(len(keys))
        blocks = slots // tiles.block_tokens
        tiles.write(blocks, slots % tiles.block_tokens, keys, values)
        return View(tiles, np.arange(int(blocks[-1]) + 1), 0, len(keys), start)

    def _project(
        self, x: Float, step: Step, counter: Counter
    ) -> tuple[Float, tuple[Float, Float] | None, Float | None]:
        """Return queries, keys and values, ``(tokens, heads, dim)`` each, and the gate of what heads give.

        A layer that shares another's keys and values makes none.
        """
        arch, cached = self._arch, self._arch.num_key_value_heads
        joined = self._qkv(x, counter)
        if self._adapters is not None:
            joined += self._adapters(x, counter)
        if arch.shares_kv:
            queries, gate = self._queries_and_gate(joined, x, counter)
            return self._tempered(self._turned(queries, self._q_norm, step, counter), step), None, gate
        first, end = self._keys.start, self._keys.stop
        queries, gate = self._queries_and_gate(joined[:, :first], x, counter)
        keys = joined[:, first:end].reshape(len(x), cached, -1)
        values = keys if arch.k_eq_v else joined[:, end:].reshape(len(x), cached, -1)
        values = self._clipped(values)
        if arch.attention_value_scale is not None:
            values = values * np.float32(arch.attention_value_scale)
        if self._v_norm is not None:
            values = self._v_norm(values, counter)
        if self._turns_together:
            # Once for all heads: in decode a call takes longer to find its way than to turn a row.
            turned = self._turned(joined[:, :end].reshape(len(x), -1, arch.head_dim), None, step, counter)
            queries, keys = turned[:, :-cached], turned[:, -cached:]
        else:
            queries = self._turned(queries, self._q_norm, step, counter)
            keys = self._turned(keys, self._k_norm, step, counter)
        return self._tempered(queries, step), (keys, values), gate

    def _tempered(self, queries: Float, step: Step) -> Float:
        if self._arch.temperature is not None:
            queries = queries * _growth(self._arch.temperature, step.positions)[:, None, None]
        return queries

    def _queries_and_gate(self, projected: Float, x: Float, counter: Counter) -> tuple[Float, Float | None]:
        """Return queries ``(tokens, heads, head_dim)``, and a gate ``(tokens, heads, value_dim or 1)``."""
        heads, rows = self._arch.num_attention_heads, len(x)
        if self._arch.output_gate is OutputGate.QUERY:
            halves = projected.reshape(rows, heads, 2, -1)
            return np.ascontiguousarray(halves[:, :, 0]), sigmoid(np.ascontiguousarray(halves[:, :, 1]))
        queries = projected.reshape(rows, heads, -1)
        if self._gate is None:
            return queries, None
        return queries, sigmoid(self._gate(x, counter)).reshape(rows, heads, -1)

    def _turned(self, heads: Float, norm: AnyQkNorm | None, step: Step, counter: Counter) -> Float:
        """Return queries or keys normalised and rotated, where they are, in the layer's order."""
        if norm is not None and not self._arch.qk_norm_after_rope:
            heads = norm(heads, counter)
        heads = self._clipped(heads)
        if self._rotary is not None:
            heads = self._rotary.rotate(heads, step.positions)
        if norm is not None and self._arch.qk_norm_after_rope:
            heads = norm(heads, counter)
        return heads

    def _clipped(self, heads: Float) -> Float:
        """Return queries, keys or values clipped, where the layer does it: behind their norm (OLMoE)."""
        limit = self._arch.clip_qkv
        return heads if limit is None else np.clip(heads, -limit, limit)


def _visibility(arch: Attention) -> Visibility:
    """Return which tokens a query sees."""
    window = arch.sliding_window or arch.visible_window
    return Visibility(window, arch.sink_tokens, arch.attention_chunk_size)


def _slopes(arch: Attention, scale: float) -> F32 | None:
    if not arch.alibi:
        return None
    slopes = alibi_slopes(arch.num_attention_heads)
    return slopes * np.float32(scale) if arch.alibi_scaled else slopes


def _growth(tuning: TemperatureTuning, positions: Tokens) -> Float:
    """Return what the queries at these positions are multiplied by, ``(tokens,)``."""
    steps = np.floor((positions + tuning.first_place) / tuning.floor_scale)
    return (1 + tuning.attn_scale * np.log1p(steps)).astype(np.float32)
