"""Write a checkpoint of a 2-layer Llama: what Hugging Face and llama.cpp would release, a few hundred KiB.

    python tests/checkpoint/make_checkpoint.py [--dtype F32] [--shards 3] [--tied] FOLDER

Weights, vocabulary and merges are made of names and rules: the same on every machine, for ever. Every number
is a multiple of 1/256 of at most 8 bits, so that float32, float16 and bfloat16 hold the same model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from zlib import crc32

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

HIDDEN, INTERMEDIATE, LAYERS = 64, 96, 2
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
ROPE_THETA, EPS, CONTEXT = 10_000.0, 1e-5, 512

END = "<|endoftext|>"
START_TURN, END_TURN = "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END, START_TURN, END_TURN)
# In order of priority, each a pair of tokens that are there before it; "Ġ" stands for a space.
MERGES = (
    *("Ġ t", "h e", "i n", "Ġt he", "e r", "o n", "r e", "Ġ a", "a t", "n d", "Ġa nd", "in g", "o r"),
    *("Ġ s", "Ġ o", "Ġo f", "e n", "i s", "Ġ is", "Ġ in", "Ġt o", "o u", "e s", "a n", "l e", "Ġ w"),
    *("v e", "i t", "a l", "Ġ he", "l l", "Ġ re"),
)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": EPS,
    "rope_theta": ROPE_THETA,
}
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def vocabulary() -> list[str]:
    """Return every token in the order of their ids: special ones, the 256 bytes, what merges make."""
    return [*SPECIAL_TOKENS, *byte_letters(), *(merge.replace(" ", "") for merge in MERGES)]


def byte_letters() -> list[str]:
    """Return the letter that stands for each byte in a byte-level vocabulary (GPT-2's bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


def shapes(tied: bool = False) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by its name, as transformers has them."""
    vocab = len(vocabulary())
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, HIDDEN)}
    for layer in range(LAYERS):
        inner = {
            "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj": (HIDDEN, INTERMEDIATE),
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
        }
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inner.items()}
    found["model.norm.weight"] = (HIDDEN,)
    return found if tied else {**found, "lm_head.weight": (vocab, HIDDEN)}


def weights(tied: bool = False) -> dict[str, Array]:
    """Return every tensor by its name; ``RandomState`` is frozen by NumPy's policy (NEP 19)."""
    return {name: _drawn(name, shape) for name, shape in shapes(tied).items()}


def _drawn(name: str, shape: tuple[int, ...]) -> Array:
    normal = np.random.RandomState(crc32(name.encode())).standard_normal(shape)
    is_norm = len(shape) == 1
    steps = 256 * (1 + 0.1 * normal) if is_norm else 256 * 0.15 * normal
    limits = (128, 255) if is_norm else (-255, 255)
    return np.asarray(np.clip(np.rint(steps), *limits) / 256, np.float32)


def stored(array: Array, dtype: str) -> bytes:
    """Return a tensor as a safetensors file has it."""
    match dtype:
        case "F32":
            return array.astype("<f4").tobytes()
        case "F16":
            return array.astype("<f2").tobytes()
        case "BF16":
            return (array.view(np.uint32) >> 16).astype("<u2").tobytes()
    raise ValueError(f"no dtype of this script: {dtype}")


def safetensors_bytes(tensors: Mapping[str, Array], dtype: str) -> bytes:
    """Return a safetensors file; written here by hand, so that the reader is checked by another's rules."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in tensors.items():
        content = stored(array, dtype)
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += content
    return file_of(header, data)


def file_of(header: object, data: bytes) -> bytes:
    """Return a safetensors file with this header and data, whether or not they fit."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def write_safetensors(
    folder: Path, tensors: Mapping[str, Array], dtype: str = "BF16", shards: int = 1
) -> None:
    """Write tensors as one file, or as shards with their index."""
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors, dtype))
        return
    names = list(tensors)
    shard_of = {
        name: f"model-{i * shards // len(names) + 1:05}-of-{shards:05}.safetensors"
        for i, name in enumerate(names)
    }
    for shard in sorted(set(shard_of.values())):
        held = {name: tensors[name] for name in names if shard_of[name] == shard}
        (folder / shard).write_bytes(safetensors_bytes(held, dtype))
    total = sum(prod(array.shape) for array in tensors.values()) * (4 if dtype == "F32" else 2)
    index = {"metadata": {"total_size": total}, "weight_map": shard_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def config(dtype: str = "BF16", tied: bool = False) -> dict[str, object]:
    """Return config.json."""
    given = {"vocab_size": len(vocabulary()), "torch_dtype": TORCH_DTYPES[dtype], "tie_word_embeddings": tied}
    return {**CONFIG, **given}


def tokenizer() -> dict[str, object]:
    """Return tokenizer.json: a byte-level BPE in which every digit is a token (SmolLM2's rules)."""
    special = [
        {
            "id": i,
            "content": text,
            "special": True,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for i, text in enumerate(SPECIAL_TOKENS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(vocabulary())},
            "merges": [merge.split(" ") for merge in MERGES],
        },
    }


def write_checkpoint(folder: Path, *, dtype: str = "BF16", shards: int = 1, tied: bool = False) -> None:
    """Write the folder: config.json, generation_config.json, tokenizer.json and the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    end_of_turn = SPECIAL_TOKENS.index(END_TURN)
    _write_json(folder / "config.json", config(dtype, tied))
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": [0, end_of_turn]})
    _write_json(folder / "tokenizer.json", tokenizer())
    write_safetensors(folder, weights(tied), dtype, shards)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GGUF_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """Return what llama.cpp calls a tensor."""
    stem = name.removesuffix(".weight")
    if stem in GGUF_OUTER:
        return f"{GGUF_OUTER[stem]}.weight"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[inner]}.weight"


def permuted(rows: Array, heads: int) -> Array:
    """Return rows of queries or keys in llama.cpp's order: pairs that rotate together are neighbours
    (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path: Path, *, type: str = "F32", tied: bool = False) -> None:
    """Write the same model as one GGUF file, its matrices in a tensor type such as ``Q8_0``."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_vocab_size(len(vocabulary()))
    _add_tokenizer(writer)
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}
    for name, array in weights(tied).items():
        there = gguf_name(name)
        kind = there.split(".")[-2]
        _add_tensor(writer, there, permuted(array, heads[kind]) if kind in heads else array, type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokens = vocabulary()
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL_TOKENS else normal for token in tokens])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(SPECIAL_TOKENS.index(END_TURN))
    writer.add_add_bos_token(False)


def _add_tensor(writer: gguf.GGUFWriter, name: str, array: Array, type: str) -> None:
    """Add a tensor; vectors stay in float32, as llama.cpp has them."""
    kind = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else type]
    writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a folder, and the same model as tiny.gguf in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=list(TORCH_DTYPES), default="BF16")
    parser.add_argument("--shards", type=int, default=1, help="files the weights are cut into")
    parser.add_argument("--tied", action="store_true", help="the output head is the embedding")
    parser.add_argument(
        "--gguf", default="F32", metavar="TYPE", help="of the matrices in tiny.gguf: F32, Q8_0, ..."
    )
    given = parser.parse_args(arguments)
    write_checkpoint(given.folder, dtype=given.dtype, shards=given.shards, tied=given.tied)
    write_gguf(given.folder / "tiny.gguf", type=given.gguf, tied=given.tied)


if __name__ == "__main__":
    main()
