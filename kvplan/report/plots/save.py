"""A picture in a file: PNG or SVG, the same bytes for the same picture, and never half of one."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from kvplan.errors import UsageError
from kvplan.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")


def require_picture(path: Path) -> None:
    """Refuse a file name that says no format; raises UsageError."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path.name!r} is no picture that is made here", hint="a name that ends in .png or .svg"
        )


def picture(figure: Figure, suffix: str) -> bytes:
    """Return the bytes of a picture as ``.png`` or ``.svg``: no date in them, and names that never change."""
    from matplotlib import rc_context

    out = BytesIO()
    with rc_context({"svg.hashsalt": "kvplan", "svg.fonttype": "path"}):
        metadata = {"Date": None, "Creator": None} if suffix == ".svg" else {"Software": None}
        figure.savefig(out, format=suffix[1:], metadata=metadata, facecolor=figure.get_facecolor())
    return out.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a picture in the format its file's name says.

    Raises:
        UsageError: the name says no format.
        FileError: the file cannot be written; what was there before stays.
    """
    require_picture(path)
    write_atomically(path, picture(figure, path.suffix.lower()))
