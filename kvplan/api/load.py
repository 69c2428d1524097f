"""Models and accelerators by name or by file."""

from __future__ import annotations

import os
from typing import TypeAlias

from kvplan.arch.model import Model
from kvplan.hardware.device import Device
from kvplan.specs import catalog
from kvplan.specs.catalog import Found

# What stands for a model or an accelerator: itself, its file, or a name.
ModelLike: TypeAlias = Model | Found | str | os.PathLike[str]
GpuLike: TypeAlias = Device | Found | str | os.PathLike[str]


def load_model(model: ModelLike, *, specs: str | os.PathLike[str] | None = None) -> Model:
    """Return a model by its name, or from a YAML file, a config.json or a folder with one, or a GGUF file.

    Args:
        model: what ``MODEL`` is on the command line; a model stays what it is.
        specs: a folder whose ``models`` are looked up first.

    Raises:
        UsageError: an unknown name; the closest ones are suggested.
        SpecError: mistakes in the file.
        FileError: it cannot be read.
    """
    found = model_file(model, specs)
    return catalog.load_model(found) if isinstance(found, Found) else found


def load_gpu(gpu: GpuLike, *, specs: str | os.PathLike[str] | None = None) -> Device:
    """Return an accelerator by its name or from a YAML file.

    Args:
        gpu: what ``--gpu`` takes; an accelerator stays what it is.
        specs: a folder whose ``gpus`` are looked up first.

    Raises:
        UsageError: an unknown name; the closest ones are suggested.
        SpecError: mistakes in the file.
        FileError: it cannot be read.
    """
    found = gpu_file(gpu, specs)
    return catalog.load_gpu(found) if isinstance(found, Found) else found


def model_file(model: ModelLike, specs: str | os.PathLike[str] | None = None) -> Found | Model:
    """Return the file that is meant, or the model as it was given."""
    if isinstance(model, Model | Found):
        return model
    return catalog.find_model(_text(model), catalog.specs_folder(specs))


def gpu_file(gpu: GpuLike, specs: str | os.PathLike[str] | None = None) -> Found | Device:
    """Return the file that is meant, or the accelerator as it was given."""
    if isinstance(gpu, Device | Found):
        return gpu
    return catalog.find_gpu(_text(gpu), catalog.specs_folder(specs))


def _text(given: str | os.PathLike[str]) -> str:
    """Return what the command line would be given: a path that is one, even without a slash."""
    return given if isinstance(given, str) else os.path.join(os.curdir, os.fspath(given))
