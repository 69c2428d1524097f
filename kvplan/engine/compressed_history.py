"""The compressed entries of one layer: made when a run of tokens is whole, stored, and found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.arch.compressed_attention import COMPRESSOR, INDEX_COMPRESSOR, CompressedAttention
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.compressor import Compressor
from kvplan.engine.counter import Counter
from kvplan.engine.entry_selector import EntrySelector
from kvplan.engine.rotary import Rotary
from kvplan.engine.step import Step
from kvplan.engine.token_indexer import best_seen
from kvplan.engine.visibility import Flags


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries a sequence's new tokens read: vectors ``(m, dim)``, and who sees which, ``(n, m)``."""

    vectors: Float
    seen: Flags


class CompressedHistory:
    """The compressors of a layer, its indexer if it has one, and their places in the cache.

    Args:
        arch: the attention.
        model: the model it is in.
        weights: the layer's tensors by name.
        places: of its slots behind the window's.
        rotary: the rotation of entries and index keys.
    """

    def __init__(
        self,
        arch: CompressedAttention,
        model: Model,
        weights: Mapping[str, Float],
        places: Sequence[int],
        rotary: Rotary,
    ) -> None:
        assert arch.compress_ratio is not None
        self._ratio, self._dim, rotated = arch.compress_ratio, arch.head_dim, arch.qk_rope_head_dim
        names = [COMPRESSOR] if arch.indexer is None else [COMPRESSOR, INDEX_COMPRESSOR]
        self._compressors = [Compressor(name, weights, model.norm_eps, rotary, rotated) for name in names]
        self._topk, self._selector = 0, None
        if arch.indexer is None:
            (self._entries, self._waiting) = places
        else:
            (self._entries, self._keys, self._waiting, self._last) = places
            self._topk = arch.indexer.index_topk
            self._selector = EntrySelector(arch.indexer, weights, rotary, rotated)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        selector = 0 if self._selector is None else self._selector.nbytes
        return sum(compressor.nbytes for compressor in self._compressors) + selector

    def __call__(self, x: Float, compressed: Float, step: Step, counter: Counter) -> list[Entries]:
        """Store the entries that the new tokens end, and return what those of each sequence read.

        Args:
            x: the layer's input ``(tokens, hidden)``.
            compressed: the compressed queries ``(tokens, q_lora_rank)``.
            step: the step.
            counter: gets the products, and the bytes read and written.
        """
        self._extend(x, step, counter)
        if self._selector is None:
            return [self._all(index, step, counter) for index in range(len(step.counts))]
        queries, shares = self._selector.project(x, compressed, step.positions, counter)
        return [
            self._chosen(
                self._selector, queries[step.rows(index)], shares[step.rows(index)], index, step, counter
            )
            for index in range(len(step.counts))
        ]

    def _extend(self, x: Float, step: Step, counter: Counter) -> None:
        projected = np.concatenate([part.project(x, counter) for part in self._compressors], axis=1)
        made = [
            self._made(projected[step.rows(index)], index, step, counter) for index in range(len(step.counts))
        ]
        step.write_entries(self._entries, np.concatenate([vectors[0] for vectors in made]), counter)
        if self._selector is not None:
            step.write_entries(self._keys, np.concatenate([vectors[1] for vectors in made]), counter)

    def _made(self, rows: Float, index: int, step: Step, counter: Counter) -> list[Float]:
        """Return the vectors of the runs that a sequence's new tokens end; what is left of them waits."""
        store, slot = step.waiting(self._waiting), int(step.slots[index])
        run, waited = divmod(step.starts[index], self._ratio)
        whole = (waited + len(rows)) // self._ratio
        if whole:
            rows = np.concatenate([store.read(slot, waited), rows])
            counter.read_cache(waited * store.row_nbytes)
            rows, left, first = rows[: whole * self._ratio], rows[whole * self._ratio :], 0
        else:
            rows, left, first = rows[:0], rows, waited
        store.write(slot, first, left)
        counter.write_cache(len(left) * store.row_nbytes)
        return self._compressed(rows, run, slot, step, counter)

    def _compressed(self, rows: Float, run: int, slot: int, step: Step, counter: Counter) -> list[Float]:
        """Return the vectors ``(runs, dim)`` that each compressor makes of rows of whole runs."""
        last = np.empty((self._ratio, 0), np.float32)
        if self._selector is not None:
            states = step.states(self._last)
            last = states.recurrent[slot].reshape(self._ratio, -1)
            counter.read_cache(states.slot_nbytes)
            counter.write_cache(states.slot_nbytes)
        found, column, state = [], 0, 0
        for part in self._compressors:
            own = rows[:, column : column + part.elements]
            kept = last[:, state : state + 2 * part.dim]
            if len(rows):
                vectors, newest = part.compress(own, run, kept)
                kept[:] = newest
            else:
                vectors = np.empty((0, part.dim), np.float32)
            found.append(vectors)
            column, state = column + part.elements, state + 2 * part.dim
        return found

    def _all(self, index: int, step: Step, counter: Counter) -> Entries:
        """Return all entries of a sequence."""
        seen = self._seen(index, step)
        if not seen.shape[1]:
            return Entries(np.empty((0, self._dim), np.float32), seen)
        (vectors,) = step.read_rows(self._entries, index, counter)
        return Entries(vectors, seen)

    def _chosen(
        self,
        selector: EntrySelector,
        queries: Float,
        shares: Float,
        index: int,
        step: Step,
        counter: Counter,
    ) -> Entries:
        """Return the entries that an indexer chooses: in a decode step these alone, else all in view."""
        seen = self._seen(index, step)
        if not seen.shape[1]:
            return Entries(np.empty((0, self._dim), np.float32), seen)
        (keys,) = step.read_rows(self._keys, index, counter)
        scores = selector.scores(queries, shares, keys, int(seen.sum()), counter)
        chosen = step.settle(self, index, scores, best_seen(scores, seen, self._topk))
        if not step.decode:
            (vectors,) = step.read_rows(self._entries, index, counter)
            return Entries(vectors, chosen)
        numbers, uncounted = np.flatnonzero(chosen[0]), Counter()
        (vectors,) = step.read_rows(self._entries, index, uncounted)
        counter.read_cache(len(numbers) * step.rows_of_tokens(self._entries).slot_nbytes)
        return Entries(vectors[numbers], chosen[:, numbers])

    def _seen(self, index: int, step: Step) -> Flags:
        """Return which entries each new token of a sequence sees: of runs that end with it or before."""
        ends = (step.positions[step.rows(index)] + 1) // self._ratio
        flags: Flags = np.arange(ends[-1]) < ends[:, None]
        return flags
