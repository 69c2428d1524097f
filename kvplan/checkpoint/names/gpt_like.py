"""GPT-2, GPT-J, GPT-NeoX, OPT, BLOOM, Falcon and their time."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import QKV, Fusion, Names, both, weights_of
from kvplan.checkpoint.names.kinds import CONV1D, ROWS, reshaped
from kvplan.checkpoint.names.mixer_kinds import BY_KV_HEAD, BY_MACHINE


def _transformer(embedding: str, norm: str, layers: str = "h") -> dict[str, str]:
    names = {"embed_tokens": embedding, "layers": layers, "norm": norm}
    return {here: f"transformer.{there}" for here, there in names.items()}


_GPT_OUTER = _transformer("wte", "ln_f")
_FC_IN_OUT = {"mlp.up_proj": "mlp.fc_in", "mlp.down_proj": "mlp.fc_out"}
_C_FC = {"mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}
_4H = {"mlp.up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h"}
_LN_1_2 = {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
_DECODER = "model.decoder"
# Triangles of ones, and what stands for minus infinity.
_MASKS = (".attn.bias", ".attn.masked_bias")

NAMES: dict[str, Names] = {
    "apertus": Names(
        inner={
            "input_layernorm": "attention_layernorm",
            "post_attention_layernorm": "feedforward_layernorm",
        },
        fusions=tuple(
            Fusion((f"mlp.act_fn.{name}",), (f"mlp.act_fn.{name}",), reshaped()) for name in ("beta", "eps")
        ),
    ),
    "bloom": Names(
        outer={
            **_transformer("word_embeddings", "ln_f"),
            "embed_norm": "transformer.word_embeddings_layernorm",
        },
        inner={"self_attn.o_proj": "self_attention.dense", **_4H},
        fusions=both("self_attention.query_key_value", QKV, BY_KV_HEAD),
    ),
    "codegen": Names(
        outer=_GPT_OUTER,
        inner={"input_layernorm": "ln_1", "self_attn.o_proj": "attn.out_proj", **_FC_IN_OUT},
        fusions=(Fusion(("attn.qkv_proj.weight",), weights_of(QKV), BY_MACHINE),),
        unused=(".attn.causal_mask", *_MASKS),
    ),
    "falcon": Names(
        outer=_transformer("word_embeddings", "ln_f"),
        inner={"self_attn.o_proj": "self_attention.dense", **_4H},
        fusions=both("self_attention.query_key_value", QKV, BY_KV_HEAD),
    ),
    "gpt2": Names(
        outer={**_GPT_OUTER, "embed_positions": "transformer.wpe"},
        inner=_LN_1_2,
        fusions=(
            *both("attn.c_attn", QKV, CONV1D),
            *both("attn.c_proj", ("self_attn.o_proj",), CONV1D),
            *both("mlp.c_fc", ("mlp.up_proj",), CONV1D),
            *both("mlp.c_proj", ("mlp.down_proj",), CONV1D),
        ),
        unused=_MASKS,
    ),
    "gpt_bigcode": Names(
        outer={**_GPT_OUTER, "embed_positions": "transformer.wpe"},
        inner={**_LN_1_2, "self_attn.o_proj": "attn.c_proj", **_C_FC},
        fusions=both("attn.c_attn", QKV, BY_KV_HEAD),
        unused=_MASKS,
    ),
    "gpt_neo": Names(
        outer={**_GPT_OUTER, "embed_positions": "transformer.wpe"},
        inner={
            **_LN_1_2,
            "self_attn": "attn.attention",
            "self_attn.o_proj": "attn.attention.out_proj",
            **_C_FC,
        },
        unused=(".attn.attention.bias", ".attn.attention.masked_bias"),
    ),
    "gpt_neox": Names(
        outer={
            "embed_tokens": "gpt_neox.embed_in",
            "layers": "gpt_neox.layers",
            "norm": "gpt_neox.final_layer_norm",
            "lm_head": "embed_out",
        },
        inner={
            "ln_attn": "input_layernorm",
            "ln_mlp": "post_attention_layernorm",
            "self_attn.o_proj": "attention.dense",
            **_4H,
        },
        fusions=both("attention.query_key_value", QKV, BY_KV_HEAD),
        unused=(".attention.bias", ".attention.masked_bias"),
    ),
    "gptj": Names(
        outer=_GPT_OUTER,
        inner={
            "input_layernorm": "ln_1",
            "self_attn": "attn",
            "self_attn.o_proj": "attn.out_proj",
            **_FC_IN_OUT,
        },
        unused=_MASKS,
    ),
    "mpt": Names(
        outer=_transformer("wte", "norm_f", "blocks"),
        inner={
            "input_layernorm": "norm_1",
            "post_attention_layernorm": "norm_2",
            "self_attn.o_proj": "attn.out_proj",
            "mlp": "ffn",
        },
        fusions=both("attn.Wqkv", QKV, ROWS),
    ),
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
}
