"""What GGUF files call the tensors of a model, and which those are here.

Names: gguf, constants.py, TENSOR_NAMES.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from kvplan.arch.model import Model
from kvplan.arch.weight import Weight
from kvplan.specs.gguf_rotation import LLAMA3_FACTORS, LONG_FACTORS, SHORT_FACTORS
from kvplan.storage import TensorRole

# A module of a file, and the modules here that it is: several whose rows stand one below the other, or one of
# several that no model has beside each other.
Modules: TypeAlias = Mapping[str, tuple[str, ...]]

_OUTER: Modules = MappingProxyType(
    {
        "token_embd": ("embed_tokens",),
        "token_embd_norm": ("embed_norm",),
        "position_embd": ("embed_positions",),
        "output_norm": ("norm",),
        "output": ("lm_head",),
    }
)
_INNER: Modules = MappingProxyType(
    {
        "attn_norm": ("input_layernorm",),
        "attn_q": ("self_attn.q_proj",),
        "attn_k": ("self_attn.k_proj",),
        "attn_v": ("self_attn.v_proj",),
        "attn_output": ("self_attn.o_proj",),
        "attn_q_norm": ("self_attn.q_norm",),
        "attn_k_norm": ("self_attn.k_norm",),
        "ffn_norm": ("post_attention_layernorm",),
        "ffn_gate": ("mlp.gate_proj",),
        "ffn_up": ("mlp.up_proj",),
        "ffn_down": ("mlp.down_proj",),
        "ffn_gate_inp": ("mlp.gate",),
        "ffn_gate_exps": ("mlp.experts.gate_proj",),
        "ffn_up_exps": ("mlp.experts.up_proj",),
        "ffn_down_exps": ("mlp.experts.down_proj",),
        "ffn_gate_inp_shexp": ("mlp.shared_expert_gate",),
        "ffn_gate_shexp": ("mlp.shared_expert.gate_proj",),
        "ffn_up_shexp": ("mlp.shared_expert.up_proj",),
        "ffn_down_shexp": ("mlp.shared_expert.down_proj",),
    }
)
_QKV: Modules = MappingProxyType(
    {"attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
)


@dataclass(frozen=True, slots=True)
class GgufNames:
    """What an architecture's files call otherwise than most.

    Args:
        outer: modules outside layers.
        inner: modules in layers.
        permuted: rows of queries and keys stand so that neighbours are rotated together.
        read_as_keys: tensors that say what keys of a config.json say.
    """

    outer: Modules = field(default_factory=dict)
    inner: Modules = field(default_factory=dict)
    permuted: bool = False
    read_as_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor of a model: of a layer, or with ``layer`` absent outside all."""

    layer: int | None
    weight: Weight

    @property
    def name(self) -> str:
        """What the engine calls it."""
        return self.weight.name if self.layer is None else f"layers.{self.layer}.{self.weight.name}"


def tensors_of(model: Model, names: GgufNames) -> dict[str, tuple[Named, ...]]:
    """Return what each tensor of a model's file is here, by its name in the file."""
    outer, inner = _by_module(_OUTER, names.outer), _by_module(_INNER, names.inner)
    found: dict[str, list[tuple[int, Named]]] = {}
    for named in _named(model):
        module, _, kind = named.weight.name.rpartition(".")
        modules = outer if named.layer is None else inner
        whole = modules.get(named.weight.name)
        theirs, place = whole or modules.get(module, (module, 0))
        name = theirs if whole else f"{theirs}.{kind}"
        before = "" if named.layer is None else f"blk.{named.layer}."
        found.setdefault(f"{before}{name}", []).append((place, named))
    return {name: _in_places(parts) for name, parts in found.items()}


def _in_places(parts: list[tuple[int, Named]]) -> tuple[Named, ...]:
    return tuple(named for _, named in sorted(parts, key=lambda part: part[0]))


def _by_module(usual: Modules, own: Modules) -> dict[str, tuple[str, int]]:
    """Return what a file calls each module here, by the architecture where it has its own name for it.

    Beside each name is the place of the module's rows among those of this name.
    """
    return {
        here: (theirs, place)
        for names in (usual, own)
        for theirs, modules in names.items()
        for place, here in enumerate(modules)
    }


def _named(model: Model) -> Iterator[Named]:
    for weight in (*model.input_weights(), *model.output_weights()):
        if weight.role is not TensorRole.TOWER:
            yield Named(None, weight)
    for index, layer in enumerate(model.layers):
        for weight in model.layer_weights(layer):
            yield Named(index, weight)


_FALCON: Modules = MappingProxyType(
    {**_QKV, "attn_norm": ("input_layernorm", "ln_mlp"), "attn_norm_2": ("ln_attn",)}
)
_GEMMA: Modules = MappingProxyType(
    {
        "post_attention_norm": ("post_attention_layernorm",),
        "ffn_norm": ("pre_feedforward_layernorm",),
        "post_ffw_norm": ("post_feedforward_layernorm",),
    }
)
_GPT_OSS: Modules = MappingProxyType(
    {
        "attn_sinks.weight": ("self_attn.sinks",),
        "post_attention_norm": ("post_attention_layernorm",),
    }
)
_MAMBA: Modules = MappingProxyType(
    {
        "ssm_in": ("mamba.in_proj",),
        "ssm_conv1d": ("mamba.conv1d",),
        "ssm_x": ("mamba.x_proj",),
        "ssm_dt": ("mamba.dt_proj",),
        "ssm_a": ("mamba.A_log",),
        "ssm_d": ("mamba.D",),
        "ssm_out": ("mamba.out_proj",),
    }
)
_CONVOLUTION: Modules = MappingProxyType(
    {
        "shortconv.in_proj": ("conv.in_proj",),
        "shortconv.conv": ("conv.conv",),
        "shortconv.out_proj": ("conv.out_proj",),
    }
)
NAMES: dict[str, GgufNames] = {
    "bloom": GgufNames(inner=_QKV),
    "falcon": GgufNames(inner=_FALCON),
    "gemma2": GgufNames(inner=_GEMMA),
    "gemma3": GgufNames(inner=_GEMMA),
    "gpt-oss": GgufNames(inner=_GPT_OSS),
    "gpt2": GgufNames(inner=_QKV),
    "lfm2": GgufNames(outer={"token_embd_norm": ("norm",)}, inner=_CONVOLUTION),
    "llama": GgufNames(permuted=True, read_as_keys=(LLAMA3_FACTORS,)),
    "mamba": GgufNames(inner=_MAMBA),
    "minimax-m2": GgufNames(inner={"exp_probs_b.bias": ("mlp.gate.e_score_correction_bias",)}),
    "nemotron": GgufNames(),
    "phi3": GgufNames(
        inner={**_QKV, "ffn_up": ("mlp.gate_proj", "mlp.up_proj")},
        read_as_keys=(LONG_FACTORS, SHORT_FACTORS),
    ),
    "qwen2": GgufNames(),
    "qwen2moe": GgufNames(),
    "qwen3": GgufNames(),
    "qwen3moe": GgufNames(),
    "stablelm": GgufNames(),
    "starcoder2": GgufNames(),
}
