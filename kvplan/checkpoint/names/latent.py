"""Families with latent attention, and DeepSeek-V4."""

from __future__ import annotations

from kvplan.checkpoint.names.fusion import LLAMA_OUTER, Names, one_by_one
from kvplan.checkpoint.names.mixtures import WITH_SHARED_EXPERTS

_HYPER = {
    f"{here}.{ours}": f"{there}_{theirs}"
    for here, there in (("attn_hc", "hc_attn"), ("ffn_hc", "hc_ffn"))
    for ours, theirs in (("fn.weight", "fn"), ("base", "base"), ("scale", "scale"))
}
_COMPRESSOR = {"kv_norm": "norm", "kv_proj": "wkv", "gate_proj": "wgate", "position_bias": "ape"}
_INDEXER = "self_attn.compressor.indexer"
_SWIGLU = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}

NAMES: dict[str, Names] = {
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2"),
        WITH_SHARED_EXPERTS,
    ),
    "deepseek_v4": Names(
        # As transformers writes them, and as released.
        outer={
            **LLAMA_OUTER,
            "lm_head": "head",
            "hc_head.fn.weight": "model.hc_head.hc_fn",
            "hc_head.base": "model.hc_head.hc_base",
            "hc_head.scale": "model.hc_head.hc_scale",
        },
        other_outer={
            "embed_tokens": "embed",
            "layers": "layers",
            "norm": "norm",
            "lm_head": "head",
            "hc_head.fn.weight": "hc_head_fn",
            "hc_head.base": "hc_head_base",
            "hc_head.scale": "hc_head_scale",
        },
        inner={
            **_HYPER,
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ffn_norm",
            "self_attn.sinks": "attn.attn_sink",
            "self_attn.kv_norm": "attn.norm",
            "self_attn.kv_proj": "attn.wkv",
            "self_attn.q_a_norm": "attn.q_norm",
            "self_attn.q_a_proj": "attn.wq_a",
            "self_attn.q_b_proj": "attn.wq_b",
            "self_attn.o_a_proj": "attn.wo_a",
            "self_attn.o_b_proj": "attn.wo_b",
            **{f"self_attn.compressor.{h}": f"attn.compressor.{t}" for h, t in _COMPRESSOR.items()},
            **{f"{_INDEXER}.{h}": f"attn.indexer.compressor.{t}" for h, t in _COMPRESSOR.items()},
            f"{_INDEXER}.q_b_proj": "attn.indexer.wq_b",
            f"{_INDEXER}.scorer.weights_proj": "attn.indexer.weights_proj",
            "mlp.gate": "ffn.gate",
            "mlp.gate.e_score_correction_bias": "ffn.gate.bias",
            "mlp.tid2eid": "ffn.gate.tid2eid",
            **{f"mlp.shared_expert.{h}": f"ffn.shared_experts.{t}" for h, t in _SWIGLU.items()},
        },
        fusions=one_by_one("ffn.experts", "w1", "w3", "w2"),
        # The name that the released code has; transformers writes the first.
        other_inner={"self_attn.kv_norm": "attn.kv_norm"},
    ),
}
