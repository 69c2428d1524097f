"""The types a GGUF file stores tensors in, by the numbers it has for them (ggml.h, enum ggml_type)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from kvplan.storage import DTYPE_BYTES, weight_format


@dataclass(frozen=True, slots=True)
class GgmlType:
    """A type of tensors.

    Args:
        name: as ggml writes it: ``Q4_K``.
        format: the name of the weight format with the same layout.
    """

    name: str
    format: str

    @property
    def block(self) -> int:
        """Elements of a row that are packed together."""
        return 1 if self.format in DTYPE_BYTES else weight_format(self.format).tile_columns

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, scales included."""
        if self.format in DTYPE_BYTES:
            return DTYPE_BYTES[self.format]
        packed = weight_format(self.format)
        return (packed.bits * packed.tile_columns // 4 + packed.tile_half_bytes) // 2

    def bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of a tensor whose rows are whole blocks."""
        return prod(shape) // self.block * self.block_bytes


KNOWN: dict[int, GgmlType] = {
    0: GgmlType("F32", "fp32"),
    1: GgmlType("F16", "fp16"),
    2: GgmlType("Q4_0", "q4_0"),
    3: GgmlType("Q4_1", "q4_1"),
    6: GgmlType("Q5_0", "q5_0"),
    7: GgmlType("Q5_1", "q5_1"),
    8: GgmlType("Q8_0", "q8_0"),
    10: GgmlType("Q2_K", "q2_k"),
    11: GgmlType("Q3_K", "q3_k"),
    12: GgmlType("Q4_K", "q4_k"),
    13: GgmlType("Q5_K", "q5_k"),
    14: GgmlType("Q6_K", "q6_k"),
    16: GgmlType("IQ2_XXS", "iq2_xxs"),
    17: GgmlType("IQ2_XS", "iq2_xs"),
    18: GgmlType("IQ3_XXS", "iq3_xxs"),
    19: GgmlType("IQ1_S", "iq1_s"),
    20: GgmlType("IQ4_NL", "iq4_nl"),
    21: GgmlType("IQ3_S", "iq3_s"),
    22: GgmlType("IQ2_S", "iq2_s"),
    23: GgmlType("IQ4_XS", "iq4_xs"),
    29: GgmlType("IQ1_M", "iq1_m"),
    30: GgmlType("BF16", "bf16"),
    39: GgmlType("MXFP4", "mxfp4"),
}
# Types of files that no weight format here describes, for the message.
_OTHER = {
    9: "Q8_1",
    15: "Q8_K",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    34: "TQ1_0",
    35: "TQ2_0",
    40: "NVFP4",
    41: "Q1_0",
}


def type_name(number: int) -> str:
    """Return what a type is called, for a message."""
    known = KNOWN.get(number)
    return known.name if known else _OTHER.get(number, f"type {number}")
