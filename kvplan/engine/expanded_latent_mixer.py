"""Latent attention over an expanded cache: every head's key and value are stored, and read as they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.latent_attention import LatentAttention
from kvplan.engine.arrays import Float
from kvplan.engine.attention import Settings, attend, decode_reading
from kvplan.engine.counter import Counter
from kvplan.engine.latent_projections import LatentProjections
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.visibility import Visibility


class ExpandedLatentMixer:
    """One latent-attention layer with its weights, run as multi-head attention.

    Args:
        arch: what the layer is.
        weights: the layer's tensors by their names in the description.
        place: where its keys and values are in the cache.
        rotaries: the run's rotations.
    """

    def __init__(
        self, arch: LatentAttention, weights: Mapping[str, Float], place: int, rotaries: Rotaries
    ) -> None:
        self._arch, self._place = arch, place
        self._parts = LatentProjections(arch, weights, rotaries)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._parts.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what attention adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        queries = self._parts.queries(self._parts.compressed(x, counter), step, counter)
        keys, values = self._parts.expand(*self._parts.latents(x, step, counter), counter)
        step.write(self._place, keys, np.ascontiguousarray(values), counter)
        mixed = self._decoded(queries, step, counter) if step.decode else self._read(queries, step, counter)
        return self._parts.out(mixed.reshape(len(x), -1), counter)

    def _decoded(self, queries: Float, step: Step, counter: Counter) -> Float:
        tiles, reading = step.keys_and_values(self._place), step.reading(self._place, 1)
        return decode_reading(queries, tiles, reading, Settings(self._parts.scale), counter)

    def _read(self, queries: Float, step: Step, counter: Counter) -> Float:
        """Attend with every sequence's new tokens to its own; ``(tokens, heads, v_head_dim)``."""
        mixed = np.empty((*queries.shape[:2], self._arch.v_head_dim), np.float32)
        for index, start in enumerate(step.starts):
            rows, views = step.rows(index), step.after(self._place, index)
            settings = Settings(self._parts.scale)
            mixed[rows] = attend(queries[rows], start, views, Visibility(), settings, counter)
        return mixed
