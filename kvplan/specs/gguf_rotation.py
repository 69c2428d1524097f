"""How a GGUF file says the rotation of queries and keys, as the ``rope_scaling`` of a config.json says it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import isfinite, pi
from typing import TypeAlias

from kvplan.specs.document import opened
from kvplan.specs.gguf_header import GgufTensor, shortest
from kvplan.specs.gguf_keys import Keys

Scaling: TypeAlias = dict[str, object]

LLAMA3_FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
# A file has Llama 3's stretching only as what each frequency is divided by; every release has these.
_LOW, _HIGH, _TRAINED = 1.0, 4.0, 8192
# Factors are float32, made from float32 frequencies.
_CLOSE = 1e-4


def rotation(keys: Keys, head_dim: int) -> Scaling:
    """Return ``rope_theta`` and, where the rotation is stretched, ``rope_scaling``.

    Raises:
        UsageError: it is stretched in a way that is not understood.
    """
    theta = keys.number("rope.freq_base", 10_000.0)
    stretched = _stretched(keys)
    if (factors := keys.tensor(LLAMA3_FACTORS)) is not None:
        stretched = _llama3(keys, factors, theta, head_dim)
    return {"rope_theta": theta} | ({} if stretched is None else {"rope_scaling": stretched})


def _stretched(keys: Keys) -> Scaling | None:
    kind = keys.text("rope.scaling.type", "none")
    keys.only("rope.scaling.finetuned", True, False)
    if kind == "none":
        keys.only("rope.scaling.factor", 0.0, 1.0)
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": keys.number("rope.scaling.factor")}
    if kind != "yarn":
        keys.refuse("rope.scaling.type", f"{kind[:40]!r} is not one of none, linear, yarn")
    return _yarn(keys)


def _yarn(keys: Keys) -> Scaling:
    """Return YaRN with the factor of attention that follows from its own, as llama.cpp takes it."""
    keys.only("rope.scaling.attn_factor", 1.0)
    keys.only("rope.scaling.yarn_ext_factor", 1.0)
    keys.only("rope.scaling.yarn_attn_factor", 1.0)
    return {
        "rope_type": "yarn",
        "factor": keys.number("rope.scaling.factor"),
        "original_max_position_embeddings": keys.integer("rope.scaling.original_context_length"),
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1.0),
    }


def longrope(keys: Keys, rotated: int) -> Scaling:
    """Return ``rope_theta`` and, where the file has factors for short and long contexts, ``rope_scaling``.

    ``rotated`` is how many elements of a head are rotated.
    """
    found: Scaling = {"rope_theta": keys.number("rope.freq_base", 10_000.0)}
    longest = keys.integer("context_length")
    found["original_max_position_embeddings"] = keys.integer("rope.scaling.original_context_length", longest)
    short, long = keys.tensor(SHORT_FACTORS), keys.tensor(LONG_FACTORS)
    if short is None or long is None:
        keys.only("rope.scaling.original_context_length", longest)
        keys.only("rope.scaling.attn_factor", 1.0)
        return found
    return found | {
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": _factors(keys, short, rotated),
            "long_factor": _factors(keys, long, rotated),
            "attention_factor": keys.number("rope.scaling.attn_factor"),
        }
    }


def _llama3(keys: Keys, tensor: GgufTensor, theta: float, head_dim: int) -> Scaling | None:
    """Return Llama 3's stretching from the factors it comes to; ``None`` where all are 1."""
    found = _factors(keys, tensor, head_dim)
    factor = float(round(max(found)))
    if all(abs(each - 1) < _CLOSE for each in found):
        return None
    made = list(_llama3_factors(factor, theta, head_dim))
    if any(abs(each - other) > _CLOSE * other for each, other in zip(found, made, strict=True)):
        keys.header.refuse(f"{tensor.name}: this stretching of the rotation is not understood")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _TRAINED,
    }


def _llama3_factors(factor: float, theta: float, head_dim: int) -> Iterator[float]:
    """Iterate over what frequencies are divided by (transformers, modeling_rope_utils.py)."""
    for index in range(0, head_dim, 2):
        turns = _TRAINED / (2 * pi * theta ** (index / head_dim))
        smooth = min(max((turns - _LOW) / (_HIGH - _LOW), 0.0), 1.0)
        yield 1 / ((1 - smooth) / factor + smooth)


def _factors(keys: Keys, tensor: GgufTensor, rotated: int) -> list[float]:
    """Return a tensor with a factor for every two elements that are rotated.

    Raises:
        UsageError: it is of another type or size, or a factor is no number above 0.
    """
    if tensor.type.format != "fp32" or tensor.shape != (rotated // 2,):
        found = f"{tensor.type.name} {list(tensor.shape)}"
        keys.header.refuse(f"tensor {tensor.name!r} is {found}, not F32 [{rotated // 2}]")
    with opened(keys.header.path) as file:
        file.seek(tensor.start)
        factors = struct.unpack(f"<{rotated // 2}f", file.read(tensor.bytes))
    if not all(isfinite(factor) and factor > 0 for factor in factors):
        keys.header.refuse(f"tensor {tensor.name!r} has a factor that is no number above 0")
    return [shortest(factor) for factor in factors]
