"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from kvplan.errors import FileError

LONGEST_SHOWN = 200


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
    return FileError(f"cannot write {_shown(path)}: {reason}", hint="choose another place with -o")


def _shown(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= LONGEST_SHOWN else f"...{text[3 - LONGEST_SHOWN :]}")
