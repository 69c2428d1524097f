"""Storage formats of cached keys, values and latents, and of the keys of indexers."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.storage.find import find
from kvplan.storage.number_formats import EIGHT_BIT_FLOAT, IEEE, SINGLE, SIXTEEN_BIT


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How one cached vector (a head's key or value, a latent) is stored.

    Args:
        name: what ``--kv`` takes.
        bits: bits per element.
        scale_bytes: the scale and zero point kept beside each vector.
        source: where the layout is defined.
        key_group_tokens: keys have their ``scale_bytes`` beside each channel of so many tokens instead, and
            the last group is kept in float16 until it is full; 0 means beside each vector, as values.
        multiplied_in: number formats attention over it may run in; a device takes the one it is fastest in.
    """

    name: str
    bits: int
    scale_bytes: int
    source: str
    key_group_tokens: int = 0
    multiplied_in: tuple[str, ...] = SIXTEEN_BIT


_KIVI = (
    "KIVI (arXiv 2402.02750): keys per channel over 64 tokens, values per token and head, as plain integers"
)
KV_FORMATS: tuple[KvFormat, ...] = (
    KvFormat("bf16", 16, 0, IEEE),
    KvFormat("fp16", 16, 0, IEEE),
    KvFormat("fp32", 32, 0, IEEE, multiplied_in=SINGLE),
    KvFormat(
        "fp8",
        8,
        0,
        "vLLM kv_cache_dtype fp8: e4m3, one scale per tensor, none in the cache",
        multiplied_in=EIGHT_BIT_FLOAT,
    ),
    KvFormat(
        "int8", 8, 2, "kvplan: symmetric, one float16 scale per token and head (vLLM: float32, 2 bytes more)"
    ),
    KvFormat("int4", 4, 4, "kvplan: packed two to a byte, float16 scale and minimum per token and head"),
    KvFormat("int2", 2, 4, "kvplan: packed four to a byte, float16 scale and minimum per token and head"),
    KvFormat("int8-kivi", 8, 2, _KIVI, key_group_tokens=64),
    KvFormat("int4-kivi", 4, 4, _KIVI, key_group_tokens=64),
    KvFormat("int2-kivi", 2, 4, _KIVI, key_group_tokens=64),
)


@dataclass(frozen=True, slots=True)
class IndexFormat:
    """How the key of an indexer is stored, whatever the KV format is.

    Args:
        bits: bits per element.
        scale_elements: elements that share a scale.
        scale_bytes: bytes of a scale.
        source: where the layout is defined.
    """

    bits: int
    scale_elements: int
    scale_bytes: int
    source: str


def kv_format(name: str) -> KvFormat:
    """Return the KV cache format of this name; raises UsageError for an unknown one."""
    return find("KV format", name, KV_FORMATS)
