"""From a GGUF file to a model: what its keys describe, each tensor in the format the file has it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.released import StoredAs
from kvplan.arch.weight import Weight
from kvplan.errors import SpecError, UsageError
from kvplan.specs.config_json import import_config
from kvplan.specs.document import Document
from kvplan.specs.families.common import Identity
from kvplan.specs.gguf_config import config_of
from kvplan.specs.gguf_header import GgufHeader, GgufTensor, read_header
from kvplan.specs.gguf_names import NAMES, Named, tensors_of
from kvplan.storage import DTYPE_BYTES, TORCH_DTYPES, weight_format


def import_gguf(path: Path, identity: Identity) -> Model:
    """Return the model that a GGUF file holds.

    Raises:
        UsageError: it is no such file, a damaged one, or not understood.
        FileError: it cannot be read.
    """
    return model_of(read_header(path), identity)


def model_of(header: GgufHeader, identity: Identity) -> Model:
    """Return the model that a file holds, of which only the head is read.

    Raises:
        UsageError: a key or a tensor is missing, or not understood.
    """
    formats = _Formats(header)
    config = config_of(header) | {"torch_dtype": formats.torch_dtype()}
    try:
        model = import_config(Document(header.label, config, {}, {}), identity)
    except SpecError as error:
        raise UsageError(f"{header.label}: {error.problems[0].message}") from error
    names = NAMES[str(header.metadata["general.architecture"])]
    return formats.applied(model, _checked(header, tensors_of(model, names), names.read_as_keys))


def _checked(
    header: GgufHeader, expected: Mapping[str, tuple[Named, ...]], read_as_keys: tuple[str, ...]
) -> list[tuple[GgufTensor, tuple[Named, ...]]]:
    """Return each tensor of a file with those of the model it is.

    Raises:
        UsageError: one is missing, none of the model's, or of another size.
    """
    held = {tensor.name: tensor for tensor in header.tensors if tensor.name not in read_as_keys}
    for name in expected:
        if name not in held:
            header.refuse(f"tensor {name!r} is missing")
    for name, tensor in held.items():
        if name not in expected:
            header.refuse(f"tensor {name!r} is not understood: the model has no such tensor")
        elements = sum(named.weight.elements for named in expected[name])
        if prod(tensor.shape) != elements:
            header.refuse(f"tensor {name!r} has {prod(tensor.shape):,} numbers, the model's {elements:,}")
    return [(held[name], parts) for name, parts in expected.items()]


class _Formats:
    """What the tensors of a file are stored in."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        elements: dict[str, int] = {}
        for tensor in header.tensors:
            elements[tensor.type.format] = elements.get(tensor.type.format, 0) + prod(tensor.shape)
        self._most = max(elements, key=lambda stored: elements[stored])

    def torch_dtype(self) -> str:
        """Return the dtype of the model: that of most weights, bf16 where these are packed."""
        by_name = {ours: theirs for theirs, ours in TORCH_DTYPES.items()}
        return by_name[self._most if self._most in DTYPE_BYTES else "bf16"]

    def applied(self, model: Model, tensors: Iterable[tuple[GgufTensor, tuple[Named, ...]]]) -> Model:
        """Return the model with the format of each tensor."""
        outer: dict[str, list[str]] = {}
        layers: list[dict[str, list[str]]] = [{} for _ in model.layers]
        for tensor, parts in tensors:
            for named in parts:
                if self._is_exception(named.weight, tensor, model.dtype):
                    found = outer if named.layer is None else layers[named.layer]
                    found.setdefault(tensor.type.format, []).append(named.weight.name)
        return replace(
            model,
            weight_format="" if self._most == model.dtype else self._most,
            stored_otherwise=_stored(outer),
            layers=tuple(_with(*each) for each in zip(model.layers, layers, strict=True)),
        )

    def _is_exception(self, weight: Weight, tensor: GgufTensor, dtype: str) -> bool:
        """Whether a tensor is not stored as most of its role are.

        Raises:
            UsageError: it is packed, and no matrix.
        """
        if tensor.type.format not in DTYPE_BYTES and not (weight.is_matrix and weight.trained):
            self._header.refuse(f"tensor {tensor.name!r} is {tensor.type.name}, which is for matrices")
        base = weight_format(self._most)
        packed = weight.format_under(base)
        by_role = weight.plain_dtype(base, dtype) if packed is None else packed.name
        return by_role != tensor.type.format


def _with(layer: Layer, stored: dict[str, list[str]]) -> Layer:
    return replace(layer, stored_otherwise=_stored(stored)) if stored else layer


def _stored(formats: dict[str, list[str]]) -> tuple[StoredAs, ...]:
    return tuple(StoredAs(stored, tuple(names)) for stored, names in formats.items())
