"""How files keep tensors: together, apart, turned. Each way can be done and undone.

Shapes are as in PyTorch: output features first. The engine's experts are stacked: one array with an axis of
experts before the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TypeAlias

import numpy as np

from kvplan.arch.layer import Layer
from kvplan.checkpoint.tensor_file import F32

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Sequence[Shape]
Arrays: TypeAlias = Sequence[F32]


def _joined_shape(_layer: Layer | None, shapes: Shapes, axis: int = 0) -> tuple[Shape, ...]:
    first, length = shapes[0], sum(shape[axis] for shape in shapes)
    return ((*first[:axis], length, *first[axis + 1 :]),)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to keep tensors in files.

    All three take whose layer the tensors are of: none for those outside layers.

    Args:
        join: from the engine's arrays to the file's.
        split: from the file's arrays, and the shapes of the engine's, to the engine's.
        shapes: from the shapes of the engine's arrays to those of the file's.
    """

    join: Callable[[Layer | None, Arrays], Sequence[F32]]
    split: Callable[[Layer | None, Arrays, Shapes], Sequence[F32]]
    shapes: Callable[[Layer | None, Shapes], Sequence[Shape]] = _joined_shape


def joined(axis: int) -> Kind:
    """Several tensors one behind the other along an axis."""

    def split(_layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
        return np.split(parts[0], ends(shape[axis] for shape in shapes), axis=axis)

    return Kind(
        join=lambda _, parts: [np.concatenate(parts, axis=axis)],
        split=split,
        shapes=lambda layer, shapes: _joined_shape(layer, shapes, axis),
    )


def inputs_first(axis: int) -> Kind:
    """Several tensors behind one another, and inputs put before outputs: a Conv1D, or experts.

    ``axis`` is that of the outputs: 0 of a matrix, 1 of experts. A bias has no inputs and stays as it is.
    """
    plain = joined(axis)

    def split(layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
        found = plain.split(layer, [_turned(parts[0], axis)], shapes)
        return [np.ascontiguousarray(part) for part in found]

    def shapes_there(layer: Layer | None, shapes: Shapes) -> Sequence[Shape]:
        ((*stack, outputs), inputs) = _cut(plain.shapes(layer, shapes)[0], axis + 1)
        return [(*stack, *inputs, outputs)]

    return Kind(
        join=lambda layer, parts: [_turned(plain.join(layer, parts)[0], axis)],
        split=split,
        shapes=shapes_there,
    )


def _cut(shape: Shape, at: int) -> tuple[Shape, Shape]:
    return shape[:at], shape[at:]


def _turned(array: F32, axis: int) -> F32:
    return array if array.ndim <= axis + 1 else array.swapaxes(axis, axis + 1)


def reshaped(*shape: int) -> Kind:
    """One tensor in another shape; -1 stands for all its elements."""
    return Kind(
        join=lambda _, parts: [parts[0].reshape(shape)],
        split=lambda _, parts, shapes: [parts[0].reshape(shapes[0])],
        shapes=lambda _, shapes: [tuple(prod(shapes[0]) if n < 0 else n for n in shape)],
    )


def _interleave(_layer: Layer | None, parts: Arrays) -> Sequence[F32]:
    together = np.stack(parts, axis=2).reshape(len(parts[0]), -1, *parts[0].shape[2:])
    return [np.moveaxis(together, 1, -1)]


def _take_turns(_layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
    outputs = np.moveaxis(parts[0], -1, 1)
    return [np.ascontiguousarray(outputs[:, first :: len(shapes)]) for first in range(len(shapes))]


def _interleaved_shape(_layer: Layer | None, shapes: Shapes) -> Sequence[Shape]:
    experts, outputs, *inputs = shapes[0]
    return [(experts, *inputs, outputs * len(shapes))]


def _under_one_another_turned(_layer: Layer | None, parts: Arrays, shapes: Shapes) -> Sequence[F32]:
    experts, outputs, inputs = shapes[0]
    return [np.ascontiguousarray(parts[0].reshape(experts, inputs, outputs).swapaxes(1, 2))]


def _unit_rows(_layer: Layer | None, parts: Arrays, _shapes: Shapes) -> Sequence[F32]:
    lengths = np.linalg.norm(parts[0], axis=1, keepdims=True)
    return [parts[0] / np.maximum(lengths, np.float32(1e-12))]


# One tensor, the same there under another name.
SAME = Kind(
    join=lambda _, parts: parts, split=lambda _, parts, _shapes: parts, shapes=lambda _, shapes: shapes
)
# Output features of several matrices, or of several stacks of experts, one behind the other.
ROWS, EXPERT_ROWS = joined(0), joined(1)
# The same with inputs first.
CONV1D, EXPERT_COLUMNS = inputs_first(0), inputs_first(1)
# Outputs of experts in turn, and put last (gpt-oss): (experts, inputs, outputs), or (experts, outputs).
INTERLEAVED = Kind(_interleave, _take_turns, _interleaved_shape)
# A stack each layer of which is a tensor of its own: experts, rows.
APART = Kind(
    join=lambda _, parts: list(parts[0]),
    split=lambda _, parts, _shapes: [np.stack(parts)],
    shapes=lambda _, shapes: [shapes[0][1:]] * shapes[0][0],
)
# Experts under one another (DBRX): (experts x outputs, inputs), and (experts x inputs, outputs).
UNDER_ONE_ANOTHER = Kind(
    join=lambda _, parts: [parts[0].reshape(-1, parts[0].shape[-1])],
    split=lambda _, parts, shapes: [parts[0].reshape(shapes[0])],
    shapes=lambda _, shapes: [(shapes[0][0] * shapes[0][1], shapes[0][2])],
)
UNDER_ONE_ANOTHER_TURNED = Kind(
    join=lambda _, parts: [parts[0].swapaxes(1, 2).reshape(-1, parts[0].shape[1])],
    split=_under_one_another_turned,
    shapes=lambda _, shapes: [(shapes[0][0] * shapes[0][2], shapes[0][1])],
)
# A matrix whose rows are brought to a length of one when it is loaded (the head of Baichuan 2).
UNIT_ROWS = Kind(join=SAME.join, split=_unit_rows, shapes=SAME.shapes)


def in_groups(parts: Arrays, groups: int) -> F32:
    """Return rows by group: those of each part of the first group, then those of the next."""
    by_group = [part.reshape(groups, -1, *part.shape[1:]) for part in parts]
    together = np.concatenate(by_group, axis=1)
    return together.reshape(-1, *together.shape[2:])


def out_of_groups(together: F32, groups: int, rows: Sequence[int]) -> list[F32]:
    """Return the parts of rows by group, of so many rows each: those of the first group, then of the next."""
    by_group = together.reshape(groups, -1, *together.shape[1:])
    found = np.split(by_group, ends(count // groups for count in rows), axis=1)
    return [part.reshape(-1, *together.shape[1:]) for part in found]


def ends(lengths: Iterable[int]) -> list[int]:
    """Return where each piece but the last ends."""
    return list(accumulate(lengths))[:-1]
