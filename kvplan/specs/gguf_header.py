"""The head of a GGUF file: its metadata, and where each tensor is.

Layout: ggml/docs/gguf.md. Everything is checked before it is believed: no count of a file makes a list
that the file itself could not fill, and no tensor reaches past its end.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn, TypeAlias

from kvplan.checks import LARGEST_SIZE
from kvplan.errors import UsageError
from kvplan.specs.document import opened, printable, quoted, shortened
from kvplan.specs.gguf_types import KNOWN, GgmlType, type_name

Scalar: TypeAlias = int | float | bool | str
Value: TypeAlias = Scalar | tuple[Scalar, ...]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 10_000
MAX_TENSORS = 200_000
MAX_ARRAY = 4_000_000
# Of ggml: GGML_MAX_DIMS and GGML_MAX_NAME.
_MAX_DIMENSIONS = 4
_MAX_NAME = 64
_MAX_KEY = 1000
# Of the longest chat templates a hundredfold; the file may have 40 GB to read on in.
_MAX_TEXT = 1 << 24
_MAX_ALIGNMENT = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q").unpack_from
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of a file.

    Args:
        name: as the file has it: ``blk.0.attn_q.weight``.
        type: what it is stored in.
        shape: outputs first, as checkpoints have it; the file has it the other way round.
        start: its first byte in the file.
    """

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Its bytes in the file."""
        return self.type.bytes(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says before its tensors' data.

    Args:
        path: the file.
        label: how messages name it.
        metadata: its keys and values; a float32 by itself is the shortest decimal that means it.
        tensors: in the order of the file.
    """

    path: Path
    label: str
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]

    def refuse(self, message: str, *, hint: str = "") -> NoReturn:
        """Raise the error that names this file."""
        raise UsageError(f"{self.label}: {message}", hint=hint)


