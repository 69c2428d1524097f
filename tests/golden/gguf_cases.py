"""Small models of every architecture that kvplan reads from GGUF files, and those files.

A file is written as llama.cpp's convert_hf_to_gguf.py writes it from the tensors of a released file, under
the names that the package gguf maps them to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

VOCABULARY, CONTEXT, LAYERS = 96, 256, 3


@dataclass(frozen=True)
class Case:
    """A small model of an architecture.

    Args:
        model_type: of transformers.
        config: its keys.
        keys: what convert_hf_to_gguf.py writes of them; without the architecture in front.
        transformers_reads_it: its loader knows every key of the file that matters, and the tensors' order.
    """

    model_type: str
    config: dict[str, Any]
    keys: dict[str, Any]
    transformers_reads_it: bool = True


def _sizes(**others: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        **others,
    }


def _keys(**others: Any) -> dict[str, Any]:
    return {
        "context_length": CONTEXT,
        "embedding_length": 64,
        "block_count": LAYERS,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        **others,
    }


_RMS = {"attention.layer_norm_rms_epsilon": 0.003}
_LAYER_NORM = {"attention.layer_norm_epsilon": 0.003}
_BASE = {"rope.freq_base": 5000.0}
_HEAD = {"attention.key_length": 32, "attention.value_length": 32}
_GPT2_KEYS = {key: value for key, value in _keys().items() if key != "attention.head_count_kv"}
_NO_HEADS = {"attention.head_count": 0, "feed_forward_length": 0}
_GPT2_SIZES = {"n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT, "n_inner": 96}
_FALCON_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "ffn_hidden_size": 96,
    "layer_norm_epsilon": 0.003,
    "max_position_embeddings": CONTEXT,
}
_MAMBA_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": CONTEXT,
}
_MAMBA_KEYS = {"context_length": CONTEXT, "embedding_length": 64, "block_count": LAYERS}
_YARN = {"rope_type": "yarn", "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
_LONGROPE = {
    "rope_type": "longrope",
    "attention_factor": 1.264911,
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5],
    "long_factor": [1.0, 1.3, 2.1, 3.7, 5.0, 8.0],
}
# Llama 3.1's; the wave of the fifth pair of 16 elements is between the two limits.
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# Norms stored as their distance from one.
FROM_ONE = ("gemma2", "gemma3_text", "nemotron")
# Modules whose matrices are packed in a file.
_PACKED = (
    *("token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up"),
    *("ffn_down", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp"),
    *("ffn_down_shexp", "ssm_in", "ssm_out", "in_proj", "out_proj"),
)
CASES: dict[str, Case] = {
    "bloom": Case(
        "bloom",
        {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": LAYERS, "n_head": 4}
        | {"layer_norm_epsilon": 0.003, "seq_length": CONTEXT},
        _keys() | {"feed_forward_length": 256, "attention.head_count_kv": 4} | _LAYER_NORM,
    ),
    "falcon": Case(
        "falcon",
        {**_FALCON_SIZES, "multi_query": True},
        _keys(tensor_data_layout="jploski") | {"attention.head_count_kv": 1} | _LAYER_NORM,
        transformers_reads_it=False,  # not layer_norm_epsilon, nor feed_forward_length as ffn_hidden_size
    ),
    "falcon-new-decoder": Case(
        "falcon",
        {**_FALCON_SIZES, "new_decoder_architecture": True, "num_kv_heads": 2},
        _keys(tensor_data_layout="jploski") | _LAYER_NORM,
        transformers_reads_it=False,
    ),
    "gemma2": Case(
        "gemma2",
        _sizes(head_dim=32, rms_norm_eps=0.003, sliding_window=9, query_pre_attn_scalar=32),
        _keys(**_RMS, **_HEAD, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
        | {"attention.sliding_window": 9},
        transformers_reads_it=False,  # not query_pre_attn_scalar from key_length
    ),
    "gemma3": Case(
        "gemma3_text",
        _sizes(head_dim=32, rms_norm_eps=0.003, sliding_window=9, query_pre_attn_scalar=32)
        | {"num_hidden_layers": 7, "rope_theta": 5000.0, "rope_local_base_freq": 10_000.0}
        | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        _keys(**_RMS, **_HEAD, **_BASE)
        | {"block_count": 7, "attention.sliding_window": 9}
        | {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
        transformers_reads_it=False,  # not rope.scaling, nor query_pre_attn_scalar from key_length
    ),
    "gpt-oss": Case(
        "gpt_oss",
        _sizes(rms_norm_eps=1e-5, rope_theta=150_000.0, head_dim=32, sliding_window=9, intermediate_size=64)
        | {"num_local_experts": 6, "num_experts_per_tok": 2, "initial_context_length": 64}
        | {"rope_scaling": _YARN | {"factor": 4.0, "truncate": False}},
        _keys(**_HEAD, expert_count=6, expert_used_count=2, expert_feed_forward_length=64)
        | {"feed_forward_length": 64, "rope.freq_base": 150_000.0, "attention.sliding_window": 9}
        | {"attention.layer_norm_rms_epsilon": 1e-5, "rope.scaling.type": "yarn"}
        | {"rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
        transformers_reads_it=False,  # not the experts' names
    ),
    "gpt2": Case(
        "gpt2",
        {"vocab_size": VOCABULARY, **_GPT2_SIZES, "layer_norm_epsilon": 0.003},
        _GPT2_KEYS | _LAYER_NORM,
        transformers_reads_it=False,  # n_positions is not read of context_length, nor n_inner
    ),
    "lfm2": Case(
        "lfm2",
        _sizes(norm_eps=0.003, layer_types=["conv", "full_attention", "conv"], conv_L_cache=3)
        | {"block_auto_adjust_ff_dim": False, "rope_theta": 5000.0},
        _keys(**_RMS, **_BASE) | {"attention.head_count_kv": [0, 2, 0], "shortconv.l_cache": 3},
    ),
    "llama": Case(
        "llama",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0),
        _keys(**_RMS, **_BASE) | {"rope.dimension_count": 16},
    ),
    "llama-tied": Case(
        "llama",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, tie_word_embeddings=True, num_key_value_heads=4),
        _keys(**_RMS, **_BASE) | {"rope.dimension_count": 16, "attention.head_count_kv": 4},
    ),
    "llama3": Case(
        "llama",
        _sizes(rms_norm_eps=0.003, rope_theta=500_000.0, rope_scaling=_LLAMA3),
        _keys(**_RMS, **{"rope.freq_base": 500_000.0, "rope.dimension_count": 16}),
        transformers_reads_it=False,  # not the factors
    ),
    "mamba": Case(
        "mamba",
        {**_MAMBA_SIZES, "state_size": 8, "conv_kernel": 4, "time_step_rank": 6, "layer_norm_epsilon": 0.003},
        {**_MAMBA_KEYS, **_RMS, **_NO_HEADS}
        | {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 8, "ssm.time_step_rank": 6},
    ),
    "minimax-m2": Case(
        "minimax_m2",
        _sizes(head_dim=32, rotary_dim=16, rms_norm_eps=0.003, rope_theta=5000.0)
        | {"num_local_experts": 6, "num_experts_per_tok": 2},
        _keys(**_RMS, **_BASE, **_HEAD, expert_count=6, expert_used_count=2)
        | {"expert_feed_forward_length": 96, "expert_gating_func": 2, "rope.dimension_count": 16},
    ),
    "mixtral": Case(
        "mixtral",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, num_local_experts=6, num_experts_per_tok=2),
        _keys(**_RMS, **_BASE, expert_count=6, expert_used_count=2) | {"rope.dimension_count": 16},
        transformers_reads_it=False,  # not the experts
    ),
    "nemotron": Case(
        "nemotron",
        _sizes(norm_eps=0.003, rope_theta=5000.0, partial_rotary_factor=0.5),
        _keys(**_LAYER_NORM, **_BASE) | {"rope.dimension_count": 8, "rope.scaling.type": "none"},
        transformers_reads_it=False,  # it looks for another key of the epsilon
    ),
    "phi3": Case(
        "phi3",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, sliding_window=9, pad_token_id=0)
        | {"original_max_position_embeddings": CONTEXT},
        _keys(**_RMS, **_BASE)
        | {"rope.dimension_count": 16, "attention.sliding_window": 9}
        | {"rope.scaling.original_context_length": CONTEXT},
        transformers_reads_it=False,  # not the window
    ),
    "phi3-long": Case(
        "phi3",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, pad_token_id=0, original_max_position_embeddings=32)
        | {"rope_scaling": _LONGROPE, "partial_rotary_factor": 0.75},
        _keys(**_RMS, **_BASE)
        | {"rope.dimension_count": 12, "attention.sliding_window": 0}
        | {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.264911},
        transformers_reads_it=False,  # not the factors
    ),
    "qwen2": Case("qwen2", _sizes(rms_norm_eps=0.003, rope_theta=5000.0), _keys(**_RMS, **_BASE)),
    "qwen2-yarn": Case(
        "qwen2",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0) | {"rope_scaling": _YARN | {"factor": 4.0}},
        _keys(**_RMS, **_BASE)
        | {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
        | {"rope.scaling.original_context_length": 64},
        transformers_reads_it=False,  # not rope.scaling
    ),
    "qwen2moe": Case(
        "qwen2_moe",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, num_experts=6, num_experts_per_tok=2)
        | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
        _keys(**_RMS, **_BASE, expert_count=6, expert_used_count=2, expert_feed_forward_length=32)
        | {"expert_shared_feed_forward_length": 64},
        transformers_reads_it=False,  # not the widths of experts
    ),
    "qwen3": Case(
        "qwen3",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, head_dim=32),
        _keys(**_RMS, **_BASE, **_HEAD),
        transformers_reads_it=False,  # not key_length
    ),
    "qwen3moe": Case(
        "qwen3_moe",
        _sizes(rms_norm_eps=0.003, rope_theta=5000.0, head_dim=32, num_experts=6, num_experts_per_tok=2)
        | {"moe_intermediate_size": 32, "norm_topk_prob": True},
        _keys(**_RMS, **_BASE, **_HEAD, expert_count=6, expert_used_count=2, expert_feed_forward_length=32),
        transformers_reads_it=False,  # not the width of experts
    ),
    "stablelm": Case(
        "stablelm",
        _sizes(layer_norm_eps=0.003, use_qkv_bias=True, partial_rotary_factor=0.25),
        _keys(**_LAYER_NORM, use_parallel_residual=True) | {"rope.dimension_count": 4},
    ),
    "stablelm-12b": Case(
        "stablelm",
        _sizes(layer_norm_eps=0.003, qk_layernorm=True, use_parallel_residual=True)
        | {"partial_rotary_factor": 0.25},
        _keys(**_LAYER_NORM, use_parallel_residual=True) | {"rope.dimension_count": 4},
        transformers_reads_it=False,  # not the norms of queries and keys
    ),
    "starcoder2": Case(
        "starcoder2",
        _sizes(norm_epsilon=0.003, rope_theta=5000.0),
        _keys(**_LAYER_NORM, **_BASE),
        transformers_reads_it=False,  # not rope.freq_base
    ),
}
# Cases that are further models of an architecture.
ARCHITECTURES = {
    "falcon-new-decoder": "falcon",
    "llama-tied": "llama",
    "llama3": "llama",
    "mixtral": "llama",
    "phi3-long": "phi3",
    "qwen2-yarn": "qwen2",
    "stablelm-12b": "stablelm",
}


def architecture(name: str) -> str:
    """Return what the file of a case calls its architecture."""
    return ARCHITECTURES.get(name, name)


def write(path: Path, name: str, tensors: Mapping[str, Array], kind: str) -> None:
    """Write a case as a GGUF file whose matrices are of a type.

    Args:
        path: the file.
        name: the case.
        tensors: what a released file holds, by its names; a tied head is left out.
        kind: the type: ``Q8_0``.
    """
    writer = gguf.GGUFWriter(str(path), architecture(name))
    writer.add_name("tiny")
    for key, value in CASES[name].keys.items():
        _add_key(writer, f"{architecture(name)}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{index}" for index in range(VOCABULARY)])
    for tensor, array in file_tensors(name, tensors):
        is_packed = array.ndim > 1 and tensor.removesuffix(".weight").split(".")[-1] in _PACKED
        stored = gguf.GGMLQuantizationType[kind if is_packed else "F32"]
        data = gguf.quants.quantize(np.ascontiguousarray(array, np.float32), stored)
        writer.add_tensor(tensor, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)


def file_tensors(name: str, tensors: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Iterate over a model's tensors as convert_hf_to_gguf.py leaves them, by their names in the file."""
    case = CASES[name]
    arch = next(key for key, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture(name))
    names = gguf.get_tensor_name_map(arch, case.keys["block_count"])
    yield from _rotation_tensors(case)
    for theirs, array in _stacked(tensors):
        yield from _named(names, theirs, converted(theirs, array, case))


