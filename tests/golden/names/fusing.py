"""How tensors of kvplan become transformers': joined, split, transposed and renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model

Array = NDArray[np.float32]
# A name there, the names here, and how the layer's tensors of these names are put into one.
Fusion = tuple[str, tuple[str, ...], Callable[..., Array]]

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
EXPERT_GATE_UP = ("mlp.experts.gate_proj", "mlp.experts.up_proj")
LLAMA_OUTER = {"embed_tokens": "model.embed_tokens", "layers": "model.layers", "norm": "model.norm"}


@dataclass(frozen=True, slots=True)
class Names:
    """What a family calls its tensors.

    Args:
        outer: names outside the layers, and of the list of layers.
        inner: names inside a layer, longest whole-word prefix first; what is not here keeps its name.
        fusions: tensors of a layer that are one there.
        rows_apart: tensors of a layer each row of which is one there, with a place for its number.
        made_there: last words of tensors that transformers' class makes itself of nothing it is given.
    """

    outer: Mapping[str, str] = field(default_factory=lambda: LLAMA_OUTER)
    inner: Mapping[str, str] = field(default_factory=dict)
    fusions: Sequence[Fusion] = ()
    rows_apart: Mapping[str, str] = field(default_factory=dict)
    made_there: tuple[str, ...] = ()


def hf_tensors(names: Names, model: Model, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return what each parameter and buffer of transformers' model holds, by its name there."""
    outer = names.outer
    found = {
        _renamed(name, outer): array for name, array in weights.items() if not name.startswith("layers.")
    }
    layers = outer["layers"]
    for index, layer in enumerate(model.layers):
        prefix = f"layers.{index}."
        own = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
        fused = _fused(_split(own, names.rows_apart), names.fusions, layer)
        found |= {f"{layers}.{index}.{_renamed(name, names.inner)}": array for name, array in fused.items()}
    return found


def _split(own: dict[str, Array], rows_apart: Mapping[str, str]) -> dict[str, Array]:
    """Return a layer's tensors with some cut into their rows."""
    found = dict(own)
    for name, there in rows_apart.items():
        if name in own:
            found |= {there.format(number): row for number, row in enumerate(found.pop(name))}
    return found


def _fused(own: dict[str, Array], fusions: Sequence[Fusion], layer: Layer) -> dict[str, Array]:
    """Return a layer's tensors with those of each fusion, where it has them, put into one."""
    there = [fusion for fusion in fusions if all(source in own for source in fusion[1])]
    joined = {source for _, sources, _ in there for source in sources}
    found = {name: array for name, array in own.items() if name not in joined}
    for target, sources, join in there:
        found[target] = join(layer, *(own[source] for source in sources))
    return found


def _renamed(name: str, renames: Mapping[str, str]) -> str:
    """Return the name with its longest prefix of whole words that has another name there replaced."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if prefix in renames:
            return ".".join([renames[prefix], *words[count:]])
    return name


def both(target: str, sources: tuple[str, ...], join: Callable[..., Array]) -> list[Fusion]:
    """Return a fusion of weights and the same of biases."""
    return [
        (f"{target}.{kind}", tuple(f"{source}.{kind}" for source in sources), join)
        for kind in ("weight", "bias")
    ]


def rows(_layer: Layer, *parts: Array) -> Array:
    return np.concatenate(parts)


def columns(_layer: Layer, *parts: Array) -> Array:
    """Join as a Conv1D: (inputs, outputs); a vector stays one."""
    return np.concatenate(parts).T


def expert_rows(_layer: Layer, *parts: Array) -> Array:
    return np.concatenate(parts, axis=1)


def expert_columns(_layer: Layer, *parts: Array) -> Array:
    """Interleave outputs and put them last: (experts, inputs, outputs), or (experts, outputs)."""
    joined = np.stack(parts, axis=2).reshape(len(parts[0]), -1, *parts[0].shape[2:])
    return np.moveaxis(joined, 1, -1)


def by_kv_head(layer: Layer, *parts: Array) -> Array:
    """Join per KV head: its query heads, its key, its value (Falcon)."""
    assert isinstance(layer.mixer, Attention)
    by_head = [part.reshape(layer.mixer.num_key_value_heads, -1, *part.shape[1:]) for part in parts]
    joined = np.concatenate(by_head, axis=1)
    return joined.reshape(-1, *joined.shape[2:])


STACKED_EXPERTS: list[Fusion] = [
    ("mlp.experts.gate_up_proj", tuple(f"{name}.weight" for name in EXPERT_GATE_UP), expert_rows),
    ("mlp.experts.down_proj", ("mlp.experts.down_proj.weight",), expert_rows),
]
