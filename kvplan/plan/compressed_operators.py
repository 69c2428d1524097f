"""The operators of compressed attention: projections, compressors, an indexer, and cores over entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvplan.arch.compressed_attention import COMPRESSOR, INDEX_COMPRESSOR, CompressedAttention
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.model import Run
from kvplan.arch.retention import Compressed, PerRequest, Sliding, Unfinished
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight
from kvplan.formula import Formula
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.cache import cache_of_layers_bytes
from kvplan.plan.compressed_entries import (
    compressed_entries_written,
    compressed_pairs,
    compressed_step_entries,
    selected_compressed_pairs,
    selected_step_entries,
    waiting_step_read,
    waiting_step_written,
)
from kvplan.plan.kept_tokens import run_length, seen_through
from kvplan.plan.law import Law, Of, law
from kvplan.plan.operator import Glue, Operator
from kvplan.plan.operator_formulas import batch_pairs, of_batch, window_step_tokens
from kvplan.plan.phase import kept_word
from kvplan.plan.products import activations, named, products
from kvplan.plan.rank import Rank
from kvplan.plan.step_work import attention_flops, index_score_flops, state_traffic_bytes
from kvplan.plan.visibility import chosen_sizes, window_pairs
from kvplan.storage import TensorRole
from kvplan.units import Unit

# Decode runs as over latents, where one vector serves every head too.
_KERNELS = ((True, Kernel.LATENT_ATTENTION), (False, Kernel.PREFILL_ATTENTION))


def compressed_operators(rank: Rank, run: Run, mixer: CompressedAttention) -> Iterator[Operator]:
    """Iterate over the operators of equal layers of compressed attention, in the order they run."""
    weights = run.layer.weights_of(mixer, rank.model.hidden_size)
    own = tuple(w for w in weights if not w.name.startswith(f"{COMPRESSOR}."))
    yield products(rank, run, "qkv_a_proj", "query and key projections", named(own, "q_a_proj", "kv_proj"))
    yield products(rank, run, "q_b_proj", "query projection", named(own, "q_b_proj"))
    window, *others = mixer.slots()
    yield _writing(rank, run, window, Of.NEW_TOKENS)
    if mixer.compress_ratio is not None:
        yield from _compression(rank, run, weights, others)
    if mixer.indexer is not None:
        yield from _indexer(rank, run, mixer, mixer.indexer, weights)
    heads = rank.query_heads(mixer.num_attention_heads)
    for slot in mixer.attended():
        sizes = (
            rank.fact("heads", heads),
            rank.fact("k_dim", mixer.head_dim),
            rank.fact("v_dim", mixer.head_dim),
        )
        word = kept_word(slot.retention)
        name, label = f"attention_{word}", f"attention, {word.replace('_', ' ')}"
        yield from _cores(rank, run, name, label, slot, attention_flops, sizes, 2 * heads * mixer.head_dim)
    yield products(rank, run, "o_a_proj", "output by groups of heads", named(own, "o_a_proj"))
    yield products(rank, run, "o_b_proj", "output projection", named(own, "o_b_proj"))


def _compression(
    rank: Rank, run: Run, weights: tuple[Weight, ...], slots: list[CacheSlot]
) -> Iterator[Operator]:
    """Iterate over the compressors' products, and over what they read and write of the cache."""
    compressing = tuple(w for w in weights if w.name.startswith(f"{COMPRESSOR}."))
    # Biases of gates by their places in a run are read with them.
    biases = [w for w in compressing if w.role is TensorRole.BIAS]
    projections = [*named(compressing, "kv_proj", "gate_proj"), *biases]
    yield products(rank, run, "compressor_proj", "to be compressed, and gates", projections)
    for slot in slots:
        match slot.retention:
            case Compressed() as kept:
                ratio = run_length(kept, rank.model.source)
                ended = law("entries", compressed_entries_written, Of.CONTEXT, Of.NEW_TOKENS, ratio)
                yield _writing(rank, run, slot, ended)
            case Unfinished() as kept:
                yield _waiting(rank, run, slot, kept)
            case PerRequest():
                yield _overlap(rank, run, slot)


def _writing(rank: Rank, run: Run, slot: CacheSlot, tokens: Law | Of) -> Operator:
    written = _cache_bytes(rank, run, "kv_write_bytes", slot, tokens)
    return Operator("kv_write", "cache write", Glue.INSIDE, run.count, rank.kv, kv_write_bytes=written)


