"""What a runtime caches of latent attention: the latent, or the keys and values that are made from it."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.errors import UsageError, unknown

LATENT_CACHES = ("latent", "expanded")


def cached_as(model: Model, form: str) -> Model:
    """Return the model with its latent attention cached in this form: ``latent`` or ``expanded``.

    Raises:
        UsageError: there is no such form, or the model has no latents to expand.
    """
    if form not in LATENT_CACHES:
        raise unknown("latent cache", form, LATENT_CACHES)
    return with_expanded_cache(model) if form == "expanded" else model


def with_expanded_cache(model: Model) -> Model:
    """Return the model as runtimes without a kernel for latents cache it: a key and a value of every head.

    transformers 4 does so. Tensor-parallel ranks share these heads, where each keeps a latent whole.

    Raises:
        UsageError: it has no latent attention, or an indexer, whose runtimes read latents.
    """
    mixers = [mixer for run in model.runs() for mixer in run.layer.mixers()]
    latent = [mixer for mixer in mixers if isinstance(mixer, LatentAttention)]
    if not latent:
        raise UsageError(f"{model.name} has no latent attention: there is no latent to expand")
    if any(mixer.indexer is not None for mixer in latent):
        raise UsageError(f"{model.name} has an indexer: what it chooses is read as latents, never expanded")
    layers = tuple(_expanded(layer) for layer in model.layers)
    return replace(model, layers=layers, source=f"{model.source}, its latents cached in expanded form")


def _expanded(layer: Layer) -> Layer:
    if not isinstance(layer.mixer, LatentAttention):
        return layer
    return replace(layer, mixer=replace(layer.mixer, expanded_cache=True))
