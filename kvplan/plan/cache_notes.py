"""What a reader must know of the form a cache is kept in."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.arch.entry import KV, Entry
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Model
from kvplan.plan.deployment import Deployment


def cache_notes(model: Model, deployment: Deployment) -> Iterator[str]:
    """Iterate over what the released files decided of the cache's format, and how the cache is counted."""
    if model.kv_format and deployment.kv.name == model.kv_format:
        yield f"KV in {model.kv_format}: the released files have scales for it, and vLLM takes it (--kv)"
    mixers = (mixer for run in model.runs() for mixer in run.layer.mixers())
    if any(isinstance(mixer, LatentAttention) and mixer.expanded_cache for mixer in mixers):
        yield "every head's key and value is cached, made from latents that are not (--latent-cache)"
    if deployment.state.lists_twice and any(_is_one_vector(run.slot.entry) for run in model.slot_runs()):
        yield "a window's vector is key and value: counted twice, as transformers lists it (--state)"


def _is_one_vector(entry: Entry) -> bool:
    return isinstance(entry, KV) and entry.one_vector