def _waiting(rank: Rank, run: Run, slot: CacheSlot, kept: Unfinished) -> Operator:
    """Return the passage of tokens that wait to be compressed: a step ends their run, or adds its own."""
    step = (Of.CONTEXT, Of.NEW_TOKENS, run_length(kept, rank.model.source))
    return Operator(
        "compress",
        "compressing",
        Glue.INSIDE,
        run.count,
        rank.plain_format,
        kv_read_bytes=_cache_bytes(rank, run, "kv_read_bytes", slot, law("tokens", waiting_step_read, *step)),
        kv_write_bytes=_cache_bytes(
            rank, run, "kv_write_bytes", slot, law("tokens", waiting_step_written, *step)
        ),
    )


def _overlap(rank: Rank, run: Run, slot: CacheSlot) -> Operator:
    """Return the passage of what the next entry needs of the last run, read and written each step."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    state = law("state_bytes", state_traffic_bytes, layers, Of.BATCH, rank.cached(run, slot).entry_bytes)
    return Operator(
        "compress_overlap",
        "compressing, run before",
        Glue.INSIDE,
        run.count,
        rank.plain_format,
        kv_read_bytes=state,
        kv_write_bytes=state,
    )


def _indexer(
    rank: Rank, run: Run, mixer: CompressedAttention, indexer: EntryIndexer, weights: tuple[Weight, ...]
) -> Iterator[Operator]:
    """Iterate over what an indexer runs: every rank does all of it."""
    own = tuple(w for w in weights if w.name.startswith(f"{INDEX_COMPRESSOR}."))
    yield products(rank, run, "index_q_proj", "index queries", named(own, "q_b_proj"))
    yield products(rank, run, "index_weights_proj", "weights of index heads", named(own, "weights_proj"))
    heads, dim = indexer.index_n_heads, indexer.index_head_dim
    sizes = (rank.fact("index_n_heads", heads), rank.fact("index_head_dim", dim))
    keys, width = mixer.slots()[2], heads * (dim + 1) + indexer.index_topk
    yield from _cores(rank, run, "index_scores", "index scores", keys, index_score_flops, sizes, width)


def _cores(
    rank: Rank,
    run: Run,
    name: str,
    label: str,
    slot: CacheSlot,
    flops: Formula[Any, Any],
    sizes: tuple[Any, ...],
    features: int,
) -> Iterator[Operator]:
    """Iterate over what multiplies queries with a slot's vectors: in decode steps, and in others."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    pairs = law("pairs", batch_pairs, Of.BATCH, _pairs(rank, slot))
    for decodes, kernel in _KERNELS:
        yield Operator(
            name,
            label,
            kernel,
            run.count,
            rank.kv,
            attention_flops=law("attention_flops", flops, layers, pairs, *sizes),
            kv_read_bytes=_cache_bytes(rank, run, "kv_read_bytes", slot, _read(rank, slot, decodes=decodes)),
            activation_bytes=activations(rank, run, features),
            absorbed=decodes,
        )


def _pairs(rank: Rank, slot: CacheSlot) -> Law:
    """Return the pairs of query and vector of one request's step."""
    name, source = "pairs_of_a_request", rank.model.source
    if isinstance(slot.retention, Sliding):
        return law(name, window_pairs, Of.CONTEXT, Of.NEW_TOKENS, seen_through(slot.retention, source))
    assert isinstance(slot.retention, Compressed)
    ratio = run_length(slot.retention, source)
    if slot.selected is None:
        return law(name, compressed_pairs, Of.CONTEXT, Of.NEW_TOKENS, ratio)
    topk = chosen_sizes(slot.selected, source)
    return law(name, selected_compressed_pairs, Of.CONTEXT, Of.NEW_TOKENS, ratio, *topk)


def _read(rank: Rank, slot: CacheSlot, *, decodes: bool) -> Law:
    """Return the tokens or entries that one request's step reads; prefill reads all of those in view."""
    source = rank.model.source
    if isinstance(slot.retention, Sliding):
        seen = seen_through(slot.retention, source)
        return law("tokens", window_step_tokens, Of.CONTEXT, Of.NEW_TOKENS, seen)
    assert isinstance(slot.retention, Compressed)
    ratio = run_length(slot.retention, source)
    if slot.selected is None or not decodes:
        return law("entries", compressed_step_entries, Of.CONTEXT, Of.NEW_TOKENS, ratio)
    topk = chosen_sizes(slot.selected, source)
    return law("entries", selected_step_entries, Of.CONTEXT, Of.NEW_TOKENS, ratio, *topk)


def _cache_bytes(rank: Rank, run: Run, name: str, slot: CacheSlot, tokens: Law | Of) -> Law:
    """Return the bytes of so many tokens or entries of each request."""
    cached, every = rank.cached(run, slot), law("tokens", of_batch, Of.BATCH, tokens)
    return law(name, cache_of_layers_bytes, cached.layers, every, cached.entry_bytes)
