"""The functions between the two steps of a feed-forward block, computed in place."""

from __future__ import annotations

from math import pi, sqrt
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.activation import Activation

# -ln(erfc(x)) / x on [0, 4] as a polynomial in x: fitted here by least squares on 4,000 Chebyshev points,
# weighted by erfc(x) x and reweighted towards the largest error (Lawson), so that erf is off by 2.3e-9.
_ERF_COEFFICIENTS = (
    1.1283793449401855,
    0.6366161108016968,
    0.10279920697212219,
    -0.019217142835259438,
    -5.878151205251925e-05,
    0.001576760085299611,
    -0.0005879506934434175,
    0.0001060266513377428,
    -8.043823072512168e-06,
)
# In float32, erf is 1 from here on.
_ERF_END = np.float32(4)


def activate(kind: Activation, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace every element of ``x`` by its activation, and return ``x``."""
    match kind:
        case Activation.SILU:
            return _silu(x)
        case Activation.GELU:
            return _gelu(x)
        case Activation.GELU_TANH:
            return _gelu_tanh(x)
        case Activation.RELU:
            return np.maximum(x, 0, out=x)
        case Activation.RELU_SQUARED:
            np.maximum(x, 0, out=x)
            return np.multiply(x, x, out=x)
        case Activation.QUICK_GELU:
            return np.divide(x, one_plus_exp_minus(x * np.float32(1.702)), out=x)
        case Activation.XIELU:
            raise ValueError("xIELU is bent by numbers of its layer")
        case _:
            assert_never(kind)


def activate_gated(kind: Activation, gate_and_up: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return activation(gate) * up, (rows, width), for both in one array (rows, 2 width), gate first.

    The array's gate half is overwritten.
    """
    width = gate_and_up.shape[1] // 2
    return np.multiply(activate(kind, gate_and_up[:, :width]), gate_and_up[:, width:])


class XIELU:
    """The activation of Apertus, bent by what its layer has learned (arXiv 2411.13010).

    Above zero ``a x^2 + b x`` with ``a = softplus(alpha_p)``; below it ``c (exp(min(x, eps)) - 1 - x) + b x``
    with ``c = b + softplus(alpha_n)``, where b is ``beta``. Each is given as (1,).
    """

    def __init__(
        self,
        alpha_p: NDArray[np.float32],
        alpha_n: NDArray[np.float32],
        beta: NDArray[np.float32],
        eps: NDArray[np.float32],
    ) -> None:
        self._above, self._below = softplus(alpha_p), beta + softplus(alpha_n)
        self._linear, self._least = beta, eps

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return self._above.nbytes + self._below.nbytes + self._linear.nbytes + self._least.nbytes

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return every element of ``x`` by its activation."""
        below = (np.expm1(np.minimum(x, self._least)) - x) * self._below
        bent: NDArray[np.float32] = np.where(x > 0, self._above * x * x, below)
        return bent + self._linear * x


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-x))."""
    out = one_plus_exp_minus(x)
    return np.divide(np.float32(1), out, out=out)


def one_plus_exp_minus(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 + exp(-x): what a sigmoid divides by, infinite where x is below -88.

    NumPy warns of that, unless it is told not to, as a decoder does for a whole step.
    """
    out = np.negative(x)
    np.exp(out, out=out)
    out += np.float32(1)
    return out


def softplus(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ln(1 + exp(x)) without overflow."""
    return np.logaddexp(x, np.float32(0))


def erf(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the error function, off by less than 1e-7: 1 - exp(-|x| P(|x|)) with the sign of x."""
    size = np.minimum(np.abs(x), _ERF_END)
    power = np.full_like(size, _ERF_COEFFICIENTS[-1])
    for coefficient in _ERF_COEFFICIENTS[-2::-1]:
        power *= size
        power += np.float32(coefficient)
    power *= size
    np.negative(power, out=power)
    return np.copysign(np.expm1(power, out=power), x, out=power)


def _silu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x / (1 + exp(-x)), arXiv 1702.03118."""
    return np.divide(x, one_plus_exp_minus(x), out=x)


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x / 2 (1 + erf(x / sqrt(2))), arXiv 1606.08415."""
    factor = erf(x * np.float32(sqrt(0.5)))
    return _halved_product(x, factor)


def _gelu_tanh(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), arXiv 1606.08415."""
    factor = x * x
    factor *= np.float32(0.044715 * sqrt(2 / pi))
    factor += np.float32(sqrt(2 / pi))
    factor *= x
    return _halved_product(x, np.tanh(factor, out=factor))


def _halved_product(x: NDArray[np.float32], factor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace x by x / 2 (1 + factor), and return it."""
    factor += np.float32(1)
    factor *= np.float32(0.5)
    return np.multiply(x, factor, out=x)
