"""How the tensors the engine runs are made of those in a GGUF file.

llama.cpp's convert_hf_to_gguf.py changes some of them; each change is undone here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np

from kvplan.arch.attention import Attention
from kvplan.arch.model import Model
from kvplan.checkpoint.assemble import FileTensor, Recipe
from kvplan.checkpoint.tensor_file import F32, TensorFile
from kvplan.specs.gguf_names import GgufNames, Named, tensors_of
from kvplan.storage import TensorRole

_ROTATED = ("self_attn.q_proj", "self_attn.k_proj")


class GgufRecipes:
    """What the GGUF files of an architecture hold."""

    def __init__(self, names: GgufNames) -> None:
        """Take what the architecture's files call otherwise than most."""
        self._names = names

    def recipes(self, model: Model, file: TensorFile) -> Iterator[Recipe]:
        """Iterate over the recipes that together make every tensor the engine runs, each once."""
        for name, parts in tensors_of(model, self._names).items():
            makes = tuple(part.name for part in parts)
            yield Recipe(makes, (FileTensor(name, _shape_in(file, name, parts)),), self._maker(model, parts))

    def repeated(self, model: Model) -> Mapping[str, str]:
        """Return nothing: these files hold every tensor once."""
        return {}

    def is_surplus(self, model: Model, name: str) -> bool:
        """Whether a tensor says what keys say, and so is no weight."""
        return name in self._names.read_as_keys

    def _maker(self, model: Model, parts: tuple[Named, ...]) -> _Maker:
        return _Maker(model, parts, permuted=self._names.permuted)


class _Maker:
    """Makes the tensors here of one tensor of a file."""

    def __init__(self, model: Model, parts: tuple[Named, ...], *, permuted: bool) -> None:
        self._model = model
        self._parts = parts
        self._permuted = permuted

    def __call__(self, stored: F32) -> Sequence[F32]:
        """Return the tensors whose rows stand one below the other in ``stored``."""
        if len(self._parts) == 1:
            return [self._undone(self._parts[0], stored)]
        ends = list(accumulate(part.weight.shape[0] for part in self._parts))
        pieces = np.split(stored, ends[:-1])
        return [self._undone(part, piece) for part, piece in zip(self._parts, pieces, strict=True)]

    def _undone(self, part: Named, stored: F32) -> F32:
        """Return one tensor as its family has it."""
        weight = part.weight
        found = stored.reshape(_whole_shape(part))
        if weight.name.endswith("A_log"):
            found = np.log(-found)  # a file has the rates of decay themselves
        if weight.role is TensorRole.NORM and weight.name.endswith(".weight"):
            found = found - np.float32(self._model.norm.has_unit_offset)  # and what norms multiply by
        if self._permuted and weight.name.startswith(_ROTATED):
            found = _halves(found, self._head_dim(part))
        return np.ascontiguousarray(found, np.float32)

    def _head_dim(self, part: Named) -> int:
        mixer = self._model.layers[part.layer or 0].mixer
        assert isinstance(mixer, Attention), "rows are permuted for rotations"
        return mixer.head_dim


def _halves(neighbours: F32, head_dim: int) -> F32:
    """Return rows in which halves of a head are rotated together, of those in which neighbours are."""
    by_pair = neighbours.reshape(-1, head_dim // 2, 2, *neighbours.shape[1:])
    return by_pair.swapaxes(1, 2).reshape(neighbours.shape)


def _whole_shape(part: Named) -> tuple[int, ...]:
    weight = part.weight
    return (weight.copies, *weight.shape) if weight.copies > 1 else weight.shape


def _shape_in(file: TensorFile, name: str, parts: tuple[Named, ...]) -> tuple[int, ...]:
    """Return the shape a tensor of a file has to have, in which axes of length 1 may be left out."""
    first = _whole_shape(parts[0])
    wanted = first if len(parts) == 1 else (sum(part.weight.shape[0] for part in parts), *first[1:])
    held = file.shape(name) if name in file.names() else wanted
    return held if _long_axes(held) == _long_axes(wanted) else wanted


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return [length for length in shape if length > 1]
