"""The accelerator file: a :class:`~kvplan.hardware.device.Device`, field for field."""

from __future__ import annotations

from pydantic import TypeAdapter

from kvplan.errors import SpecError
from kvplan.hardware.device import Device
from kvplan.specs.document import Document
from kvplan.specs.validation import validate


def adapter() -> TypeAdapter[Device]:
    """Return the checker of accelerator files."""
    return TypeAdapter(Device)


def read_gpu(document: Document) -> Device:
    """Return the accelerator a document describes.

    Raises:
        SpecError: every mistake in the document.
    """
    if isinstance(document.data, dict) and {"kinds", "layers"} <= document.data.keys():
        raise SpecError([document.problem((), "this is a model file: it goes where MODEL does")])
    return validate(document, adapter())
