"""What checkpoints call the modules of a layer, where that is not what they are called here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Block = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Style:
    """The names of one family's checkpoints.

    Args:
        blocks: beginnings of names of ours, and those of the family; the longest of ours stands first.
        leaves: ends of names of ours, and those the family may have instead, fused ones among them.
        layers: the list of layers, where a pattern does not say what stands before it.
    """

    blocks: tuple[Block, ...]
    leaves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layers: str = "model.layers"


_FUSED = {
    "gate_proj": ("gate_up_proj",),
    "up_proj": ("gate_up_proj",),
    "q_proj": ("qkv_proj",),
    "k_proj": ("qkv_proj",),
    "v_proj": ("qkv_proj",),
    # Ours are cut where ranks cut them.
    "in_proj_groups": ("in_proj",),
    # GLM-5-FP8 names indexer.weights_proj with ".weight" cut out of it.
    "indexer.weights_proj": ("indexers_proj",),
}
# Tensors of ours that are several in a checkpoint (Qwen 3.5), which must be stored alike.
PARTS: dict[str, tuple[str, ...]] = {
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_a", "in_proj_b"),
}
_NUMBERED = {"gate_proj": ("w1",), "up_proj": ("w3",), "down_proj": ("w2",)}

LLAMA = Style(
    (
        ("mlp.experts.", ("mlp.experts.",)),
        ("mlp.shared_expert.", ("mlp.shared_expert.", "mlp.shared_experts.")),
        ("mlp.gate.", ("mlp.gate.", "mlp.router.")),
    ),
    _FUSED,
)
_MIXTRAL = Style(
    (
        ("mlp.experts.", ("block_sparse_moe.experts.",)),
        ("mlp.shared_expert.", ("block_sparse_moe.shared_experts.", "shared_mlp.")),
        ("mlp.gate.", ("block_sparse_moe.gate.", "block_sparse_moe.router.")),
        ("mlp.e_score", ("block_sparse_moe.e_score",)),
    ),
    {
        **_FUSED,
        **{own: (*_FUSED[own], *_NUMBERED[own]) for own in ("gate_proj", "up_proj")},
        "down_proj": ("w2",),
    },
)
_LLAMA_4 = Style(
    (
        ("mlp.experts.", ("feed_forward.experts.",)),
        ("mlp.shared_expert.", ("feed_forward.shared_expert.",)),
        ("mlp.gate.", ("feed_forward.router.",)),
        ("mlp.", ("feed_forward.",)),
    ),
    _FUSED,
)
_NEMOTRON_H = Style(
    (
        ("mlp.experts.", ("mixer.experts.",)),
        ("mlp.shared_expert.", ("mixer.shared_experts.",)),
        ("mlp.gate.", ("mixer.gate.",)),
        ("mlp.", ("mixer.",)),
        ("self_attn.", ("mixer.",)),
        ("mamba.", ("mixer.",)),
    ),
    _FUSED,
    "backbone.layers",
)
_DEEPSEEK_V4 = Style(
    (
        ("mlp.experts.", ("ffn.experts.", "mlp.experts.")),
        ("mlp.shared_expert.", ("ffn.shared_experts.", "mlp.shared_experts.")),
        ("mlp.gate.", ("ffn.gate.", "mlp.gate.")),
        ("mlp.", ("ffn.", "mlp.")),
        ("self_attn.compressor.indexer.scorer.", ("attn.indexer.", "self_attn.compressor.indexer.scorer.")),
        (
            "self_attn.compressor.indexer.",
            ("attn.indexer.compressor.", "attn.indexer.", "self_attn.compressor.indexer."),
        ),
        ("self_attn.", ("attn.", "self_attn.")),
    ),
    {
        **_NUMBERED,
        "gate_proj": (*_NUMBERED["gate_proj"], "wgate"),
        "q_a_proj": ("wq_a",),
        "q_b_proj": ("wq_b",),
        "kv_proj": ("wkv",),
        "o_a_proj": ("wo_a",),
        "o_b_proj": ("wo_b",),
    },
)
_GEMMA_4 = Style(
    (
        ("mlp.experts.", ("experts.", "moe.experts.")),
        ("mlp.shared_expert.", ("mlp.",)),
        ("mlp.gate.", ("router.", "router.proj.")),
    ),
    _FUSED,
)
_QKV = ("q_proj", "k_proj", "v_proj")


def _fused_qkv(name: str, **others: str) -> dict[str, tuple[str, ...]]:
    """Return leaves of a family with one matrix for queries, keys and values, and names of its other ones."""
    return {**dict.fromkeys(_QKV, (name,)), **{own: (theirs,) for own, theirs in others.items()}}


# Feed-forward blocks where they are no "mlp".
_JAMBA = Style(
    (
        ("mlp.experts.", ("feed_forward.experts.",)),
        ("mlp.gate.", ("feed_forward.router.",)),
        ("mlp.", ("feed_forward.",)),
    ),
    _FUSED,
)
_LFM2 = Style(
    (
        ("mlp.experts.", ("feed_forward.experts.",)),
        ("mlp.gate.", ("feed_forward.gate.",)),
        ("mlp.", ("feed_forward.",)),
    ),
    {**_NUMBERED, "o_proj": ("out_proj",)},
)
_RECURRENT_GEMMA = Style((("mlp.", ("mlp_block.",)), ("self_attn.", ("temporal_block.",))))
_MAMBA = Style((("mamba.", ("mixer.",)),), _FUSED, "backbone.layers")
# Experts and shared ones by other names.
_AFMOE = Style(
    (*LLAMA.blocks[:2], ("mlp.gate.", ("mlp.router.gate.", "mlp.router.", "mlp.gate."))),
    {**_FUSED, "g_proj": ("gate_proj",)},
)
_HUNYUAN = Style(
    (
        ("mlp.shared_expert.", ("mlp.shared_mlp.",)),
        ("mlp.gate.", ("mlp.gate.wg.", "mlp.gate.")),
    ),
    _FUSED,
)
_GRANITE = Style(
    (
        ("mlp.experts.", ("block_sparse_moe.", "block_sparse_moe.experts.")),
        ("mlp.shared_expert.", ("shared_mlp.",)),
        ("mlp.gate.", ("block_sparse_moe.router.layer.", "block_sparse_moe.router.")),
        ("mlp.", ("shared_mlp.", "mlp.")),
    ),
    {
        **_FUSED,
        **{own: (*_FUSED[own], "input_linear") for own in ("gate_proj", "up_proj")},
        "down_proj": ("output_linear",),
    },
)
# transformers' own names, and those of files from before it had the family.
_EITHER = (
    ("mlp.experts.", ("block_sparse_moe.experts.", "mlp.experts.")),
    ("mlp.shared_expert.", ("block_sparse_moe.shared_experts.", "mlp.shared_experts.", "mlp.shared_expert.")),
    ("mlp.gate.", ("block_sparse_moe.gate.", "mlp.gate.", "mlp.router.")),
)
_PHIMOE = Style(_EITHER, _MIXTRAL.leaves)
_MINIMAX_M3 = Style(
    _EITHER, {**_MIXTRAL.leaves, "index_q_proj": ("indexer.q_proj",), "index_k_proj": ("indexer.k_proj",)}
)
_KIMI_LINEAR = Style(
    _EITHER,
    {**_MIXTRAL.leaves, "f_a_proj": ("forget_gate.f_a_proj",), "f_b_proj": ("forget_gate.f_b_proj",)},
)
_DBRX = Style(
    (
        ("mlp.experts.", ("ffn.experts.",)),
        ("mlp.gate.", ("ffn.router.layer.", "ffn.router.")),
        ("self_attn.", ("norm_attn_norm.attn.",)),
    ),
    _fused_qkv("Wqkv", o_proj="out_proj", gate_proj="mlp.w1", up_proj="mlp.v1", down_proj="mlp.w2"),
    "transformer.blocks",
)
# Older names of attention and its feed-forward block.
_H = "transformer.h"
_PHI = Style((), {"o_proj": ("dense",), "up_proj": ("fc1",), "down_proj": ("fc2",)})
_PHI_MSFT = Style(
    (("self_attn.", ("mixer.",)),), _fused_qkv("Wqkv", o_proj="out_proj", up_proj="fc1", down_proj="fc2"), _H
)
_STARCODER = Style((), {"up_proj": ("c_fc",), "down_proj": ("c_proj",)})
_OPT = Style(
    (("mlp.", ("",)),),
    {"o_proj": ("out_proj",), "up_proj": ("fc1",), "down_proj": ("fc2",)},
    "model.decoder.layers",
)
_FALCON = Style(
    (("self_attn.", ("self_attention.", "attention.")),),
    _fused_qkv("query_key_value", o_proj="dense", up_proj="dense_h_to_4h", down_proj="dense_4h_to_h"),
    _H,
)
_GPT_NEOX = replace(_FALCON, layers="gpt_neox.layers")
_CHATGLM = Style(
    _FALCON.blocks, {**_FALCON.leaves, "gate_proj": ("dense_h_to_4h",)}, "transformer.encoder.layers"
)
_ATTN = (("self_attn.", ("attn.",)),)
_GPT_2 = Style(_ATTN, _fused_qkv("c_attn", o_proj="c_proj", up_proj="c_fc", down_proj="c_proj"), _H)
_QWEN = Style(_ATTN, {**_GPT_2.leaves, "gate_proj": ("w2",), "up_proj": ("w1",)}, _H)
_GPT_J = Style(_ATTN, _fused_qkv("qkv_proj", o_proj="out_proj", up_proj="fc_in", down_proj="fc_out"), _H)
_MPT = Style((("mlp.", ("ffn.",)), *_ATTN), _fused_qkv("Wqkv", o_proj="out_proj"), "transformer.blocks")
_INNER_ATTENTION = (("self_attn.", ("attn.attention.",)),)
_GPT_NEO = Style(
    _INNER_ATTENTION, {"o_proj": ("out_proj",), "up_proj": ("c_fc",), "down_proj": ("c_proj",)}, _H
)
_EXAONE = Style(
    _INNER_ATTENTION,
    {"o_proj": ("out_proj",), "gate_proj": ("c_fc_0",), "up_proj": ("c_fc_1",), "down_proj": ("c_proj",)},
    _H,
)
_INTERNLM2 = Style(
    (("mlp.", ("feed_forward.",)), ("self_attn.", ("attention.",))),
    {**_fused_qkv("wqkv", o_proj="wo"), **_NUMBERED},
)
_BAICHUAN = Style((), {**_FUSED, **dict.fromkeys(_QKV, ("W_pack",))})
# By the model_type of the text model; every other family has Llama's names.
STYLES: dict[str, Style] = {
    **dict.fromkeys(("mixtral", "minimax", "minimax_m1", "minimax_m2", "minimax_text_01"), _MIXTRAL),
    **dict.fromkeys(("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"), _MINIMAX_M3),
    **dict.fromkeys(
        ("granitemoe", "granitemoeshared", "granitemoehybrid", "granitemoe_swa"),
        _GRANITE,
    ),
    **dict.fromkeys(("llama4_text", "llama4"), _LLAMA_4),
    "deepseek_v4": _DEEPSEEK_V4,
    **dict.fromkeys(("gemma4", "gemma4_text"), _GEMMA_4),
    **dict.fromkeys(("falcon", "bloom"), _FALCON),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _GPT_2),
    **dict.fromkeys(("gptj", "codegen"), _GPT_J),
    **dict.fromkeys(("jamba", "bamba", "falcon_h1"), _JAMBA),
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm3"), _LFM2),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba"), _MAMBA),
    **dict.fromkeys(("hunyuan", "hunyuan_v1_moe"), _HUNYUAN),
    "afmoe": _AFMOE,
    "baichuan": _BAICHUAN,
    "chatglm": _CHATGLM,
    "dbrx": _DBRX,
    "exaone": _EXAONE,
    "gpt_neo": _GPT_NEO,
    "gpt_neox": _GPT_NEOX,
    "internlm2": _INTERNLM2,
    "kimi_linear": _KIMI_LINEAR,
    "mpt": _MPT,
    "nemotron_h": _NEMOTRON_H,
    "opt": _OPT,
    "phi": _PHI,
    "phi-msft": _PHI_MSFT,
    "phimoe": _PHIMOE,
    "qwen": _QWEN,
    "recurrent_gemma": _RECURRENT_GEMMA,
    "starcoder2": _STARCODER,
}
