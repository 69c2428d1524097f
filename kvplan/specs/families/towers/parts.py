"""What encoders are made of: projections, norms and blocks, as lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower, TowerTensor
from kvplan.specs.config import Config
from kvplan.specs.families.common import refuse_other_dtype

VISION = "vision_tower"
AUDIO = "audio_tower"
Tensors = tuple[TowerTensor, ...]


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder's tensors, and the width of what it hands to the projector."""

    hidden_size: int
    tensors: Tensors


def tower(name: str, *parts: Sequence[TowerTensor]) -> Tower:
    """Return the tower made of these parts."""
    return Tower(name, tuple(tensor for part in parts for tensor in part))


def linear(name: str, rows: int, columns: int, count: int = 1, *, bias: bool = True) -> Tensors:
    """Return a projection's weight ``[rows, columns]`` and, unless it has none, its bias."""
    weight = TowerTensor(f"{name}.weight", (rows, columns), count)
    return (weight, TowerTensor(f"{name}.bias", (rows,), count)) if bias else (weight,)


def layer_norm(name: str, width: int, count: int = 1) -> Tensors:
    """Return a LayerNorm's scale and bias."""
    return (*rms_norm(name, width, count), TowerTensor(f"{name}.bias", (width,), count))


def rms_norm(name: str, width: int, count: int = 1) -> Tensors:
    """Return an RMSNorm's scale."""
    return (TowerTensor(f"{name}.weight", (width,), count),)


def parameter(name: str, *shape: int, count: int = 1) -> Tensors:
    """Return one tensor by itself: a learned position, a gate."""
    return (TowerTensor(name, shape, count),)


def buffer(name: str, *shape: int, count: int = 1) -> Tensors:
    """Return one tensor that is stored and is no parameter."""
    return (TowerTensor(name, shape, count, trained=False),)


def two_layer_mlp(name: str, width: int, inner: int, count: int, *, bias: bool = True) -> Tensors:
    """Return the matrices of a feed-forward block without a gate."""
    return (
        *linear(f"{name}.fc1", inner, width, count, bias=bias),
        *linear(f"{name}.fc2", width, inner, count, bias=bias),
    )


def gated_mlp(name: str, width: int, inner: int, count: int = 1, *, bias: bool = False) -> Tensors:
    """Return the matrices of a gated feed-forward block."""
    return (
        *linear(f"{name}.gate_proj", inner, width, count, bias=bias),
        *linear(f"{name}.up_proj", inner, width, count, bias=bias),
        *linear(f"{name}.down_proj", width, inner, count, bias=bias),
    )


def square_attention(name: str, width: int, count: int, *, bias: bool = True) -> Tensors:
    """Return the query, key, value and output projections, each ``[width, width]``."""
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    return tuple(t for part in parts for t in linear(f"{name}.{part}", width, width, count, bias=bias))


def widths(config: Config, hidden_size: int, intermediate_size: int) -> tuple[int, int]:
    """Return how wide an encoder and its feed-forward blocks are, given the class defaults."""
    width = config.integer("hidden_size", default=hidden_size)
    return width, config.integer("intermediate_size", default=intermediate_size)


def patches_per_side(config: Config, image_size: int, patch_size: int) -> int:
    """Return how many whole patches a side of an image has, given the class defaults."""
    patch = config.integer("patch_size", default=patch_size)
    return config.integer("image_size", default=image_size) // patch


def ignore_what_is_not_counted(config: Config) -> None:
    """Note the keys of encoders that change how they compute, and not one tensor."""
    config.harmless(
        *("hidden_act", "hidden_activation", "num_attention_heads", "num_heads"),
        *("layer_norm_eps", "norm_eps", "rms_norm_eps", "rope_theta", "rope_parameters"),
        *("vision_feature_layer", "vision_feature_select_strategy"),
        # Of every config that transformers 4 wrote, whatever it is of.
        *("architectures", "tie_word_embeddings"),
    )


def finish_encoder(config: Config, model: Model) -> None:
    """Refuse an encoder in another dtype than the language model's, and every key that nobody read."""
    refuse_other_dtype(config, model.dtype)
    config.finish()
