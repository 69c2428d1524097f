"""Hyper-connections at run time: residual streams ``(streams, tokens, hidden)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kvplan.arch.hyper_connections import HEAD_CONNECTION, HyperConnections
from kvplan.engine.activations import sigmoid
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import scale_to_unit


class Connection:
    """What makes the weights of one way through the streams.

    Args:
        name: what its tensors' names begin with.
        arch: the description.
        weights: the tensors by name.
        norm_eps: what the streams' norm adds under the root.
    """

    def __init__(
        self, name: str, arch: HyperConnections, weights: Mapping[str, Float], norm_eps: float
    ) -> None:
        self.arch = arch
        self._product = Linear(weights[f"{name}.fn.weight"])
        self._base, self._scale = weights[f"{name}.base"], weights[f"{name}.scale"]
        self._norm_eps = np.float32(norm_eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._product.nbytes + self._base.nbytes + self._scale.nbytes

    def made(self, streams: Float, counter: Counter) -> list[Float]:
        """Return the weights of the sum, and where there are any of the output and of the mixing matrix.

        They are ``(tokens, streams)``, the same, and ``(tokens, streams x streams)``, not bounded yet.
        """
        count, tokens, hidden = streams.shape
        flat = np.ascontiguousarray(streams.transpose(1, 0, 2)).reshape(tokens, count * hidden)
        found = self._product(scale_to_unit(flat, self._norm_eps), counter)
        counter.read_weights(self._base.nbytes + self._scale.nbytes)
        ends = [count, 2 * count][: len(self._scale) - 1]
        pieces = zip(np.split(found, ends, axis=1), np.split(self._base, ends), self._scale, strict=True)
        return [piece * scale + base for piece, base, scale in pieces]

    def summed(self, streams: Float, shares: Float) -> Float:
        """Return the streams' sum ``(tokens, hidden)`` by weights ``(tokens, streams)`` not bounded yet."""
        bounded = sigmoid(shares) + np.float32(self.arch.hc_eps)
        total: Float = np.einsum("ts,sth->th", bounded, streams)
        return total


class HyperUpdate:
    """The way of a layer's mixer, or of its MLP, through the streams; see :class:`Connection`."""

    def __init__(
        self, name: str, arch: HyperConnections, weights: Mapping[str, Float], norm_eps: float
    ) -> None:
        self._connection = Connection(name, arch, weights, norm_eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._connection.nbytes

    def __call__(self, streams: Float, part: Callable[[Float], Float], counter: Counter) -> Float:
        """Return the streams ``(streams, tokens, hidden)`` behind a part, which maps ``(tokens, hidden)``."""
        shares, feeding, mixing = self._connection.made(streams, counter)
        added = part(self._connection.summed(streams, shares))
        fed = np.float32(2) * sigmoid(feeding)
        mixed = np.einsum("tij,ith->jth", self._mixing(mixing), streams)
        out: Float = mixed + fed.T[:, :, None] * added
        return out

    def _mixing(self, raw: Float) -> Float:
        """Return a matrix for each token ``(tokens, streams, streams)`` whose rows and columns sum to one."""
        arch = self._connection.arch
        eps = np.float32(arch.hc_eps)
        matrix = raw.reshape(-1, arch.hc_mult, arch.hc_mult)
        matrix = np.exp(matrix - matrix.max(axis=2, keepdims=True))
        matrix = matrix / matrix.sum(axis=2, keepdims=True) + eps
        matrix = matrix / (matrix.sum(axis=1, keepdims=True) + eps)
        for _ in range(arch.hc_sinkhorn_iters - 1):
            matrix = matrix / (matrix.sum(axis=2, keepdims=True) + eps)
            matrix = matrix / (matrix.sum(axis=1, keepdims=True) + eps)
        found: Float = matrix
        return found


class HyperStreams:
    """How a model makes its streams of embeddings, and one residual stream of them in the end.

    Args:
        arch: the description.
        weights: the tensors outside the layers, by name.
        norm_eps: what the streams' norm adds under the root.
    """

    def __init__(self, arch: HyperConnections, weights: Mapping[str, Float], norm_eps: float) -> None:
        self._count = arch.hc_mult
        self._connection = Connection(HEAD_CONNECTION, arch, weights, norm_eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._connection.nbytes

    def spread(self, x: Float, counter: Counter) -> Float:
        """Return streams (streams, tokens, hidden), each the embeddings (tokens, hidden) themselves."""
        return np.repeat(x[None], self._count, axis=0)

    def joined(self, streams: Float, counter: Counter) -> Float:
        """Return one residual stream (tokens, hidden): a sum by weights of each token's own."""
        (shares,) = self._connection.made(streams, counter)
        return self._connection.summed(streams, shares)
