"""Rotary position embeddings: the frequencies of every stretching rule, and the rotation itself."""

from __future__ import annotations

from math import ceil, floor, log, pi
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.rotary import RopeParameters, RopeType

# yarn's blend where a model gives none (arXiv 2309.00071, section 3.2).
_BETA_FAST, _BETA_SLOW = 32.0, 1.0


class Rotary:
    """Turns queries and keys by their position (arXiv 2104.09864).

    One set of frequencies serves the whole run, so that cached keys stay right: the types that stretch with
    the length of a request (dynamic, longrope) are stretched for the longest request of the run.

    Args:
        parameters: the rotation and how it is stretched.
        head_dim: elements of a head.
        max_position_embeddings: the longest context the model was made for, in tokens.
        max_tokens: the longest request of the run, in tokens.
    """

    def __init__(
        self, parameters: RopeParameters, head_dim: int, max_position_embeddings: int, max_tokens: int
    ) -> None:
        self._rotated = parameters.rotated(head_dim)
        self._interleaved = parameters.interleaved
        speeds = frequencies(parameters, self._rotated, max_position_embeddings, max_tokens)
        angles = np.arange(max_tokens)[:, np.newaxis] * speeds
        factor = attention_factor(parameters)
        cosines, sines = factor * np.cos(angles), factor * np.sin(angles)
        if self._interleaved:
            self._turns = (cosines + 1j * sines).astype(np.complex64)
        else:
            self._cosines = np.stack((cosines, cosines), axis=1).astype(np.float32)
            self._sines = np.stack((-sines, sines), axis=1).astype(np.float32)
        self._looked_up: NDArray[np.int64] | None = None

    def rotate(self, x: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return x (n, heads, head_dim), token i turned to positions[i]; a tail that is not rotated stays."""
        return self._turned(x, positions, back=False)

    def rotate_back(self, x: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return x (n, heads, head_dim), token i turned the other way by positions[i]."""
        return self._turned(x, positions, back=True)

    def _turned(
        self, x: NDArray[np.float32], positions: NDArray[np.int64], *, back: bool
    ) -> NDArray[np.float32]:
        rotated = self._rotated
        turn = self._turn_neighbours if self._interleaved else self._turn_halves
        if rotated == x.shape[2]:
            return turn(x, positions, back=back)
        return np.concatenate((turn(x[..., :rotated], positions, back=back), x[..., rotated:]), axis=2)

    def _turn_neighbours(
        self, x: NDArray[np.float32], positions: NDArray[np.int64], *, back: bool
    ) -> NDArray[np.float32]:
        """Return x (n, heads, rotated) turned: elements 2i and 2i + 1 are a complex number."""
        turns = self._turns.take(positions, axis=0)[:, np.newaxis]
        if back:
            turns = turns.conj()
        return np.multiply(x.view(np.complex64), turns).view(np.float32)

    def _turn_halves(
        self, x: NDArray[np.float32], positions: NDArray[np.int64], *, back: bool
    ) -> NDArray[np.float32]:
        """Return x (n, heads, rotated) turned: elements i and i + rotated / 2 belong together."""
        halves = x.reshape(len(x), -1, 2, x.shape[2] // 2)
        cosines, sines = self._halves_at(positions)
        out = halves * cosines
        # Each half goes with the other one: both in the other order are a view.
        partners = halves[:, :, ::-1] * sines
        if back:
            out -= partners
        else:
            out += partners
        return out.reshape(x.shape)

    def _halves_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and signed sines (n, 1, 2, rotated / 2) of positions.

        The layers of a step ask with the same array, one after another: it is looked up for the first.
        """
        if positions is not self._looked_up:
            tables = self._cosines, self._sines
            cosines, sines = (table.take(positions, axis=0)[:, np.newaxis] for table in tables)
            self._looked_up, self._at_positions = positions, (cosines, sines)
        return self._at_positions


def frequencies(
    parameters: RopeParameters, rotated: int, max_position_embeddings: int, max_tokens: int
) -> NDArray[np.float64]:
    """Return the radians per position of each pair of elements, (rotated / 2,).

    As Hugging Face transformers computes them (modeling_rope_utils.py), but in float64.
    """
    plain = _plain_frequencies(parameters.rope_theta, rotated)
    match parameters.rope_type:
        case RopeType.DEFAULT:
            return plain
        case RopeType.LINEAR:
            return plain / _given(parameters.factor)
        case RopeType.DYNAMIC:
            theta = _dynamic_theta(parameters, rotated, max_position_embeddings, max_tokens)
            return _plain_frequencies(theta, rotated)
        case RopeType.LLAMA3:
            return _blended_by_wavelength(parameters, plain)
        case RopeType.YARN:
            return _blended_by_rotations(parameters, plain)
        case RopeType.LONGROPE:
            return plain / _longrope_divisors(parameters, max_tokens)
        case RopeType.PROPORTIONAL:
            turned = int(parameters.partial_rotary_factor * rotated // 2)
            return np.where(np.arange(len(plain)) < turned, plain / (parameters.factor or 1.0), 0.0)
        case _:
            assert_never(parameters.rope_type)


def attention_factor(parameters: RopeParameters) -> float:
    """Return what rotated queries and keys are multiplied by: the temperature of yarn or longrope."""
    if parameters.attention_factor is not None:
        return parameters.attention_factor
    if parameters.rope_type is not RopeType.YARN:
        return 1.0
    factor, whole = _given(parameters.factor), parameters.mscale_all_dim
    if parameters.mscale and whole:
        return _yarn_temperature(factor, parameters.mscale) / _yarn_temperature(factor, whole)
    return _yarn_temperature(factor, 1.0)


def yarn_score_factor(parameters: RopeParameters | None) -> float:
    """Return what latent attention's softmax scale is multiplied by besides 1 / sqrt(qk_head_dim).

    DeepSeek-V2 and later square the temperature of ``mscale_all_dim`` into it; the one in the rotated part
    (:func:`attention_factor`) is then the ratio of both temperatures, 1 where they are equal.
    """
    if parameters is None or not parameters.mscale_all_dim:
        return 1.0
    return _yarn_temperature(_given(parameters.factor), parameters.mscale_all_dim) ** 2


def _plain_frequencies(theta: float, rotated: int) -> NDArray[np.float64]:
    exponents = np.arange(0, rotated, 2) / rotated
    speeds: NDArray[np.float64] = np.power(theta, -exponents)
    return speeds


def _dynamic_theta(
    parameters: RopeParameters, rotated: int, max_position_embeddings: int, max_tokens: int
) -> float:
    """Return the base stretched for requests longer than the model was made for (NTK-aware scaling)."""
    factor, length = _given(parameters.factor), max(max_tokens, max_position_embeddings)
    stretch = factor * length / max_position_embeddings - (factor - 1)
    # Two rotated elements have one frequency, 1 whatever the base.
    exponent = rotated / (rotated - 2) if rotated > 2 else 1.0
    return float(parameters.rope_theta * stretch**exponent)


def _blended_by_wavelength(parameters: RopeParameters, plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Llama 3.1's frequencies: short waves as they are, long ones slowed, those between blended."""
    low, high = _given(parameters.low_freq_factor), _given(parameters.high_freq_factor)
    waves = _given(parameters.original_max_position_embeddings) * plain / (2 * pi)
    # Where the blend begins and ends at the same wave, there is none (Llama 4 Scout).
    keep = np.clip((waves - low) / (high - low), 0, 1) if high > low else waves > low
    return plain * keep + plain / _given(parameters.factor) * (1 - keep)


def _blended_by_rotations(parameters: RopeParameters, plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return yarn's frequencies: fast ones as they are, slow ones slowed (arXiv 2309.00071, section 3.2)."""
    rotated = 2 * len(plain)
    first = _dimension_of(parameters.beta_fast or _BETA_FAST, parameters, rotated)
    last = _dimension_of(parameters.beta_slow or _BETA_SLOW, parameters, rotated)
    if parameters.truncate:
        first, last = floor(first), ceil(last)
    first, last = max(first, 0), min(last, rotated - 1)
    # The small width keeps the blend defined where it begins and ends at the same dimension.
    slowed = np.clip((np.arange(len(plain)) - first) / (last - first or 0.001), 0, 1)
    blended: NDArray[np.float64] = plain * (1 - slowed) + plain / _given(parameters.factor) * slowed
    return blended


def _dimension_of(rotations: float, parameters: RopeParameters, rotated: int) -> float:
    """Return the pair of elements that turns so often over the trained context, as a real number."""
    trained = _given(parameters.original_max_position_embeddings)
    return rotated * log(trained / (rotations * 2 * pi)) / (2 * log(parameters.rope_theta))


def _longrope_divisors(parameters: RopeParameters, max_tokens: int) -> NDArray[np.float64]:
    """Return longrope's divisors for the run's longest request (arXiv 2402.13753)."""
    long = max_tokens > _given(parameters.original_max_position_embeddings)
    return np.array(parameters.long_factor if long else parameters.short_factor)


def _yarn_temperature(factor: float, mscale: float) -> float:
    """Return yarn's temperature (arXiv 2309.00071, equation 22, with DeepSeek's weight of the logarithm)."""
    return 0.1 * mscale * log(factor) + 1 if factor > 1 else 1.0


def _given(value: float | None) -> float:
    """Return a value whose presence the description has checked."""
    if value is None:
        raise ValueError("rope parameters lack a value that their type requires")
    return value
