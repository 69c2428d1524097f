"""Compressed attention as a layer runs it: a window of tokens, and entries that stand for all before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.compressed_history import CompressedHistory, Entries
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm
from kvplan.engine.qk_norms import UnitNorm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.shared_key_attention import attend_shared
from kvplan.engine.step import Step
from kvplan.engine.visibility import Positions, Visibility


class CompressedMixer:
    """One layer of compressed attention with its weights.

    Args:
        arch: what the layer is.
        model: the model it is in.
        weights: the layer's tensors by their names in the description.
        places: where its window, its entries and what makes them are in the cache.
        rotaries: the run's rotations.
    """

    def __init__(
        self,
        arch: CompressedAttention,
        model: Model,
        weights: Mapping[str, Float],
        places: Sequence[int],
        rotaries: Rotaries,
    ) -> None:
        self._arch, self._window, eps = arch, places[0], model.norm_eps
        self._q_down = Linear(weights["self_attn.q_a_proj.weight"])
        self._q_norm = RMSNorm(weights["self_attn.q_a_norm.weight"], eps)
        self._q = Linear(weights["self_attn.q_b_proj.weight"])
        self._head_norm = UnitNorm(eps)
        self._key = Linear(weights["self_attn.kv_proj.weight"])
        self._key_norm = RMSNorm(weights["self_attn.kv_norm.weight"], eps)
        self._sinks = weights["self_attn.sinks"]
        grouped = weights["self_attn.o_a_proj.weight"]
        self._groups = grouped.reshape(arch.o_groups, arch.o_lora_rank, -1)
        self._out = Linear(weights["self_attn.o_b_proj.weight"])
        rotary = rotaries.of(arch.rope_parameters, arch.qk_rope_head_dim)
        assert rotary is not None
        self._rotary, self._scale = rotary, arch.head_dim**-0.5
        self._visibility = Visibility(arch.sliding_window)
        self._history: CompressedHistory | None = None
        if arch.compress_ratio is not None:
            self._history = CompressedHistory(arch, model, weights, places[1:], rotary)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        parts = (self._q_down, self._q_norm, self._q, self._key, self._key_norm, self._sinks, self._groups)
        history = 0 if self._history is None else self._history.nbytes
        return sum(part.nbytes for part in parts) + self._out.nbytes + history

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what attention adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        compressed = self._q_norm(self._q_down(x, counter), counter)
        queries = self._q(compressed, counter).reshape(len(x), self._arch.num_attention_heads, -1)
        queries = self._turned(self._head_norm(queries, counter), step.positions)
        keys = self._key_norm(self._key(x, counter), counter)[:, None]
        keys = self._turned(keys, step.positions)[:, 0]
        history = None if self._history is None else self._history(x, compressed, step, counter)
        counter.read_weights(self._sinks.nbytes)
        if step.decode:
            step.write_rows(self._window, (keys, keys), counter)
        mixed = np.empty_like(queries)
        for index in range(len(step.counts)):
            rows = step.rows(index)
            read = None if history is None else history[index]
            mixed[rows] = self._attend(queries[rows], keys[rows], read, index, step, counter)
        if not step.decode:
            step.write_rows(self._window, (keys, keys), counter)
        return self._projected(self._turned(mixed, step.positions, back=True), counter)

    def _attend(
        self, queries: Float, keys: Float, read: Entries | None, index: int, step: Step, counter: Counter
    ) -> Float:
        """Return what a sequence's queries make of what they see, ``(n, heads, head_dim)``."""
        positions, vectors = self._in_window(keys, index, step, counter)
        asking = step.positions[step.rows(index)]
        seen = self._visibility.sees(asking[:, None], positions)
        if read is not None:
            vectors, seen = np.concatenate([vectors, read.vectors]), np.concatenate([seen, read.seen], axis=1)
        return attend_shared(queries, vectors, seen, self._scale, self._sinks, counter)

    def _in_window(self, keys: Float, index: int, step: Step, counter: Counter) -> tuple[Positions, Float]:
        """Return the tokens ``(m,)`` and vectors ``(m, dim)`` that the window shows some new token.

        The first new tokens still see what the last ones overwrite: these are read as they will be stored,
        beside what was in view before. A decode step has stored its token already.
        """
        slot_nbytes = step.rows_of_tokens(self._window).slot_nbytes
        if step.decode:
            positions, vectors = step.window_rows(self._window, index, after=True)
            counter.read_cache(len(positions) * slot_nbytes)
            return positions, vectors
        start, new = step.starts[index], step.positions[step.rows(index)]
        before, vectors = step.window_rows(self._window, index, after=False)
        in_view = before > start - self._arch.sliding_window
        before, vectors = before[in_view], vectors[in_view]
        counter.read_cache((len(before) + len(new)) * slot_nbytes)
        return np.concatenate([before, new]), np.concatenate([vectors, step.as_stored(keys)])

    def _turned(self, heads: Float, positions: Positions, *, back: bool = False) -> Float:
        """Return heads ``(tokens, heads, head_dim)`` with their last elements rotated, or turned back."""
        tail = np.ascontiguousarray(heads[..., -self._arch.qk_rope_head_dim :])
        turn = self._rotary.rotate_back if back else self._rotary.rotate
        heads[..., -self._arch.qk_rope_head_dim :] = turn(tail, positions)
        return heads

    def _projected(self, mixed: Float, counter: Counter) -> Float:
        """Return heads' results ``(tokens, heads, head_dim)`` brought to ``(tokens, hidden)`` by groups."""
        groups, rank, width = self._groups.shape
        by_group = mixed.reshape(len(mixed), groups, width).transpose(1, 0, 2)
        narrow = np.matmul(by_group, self._groups.transpose(0, 2, 1)).transpose(1, 0, 2)
        counter.matmul(len(mixed), width, groups * rank, self._groups.nbytes)
        return self._out(np.ascontiguousarray(narrow).reshape(len(mixed), -1), counter)
