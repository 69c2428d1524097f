"""transformers' parameters out of kvplan's: other names, fused matrices, and the row orders in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model

Array = NDArray[np.float32]
Fusion = tuple[str, tuple[str, ...], Callable[..., Array]]

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
EXPERT_GATE_UP = ("mlp.experts.gate_proj", "mlp.experts.up_proj")


def hf_tensors(model_type: str, model: Model, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return what each parameter and buffer of transformers' model of this type holds, by its name there."""
    outer = OUTER.get(model_type, LLAMA_OUTER)
    found = {
        _renamed(name, outer): array for name, array in weights.items() if not name.startswith("layers.")
    }
    layers = outer["layers"]
    for index, layer in enumerate(model.layers):
        prefix = f"layers.{index}."
        own = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
        fused = _fused(own, FUSIONS.get(model_type, ()), layer)
        renames = INNER.get(model_type, {})
        found |= {f"{layers}.{index}.{_renamed(name, renames)}": array for name, array in fused.items()}
    return found


def _fused(own: dict[str, Array], fusions: Sequence[Fusion], layer: Layer) -> dict[str, Array]:
    """Return a layer's tensors with those of each fusion, where it has them, put into one."""
    found = dict(own)
    for target, sources, join in fusions:
        if all(source in own for source in sources):
            parts = [found.pop(source) for source in sources]
            found[target] = join(layer, *parts)
    return found


def _renamed(name: str, renames: Mapping[str, str]) -> str:
    """Return the name with its longest prefix of whole words that has another name there replaced."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if prefix in renames:
            return ".".join([renames[prefix], *words[count:]])
    return name


def _both(target: str, sources: tuple[str, ...], join: Callable[..., Array]) -> list[Fusion]:
    """Return a fusion of weights and the same of biases."""
    return [
        (f"{target}.{kind}", tuple(f"{source}.{kind}" for source in sources), join)
        for kind in ("weight", "bias")
    ]


def _rows(_layer: Layer, *parts: Array) -> Array:
    return np.concatenate(parts)


def _columns(_layer: Layer, *parts: Array) -> Array:
    """Join as a Conv1D: (inputs, outputs); a vector stays one."""
    return np.concatenate(parts).T


def _expert_rows(_layer: Layer, *parts: Array) -> Array:
    return np.concatenate(parts, axis=1)


def _expert_columns(_layer: Layer, *parts: Array) -> Array:
    """Interleave outputs and put them last: (experts, inputs, outputs), or (experts, outputs)."""
    joined = np.stack(parts, axis=2).reshape(len(parts[0]), -1, *parts[0].shape[2:])
    return np.moveaxis(joined, 1, -1)


def _by_kv_head(layer: Layer, *parts: Array) -> Array:
    """Join per KV head: its query heads, its key, its value (Falcon)."""
    assert isinstance(layer.mixer, Attention)
    by_head = [part.reshape(layer.mixer.num_key_value_heads, -1, *part.shape[1:]) for part in parts]
    joined = np.concatenate(by_head, axis=1)
    return joined.reshape(-1, *joined.shape[2:])


LLAMA_OUTER = {"embed_tokens": "model.embed_tokens", "layers": "model.layers", "norm": "model.norm"}
OUTER = {
    "gpt2": {
        "embed_tokens": "transformer.wte",
        "embed_positions": "transformer.wpe",
        "layers": "transformer.h",
        "norm": "transformer.ln_f",
    },
    "falcon": {
        "embed_tokens": "transformer.word_embeddings",
        "layers": "transformer.h",
        "norm": "transformer.ln_f",
    },
    "phi": {**LLAMA_OUTER, "norm": "model.final_layernorm"},
}
SHARED_EXPERTS = {"mlp.shared_expert": "mlp.shared_experts"}
INNER = {
    "gpt2": {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"},
    "falcon": {
        "self_attn.o_proj": "self_attention.dense",
        "mlp.up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
    },
    "phi": {"self_attn.o_proj": "self_attn.dense", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"},
    "gpt_oss": {"mlp.gate": "mlp.router"},
    "deepseek_v2": SHARED_EXPERTS,
    "deepseek_v3": SHARED_EXPERTS,
}
STACKED_EXPERTS: list[Fusion] = [
    ("mlp.experts.gate_up_proj", tuple(f"{name}.weight" for name in EXPERT_GATE_UP), _expert_rows),
    ("mlp.experts.down_proj", ("mlp.experts.down_proj.weight",), _expert_rows),
]
FUSIONS: dict[str, list[Fusion]] = {
    "gpt2": [
        *_both("attn.c_attn", QKV, _columns),
        *_both("attn.c_proj", ("self_attn.o_proj",), _columns),
        *_both("mlp.c_fc", ("mlp.up_proj",), _columns),
        *_both("mlp.c_proj", ("mlp.down_proj",), _columns),
    ],
    "phi3": [*_both("self_attn.qkv_proj", QKV, _rows), *_both("mlp.gate_up_proj", GATE_UP, _rows)],
    "falcon": _both("self_attention.query_key_value", QKV, _by_kv_head),
    "gpt_oss": [
        ("mlp.experts.gate_up_proj", tuple(f"{name}.weight" for name in EXPERT_GATE_UP), _expert_columns),
        ("mlp.experts.gate_up_proj_bias", tuple(f"{name}.bias" for name in EXPERT_GATE_UP), _expert_columns),
        ("mlp.experts.down_proj", ("mlp.experts.down_proj.weight",), _expert_columns),
        ("mlp.experts.down_proj_bias", ("mlp.experts.down_proj.bias",), _expert_columns),
    ],
    "mixtral": STACKED_EXPERTS,
    "qwen3_moe": STACKED_EXPERTS,
    "qwen3_next": STACKED_EXPERTS,
    "deepseek_v2": STACKED_EXPERTS,
    "deepseek_v3": STACKED_EXPERTS,
}
