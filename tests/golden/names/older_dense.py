"""GPT-J, GPT-NeoX, OPT, BLOOM and their time, and the dense families named after companies."""

from __future__ import annotations

import numpy as np

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from names.fusing import LLAMA_OUTER, QKV, Array, Names, both, by_kv_head, rows

# CodeGen's matrix is that of four machines, one after the other.
_CODEGEN_MACHINES = 4


def codegen(layer: Layer, queries: Array, keys: Array, values: Array) -> Array:
    """Join by machine: its queries, its values, its keys."""
    assert isinstance(layer.mixer, Attention)
    parts = [part.reshape(_CODEGEN_MACHINES, -1, part.shape[-1]) for part in (queries, values, keys)]
    return np.concatenate(parts, axis=1).reshape(-1, queries.shape[-1])


def number(_layer: Layer, part: Array) -> Array:
    """Return the only element as an array without axes."""
    return part.reshape(())


def _transformer(embedding: str, norm: str, layers: str = "h") -> dict[str, str]:
    names = {"embed_tokens": embedding, "layers": layers, "norm": norm}
    return {here: f"transformer.{there}" for here, there in names.items()}


_GPT_OUTER = _transformer("wte", "ln_f")
_FC_IN_OUT = {"mlp.up_proj": "mlp.fc_in", "mlp.down_proj": "mlp.fc_out"}
_C_FC = {"mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}
_4H = {"mlp.up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h"}
_LN_1_2 = {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
_DECODER = "model.decoder"

NAMES: dict[str, Names] = {
    "apertus": Names(
        inner={
            "input_layernorm": "attention_layernorm",
            "post_attention_layernorm": "feedforward_layernorm",
        },
        fusions=[(f"mlp.act_fn.{name}", (f"mlp.act_fn.{name}",), number) for name in ("beta", "eps")],
    ),
    "bloom": Names(
        outer={
            **_transformer("word_embeddings", "ln_f"),
            "embed_norm": "transformer.word_embeddings_layernorm",
        },
        inner={"self_attn.o_proj": "self_attention.dense", **_4H},
        fusions=both("self_attention.query_key_value", QKV, by_kv_head),
    ),
    "codegen": Names(
        outer=_GPT_OUTER,
        inner={"input_layernorm": "ln_1", "self_attn.o_proj": "attn.out_proj", **_FC_IN_OUT},
        fusions=[("attn.qkv_proj.weight", tuple(f"{name}.weight" for name in QKV), codegen)],
    ),
    "gemma": Names(),
    "gpt_bigcode": Names(
        outer={**_GPT_OUTER, "embed_positions": "transformer.wpe"},
        inner={**_LN_1_2, "self_attn.o_proj": "attn.c_proj", **_C_FC},
        fusions=both("attn.c_attn", QKV, by_kv_head),
    ),
    "gpt_neo": Names(
        outer={**_GPT_OUTER, "embed_positions": "transformer.wpe"},
        inner={
            **_LN_1_2,
            "self_attn": "attn.attention",
            "self_attn.o_proj": "attn.attention.out_proj",
            **_C_FC,
        },
    ),
    "gpt_neox": Names(
        outer={
            "embed_tokens": "gpt_neox.embed_in",
            "layers": "gpt_neox.layers",
            "norm": "gpt_neox.final_layer_norm",
        },
        inner={
            "ln_attn": "input_layernorm",
            "ln_mlp": "post_attention_layernorm",
            "self_attn.o_proj": "attention.dense",
            **_4H,
        },
        fusions=both("attention.query_key_value", QKV, by_kv_head),
    ),
    "gptj": Names(
        outer=_GPT_OUTER,
        inner={
            "input_layernorm": "ln_1",
            "self_attn": "attn",
            "self_attn.o_proj": "attn.out_proj",
            **_FC_IN_OUT,
        },
    ),
    "granite": Names(),
    "internlm3": Names(),
    "ministral3": Names(),
    "mpt": Names(
        outer=_transformer("wte", "norm_f", "blocks"),
        inner={
            "input_layernorm": "norm_1",
            "post_attention_layernorm": "norm_2",
            "self_attn.o_proj": "attn.out_proj",
            "mlp": "ffn",
        },
        fusions=both("attn.Wqkv", QKV, rows),
    ),
    "nemotron": Names(),
    "opt": Names(
        outer={
            **{name: f"{_DECODER}.{name}" for name in ("embed_tokens", "embed_positions", "layers")},
            **{name: f"{_DECODER}.{name}" for name in ("project_in", "project_out")},
            "norm": f"{_DECODER}.final_layer_norm",
        },
        inner={
            "input_layernorm": "self_attn_layer_norm",
            "post_attention_layernorm": "final_layer_norm",
            "attention_sum_norm": "self_attn_layer_norm",
            "mlp_sum_norm": "final_layer_norm",
            "self_attn.o_proj": "self_attn.out_proj",
            "mlp.up_proj": "fc1",
            "mlp.down_proj": "fc2",
        },
    ),
    "starcoder2": Names(outer=LLAMA_OUTER, inner=_C_FC),
}
