"""A vision or audio tower beside the language model: weights that take memory and cache nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.arch.weight import Weight
from kvplan.checks import LARGEST_SIZE, FieldError, require_sizes, require_text
from kvplan.storage import TensorRole


def in_words(names: Sequence[str]) -> str:
    """Return what towers of these names are called and their verb: ``the vision tower is``."""
    called = " and ".join(f"the {name.replace('_', ' ')}" for name in names)
    return f"{called} {'is' if len(names) == 1 else 'are'}"


@dataclass(frozen=True, slots=True)
class TowerTensor:
    """Equal tensors of a tower.

    Args:
        name: what they are called.
        shape: the shape of one.
        count: how many there are.
        trained: false for buffers: they take memory but are no parameters.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1
    trained: bool = True

    def __post_init__(self) -> None:
        require_sizes(self, "count")
        require_text(self, "name")
        if not self.shape or not all(1 <= length <= LARGEST_SIZE for length in self.shape):
            raise FieldError((("shape",), f"must be sizes from 1 to {LARGEST_SIZE:,}"))


@dataclass(frozen=True, slots=True)
class Tower:
    """An encoder and its way into the text model, counted tensor by tensor and never run.

    Args:
        name: what its tensors' names begin with.
        tensors: every tensor; each rank holds them whole.
        assumed: the model's file does not describe it: it is as its class has it where nothing is said.
    """

    name: str
    tensors: tuple[TowerTensor, ...]
    assumed: bool = False

    def __post_init__(self) -> None:
        require_text(self, "name")
        if not self.tensors:
            raise FieldError((("tensors",), "must not be empty"))

    def weights(self) -> tuple[Weight, ...]:
        """Return every tensor; no text token uses one."""
        return tuple(
            Weight(
                f"{self.name}.{t.name}",
                t.shape,
                TensorRole.TOWER,
                copies=t.count,
                active_copies=0,
                trained=t.trained,
            )
            for t in self.tensors
        )
