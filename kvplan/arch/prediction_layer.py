"""Layers that predict further tokens (multi-token prediction): released beside a model, to draft with."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.errors import UsageError


def with_prediction_layers(model: Model) -> Model:
    """Return the model with its prediction layers behind the others, as where a runtime drafts with them.

    Each is one more layer like the last that attends, with the parts that join it to the model (arXiv
    2412.19437, section 2.2). It caches what that layer caches. Embedding and head are the model's own,
    though files of DeepSeek-V3 hold copies of both.

    Raises:
        UsageError: no prediction layer is known for it.
    """
    if not model.num_nextn_predict_layers:
        raise UsageError(
            f"{model.name} has no next-token-prediction layers",
            hint="those that a config.json names as num_nextn_predict_layers can be held",
        )
    added = (prediction_layer(model),) * model.num_nextn_predict_layers
    words = f"with {prediction_words(model.num_nextn_predict_layers)}"
    return replace(model, layers=(*model.layers, *added), source=f"{model.source}, {words}")


def prediction_layer(model: Model) -> Layer:
    """Return one of a model's prediction layers, stored as its released files have it."""
    last, stored = last_attending(model), model.prediction_stored_otherwise
    own = last.stored_otherwise if stored is None else stored
    return replace(standing_alone(last), predicts=True, stored_otherwise=own)


def last_attending(model: Model) -> Layer:
    """Return the last layer with attention (Qwen3.5 may end with another), or the last of all."""
    attending = (x for x in reversed(model.layers) if isinstance(x.mixer, Attention | LatentAttention))
    return next(attending, model.layers[-1])


def prediction_words(count: int) -> str:
    """Return a number of prediction layers in words: ``1 next-token-prediction layer``."""
    return f"{count} next-token-prediction layer{'' if count == 1 else 's'}"


def standing_alone(layer: Layer) -> Layer:
    """Return a layer with keys and values, and an indexer, of its own: it needs no layer before it."""
    mixer = layer.mixer
    if isinstance(mixer, Attention) and mixer.shares_kv:
        return replace(layer, mixer=replace(mixer, shares_kv=False))
    if isinstance(mixer, LatentAttention) and mixer.indexer is not None:
        return replace(layer, mixer=replace(mixer, indexer=replace(mixer.indexer, shared=False)))
    return layer
