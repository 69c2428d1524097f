"""How files keep the matrices of a mixer whose rows they order by its heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.rg_lru import RgLru
from kvplan.checkpoint.names.kinds import Arrays, Kind, Shape, Shapes, ends, in_groups, out_of_groups
from kvplan.checkpoint.tensor_file import F32

_CODEGEN_MACHINES = 4

_M = TypeVar("_M")


def _mixer(layer: Layer | None, kind: type[_M]) -> _M:
    """Return the mixer of a layer, which is of this kind."""
    mixer = None if layer is None else layer.mixer
    assert isinstance(mixer, kind)
    return mixer


def _by_kv_head(layer: Layer | None, parts: Arrays) -> Sequence[F32]:
    return [in_groups(parts, _mixer(layer, Attention).num_key_value_heads)]


def _out_of_kv_heads(layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
    return out_of_groups(parts[0], _mixer(layer, Attention).num_key_value_heads, [s[0] for s in shapes])


def _groups(layer: Layer | None) -> int:
    """Return the KV heads where every query head has one, and else one group for all."""
    mixer = _mixer(layer, Attention)
    return mixer.num_key_value_heads if mixer.num_key_value_heads == mixer.num_attention_heads else 1


def _by_machine(_layer: Layer | None, parts: Arrays) -> Sequence[F32]:
    queries, keys, values = parts
    return [in_groups((queries, values, keys), _CODEGEN_MACHINES)]


def _out_of_machines(_layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
    queries, keys, values = (shape[0] for shape in shapes)
    found = out_of_groups(parts[0], _CODEGEN_MACHINES, [queries, values, keys])
    return [found[0], found[2], found[1]]


def _mamba2(layer: Layer | None) -> Mamba2:
    if layer is not None and isinstance(layer.mixer, AttentionBesideMamba):
        return layer.mixer.mamba2
    return _mixer(layer, Mamba2)


def _steps_last(layer: Layer | None, parts: Arrays) -> Sequence[F32]:
    of_heads, of_groups = parts
    gate_and_inputs, steps = np.split(of_heads, [2 * _mamba2(layer).width])
    return [np.concatenate((gate_and_inputs, of_groups, steps))]


def _steps_with_heads(layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
    before = 2 * _mamba2(layer).width
    gate_and_inputs, of_groups, steps = np.split(parts[0], [before, before + shapes[1][0]])
    return [np.concatenate((gate_and_inputs, steps)), of_groups]


def _blocks(layer: Layer | None, shapes: Shapes) -> Sequence[Shape]:
    count = _mixer(layer, RgLru).num_attention_heads
    return [(count, shapes[0][0] // count)]


def _channels(layer: Layer | None) -> Shape:
    """Return the channels of queries, keys and values."""
    mixer = None if layer is None else layer.mixer
    if isinstance(mixer, KimiDeltaAttention):
        return (mixer.width,) * 3
    found = _mixer(layer, GatedDeltaNet)
    return (found.key_width, found.key_width, found.value_width)


def _thirds(channels: int) -> Shape:
    third = -(-channels // 3)
    return (third, third, channels - 2 * third)


# Rows by KV head: its query heads, its key, its value (Falcon, GPT-NeoX).
BY_KV_HEAD = Kind(_by_kv_head, _out_of_kv_heads)
# The same where every query head has a key and a value of its own; else as rows behind one another (ChatGLM).
BY_HEAD_UNLESS_SHARED = Kind(
    join=lambda layer, parts: [in_groups(parts, _groups(layer))],
    split=lambda layer, parts, shapes: out_of_groups(parts[0], _groups(layer), [s[0] for s in shapes]),
)
# Rows by the machine that held them: its queries, its values, its keys (CodeGen has four).
BY_MACHINE = Kind(_by_machine, _out_of_machines)
# Mamba-2's rows for heads (gate, inputs, steps) and for groups, which stand before the steps there.
STEPS_LAST = Kind(_steps_last, _steps_with_heads)
# A vector as a table with a row for each block of a recurrence's gates (RecurrentGemma).
BY_BLOCK = Kind(
    join=lambda layer, parts: [parts[0].reshape(_mixer(layer, RgLru).num_attention_heads, -1)],
    split=lambda _, parts, shapes: [parts[0].reshape(shapes[0])],
    shapes=_blocks,
)
# The channels of a short convolution in three tensors: queries', keys', values'.
QKV_APART = Kind(
    join=lambda layer, parts: np.split(parts[0], ends(_channels(layer))),
    split=lambda _, parts, _shapes: [np.concatenate(parts)],
    shapes=lambda layer, shapes: [(width, *shapes[0][1:]) for width in _channels(layer)],
)
# The same as transformers writes it, as thirds of the channels whatever their widths (torch.chunk).
QKV_IN_THIRDS = Kind(
    join=lambda _, parts: np.split(parts[0], ends(_thirds(len(parts[0])))),
    split=QKV_APART.split,
    shapes=lambda _, shapes: [(width, *shapes[0][1:]) for width in _thirds(shapes[0][0])],
)


def key_head_qkvz(mixer: GatedDeltaNet) -> Shape:
    """Return the rows of a key head's query, key, values and gates."""
    values = mixer.value_width // mixer.linear_num_key_heads
    return (mixer.linear_key_head_dim, mixer.linear_key_head_dim, values, values)


def key_head_ba(mixer: GatedDeltaNet) -> Shape:
    """Return the rows of a key head's write strengths and steps."""
    group = mixer.linear_num_value_heads // mixer.linear_num_key_heads
    return (group, group)


def by_part(parts_of: Callable[[GatedDeltaNet], Shape], *counts: int) -> Kind:
    """Return a kind: a matrix whose rows come by key head, each with all its parts, in several by part.

    Args:
        parts_of: returns the rows of each part of a key head, in their order.
        counts: how many parts each matrix of the file holds.
    """
    cuts = ends(counts)

    def rows(layer: Layer | None) -> tuple[int, list[int]]:
        """Return the key heads, and the rows of all of them in each part."""
        mixer = _mixer(layer, GatedDeltaNet)
        heads = mixer.linear_num_key_heads
        return heads, [heads * count for count in parts_of(mixer)]

    def grouped(of_parts: list[int]) -> list[list[int]]:
        starts, stops = [0, *cuts], [*cuts, None]
        return [of_parts[start:stop] for start, stop in zip(starts, stops, strict=True)]

    def join(layer: Layer | None, parts: Arrays) -> Sequence[F32]:
        heads, of_parts = rows(layer)
        together = np.concatenate(out_of_groups(parts[0], heads, of_parts))
        return np.split(together, ends(sum(group) for group in grouped(of_parts)))

    def split(layer: Layer | None, parts: Arrays, _shapes: Shapes) -> Sequence[F32]:
        heads, of_parts = rows(layer)
        return [in_groups(np.split(np.concatenate(parts), ends(of_parts)), heads)]

    def shapes_there(layer: Layer | None, shapes: Shapes) -> Sequence[Shape]:
        return [(sum(group), *shapes[0][1:]) for group in grouped(rows(layer)[1])]

    return Kind(join, split, shapes_there)
