"""Tensors out of safetensors files, memory-mapped: one file, or the shards that an index names.

The package checks a header (every byte belongs to exactly one tensor) and names the tensors in the order of
the file, but NumPy has no bfloat16 for it to return. So the bytes are mapped here, each tensor behind the
one before it, as the format has it (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvplan.checkpoint.tensor_file import F32, TensorFile, shown_name
from kvplan.errors import Problem, SpecError, UsageError
from kvplan.extra import required
from kvplan.specs.document import Document, printable, quoted, read_start, shortened
from kvplan.specs.strict_json import read_json

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_NAMES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
# Tables of small whole numbers, no weights: the experts of every token (DeepSeek-V4).
_TABLE_DTYPE = "I64"
_LENGTH_BYTES = 8
_LONGEST_REASON = 100
# What the package's words for a bad header mean to whoever has the file.
_REASONS = (
    (r"header too small", "it ends before its header does"),
    (r"invalid header length", "it ends before its header does"),
    (r"header too large|invalid header start|invalid UTF-8 in header", "it does not begin with a header"),
    (r"incomplete metadata", "its data is shorter or longer than its header says"),
    (r"unknown variant `(\w+)`", r"its header names the dtype '\1', which the format does not have"),
    (r"invalid offset for tensor", "tensors in its header overlap, or leave bytes between them"),
    (r"invalid shape, data type, or offset", "a tensor in its header has another size than its place"),
    (r"overflow computing buffer size", "a tensor in its header is larger than any file"),
    (r"invalid type: (\w+), expected struct HashMetadata", r"its header is a \1, and no mapping"),
    (r"invalid JSON in header: ", "its header is not what the format has: "),
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor in a file: its dtype as the header has it, its shape, and its first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class SafetensorsFile:
    """One safetensors file.

    Raises:
        FileError: it cannot be read.
        UsageError: it is no safetensors file, or one that is cut off; the package is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.label = printable(shortened(path))
        length = int.from_bytes(read_start(path, _LENGTH_BYTES), "little")
        self._entries = _entries(path, self.label, _LENGTH_BYTES + length)
        self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")

    def names(self) -> tuple[str, ...]:
        """Return the name of every tensor, in the order of the file."""
        return tuple(self._entries)

    def place(self, name: str) -> str:
        """Return the file's own label: it holds every tensor."""
        return self.label

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Return ``bf16``, ``fp16`` or ``fp32``.

        Raises:
            UsageError: it is none of these.
        """
        found = self._entries[name].dtype
        if found not in _NAMES:
            message = f"{self.label}: tensor {shown_name(name)} has the dtype {found}"
            raise UsageError(message, hint=f"weights are read in {', '.join(_NAMES)}")
        return _NAMES[found]

    def read(self, name: str) -> F32:
        """Return the values of a tensor, in an array of its own.

        Raises:
            UsageError: its dtype is not understood.
        """
        entry = self._entries[name]
        if entry.dtype == _TABLE_DTYPE:
            whole = self._bytes[entry.start : entry.start + 8 * prod(entry.shape)].view("<i8")
            return whole.astype(np.float32).reshape(entry.shape)
        dtype = self.dtype(name)
        nbytes = prod(entry.shape) * (4 if dtype == "fp32" else 2)
        return _decoded(self._bytes[entry.start : entry.start + nbytes], dtype).reshape(entry.shape)


class ShardedSafetensors:
    """Several safetensors files that an index joins into one.

    Raises:
        FileError: one cannot be read.
        SpecError: the index is not what it should be, or names other tensors than the files hold.
        UsageError: a file is no safetensors file, or one that is cut off; the package is not installed.
    """

    def __init__(self, index: Path) -> None:
        self.label = printable(shortened(index))
        document = read_json(index)
        self._shard_of = _weight_map(document)
        self._shards = {
            shard: SafetensorsFile(index.with_name(shard)) for shard in _present_shards(document, index)
        }
        problems = [*_not_in_shards(document, self._shard_of, self._shards)]
        problems += _not_in_index(document, self._shard_of, self._shards)
        if problems:
            raise SpecError(_first_few(problems))

    def names(self) -> tuple[str, ...]:
        """Return the name of every tensor, in the order of the index."""
        return tuple(self._shard_of)

    def place(self, name: str) -> str:
        """Return the label of the shard that holds a tensor."""
        return self._holder(name).label

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._holder(name).shape(name)

    def dtype(self, name: str) -> str:
        """Return ``bf16``, ``fp16`` or ``fp32``.

        Raises:
            UsageError: it is none of these.
        """
        return self._holder(name).dtype(name)

    def read(self, name: str) -> F32:
        """Return the values of a tensor, in an array of its own.

        Raises:
            UsageError: its dtype is not understood.
        """
        return self._holder(name).read(name)

    def _holder(self, name: str) -> SafetensorsFile:
        return self._shards[self._shard_of[name]]


def safetensors_in(folder: Path) -> TensorFile:
    """Return the weights in a folder: ``model.safetensors``, or else the shards that its index names.

    Raises:
        FileError: a file cannot be read.
        SpecError: the index is not what it should be.
        UsageError: neither is there; a file is no safetensors file, or one that is cut off.
    """
    if (folder / WHOLE).is_file():
        return SafetensorsFile(folder / WHOLE)
    if (folder / INDEX).is_file():
        return ShardedSafetensors(folder / INDEX)
    message = f"'{printable(shortened(folder))}' has neither {WHOLE} nor {INDEX}"
    raise UsageError(message, hint="name a .safetensors or .gguf file, or a folder with one of these")


def _entries(path: Path, label: str, start: int) -> dict[str, _Entry]:
    """Return every tensor of a file with its place; the first is at ``start``."""
    package = required("safetensors", "reading safetensors files")
    found = {}
    try:
        with package.safe_open(path, framework="numpy") as file:
            for name in file.offset_keys():
                tensor = file.get_slice(name)
                entry = _Entry(tensor.get_dtype(), tuple(tensor.get_shape()), start)
                found[name] = entry
                start += prod(entry.shape) * _bits(entry.dtype) // 8
    except package.SafetensorError as error:
        raise UsageError(f"{label}: no safetensors file: {_reason(str(error))}") from None
    if start != path.stat().st_size:
        raise UsageError(f"{label}: no safetensors file: its data is shorter or longer than its header says")
    return found


def _reason(words: str) -> str:
    """Return in plain words why the package refused a header."""
    text = printable(words).removeprefix("Error while deserializing header: ")
    for pattern, reason in _REASONS:
        if match := re.search(pattern, text):
            rest = text[match.end() :] if reason.endswith(": ") else ""
            return match.expand(reason) + rest[:_LONGEST_REASON]
    return text[:_LONGEST_REASON]


def _bits(dtype: str) -> int:
    """Return the bits of a number: the first number in its dtype's name, such as F8_E4M3; BOOL has a byte."""
    found = re.search(r"\d+", dtype)
    return int(found[0]) if found else 8