def _named(names: gguf.TensorNameMap, theirs: str, array: Array) -> Iterator[tuple[str, Array]]:
    """Iterate over a tensor by its name in the file."""
    if theirs.startswith("blk."):
        yield theirs, array
        return
    theirs = theirs.removeprefix("transformer.") if "layernorm" in theirs else theirs
    theirs = theirs.replace("e_score_correction_bias", "e_score_correction.bias")
    theirs = f"{theirs}.weight" if theirs.endswith("sinks") else theirs
    found = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ValueError(f"no name of {theirs}")
    yield found, array


def _rotation_tensors(case: Case) -> Iterator[tuple[str, Array]]:
    """Iterate over what frequencies are divided by, where a file has that as tensors."""
    scaling = case.config.get("rope_scaling", {})
    if scaling == _LONGROPE:
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", np.array(_LONGROPE[f"{length}_factor"], np.float32)
    if scaling == _LLAMA3:
        frequencies = case.config["rope_theta"] ** (-np.arange(0, 16, 2, dtype=np.float32) / 16)
        yield "rope_freqs.weight", np.array([_llama3_factor(2 * np.pi / f) for f in frequencies], np.float32)


def _llama3_factor(wave: float) -> float:
    """Return what the frequency of a wave of so many tokens is divided by."""
    if wave < 8192 / 4:
        return 1.0
    if wave > 8192:
        return 8.0
    smooth = (8192 / wave - 1) / (4 - 1)
    return 1 / ((1 - smooth) / 8 + smooth)


