"""What the families' config files have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.arch.activation import Activation
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.vision import SiglipTower
from kvplan.errors import did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.storage import TORCH_DTYPES

# Modules no weight format here packs: naming them as exceptions changes nothing.
_NEVER_PACKED = re.compile(
    r"(.*\.)?(lm_head|embed_tokens|\w*norm|gate|router|shared_expert_gate|vision_tower|multi_modal_projector)"
)
_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "relu2": Activation.RELU_SQUARED,
}
_NO_EXPERTS = re.compile(rf"{_NEVER_PACKED.pattern}|(.*\.)?self_attn")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a config.json does not say of itself: the model's name here, and where the file is from."""

    name: str
    source: str


def dtype(config: Config) -> str:
    """Return the storage of plain weights: bf16 where the file does not say."""
    name = config.text("torch_dtype", "dtype", default="bfloat16")
    if name not in TORCH_DTYPES:
        key = "torch_dtype" if config.has("torch_dtype") else "dtype"
        config.refuse(key, f"{name[:40]!r} is not one of {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


def refuse_other_dtype(config: Config, outer: str) -> None:
    """Refuse an inner mapping's dtype that is not the surrounding file's."""
    inner = config.text("torch_dtype", "dtype")
    if inner and TORCH_DTYPES.get(inner) != outer:
        key = "torch_dtype" if config.has("torch_dtype") else "dtype"
        config.refuse(key, f"{inner[:40]!r} is not the dtype of the surrounding file, {outer}")


def weight_format(config: Config) -> str:
    """Return the storage format that ``quantization_config`` names, or ``""`` where there is none.

    Raises:
        SpecError: the quantisation is not one that is understood.
    """
    if not config.has("quantization_config"):
        config.harmless("quantization_config")
        return ""
    quantization = config.inner("quantization_config")
    method = quantization.text("quant_method")
    if method == "fp8":
        stored = _fp8(config, quantization)
    elif method == "mxfp4":
        _refuse_exceptions(quantization, ("modules_to_not_convert",), _NO_EXPERTS)
        stored = "mxfp4"
    else:
        shown = f"quant_method {method[:40]!r} is not understood (fp8 and mxfp4 are)"
        config.refuse("quantization_config", shown)
    quantization.finish()
    return stored


def _fp8(config: Config, quantization: Config) -> str:
    if quantization.integers("weight_block_size") != [128, 128]:
        config.refuse("quantization_config", "fp8 is understood with weight_block_size [128, 128] only")
    _refuse_exceptions(quantization, ("ignored_layers", "modules_to_not_convert"), _NEVER_PACKED)
    quantization.harmless("activation_scheme", "fmt", "scale_fmt")
    return "fp8-block"


def _refuse_exceptions(quantization: Config, keys: tuple[str, ...], idle: re.Pattern[str]) -> None:
    """Refuse exceptions from the quantisation but those that name what the format leaves alone anyway."""
    for key in keys:
        for module in quantization.words(key):
            if not idle.fullmatch(module):
                quantization.refuse(key, f"{module[:40]!r} keeps its dtype: exceptions are not counted")


def activation(config: Config, key: str = "hidden_act", default: Activation = Activation.SILU) -> Activation:
    """Return the function between the steps of a feed-forward block.

    Raises:
        SpecError: it is not one of those that are understood.
    """
    name = config.text(key, default=default.value)
    if name not in _ACTIVATIONS:
        suggestion = did_you_mean(name, _ACTIVATIONS) or f"understood: {', '.join(_ACTIVATIONS)}"
        config.refuse(key, f"{shown(name)} is not understood ({suggestion})")
    return _ACTIVATIONS[name]


def head_dim(config: Config, hidden_size: int, heads: int, default: int | None = None) -> int:
    """Return ``head_dim``; where it is missing or null the family's default, else hidden / heads.

    Raises:
        SpecError: hidden_size is no multiple of the heads.
    """
    found = config.optional_integer("head_dim") or default
    if found is not None:
        return found
    if hidden_size % heads:
        config.refuse(
            None, f"hidden_size ({hidden_size}) is no multiple of {heads} heads, and there is no head_dim"
        )
    return hidden_size // heads


def windowed_layers(config: Config, depth: int) -> list[bool] | None:
    """Return which layers slide by ``layer_types``, or ``None`` where the file has no such list."""
    types = config.texts("layer_types", depth, ("full_attention", "sliding_attention"))
    return None if types is None else [kind == "sliding_attention" for kind in types]


def finished_model(
    config: Config,
    identity: Identity,
    layers: Sequence[Layer],
    *,
    tied: bool,
    norm: Norm = Norm.RMS,
    eps_key: str = "rms_norm_eps",
    eps: float = 1e-6,
    hidden_size: int | None = None,
    vocab_size: int | None = None,
    max_position_embeddings: int | None = None,
    learned_positions: int = 0,
    lm_head_bias: bool = False,
    embedding_multiplier: float = 1.0,
    final_logit_softcapping: float | None = None,
    vision: SiglipTower | None = None,
    stored: str | None = None,
    model_dtype: str | None = None,
) -> Model:
    """Read what every family shares, refuse what nobody read, and return the model.

    ``tied`` is the family's default for ``tie_word_embeddings``, ``eps`` the one for ``eps_key``. ``stored``
    and ``model_dtype`` are given where they were read from a surrounding file.
    """
    config.harmless("model_type")
    if model_dtype is None:
        model_dtype = dtype(config)
    else:
        refuse_other_dtype(config, model_dtype)
    model = Model(
        name=identity.name,
        source=identity.source,
        dtype=model_dtype,
        hidden_size=hidden_size or config.integer("hidden_size"),
        vocab_size=vocab_size or config.integer("vocab_size"),
        max_position_embeddings=max_position_embeddings or config.integer("max_position_embeddings"),
        layers=tuple(layers),
        norm=norm,
        norm_eps=config.number(eps_key, default=eps),
        tie_word_embeddings=config.flag("tie_word_embeddings", tied),
        learned_positions=learned_positions,
        lm_head_bias=lm_head_bias,
        embedding_multiplier=embedding_multiplier,
        final_logit_softcapping=final_logit_softcapping,
        weight_format=weight_format(config) if stored is None else stored,
        vision=vision,
    )
    config.finish()
    return model
