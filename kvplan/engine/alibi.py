"""ALiBi: how much the scores of each head fall with the distance of a key."""

from __future__ import annotations

import numpy as np

from kvplan.engine.kv_codecs import F32


def alibi_slopes(heads: int) -> F32:
    """Return the slope of each head, (heads,).

    A power of two heads have the powers of ``2^(-8 / heads)``. Other numbers have those of the largest power
    of two below, and then every second one of twice as many (arXiv 2108.12409, and its authors' code).
    """
    lower = 1 << (heads.bit_length() - 1)
    exponents = 8.0 / lower * np.arange(1, lower + 1)
    between = 4.0 / lower * np.arange(1, 2 * (heads - lower), 2)
    slopes: F32 = np.exp2(-np.concatenate([exponents, between])).astype(np.float32)
    return slopes
