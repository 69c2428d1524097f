"""From the tensors of a file to those the engine runs: every one used, none missing, each of its shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kvplan.arch.model import Model
from kvplan.checkpoint.tensor_file import F32, TensorFile, shown_name, shown_shape
from kvplan.errors import UsageError

# No more tensors than this are named in one message.
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor that a file is expected to hold."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Tensors of the engine, and what of a file they are made of.

    Args:
        makes: their engine names.
        of: the tensors of the file.
        make: from the arrays of ``of`` in their order to the arrays of ``makes`` in theirs.
    """

    makes: tuple[str, ...]
    of: tuple[FileTensor, ...]
    make: Callable[..., Sequence[F32]]


class Names(Protocol):
    """What the files of a family call their tensors."""

    def recipes(self, model: Model, file: TensorFile) -> Iterable[Recipe]:
        """Iterate over the recipes that together make every tensor the engine runs, each once."""

    def repeated(self, model: Model) -> Mapping[str, str]:
        """Return names a file may hold beside, each with the tensor of the file it must be equal to."""

    def is_surplus(self, model: Model, name: str) -> bool:
        """Whether a tensor is none the engine runs: a buffer made anew, a tower, a prediction layer."""


def weights_from(model: Model, names: Names, file: TensorFile) -> dict[str, F32]:
    """Return every tensor the engine runs, float32, by its engine name.

    Args:
        model: whose tensors they are: what the file must hold follows from its description alone.
        names: what its family's files call them.
        file: the weights.

    Raises:
        UsageError: a tensor is missing, none of the model, of another shape, in a format that is not
            understood, or holds what is no number.
    """
    recipes = list(names.recipes(model, file))
    _require_exactly(recipes, model, names, file)
    weights: dict[str, F32] = {}
    for recipe in recipes:
        made = recipe.make(*(_finite(tensor.name, file) for tensor in recipe.of))
        weights |= zip(recipe.makes, made, strict=True)
    return weights


def _require_exactly(recipes: Iterable[Recipe], model: Model, names: Names, file: TensorFile) -> None:
    """Refuse a file that holds other tensors than the recipes need."""
    expected = {tensor.name: tensor.shape for recipe in recipes for tensor in recipe.of}
    held = dict.fromkeys(file.names())
    missing = [name for name in expected if name not in held]
    if missing:
        first = f"tensor {shown_name(missing[0])} ({shown_shape(expected[missing[0]])}) is missing"
        raise UsageError(f"{file.label}: {first}{_others(missing, 'is missing too', 'are missing too')}")
    _require_shapes(expected, file)
    repeated = {name: of for name, of in names.repeated(model).items() if name in held}
    _require_repeated(repeated, file)
    surplus = [n for n in held if n not in expected and n not in repeated and not names.is_surplus(model, n)]
    if surplus:
        first = f"tensor {shown_name(surplus[0])} ({shown_shape(file.shape(surplus[0]))})"
        others = _others(surplus, "is not either", "are not either")
        raise UsageError(f"{file.place(surplus[0])}: {first} is none of the model's{others}")


def _require_shapes(expected: Mapping[str, tuple[int, ...]], file: TensorFile) -> None:
    """Refuse tensors of other shapes than the model's."""
    wrong = [name for name, shape in expected.items() if file.shape(name) != shape]
    if wrong:
        found, wanted = shown_shape(file.shape(wrong[0])), shown_shape(expected[wrong[0]])
        first = f"tensor {shown_name(wrong[0])} has the shape {found}, and the model's is {wanted}"
        others = _others(wrong, "has another too", "have others too")
        raise UsageError(f"{file.place(wrong[0])}: {first}{others}")


def _require_repeated(repeated: Mapping[str, str], file: TensorFile) -> None:
    """Refuse a tensor that is to be another's equal and is not."""
    for name, of in repeated.items():
        if file.shape(name) != file.shape(of) or not np.array_equal(file.read(name), file.read(of)):
            text = f"tensor {shown_name(name)} is not equal to {shown_name(of)}, to which the model ties it"
            raise UsageError(f"{file.place(name)}: {text}")


def _finite(name: str, file: TensorFile) -> F32:
    """Return the values of a tensor; refuse one with a value that is no number, as a damaged file has."""
    values = file.read(name)
    with np.errstate(all="ignore"):
        # One pass without another array; a sum can be infinite where no value is.
        is_suspicious = not np.isfinite(values.sum())
    if is_suspicious and not np.isfinite(values).all():
        text = f"tensor {shown_name(name)} holds what is infinite or no number"
        raise UsageError(f"{file.place(name)}: {text}", hint="the file may be damaged")
    return values


def _others(names: Sequence[str], is_so: str, are_so: str) -> str:
    """Return what is said of the names behind the first, as the end of a message; nothing where none are."""
    others = [shown_name(name) for name in names[1:_MOST_NAMED]]
    if len(names) > _MOST_NAMED:
        others.append(f"{len(names) - _MOST_NAMED:,} more")
    if len(others) < 2:
        return f"; {others[0]} {is_so}" if others else ""
    return f"; {', '.join(others[:-1])} and {others[-1]} {are_so}"
