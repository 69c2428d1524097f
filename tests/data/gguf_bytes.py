"""GGUF files written by hand after ggml/docs/gguf.md, so that the reader is checked by another's rules."""

from __future__ import annotations

import struct
from math import prod

# Number of the type, elements of a block, bytes of a block (ggml.h, ggml-common.h).
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84),
    "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "IQ2_XXS": (16, 256, 66),
    "IQ2_XS": (17, 256, 74),
    "IQ3_XXS": (18, 256, 98),
    "IQ1_S": (19, 256, 50),
    "IQ4_NL": (20, 32, 18),
    "IQ3_S": (21, 256, 110),
    "IQ2_S": (22, 256, 82),
    "IQ4_XS": (23, 256, 136),
    "IQ1_M": (29, 256, 56),
    "BF16": (30, 1, 2),
    "MXFP4": (39, 32, 17),
}
# A Llama of one layer whose rows are whole blocks of every type.
HIDDEN, WIDTH, HEADS, KV_HEADS, VOCABULARY = 256, 512, 4, 2, 8
LLAMA = {
    "general.architecture": "llama",
    "general.quantization_version": 2,
    "llama.block_count": 1,
    "llama.context_length": 512,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": WIDTH,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10_000.0,
}
SHAPES = {
    "token_embd.weight": (VOCABULARY, HIDDEN),
    "blk.0.attn_norm.weight": (HIDDEN,),
    "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
    "blk.0.attn_k.weight": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_v.weight": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
    "blk.0.ffn_norm.weight": (HIDDEN,),
    "blk.0.ffn_gate.weight": (WIDTH, HIDDEN),
    "blk.0.ffn_up.weight": (WIDTH, HIDDEN),
    "blk.0.ffn_down.weight": (HIDDEN, WIDTH),
    "output_norm.weight": (HIDDEN,),
}


def bytes_of(kind, shape):
    """Return the bytes of a tensor of a type and a shape, outputs first."""
    _, block, block_bytes = TYPES[kind]
    return prod(shape) // block * block_bytes


def text(value):
    """Return a text with its length in front."""
    content = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(content)) + content


def value_bytes(value):
    """Return a value with the number of its type in front."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case list() if value and isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case list() if value and isinstance(value[0], float):
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        case bytes():
            return value  # as it is
    raise TypeError(value)


def head(metadata, entries, *, magic=b"GGUF", version=3, counts=None):
    """Return the head of a file: ``entries`` are name, shape, number of the type, offset."""
    tensors, keys = counts or (len(entries), len(metadata))
    found = magic + struct.pack("<IQQ", version, tensors, keys)
    for key, value in metadata.items():
        found += text(key) + value_bytes(value)
    for name, shape, number, offset in entries:
        found += text(name) + struct.pack("<I", len(shape))
        found += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", number, offset)
    return found


def file(metadata, tensors, **changes):
    """Return a file: ``tensors`` has type, shape and data of each by its name."""
    entries, data = [], b""
    for name, (kind, shape, content) in tensors.items():
        data += b"\0" * (-len(data) % 32)
        entries.append((name, shape, TYPES[kind][0], len(data)))
        data += content
    start = head(metadata, entries, **changes)
    return start + b"\0" * (-len(start) % 32) + data


def llama(*, kind="F32", embedding="F32", kinds=None, keys=None, tensors=None):
    """Return the small Llama: matrices of a type, some of their own, with other keys and tensors.

    A key or a tensor that is changed to ``None`` is left out.
    """
    found = {}
    for name, shape in SHAPES.items():
        chosen = "F32" if len(shape) == 1 else embedding if name.startswith("token") else kind
        chosen = (kinds or {}).get(name, chosen)
        found[name] = (chosen, shape, bytes(bytes_of(chosen, shape)))
    metadata = {key: value for key, value in (LLAMA | (keys or {})).items() if value is not None}
    given = {name: tensor for name, tensor in (found | (tensors or {})).items() if tensor is not None}
    return file(metadata, given)
