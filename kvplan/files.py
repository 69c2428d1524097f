"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kvplan.errors import FileError

LONGEST_SHOWN = 200
_ELSEWHERE = "choose another place with -o"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it: readers see the old file or the new.

    Text is written in UTF-8. A symbolic link stays one; a device or a pipe, which cannot be replaced, is
    written to.

    Raises:
        FileError: the folder or the file cannot be written; nothing is left behind.
    """
    try:
        if path.is_dir():
            raise FileError(f"cannot write {_shown(path)}: it is a folder", hint="name a file inside it")
        data = content.encode("utf-8") if isinstance(content, str) else content
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def require_folder(folder: Path) -> None:
    """Refuse a place where no folder is, and none can be made; raises FileError."""
    try:
        if folder.exists() and not folder.is_dir():
            raise FileError(f"cannot write into {_shown(folder)}: it is a file", hint=_ELSEWHERE)
        if not Path(os.path.realpath(folder)).parent.is_dir():
            raise FileNotFoundError
    except (OSError, ValueError) as error:
        raise _unwritable(folder, error) from error


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made where it is missing: all of them are, or none is.

    They are written beside their places, and take them once all are there. Other files there stay.

    Args:
        folder: where.
        files: contents by names such as ``a.svg`` and ``b/c.svg``.

    Raises:
        FileError: the folder or a file cannot be written.
    """
    require_folder(folder)
    place, made = Path(os.path.realpath(folder)), False
    try:
        if not place.exists():
            place.mkdir()
            made = True
        with tempfile.TemporaryDirectory(dir=place, prefix=".kvplan-") as aside:
            for name, data in files.items():
                written = Path(aside, name)
                written.parent.mkdir(parents=True, exist_ok=True)
                written.write_bytes(data)
            for name in files:
                if (place / name).is_dir():
                    raise FileError(f"cannot write {_shown(folder / name)}: it is a folder", hint=_ELSEWHERE)
                (place / name).parent.mkdir(parents=True, exist_ok=True)
            for name in files:
                os.replace(Path(aside, name), place / name)
    except (OSError, ValueError) as error:
        if made:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise _unwritable(folder, error) from error


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".kvplan-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_of(path))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _mode_of(path: Path) -> int:
    """Return the mode a plain ``open`` would leave the file with."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _unwritable(path: Path, error: OSError | ValueError) -> FileError:
    match error:
        case FileNotFoundError():
            reason = "there is no such folder"
        case NotADirectoryError():
            reason = "a part of its path is not a folder"
        case OSError():
            reason = (error.strerror or "the system refused").lower()
        case _:
            reason = "that cannot be a file name"
    return FileError(f"cannot write {_shown(path)}: {reason}", hint=_ELSEWHERE)


def _shown(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= LONGEST_SHOWN else f"...{text[3 - LONGEST_SHOWN :]}")
