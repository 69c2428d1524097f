"""A small model with a large one's structure: few enough weights to run anywhere, the same cache shapes.

What decides how a cache behaves is kept: the order of layer kinds, query heads per KV head, head_dim,
latent ranks, state matrices, experts and how many a token uses, tied embeddings, biases, norms and
rotations. What only makes it large is cut: depth, width, number of heads, vocabulary. Windows shrink so
that a short run slides them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.limits import Limits
from kvplan.arch.model import Model

HIDDEN_SIZE = 256
LAYERS = 4


def scaled_down(
    model: Model, *, layers: int | None = None, hidden_size: int | None = None, like: Model | None = None
) -> Model:
    """Return the model scaled down, computed in float32, without its towers.

    It says what the real one is released in, so that its weights can be stored likewise.

    Args:
        model: the real one.
        layers: the first so many stay; by default those of :func:`kept_layers`.
        hidden_size: width; 256 by default, and never more than the real one.
        like: the layers stay that stay of this one, of which the model is a changed form.
    """
    hidden = min(model.hidden_size, hidden_size or HIDDEN_SIZE)
    kept = kept_layers(like or model) if layers is None else range(layers)
    limits = Limits(hidden, model.hidden_size)
    given = model.per_layer_input
    by_width = model.embedding_multiplier == model.hidden_size**0.5
    return replace(
        model,
        source=f"{model.name} scaled down: {model.source}",
        dtype="fp32",
        hidden_size=hidden,
        vocab_size=min(model.vocab_size, limits.vocabulary),
        embedding_size=None if model.embedding_size is None else limits.width(model.embedding_size),
        layers=tuple(layer.scaled_down(limits) for index, layer in enumerate(model.layers) if index in kept),
        embedding_multiplier=hidden**0.5 if by_width else model.embedding_multiplier,
        per_layer_input=None if given is None else given.scaled_down(limits.vocabulary),
        towers=(),
        missing_towers=(),
    )


def kept_layers(model: Model) -> tuple[int, ...]:
    """Return the first layer of every kind, those whose work they share, and first others up to four.

    Where layers share a block, the second use of the first block stays too.
    """
    first: dict[Layer, int] = {}
    for index, layer in enumerate(model.layers):
        # However differently they are stored, layers that compute alike are of one kind.
        first.setdefault(replace(layer, stored_otherwise=()), index)
    kept = set(first.values()).union(*(_shared_from(model, index) for index in first.values()))
    kept |= _second_use(model)
    others = (index for index in range(len(model.layers)) if index not in kept)
    return tuple(sorted(kept.union(islice(others, max(0, LAYERS - len(kept))))))


def _second_use(model: Model) -> set[int]:
    """Return the second layer that runs the first block which layers share, where there is one."""
    named = [layer.shared_block and layer.shared_block.name for layer in model.layers]
    first = next((name for name in named if name), None)
    uses = [index for index, name in enumerate(named) if first and name == first]
    return set(uses[1:2])


def _shared_from(model: Model, index: int) -> set[int]:
    """Return the layers that store what a layer reads, and the one that chooses the tokens it attends to."""
    made_by = {place: layer for layer, places in enumerate(model.own_places()) for place in places}
    found = {made_by[place] for place in model.places()[index]}
    if _indexers(model.layers[index]):
        upto = enumerate(model.layers[: index + 1])
        found.add(max(i for i, layer in upto if any(not indexer.shared for indexer in _indexers(layer))))
    return found


def _indexers(layer: Layer) -> list[Indexer]:
    latent = (mixer for mixer in layer.mixers() if isinstance(mixer, LatentAttention))
    return [mixer.indexer for mixer in latent if mixer.indexer is not None]
