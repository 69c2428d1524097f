"""Alternating updates at run time: residual streams ``(streams, tokens, hidden)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kvplan.arch.altup import INTO_STREAM, OUT_OF_STREAM, AltUp
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import make_norm, sum_of_squares

# What a stream's mean square is kept from being below (transformers, modeling_gemma3n.py).
_SMALLEST = np.float32(1e-5)


class Streams:
    """How a model makes its streams of embeddings, and one residual stream of them in the end.

    Args:
        arch: the description.
        weights: the tensors outside the layers, by name.
    """

    def __init__(self, arch: AltUp, weights: Mapping[str, Float]) -> None:
        others = range(arch.altup_num_inputs - 1)
        self._into = [Linear(weights[f"{INTO_STREAM}.{index}.weight"]) for index in others]
        self._out_of = [Linear(weights[f"{OUT_OF_STREAM}.{index}.weight"]) for index in others]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(linear.nbytes for linear in (*self._into, *self._out_of))

    def spread(self, x: Float, counter: Counter) -> Float:
        """Return streams (streams, tokens, hidden) of embeddings (tokens, hidden)."""
        return np.stack([x, *(_as_large(linear(x, counter), x) for linear in self._into)])

    def joined(self, streams: Float, counter: Counter) -> Float:
        """Return one residual stream (tokens, hidden): the mean of all, as large as the first."""
        first, others = streams[0], zip(self._out_of, streams[1:], strict=True)
        back = [_as_large(linear(np.ascontiguousarray(stream), counter), first) for linear, stream in others]
        mean: Float = np.mean([first, *back], axis=0, dtype=np.float32)
        return mean


class AltUpUpdate:
    """What one layer does around its mixer and its MLP.

    Args:
        arch: the description.
        model: the model it is in.
        weights: the layer's tensors by name.
    """

    def __init__(self, arch: AltUp, model: Model, weights: Mapping[str, Float]) -> None:
        self._count, self._active = arch.altup_num_inputs, arch.altup_active_idx
        self._router = Linear(weights["altup.modality_router.weight"])
        self._router_norm = make_norm(model.norm, weights, "altup.router_norm", model.norm_eps)
        self._predicting = Linear(weights["altup.prediction_coefs.weight"])
        self._correcting = Linear(weights["altup.correction_coefs.weight"])
        self._scale = weights["altup.correct_output_scale"]
        self._is_scaled = arch.altup_correct_scale
        self._left = Linear(weights["laurel.linear_left.weight"])
        self._right = Linear(weights["laurel.linear_right.weight"])
        self._laurel_norm = make_norm(model.norm, weights, "laurel.post_laurel_norm", model.norm_eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        products = (self._router, self._predicting, self._correcting, self._left, self._right)
        norms = (self._router_norm, self._laurel_norm, self._scale)
        return sum(part.nbytes for part in (*products, *norms))

    def __call__(
        self,
        streams: Float,
        layer: Callable[[Float, Callable[[Float], Float]], Float],
        given: Callable[[Float], Float],
        counter: Counter,
    ) -> Float:
        """Return the streams (streams, tokens, hidden) behind a layer.

        Args:
            streams: before it.
            layer: what runs on the active stream (tokens, hidden); it is given LAuReL's product to add to
                what attention gave.
            given: what the layer adds of its own input for the active stream.
            counter: counts the products.
        """
        predictions = self._predicted(streams, counter)
        computed = layer(predictions[self._active], lambda normed: self._laurel(normed, counter))
        corrected = self._corrected(predictions, computed, counter)
        first = corrected[self._active]
        if self._is_scaled:
            counter.read_weights(self._scale.nbytes)
            first = first * self._scale
        corrected[1:] += given(first)
        return corrected

    def _routed(self, x: Float, counter: Counter) -> Float:
        normed = self._router_norm(x, counter) * np.float32(1 / x.shape[1])
        routed: Float = np.tanh(self._router(normed, counter))
        return routed

    def _predicted(self, streams: Float, counter: Counter) -> Float:
        """Return every stream predicted from all of them, by a map of its own for each token."""
        routed = self._routed(streams[self._active], counter)
        maps = self._predicting(routed, counter).reshape(-1, self._count, self._count)
        by_token = np.matmul(maps, streams.transpose(1, 0, 2))
        return np.ascontiguousarray(by_token.transpose(1, 0, 2)) + streams

    def _corrected(self, predictions: Float, computed: Float, counter: Counter) -> Float:
        shares = self._correcting(self._routed(computed, counter), counter) + np.float32(1)
        innovation = computed - predictions[self._active]
        corrected: Float = predictions + shares.T[:, :, np.newaxis] * innovation
        return corrected

    def _laurel(self, normed: Float, counter: Counter) -> Float:
        return normed + self._laurel_norm(self._right(self._left(normed, counter), counter), counter)


def _as_large(x: Float, like: Float) -> Float:
    """Return x (tokens, hidden) with the root mean square of another."""
    width = np.float32(1 / x.shape[1])
    size = np.sqrt(np.maximum(sum_of_squares(x) * width, _SMALLEST))
    scaled: Float = x * (np.sqrt(sum_of_squares(like) * width) / size)
    return scaled
