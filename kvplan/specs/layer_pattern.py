"""The order of layers written short: repeated patterns of named kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.indexer import Indexer
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mamba import Mamba
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.short_convolution import ShortConvolution

LONGEST_PATTERN = 16
# The deepest model released so far has 126.
MAX_LAYERS = 4096


@dataclass(frozen=True, slots=True)
class Segment:
    """``pattern`` written ``repeat`` times."""

    repeat: int
    pattern: tuple[str, ...]


def expand(segments: Sequence[Segment]) -> list[str]:
    """Return the kinds in order, one per layer."""
    return [name for segment in segments for name in segment.pattern * segment.repeat]


def compress(order: Sequence[str]) -> list[Segment]:
    """Return segments that expand to ``order``: at each place the pattern that reaches farthest."""
    segments: list[Segment] = []
    start = 0
    while start < len(order):
        best = max(
            (_repeated(order, start, length) for length in range(1, LONGEST_PATTERN + 1)),
            key=lambda s: (s.repeat * len(s.pattern) if s.repeat > 1 else 0, -len(s.pattern)),
        )
        segments.append(best)
        start += best.repeat * len(best.pattern)
    return segments


def _repeated(order: Sequence[str], start: int, length: int) -> Segment:
    pattern = tuple(order[start : start + length])
    repeat = 1
    while tuple(order[start + repeat * length : start + (repeat + 1) * length]) == pattern:
        repeat += 1
    return Segment(repeat, pattern)


def kind_names(layers: Sequence[Layer]) -> dict[Layer, str]:
    """Name every distinct layer by what sets it apart from the others, in order of appearance."""
    distinct = list(dict.fromkeys(layers))
    if len(distinct) == 1:
        return {distinct[0]: "decoder"}
    mixers = {_mixer_word(layer) for layer in distinct}
    mlps = {_mlp_word(layer) for layer in distinct}
    names: dict[Layer, str] = {}
    for layer in distinct:
        words = []
        if len(mixers) > 1:
            words.append(_mixer_word(layer))
        if len(mlps) > 1:
            words.append(_mlp_word(layer))
        words = [word for word in words if word]
        name = "_".join(words) or "layer"
        taken = sum(1 for other in names.values() if other == name or other.startswith(f"{name}_"))
        names[layer] = f"{name}_{taken + 1}" if taken else name
    return names


def _mixer_word(layer: Layer) -> str:
    if layer.shared_block is not None:
        return "hybrid"
    match layer.mixer:
        case None:
            return ""
        case Attention(sliding_window=None, attention_chunk_size=None):
            return "full_attention"
        case Attention(sliding_window=None):
            return "chunked_attention"
        case Attention():
            return "sliding_attention"
        case CompressedAttention(compress_ratio=None):
            return "sliding_attention"
        case CompressedAttention(indexer=None):
            return "heavily_compressed_attention"
        case CompressedAttention():
            return "compressed_sparse_attention"
        case GatedDeltaNet() | KimiDeltaAttention() | LightningAttention():
            return "linear_attention"
        case RgLru():
            return "recurrent"
        case ShortConvolution():
            return "conv"
        case Mamba() | Mamba2():
            return "mamba"
        case AttentionBesideMamba():
            return "attention_beside_mamba"
        case CrossAttention():
            return "cross_attention"
        case LatentAttention(indexer=Indexer(shared=shared)):
            return "shared_indexer" if shared else "indexer"
    return "latent_attention"


def _mlp_word(layer: Layer) -> str:
    match layer.mlp:
        case None:
            return ""
        case Experts():
            return "moe"
    return "dense"
