"""Units: powers, the sizes people type, and the sizes people read.

GB is 10^9 bytes (as vendors sell memory), GiB is 2^30 bytes (as allocators count it).
For counts of tokens and requests ``k`` and ``Ki`` both mean 1,024 and ``M`` and ``Mi`` 1,048,576:
a "128k context" is 131,072 tokens.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Count: TypeAlias = int | npt.NDArray[np.int64]
    # What may be fractional: expected figures, times, and grids of either.
    Amount: TypeAlias = int | float | npt.NDArray[Any]
else:
    Count: TypeAlias = int
    Amount: TypeAlias = float

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
GB = 10**9

COUNT_SUFFIXES = {"": 1, "k": KIB, "ki": KIB, "m": MIB, "mi": MIB}
BYTE_SUFFIXES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": GB,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
}
LARGEST_COUNT = 1 << 40

_NUMBER = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))?([A-Za-z]{0,3})", re.ASCII)
_SHARE = re.compile(r"(?=\.?\d)(\d{0,9})(?:\.(\d{0,9}))?(%?)", re.ASCII)


class Unit(Enum):
    """What a figure counts; the value is what is printed behind it."""

    BYTES = "B"
    BYTES_PER_TOKEN = "B/token"
    PARAMETERS = "parameters"
    TOKENS = "tokens"
    PAIRS = "pairs"
    GROUPS = "groups"
    STEPS = "steps"
    REQUESTS = "requests"
    BLOCKS = "blocks"
    LAYERS = "layers"
    GPUS = "GPUs"
    FLOPS = "FLOP"
    FLOPS_PER_BYTE = "FLOP/B"
    SECONDS = "s"
    BYTES_PER_SECOND = "B/s"
    FLOPS_PER_SECOND = "FLOP/s"
    TOKENS_PER_SECOND = "tokens/s"
    SHARE = "share"
    CHANGE = "change"
    TIMES = "x"
    USD = "USD"
    PERPLEXITY = "perplexity"
    NATS_PER_TOKEN = "nats/token"
    NONE = ""


def parse_count(text: str, largest: int = LARGEST_COUNT) -> int:
    """Return the integer meant by ``"8192"``, ``"4k"``, ``"32Ki"`` or ``"1M"``.

    Raises:
        ValueError: the text is no such number, not whole, or not in 1 .. ``largest``.
    """
    value = _parse(text, COUNT_SUFFIXES, "a count such as 8192, 4k or 1M", "whole number")
    if not 1 <= value <= largest:
        raise ValueError(f"{text!r} is out of range: expected 1 to {largest:,}")
    return value


def parse_bytes(text: str) -> int:
    """Return the bytes meant by ``"1.5GiB"``, ``"512MiB"``, ``"2GB"`` or ``"1048576"``.

    Raises:
        ValueError: the text is no such size, or not a whole number of bytes.
    """
    return _parse(text, BYTE_SUFFIXES, "a size such as 1.5GiB, 512MiB or 2GB", "whole number of bytes")


def _parse(text: str, suffixes: dict[str, int], expected: str, whole_what: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or match[3].lower() not in suffixes:
        raise ValueError(f"{text[:40]!r} is not {expected}")
    whole, fraction, suffix = match[1], match[2] or "", match[3].lower()
    scaled = int(whole + fraction) * suffixes[suffix]
    value, remainder = divmod(scaled, int("1" + "0" * len(fraction)))
    if remainder:
        raise ValueError(f"{text!r} is not a {whole_what}")
    return value


def parse_share(text: str) -> int:
    """Return the ten-thousandths meant by a share such as ``"0.9"`` or ``"90%"``: 9,000 of both.

    Raises:
        ValueError: the text is no share above 0 and up to 1, or has more than four decimals.
    """
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a share such as 0.9 or 90%")
    whole, fraction, percent = match[1] or "0", match[2] or "", match[3]
    scaled = int(whole + fraction) * (100 if percent else 10_000)
    value, remainder = divmod(scaled, int("1" + "0" * len(fraction)))
    if not 0 < scaled <= 10_000 * int("1" + "0" * len(fraction)):
        raise ValueError(f"{text!r} is out of range: expected above 0 and up to 1, or 100%")
    if remainder:
        raise ValueError(f"{text!r} has more than four decimals")
    return value


def short_count(count: int) -> str:
    """Return a count the way it is typed: 4096 as ``4k``, 131072 as ``128k``, 1000 as ``1,000``."""
    for suffix, size in (("M", MIB), ("k", KIB)):
        if count >= size and count % size == 0:
            return f"{count // size}{suffix}"
    return f"{count:,}"


def gib(byte_count: int, digits: int = 2) -> str:
    """Return bytes in GiB with the given decimals, and more of them below 0.1 GiB."""
    value = byte_count / GIB
    if value and abs(value) < 10**-digits:
        return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:,.{digits}f}"


def ceil_div(count: Count, divisor: int) -> Count:
    """Return ``count / divisor`` rounded up, for an integer or an integer array."""
    return -(-count // divisor)


@overload
def minimum(left: Count, right: Count) -> Count: ...
@overload
def minimum(left: Amount, right: Amount) -> Amount: ...
def minimum(left: Amount, right: Amount) -> Amount:
    """Return the smaller of two counts, element by element where one is an array.

    NumPy is imported only when an array is really there: a table of a dozen rows needs none.
    """
    if isinstance(left, int | float) and isinstance(right, int | float):
        return min(left, right)
    import numpy as np

    return np.minimum(left, right)


@overload
def maximum(left: Count, right: Count) -> Count: ...
@overload
def maximum(left: Amount, right: Amount) -> Amount: ...
def maximum(left: Amount, right: Amount) -> Amount:
    """Return the larger of two counts, element by element where one is an array."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return max(left, right)
    import numpy as np

    return np.maximum(left, right)
