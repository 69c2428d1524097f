"""Which codec and which scales each KV cache format is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kvplan.engine import kv_codecs
from kvplan.engine.kv_codecs import F32, Codec, Words
from kvplan.engine.kv_quantisers import (
    INT2_STEPS,
    INT4_STEPS,
    Bits,
    quantise_asymmetric,
    quantise_symmetric,
)
from kvplan.storage import KvFormat


@dataclass(frozen=True, slots=True)
class TileFormat:
    """How the keys, or the values, of a tile are stored.

    Args:
        codec: the number format of the elements.
        scaled: elements are codes of a quantiser, beside a float16 scale for each vector.
        steps: the largest code, where codes count up from a float16 minimum beside the scale; else absent.
        grouped: scales and minima are for each channel of a tile's tokens instead (KIVI, arXiv 2402.02750).
    """

    codec: Codec
    scaled: bool = False
    steps: np.float32 | None = None
    grouped: bool = False

    def encode(self, vectors: F32) -> tuple[Words, Bits | None, Bits | None]:
        """Return words (n, heads, dim / planes) of vectors (n, heads, dim), their scales and minima.

        Scales are (n, heads), or where grouped (heads, dim).
        """
        if not self.scaled:
            return self.codec.pack(vectors), None, None
        along = vectors.transpose(1, 2, 0) if self.grouped else vectors
        minima = None
        if self.steps is not None:
            codes, scales, minima = quantise_asymmetric(along, self.steps)
        else:
            codes, scales = quantise_symmetric(along)
        words = self.codec.pack(codes.transpose(2, 0, 1) if self.grouped else codes)
        return words, scales, minima


def value_format(kv: KvFormat) -> TileFormat:
    """Return how values of a KV cache format are stored."""
    match kv.name.removesuffix("-kivi"):
        case "fp32":
            return TileFormat(kv_codecs.FLOAT32)
        case "bf16":
            return TileFormat(kv_codecs.BFLOAT16)
        case "fp16":
            return TileFormat(kv_codecs.FLOAT16)
        case "fp8":
            return TileFormat(kv_codecs.FLOAT8)
        case "int8":
            return TileFormat(kv_codecs.INT8, scaled=True)
        case "int4":
            return TileFormat(kv_codecs.INT4, scaled=True, steps=INT4_STEPS)
        case "int2":
            return TileFormat(kv_codecs.INT2, scaled=True, steps=INT2_STEPS)
    raise ValueError(f"the engine stores no format named {kv.name!r}")


def key_format(kv: KvFormat) -> TileFormat:
    """Return how keys of a KV cache format are stored."""
    return replace(value_format(kv), grouped=bool(kv.key_group_tokens))
