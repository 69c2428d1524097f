"""What the families' config files have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kvplan.arch.activation import Activation
from kvplan.arch.altup import AltUp
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.errors import did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.storage import TORCH_DTYPES

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
    "quick_gelu": Activation.QUICK_GELU,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a config.json does not say of itself: the model's name here, and where the file is from."""

    name: str
    source: str


# A family's adapters, by the model_type they read.
Adapter: TypeAlias = Callable[[Config, Identity], Model]
Families: TypeAlias = dict[str, Adapter]


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


def prediction_layers(config: Config) -> int:
    """Return how many layers that predict further tokens the released files hold beside the model.

    A file that says nothing of them has none as far as is known, whatever its class would make.
    """
    names = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
    return max(config.count(name, 0) for name in names)


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
    position_offset: int = 0,
    lm_head_bias: bool = False,
    embedding_size: int | None = None,
    embedding_multiplier: float = 1.0,
    embedding_norm: bool = False,
    residual_multiplier: float = 1.0,
    final_norm: bool = True,
    logits_multiplier: float = 1.0,
    final_logit_softcapping: float | None = None,
    per_layer_input: PerLayerInput | None = None,
    altup: AltUp | None = None,
    hyper_connections: HyperConnections | None = None,
    num_nextn_predict_layers: int = 0,
) -> Model:
    """Read what every family shares, refuse what nobody read, and return the model.

    ``tied`` is the family's default for ``tie_word_embeddings``, ``eps`` the one for ``eps_key``.
    """
    # What the files store is read when the model is known (specs/quantization).
    config.harmless("model_type", "quantization_config")
    model = Model(
        name=identity.name,
        source=identity.source,
        dtype=dtype(config),
        hidden_size=hidden_size or config.integer("hidden_size"),
        vocab_size=vocab_size or config.integer("vocab_size"),
        max_position_embeddings=max_position_embeddings or config.integer("max_position_embeddings"),
        layers=tuple(layers),
        norm=norm,
        norm_eps=config.number(eps_key, default=eps),
        tie_word_embeddings=config.flag("tie_word_embeddings", tied),
        learned_positions=learned_positions,
        position_offset=position_offset,
        lm_head_bias=lm_head_bias,
        embedding_size=embedding_size,
        embedding_multiplier=embedding_multiplier,
        embedding_norm=embedding_norm,
        residual_multiplier=residual_multiplier,
        final_norm=final_norm,
        logits_multiplier=logits_multiplier,
        final_logit_softcapping=final_logit_softcapping,
        per_layer_input=per_layer_input,
        altup=altup,
        hyper_connections=hyper_connections,
        num_nextn_predict_layers=num_nextn_predict_layers,
    )
    config.finish()
    return model
