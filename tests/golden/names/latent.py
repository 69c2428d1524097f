"""Families with latent attention, DeepSeek V3.2, GLM-5, GLM-4.7-Flash and MiniCPM3; and DeepSeek V4."""

from __future__ import annotations

from names.first_families import SHARED_EXPERTS
from names.fusing import LLAMA_OUTER, STACKED_EXPERTS, Names

_HYPER_OUTER = {
    "hc_head.fn.weight": "model.hc_head.hc_fn",
    "hc_head.base": "model.hc_head.hc_base",
    "hc_head.scale": "model.hc_head.hc_scale",
}

NAMES: dict[str, Names] = {
    "deepseek_v4": Names(
        outer=LLAMA_OUTER | _HYPER_OUTER,
        inner=SHARED_EXPERTS
        | {f"{part}.fn.weight": f"{part}.fn" for part in ("attn_hc", "ffn_hc")}
        | {"mlp.tid2eid": "mlp.gate.tid2eid"},
        fusions=STACKED_EXPERTS,
    ),
    "deepseek_v32": Names(inner=SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "glm4_moe_lite": Names(inner=SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "glm_moe_dsa": Names(inner=SHARED_EXPERTS, fusions=STACKED_EXPERTS),
    "minicpm3": Names(),
}
