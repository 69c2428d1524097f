"""A released model on disk: its description, its weights and its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kvplan.arch.model import Model
from kvplan.checkpoint.tensor_file import F32
from kvplan.checkpoint.tokenizer import Tokenizer
from kvplan.errors import FileError
from kvplan.specs.document import printable, shortened


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model that can be run. Its weights and its tokenizer are read when they are asked for.

    Args:
        label: how a report names it.
        path: the folder, or the file.
        model: what its config.json, or the file's own header, describes.
        weights: returns every tensor the engine runs, float32, by its engine name; raises UsageError where
            one is missing, none of the model, of another shape, or in a format that is not understood.
        tokenizer: returns its tokenizer; raises UsageError where there is none, or that of another model.
    """

    label: str
    path: Path
    model: Model
    weights: Callable[[], dict[str, F32]]
    tokenizer: Callable[[], Tokenizer]


def is_checkpoint(text: str) -> bool:
    """Whether a text means weights: a .safetensors or .gguf file, or a folder with safetensors in it."""
    if text.lower().endswith((".safetensors", ".gguf")):
        return True
    try:
        return os.path.isdir(text) and any(".safetensors" in name for name in os.listdir(text))
    except OSError:
        return False


def open_checkpoint(text: str | os.PathLike[str]) -> Checkpoint:
    """Return the checkpoint at a path: a folder with safetensors, a .safetensors file or a .gguf file.

    Raises:
        SpecError: mistakes in config.json or in the index of the weights.
        UsageError: no weights are there, or a file is not what its name says; a package is not installed.
        FileError: a file cannot be read.
    """
    path = Path(text)
    if not path.exists():
        shown = printable(shortened(path))
        hint = "a folder with safetensors, or a .safetensors or .gguf file"
        raise FileError(f"cannot read '{shown}': there is no such file or folder", hint=hint)
    if path.suffix.lower() == ".gguf":
        from kvplan.checkpoint.gguf_checkpoint import gguf_checkpoint

        return gguf_checkpoint(path)
    from kvplan.checkpoint.folder_checkpoint import folder_checkpoint

    return folder_checkpoint(path)