def _decoded(data: NDArray[np.uint8], dtype: str) -> F32:
    """Return little-endian numbers in float32."""
    match dtype:
        case "bf16":
            bits: NDArray[np.uint32] = np.left_shift(data.view("<u2"), 16, dtype=np.uint32)
            return bits.view(np.float32)
        case "fp16":
            return data.view("<f2").astype(np.float32)
        case _:
            return np.array(data.view("<f4"), dtype=np.float32)


def _weight_map(document: Document) -> dict[str, str]:
    """Return the shard of every tensor as an index has it."""
    data = document.data
    shards = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(shards, dict) or not shards:
        message = "expected 'weight_map', a mapping from tensors to the files that hold them"
        raise SpecError([document.problem(("weight_map",), message)])
    problems = [
        document.problem(("weight_map", name), f"tensor {shown_name(name)}: expected a .safetensors file")
        for name, shard in shards.items()
        if not _is_plain(shard)
    ]
    if problems:
        raise SpecError(_first_few(problems))
    return shards


def _is_plain(shard: object) -> bool:
    """Whether this is the name of a safetensors file beside the index."""
    return isinstance(shard, str) and re.fullmatch(r"[^/\\\0]+\.safetensors", shard) is not None


def _present_shards(document: Document, index: Path) -> list[str]:
    """Return every shard an index names, each once; refuse those that are not there."""
    first_tensors: dict[str, str] = {}
    for name, shard in _weight_map(document).items():
        first_tensors.setdefault(shard, name)
    problems = [
        document.problem(("weight_map", name), f"{quoted(shard)} is not beside the index: a shard is missing")
        for shard, name in first_tensors.items()
        if not index.with_name(shard).exists()
    ]
    if problems:
        raise SpecError(_first_few(problems))
    return list(first_tensors)


def _not_in_shards(
    document: Document, shard_of: Mapping[str, str], shards: Mapping[str, SafetensorsFile]
) -> Iterator[Problem]:
    """Iterate over the tensors that are not where the index says."""
    held = {shard: frozenset(file.names()) for shard, file in shards.items()}
    for name, shard in shard_of.items():
        if name not in held[shard]:
            message = f"tensor {shown_name(name)} is not in {quoted(shard)}, where the index says it is"
            yield document.problem(("weight_map", name), message)


def _not_in_index(
    document: Document, shard_of: Mapping[str, str], shards: Mapping[str, SafetensorsFile]
) -> Iterator[Problem]:
    """Iterate over the tensors that shards hold and the index does not say so."""
    for shard, file in shards.items():
        for name in file.names():
            if name not in shard_of:
                message = f"the index lacks tensor {shown_name(name)}, which is in {quoted(shard)}"
                yield document.problem(("weight_map",), message)
            elif shard_of[name] != shard:
                message = f"tensor {shown_name(name)} is in {quoted(shard)} too"
                yield document.problem(("weight_map", name), message)


def _first_few(problems: list[Problem]) -> list[Problem]:
    """Return the first mistake, with the number of those like it in its line."""
    first, more = problems[0], len(problems) - 1
    also = f" (and {more:,} more like it)" if more else ""
    return [Problem(first.path, first.line, first.column, first.message + also)]
