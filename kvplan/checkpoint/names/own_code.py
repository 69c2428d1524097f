"""Families whose files are read by code of their own beside them: names as that code has them."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import GATE_UP, MIXTRAL_EXPERTS, QKV, Names, both
from kvplan.checkpoint.names.kinds import ROWS
from kvplan.checkpoint.names.mixer_kinds import BY_HEAD_UNLESS_SHARED, BY_KV_HEAD

_GPT_OUTER = {"embed_tokens": "transformer.wte", "layers": "transformer.h", "norm": "transformer.ln_f"}
_LN_1_2 = {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
_MINIMAX = Names(inner={"mlp.gate": "block_sparse_moe.gate"}, fusions=MIXTRAL_EXPERTS)

NAMES: dict[str, Names] = {
    "chatglm": Names(
        outer={
            "embed_tokens": "transformer.embedding.word_embeddings",
            "layers": "transformer.encoder.layers",
            "norm": "transformer.encoder.final_layernorm",
            "lm_head": "transformer.output_layer",
        },
        inner={"self_attn.o_proj": "self_attention.dense", "mlp.down_proj": "mlp.dense_4h_to_h"},
        fusions=(
            *both("self_attention.query_key_value", QKV, BY_HEAD_UNLESS_SHARED),
            *both("mlp.dense_h_to_4h", GATE_UP, ROWS),
        ),
        unused=(".rotary_pos_emb.inv_freq",),
    ),
    "exaone": Names(
        outer=_GPT_OUTER,
        inner={
            **_LN_1_2,
            "self_attn": "attn.attention",
            "self_attn.o_proj": "attn.attention.out_proj",
            "mlp.gate_proj": "mlp.c_fc_0",
            "mlp.up_proj": "mlp.c_fc_1",
            "mlp.down_proj": "mlp.c_proj",
        },
        unused=(".rotary.inv_freq",),
    ),
    "internlm2": Names(
        outer={
            "embed_tokens": "model.tok_embeddings",
            "layers": "model.layers",
            "norm": "model.norm",
            "lm_head": "output",
        },
        inner={
            "input_layernorm": "attention_norm",
            "post_attention_layernorm": "ffn_norm",
            "self_attn.o_proj": "attention.wo",
            "mlp.gate_proj": "feed_forward.w1",
            "mlp.up_proj": "feed_forward.w3",
            "mlp.down_proj": "feed_forward.w2",
        },
        fusions=both("attention.wqkv", QKV, BY_KV_HEAD),
    ),
    "minimax_m1": _MINIMAX,
    "minimax_text_01": _MINIMAX,
    "phi-msft": Names(
        outer={
            "embed_tokens": "transformer.embd.wte",
            "layers": "transformer.h",
            "norm": "lm_head.ln",
            "lm_head": "lm_head.linear",
        },
        inner={
            "input_layernorm": "ln",
            "self_attn.o_proj": "mixer.out_proj",
            "mlp.up_proj": "mlp.fc1",
            "mlp.down_proj": "mlp.fc2",
        },
        fusions=both("mixer.Wqkv", QKV, ROWS),
    ),
    "qwen": Names(
        outer=_GPT_OUTER,
        inner={
            **_LN_1_2,
            "self_attn.o_proj": "attn.c_proj",
            # Its second matrix is what goes through the SiLU.
            "mlp.gate_proj": "mlp.w2",
            "mlp.up_proj": "mlp.w1",
            "mlp.down_proj": "mlp.c_proj",
        },
        fusions=both("attn.c_attn", QKV, ROWS),
    ),
}
