"""What the classes of older text models read where a ``text_config`` leaves a size out.

A config.json of such a model by itself must say its sizes; inside a multimodal file only what differs from
the class is written (llava-1.5-7b says neither its width nor its depth). Defaults of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_MISTRAL = {**_LLAMA, "intermediate_size": 14_336, "max_position_embeddings": 131_072}
_QWEN = {**_LLAMA, "vocab_size": 151_936, "intermediate_size": 22_016, "max_position_embeddings": 32_768}
_GEMMA_3 = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "max_position_embeddings": 131_072,
}
_GEMMA_2 = {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "max_position_embeddings": 8192,
}
_QWEN_VL = {"num_hidden_layers": 80}

TEXT_DEFAULTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "gemma2": _GEMMA_2,
        "gemma3_text": _GEMMA_3,
        "llama": _LLAMA,
        "mistral": _MISTRAL,
        "qwen2": _QWEN,
        "qwen2_5_vl_text": _QWEN_VL,
        "qwen2_vl_text": _QWEN_VL,
        "qwen3": _QWEN,
    }
)
# Voxtral's class reads these in place of Llama's.
VOXTRAL_TEXT: Mapping[str, object] = MappingProxyType(
    {
        "vocab_size": 131_072,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 30,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000_000.0,
        "head_dim": 128,
    }
)
