"""Text models that transformers has only inside a class with an encoder of images."""

from __future__ import annotations

from names import recent_dense
from names.fusing import STACKED_EXPERTS, Names

_INSIDE = {
    "embed_tokens": "model.language_model.embed_tokens",
    "layers": "model.language_model.layers",
    "norm": "model.language_model.norm",
}

_GLM4 = recent_dense.NAMES["glm4"]

NAMES: dict[str, Names] = {
    "glm4v_text": Names(outer=_INSIDE, inner=_GLM4.inner, fusions=_GLM4.fusions),
    "mllama_text_model": Names(outer=_INSIDE),
    "qwen2_5_vl_text": Names(outer=_INSIDE),
    "qwen2_vl_text": Names(outer=_INSIDE),
    "qwen3_vl_moe_text": Names(outer=_INSIDE, fusions=STACKED_EXPERTS),
    "qwen3_vl_text": Names(outer=_INSIDE),
}
