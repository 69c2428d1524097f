"""Packages that are not always there: those of the extra ``kvplan[checkpoint]``, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kvplan.errors import UsageError


def required(package: str, what: str) -> Any:
    """Return a package of the extra.

    Args:
        package: its name.
        what: what needs it, for the message: ``"reading GGUF files"``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        message = f"{what} needs the package {package.partition('.')[0]}"
        raise UsageError(message, hint="pip install 'kvplan[checkpoint]'") from None
