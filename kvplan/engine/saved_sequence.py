"""A sequence on disk: one .npz file, written whole or not at all, and never unpickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.snapshot import Layout, Snapshot
from kvplan.errors import FileError
from kvplan.files import write_atomically

# What the file says it is; another number means another order of arrays.
FORMAT = "kvplan sequence 1"


def save(snapshot: Snapshot, path: Path) -> None:
    """Write a sequence to a file; the same sequence gives the same bytes.

    Raises:
        FileError: the file cannot be written; what was there before is still there.
    """
    buffer, arrays = BytesIO(), dict[str, Any](_named(snapshot))
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> Snapshot:
    """Return the sequence in a file; :meth:`Cache.restore` says whether it fits a cache.

    Raises:
        FileError: the file cannot be read, or is not one that ``save`` has written.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that cannot be a file name"
        raise FileError(f"cannot read {str(path)!r}: {reason.lower()}") from error
    try:
        return _snapshot(_arrays(data))
    # NumPy reads headers with Python's own parser: for bytes that are none, anything may come out of it.
    except Exception as error:
        raise FileError(
            f"{str(path)!r} is not a saved sequence, or not all of one", hint="save the sequence again"
        ) from error


def _named(snapshot: Snapshot) -> Iterator[tuple[str, NDArray[Any]]]:
    """Iterate over everything in a snapshot as arrays with names."""
    yield "format", np.array(FORMAT)
    yield "layout", np.array(astuple(snapshot.layout))
    yield "tokens", snapshot.tokens
    yield "counts", np.array([len(snapshot.blocks), len(snapshot.layers)])
    for number, blocks in enumerate(snapshot.blocks):
        yield f"blocks.{number}", np.array(blocks, np.int64)
    for number, arrays in enumerate(snapshot.layers):
        for name, array in arrays.items():
            yield f"layer.{number}.{name}", array


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive whose checksums are right."""
    with ZipFile(BytesIO(data)) as archive:
        if archive.testzip() is not None:
            raise ValueError("a checksum is wrong")
    with np.load(BytesIO(data), allow_pickle=False) as archive:
        arrays = dict(archive)
    # NumPy returns bytes for a member that is no array.
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("not an archive of arrays alone")
    return arrays


def _snapshot(arrays: Mapping[str, NDArray[Any]]) -> Snapshot:
    """Return the snapshot that these arrays were made from.

    Raises:
        KeyError, ValueError: they were made from none.
    """
    if arrays["format"].tolist() != FORMAT:
        raise ValueError("another format")
    model, layers_hash, kv, allocation = _row(arrays["layout"], "U")
    groups, layers = _row(arrays["counts"], "i")
    if not 0 <= max(groups, layers) <= len(arrays):
        raise ValueError("more parts than arrays")
    return Snapshot(
        Layout(model, layers_hash, kv, allocation),
        np.array(_row(arrays["tokens"], "i"), np.int64),
        tuple(tuple(_row(arrays[f"blocks.{number}"], "i")) for number in range(groups)),
        tuple(_with_prefix(arrays, f"layer.{number}.") for number in range(layers)),
    )


def _row(array: NDArray[Any], kind: str) -> list[Any]:
    """Return the entries of an array; raises ValueError unless it is one row of this kind."""
    if array.ndim != 1 or array.dtype.kind != kind:
        raise ValueError(f"an array is {array.dtype} {array.shape}")
    row: list[Any] = array.tolist()
    return row


def _with_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