_EXPERT = re.compile(r"model\.layers\.(\d+)\..*\bexperts\.\d+\.(\w+)\.weight")
_EXPERT_PARTS = {
    "w1": "gate",
    "w3": "up",
    "w2": "down",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
}


def _stacked(tensors: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Iterate over tensors, experts and StableLM's norms of single heads as one, gpt-oss' experts as two."""
    stacks: dict[str, list[Array]] = {}
    for name, array in tensors.items():
        if expert := _EXPERT.fullmatch(name):
            part = _EXPERT_PARTS[expert[2]]
            stacks.setdefault(f"blk.{expert[1]}.ffn_{part}_exps.weight", []).append(array)
        elif ".norms." in name:
            stacks.setdefault(f"{name.partition('.norms.')[0]}.weight", []).append(array)
        elif "mlp.experts." in name:
            yield from _gpt_oss_experts(name, array)
        else:
            yield name, array
    for name, parts in stacks.items():
        yield name, np.stack(parts)


def _gpt_oss_experts(name: str, array: Array) -> Iterator[tuple[str, Array]]:
    """Iterate over a stack with outputs before inputs; rows of gate and of up are by turns there."""
    block, kind = name.split(".")[2], "bias" if name.endswith("_bias") else "weight"
    array = array if kind == "bias" else array.swapaxes(1, 2)
    if "down_proj" in name:
        yield f"blk.{block}.ffn_down_exps.{kind}", array
        return
    yield f"blk.{block}.ffn_gate_exps.{kind}", array[:, ::2]
    yield f"blk.{block}.ffn_up_exps.{kind}", array[:, 1::2]


def converted(name: str, array: Array, case: Case) -> Array:
    """Return a tensor as convert_hf_to_gguf.py changes it."""
    heads = case.config.get("num_attention_heads", case.config.get("n_head", 0))
    kv_heads = case.config.get("num_key_value_heads", heads)
    if case.model_type in ("llama", "mixtral") and name.endswith(("q_proj.weight", "k_proj.weight")):
        count = heads if "q_proj" in name else kv_heads
        by_half = array.reshape(count, 2, array.shape[0] // count // 2, *array.shape[1:])
        return by_half.swapaxes(1, 2).reshape(array.shape)
    if case.model_type in FROM_ONE and name.endswith("norm.weight"):
        return array + np.float32(1)
    if case.model_type == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return array.T
    if case.model_type == "bloom" and "query_key_value" in name:
        return array.reshape(heads, 3, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
    if case.model_type == "falcon" and "query_key_value" in name:
        return _falcon_rows(array, heads, case.config.get("num_kv_heads", 1))
    if name.endswith("A_log"):
        return -np.exp(array)
    return array.squeeze()


def _falcon_rows(array: Array, heads: int, kv_heads: int) -> Array:
    """Return all queries, then all keys, then all values, of groups of them."""
    groups = array.reshape(kv_heads, heads // kv_heads + 2, -1, array.shape[-1])
    parts = (groups[:, :-2], groups[:, -2], groups[:, -1])
    return np.concatenate([part.reshape(-1, array.shape[-1]) for part in parts])