def read_header(path: Path) -> GgufHeader:
    """Read the head of a file.

    Raises:
        UsageError: it is no GGUF file, or a damaged or unknown one.
        FileError: it cannot be read.
    """
    label = printable(shortened(path))
    with opened(path) as file:
        size = file.seek(0, 2)
        if size < len(MAGIC) + 20:
            raise UsageError(f"{label}: the file has {size:,} bytes: too few for a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content, path, label).read()


class _Reader:
    """Reads values one behind the other."""

    def __init__(self, content: mmap.mmap, path: Path, label: str) -> None:
        self._content = content
        self._path = path
        self._label = label
        self._size = len(content)
        self._at = 0

    def read(self) -> GgufHeader:
        """Return the head."""
        self._check_start()
        tensors, keys = self._scalar("Q"), self._scalar("Q")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            self._refuse(f"the header counts {tensors:,} tensors and {keys:,} keys: it is damaged")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            self._add_key(metadata)
        found = tuple(self._tensors(tensors, self._alignment(metadata)))
        return GgufHeader(self._path, self._label, metadata, found)

    def _refuse(self, message: str) -> NoReturn:
        raise UsageError(f"{self._label}: {message}")

    def _check_start(self) -> None:
        if self._content[:4] != MAGIC:
            self._refuse(f"no GGUF file: it begins with {self._content[:4]!r}, not {MAGIC!r}")
        self._at = 4
        version = self._scalar("I")
        if version and version % 65_536 == 0:
            self._refuse("a GGUF file for big-endian machines, which is not read here")
        if version not in VERSIONS:
            self._refuse(f"GGUF version {version:,} is not understood, only {VERSIONS[0]} and {VERSIONS[1]}")

    def _take(self, length: int) -> int:
        """Return where the next bytes are, and step over them."""
        start = self._at
        if length > self._size - start:
            self._refuse(f"the file ends at byte {self._size:,}, inside its header: it is truncated")
        self._at = start + length
        return start

    def _scalar(self, code: str) -> int:
        return int(struct.unpack_from(f"<{code}", self._content, self._take(struct.calcsize(code)))[0])

    def _text(self, most: int = _MAX_TEXT) -> str:
        length = _LENGTH(self._content, self._take(8))[0]
        if length > most:
            self._refuse(f"a text of {length:,} bytes at byte {self._at:,}: the header is damaged")
        start = self._take(length)
        try:
            return self._content[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(f"the text at byte {start:,} is not UTF-8: the header is damaged")

    def _add_key(self, metadata: dict[str, Value]) -> None:
        key = self._text(_MAX_KEY)
        if not _NAME.fullmatch(key):
            self._refuse(f"{quoted(key)} is no name of a key: the header is damaged")
        if key in metadata:
            self._refuse(f"duplicate key {quoted(key)}")
        metadata[key] = self._value(key, self._scalar("I"))

    def _value(self, key: str, kind: int) -> Value:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            self._refuse(f"{quoted(key)} has a value of the unknown type {kind}: the header is damaged")
        found = self._numbers(_SCALARS[kind], 1)[0]
        return shortest(float(found)) if _SCALARS[kind] == "f" else found

    def _array(self, key: str) -> tuple[Scalar, ...]:
        kind, count = self._scalar("I"), self._scalar("Q")
        if count > MAX_ARRAY:
            self._refuse(f"{quoted(key)} counts {count:,} entries: the header is damaged")
        if kind == _STRING:
            return tuple(self._text() for _ in range(count))
        if kind not in _SCALARS:
            self._refuse(f"{quoted(key)} is a list of the unknown type {kind}: the header is damaged")
        return self._numbers(_SCALARS[kind], count)

    def _numbers(self, code: str, count: int) -> tuple[Scalar, ...]:
        start = self._take(count * struct.calcsize(code))
        return struct.unpack_from(f"<{count}{code}", self._content, start)

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        found = metadata.get("general.alignment", 32)
        if not isinstance(found, int) or not 1 <= found <= _MAX_ALIGNMENT or found & (found - 1):
            self._refuse(f"general.alignment is {str(found)[:40]}, and no power of two")
        return found

    def _tensors(self, count: int, alignment: int) -> list[GgufTensor]:
        entries = [self._entry() for _ in range(count)]
        if not entries:
            self._refuse("the file has no tensors")
        start = _aligned(self._at, alignment)
        found: dict[str, GgufTensor] = {}
        expected = 0
        for name, kind, shape, offset in entries:
            if name in found:
                self._refuse(f"duplicate tensor {name!r}")
            if offset != expected:
                self._refuse(f"tensor {name!r} is at {offset:,}, not at {expected:,}: the header is damaged")
            found[name] = GgufTensor(name, kind, shape, start + offset)
            expected = _aligned(offset + found[name].bytes, alignment)
        last = found[entries[-1][0]]
        if last.start + last.bytes > self._size:
            end = last.start + last.bytes
            self._refuse(f"the file ends at byte {self._size:,}, its tensors at {end:,}: it is truncated")
        return list(found.values())

    def _entry(self) -> tuple[str, GgmlType, tuple[int, ...], int]:
        name = self._text(_MAX_NAME)
        if not _NAME.fullmatch(name):
            self._refuse(f"{quoted(name)} is no name of a tensor: the header is damaged")
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            self._refuse(f"tensor {name!r} has {dimensions:,} dimensions: the header is damaged")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        number, offset = self._scalar("I"), self._scalar("Q")
        if not all(1 <= length <= LARGEST_SIZE for length in shape) or prod(shape) > LARGEST_SIZE**2:
            self._refuse(f"tensor {name!r} has no possible shape: the header is damaged")
        if number not in KNOWN:
            self._refuse(f"tensor {name!r} is stored as {type_name(number)}, which is not understood")
        kind = KNOWN[number]
        if shape[-1] % kind.block:
            self._refuse(f"tensor {name!r} has rows of {shape[-1]:,}: no whole blocks of {kind.name}")
        return name, kind, shape, offset


def shortest(value: float) -> float:
    """Return the number that the shortest decimal of a float32 means: 1e-05 for 9.99999974737875e-06."""
    import ctypes

    for digits in range(6, 10):
        found = float(f"{value:.{digits}g}")
        if ctypes.c_float(found).value == value:
            return found
    return value  # not a number, or none


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
