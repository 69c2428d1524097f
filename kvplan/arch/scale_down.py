"""A small model with a large one's structure: few enough weights to run anywhere, the same cache shapes.

What decides how a cache behaves is kept: the order of layer kinds, query heads per KV head, head_dim,
latent ranks, state matrices, experts and how many a token uses, tied embeddings, biases, norms and
rotations. What only makes it large is cut: depth, width, number of heads, vocabulary. Windows shrink so
that a short run slides them.
"""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model

HIDDEN_SIZE = 256
LAYERS = 4
QUERY_HEADS = 8
VOCABULARY = 512
WINDOW = 128
# Experts together are no wider than this: a model of 512 keeps them all.
EXPERT_FEATURES = 8192
# Widths stay multiples of this, so that scaled models keep to whole panels as real ones do.
STEP = 32


def scaled_down(model: Model, *, layers: int | None = None, hidden_size: int | None = None) -> Model:
    """Return the model scaled down, computed and stored in float32, without its vision tower.

    Args:
        model: the real one.
        layers: depth; by default the first layers up to one of every kind, at least four.
        hidden_size: width; 256 by default, and never more than the real one.
    """
    hidden = min(model.hidden_size, hidden_size or HIDDEN_SIZE)
    depth = min(len(model.layers), layers or _depth(model))
    ratio = (hidden, model.hidden_size)
    by_width = model.embedding_multiplier == model.hidden_size**0.5
    return replace(
        model,
        source=f"{model.name} scaled down: {model.source}",
        dtype="fp32",
        weight_format="",
        hidden_size=hidden,
        vocab_size=min(model.vocab_size, VOCABULARY),
        layers=tuple(_layer(layer, ratio) for layer in model.layers[:depth]),
        embedding_multiplier=hidden**0.5 if by_width else model.embedding_multiplier,
        vision=None,
    )


def _depth(model: Model) -> int:
    """Return how many first layers hold every kind of layer once, and at least four."""
    kinds = set(model.layers)
    seen: set[Layer] = set()
    for index, layer in enumerate(model.layers, start=1):
        seen.add(layer)
        if seen == kinds:
            return max(index, LAYERS)
    return len(model.layers)


def _layer(layer: Layer, ratio: tuple[int, int]) -> Layer:
    return replace(layer, mixer=_mixer(layer.mixer), mlp=_feed_forward(layer.mlp, ratio))


def _mixer(mixer: Mixer) -> Mixer:
    match mixer:
        case Attention(num_attention_heads=heads, num_key_value_heads=kv_heads):
            group = heads // kv_heads
            kept = min(kv_heads, max(1, QUERY_HEADS // group))
            return replace(
                mixer,
                num_attention_heads=kept * group,
                num_key_value_heads=kept,
                sliding_window=_window(mixer.sliding_window),
                attention_chunk_size=_window(mixer.attention_chunk_size),
            )
        case LatentAttention(num_attention_heads=heads, q_lora_rank=rank):
            small = None if rank is None else min(rank, HIDDEN_SIZE)
            return replace(mixer, num_attention_heads=min(heads, QUERY_HEADS), q_lora_rank=small)
        case GatedDeltaNet(linear_num_key_heads=keys, linear_num_value_heads=values):
            kept = min(keys, max(1, QUERY_HEADS // 2 * keys // values))
            return replace(mixer, linear_num_key_heads=kept, linear_num_value_heads=kept * (values // keys))


def _window(window: int | None) -> int | None:
    return None if window is None else min(window, WINDOW)


def _feed_forward(block: FeedForward, ratio: tuple[int, int]) -> FeedForward:
    match block:
        case MLP(intermediate_size=width):
            return replace(block, intermediate_size=_width(width, ratio))
        case Experts(num_experts=count, moe_intermediate_size=width, shared_expert_intermediate_size=shared):
            return replace(
                block,
                moe_intermediate_size=min(_width(width, ratio), max(1, EXPERT_FEATURES // count)),
                shared_expert_intermediate_size=_width(shared, ratio),
            )


def _width(width: int, ratio: tuple[int, int]) -> int:
    """Return a feed-forward width scaled with the model's, in whole steps, and never wider than it was."""
    small, large = ratio
    return min(width, max(STEP, -(-width * small // large // STEP) * STEP))
