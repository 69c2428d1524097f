"""The operators of a layer's mixer: projections, the core that reads the cache, and writing the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, assert_never

from kvplan.arch.attention import Attention
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import SingleMixer
from kvplan.arch.model import Run
from kvplan.arch.recurrent import Recurrence, Recurrent
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Retention, Sliding, Unfinished
from kvplan.arch.selected import TopTokens
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight
from kvplan.formula import Formula
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.cache import CacheRun, cache_of_layers_bytes
from kvplan.plan.compressed_operators import compressed_operators
from kvplan.plan.grouped_keys import grouped_cache_bytes
from kvplan.plan.kept_tokens import seen_through
from kvplan.plan.law import Law, Of, law
from kvplan.plan.operator import Glue, Operator
from kvplan.plan.operator_formulas import (
    activations_bytes,
    batch_pairs,
    chunk_step_tokens,
    full_step_tokens,
    of_batch,
    selected_block_step_tokens,
    selected_step_tokens,
    step_groups,
    step_waiting,
    tokens_on_rank,
    weights_read_bytes,
    window_step_tokens,
)
from kvplan.plan.phase import kept_word
from kvplan.plan.products import TOKENS, activations, adapter_operators, features_of, named, products
from kvplan.plan.rank import Rank
from kvplan.plan.step_work import (
    absorbed_attention_flops,
    attention_flops,
    block_score_flops,
    index_score_flops,
    matrices_flops,
    state_traffic_bytes,
)
from kvplan.plan.visibility import (
    chosen_sizes,
    chunk_pairs,
    full_pairs,
    groups_written,
    selected_block_pairs,
    selected_pairs,
    window_pairs,
)
from kvplan.results import Quantity, fact
from kvplan.storage import TensorRole
from kvplan.units import Unit


def mixer_operators(rank: Rank, run: Run, mixers: Iterable[SingleMixer]) -> Iterator[Operator]:
    """Iterate over the operators of mixers of equal layers, in the order they run."""
    for mixer in mixers:
        match mixer:
            case Attention():
                yield from _attention(rank, run, mixer)
            case LatentAttention():
                yield from _latent(rank, run, mixer)
            case CompressedAttention():
                yield from compressed_operators(rank, run, mixer)
            case Recurrent():
                yield from _recurrent(rank, run, mixer)
            case _ as never:
                assert_never(never)


# ------------------------------------------------------------------ kinds of mixers


def _attention(rank: Rank, run: Run, mixer: Attention) -> Iterator[Operator]:
    weights = run.layer.weights_of(mixer, rank.model.hidden_size)
    inputs = named(weights, "q_proj", "k_proj", "v_proj", "g_proj")
    yield products(rank, run, "qkv_proj", "qkv projection", inputs)
    yield from adapter_operators(rank, run, "qkv", weights)
    heads, k_dim, v_dim = rank.query_heads(mixer.num_attention_heads), mixer.head_dim, mixer.value_dim
    sizes = (rank.fact("heads", heads), rank.fact("k_dim", k_dim), rank.fact("v_dim", v_dim))
    slot, *index_slots = mixer.slots()
    for index_slot in index_slots:
        assert mixer.indexer is not None
        yield from _block_indexer(rank, run, mixer.indexer, index_slot, weights)
    # Prefill reads all that is in view, and leaves out of it what an indexer has not chosen.
    in_view = replace(slot, selected=None)
    cores = ((True, Kernel.DECODE_ATTENTION, slot), (False, Kernel.PREFILL_ATTENTION, in_view))
    for absorbed, kernel, read in cores:
        core = _core_flops(rank, run, slot, attention_flops, *sizes)
        yield _core(rank, run, read, kernel, core, heads * (k_dim + v_dim), absorbed)
    if slot.owned:
        yield _kv_write(rank, run, slot)
    yield products(rank, run, "o_proj", "output projection", named(weights, "o_proj"))


def _latent(rank: Rank, run: Run, mixer: LatentAttention) -> Iterator[Operator]:
    weights = run.layer.weights_of(mixer, rank.model.hidden_size)
    yield products(
        rank,
        run,
        "qkv_a_proj",
        "latent projections",
        named(weights, "q_a_proj", "q_proj", "kv_a_proj_with_mqa"),
    )
    if mixer.q_lora_rank is not None:
        yield products(rank, run, "q_b_proj", "query projection", named(weights, "q_b_proj"))
    slot, *index_slots = mixer.slots()
    yield _kv_write(rank, run, slot)
    for index_slot in index_slots:
        assert mixer.indexer is not None
        yield from _indexer(rank, run, mixer.indexer, index_slot, weights)
    yield from _latent_cores(rank, run, mixer, slot, named(weights, "kv_b_proj"))
    yield products(rank, run, "o_proj", "output projection", named(weights, "o_proj"))


def _indexer(
    rank: Rank, run: Run, indexer: Indexer, slot: CacheSlot, weights: tuple[Weight, ...]
) -> Iterator[Operator]:
    """Iterate over what an indexer runs: every rank does all of it."""
    yield products(rank, run, "index_q_proj", "index queries", named(weights, "wq_b"))
    yield products(rank, run, "index_k_proj", "index keys", named(weights, "wk", "weights_proj"))
    yield _kv_write(rank, run, slot)
    count, dim = (
        rank.fact("index_n_heads", indexer.index_n_heads),
        rank.fact("index_head_dim", indexer.index_head_dim),
    )
    scores = _core_flops(rank, run, slot, index_score_flops, count, dim)
    width = indexer.index_n_heads * (indexer.index_head_dim + 1) + indexer.index_topk
    yield from _index_scores(rank, run, slot, scores, width)


def _block_indexer(
    rank: Rank, run: Run, indexer: BlockIndexer, slot: CacheSlot, weights: tuple[Weight, ...]
) -> Iterator[Operator]:
    """Iterate over what an indexer of blocks runs: a rank chooses for its own KV heads."""
    yield products(rank, run, "index_q_proj", "index queries", named(weights, "index_q_proj"))
    yield products(rank, run, "index_k_proj", "index keys", named(weights, "index_k_proj"))
    yield _kv_write(rank, run, slot)
    heads, dim = rank.kv_heads(indexer.index_n_heads), rank.fact("index_head_dim", indexer.index_head_dim)
    scores = _core_flops(rank, run, slot, block_score_flops, rank.fact("index_n_heads", heads), dim)
    width = heads * (indexer.index_head_dim + indexer.index_topk_blocks)
    yield from _index_scores(rank, run, slot, scores, width)


def _index_scores(rank: Rank, run: Run, slot: CacheSlot, scores: Law, features: int) -> Iterator[Operator]:
    """Iterate over an indexer's scores of every token in view, in decode and in prefill."""
    for absorbed, kernel in ((True, Kernel.DECODE_ATTENTION), (False, Kernel.PREFILL_ATTENTION)):
        core = _core(rank, run, slot, kernel, scores, features, absorbed)
        yield replace(core, name="index_scores", label="index scores")


def _latent_cores(
    rank: Rank, run: Run, mixer: LatentAttention, slot: CacheSlot, expanding: list[Weight]
) -> Iterator[Operator]:
    """Iterate over latents' way to heads and attention: expanded in prefill, in decode too if cached so."""
    heads = rank.query_heads(mixer.num_attention_heads)
    count = rank.fact("heads", heads)
    k_dim, v_dim = rank.fact("qk_head_dim", mixer.qk_head_dim), rank.fact("v_head_dim", mixer.v_head_dim)
    expanded = _core_flops(rank, run, slot, attention_flops, count, k_dim, v_dim)
    width = heads * (mixer.qk_head_dim + mixer.v_head_dim)
    if mixer.expanded_cache:
        yield products(rank, run, "kv_b_proj", "latents to heads", expanding)
        yield _core(rank, run, slot, Kernel.DECODE_ATTENTION, expanded, width, True)
        yield _core(rank, run, slot, Kernel.PREFILL_ATTENTION, expanded, width, False)
        return
    yield products(rank, run, "kv_b_proj", "latent to heads and back", expanding, absorbed=True)
    # Prefill reads all that is in view, and leaves out of it what an indexer has not chosen.
    in_view = replace(slot, selected=None)
    yield _expansion(rank, run, in_view, expanding)
    lora, rope = (
        rank.fact("kv_lora_rank", mixer.kv_lora_rank),
        rank.fact("qk_rope_head_dim", mixer.qk_rope_head_dim),
    )
    inside = _core_flops(rank, run, slot, absorbed_attention_flops, count, lora, rope)
    read = heads * (2 * mixer.kv_lora_rank + mixer.qk_rope_head_dim)
    yield _core(rank, run, slot, Kernel.LATENT_ATTENTION, inside, read, True)
    yield _core(rank, run, in_view, Kernel.PREFILL_ATTENTION, expanded, width, False)


def _expansion(rank: Rank, run: Run, slot: CacheSlot, weights: list[Weight]) -> Operator:
    """Return the product that makes keys and values of every latent in view, as prefill does."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    latents = law("latents", of_batch, Of.BATCH, _tokens_read(rank, slot))
    flops = law("matmul_flops", matrices_flops, layers, latents, rank.elements_of("elements", weights))
    width = fact("features", features_of(rank, weights), "numbers read and written for a latent on this rank")
    one_layer, element = rank.bytes_of("bytes_of_one_layer", weights), rank.element_bytes
    return Operator(
        "kv_b_proj",
        "latents to heads",
        Kernel.GEMM,
        run.count,
        rank.format_of(weights),
        matmul_flops=flops,
        weight_bytes=law("weight_bytes", weights_read_bytes, layers, one_layer),
        activation_bytes=law("activation_bytes", activations_bytes, layers, latents, width, element),
        absorbed=False,
    )


def _recurrent(rank: Rank, run: Run, mixer: Recurrent) -> Iterator[Operator]:
    weights, core = run.layer.weights_of(mixer, rank.model.hidden_size), mixer.recurrence()
    for product in core.inputs:
        yield products(rank, run, product.name, product.label, named(weights, *product.weights))
    yield _state_pass(rank, run, mixer, core)
    for product in core.outputs:
        yield products(rank, run, product.name, product.label, named(weights, *product.weights))


def _state_pass(rank: Rank, run: Run, mixer: Recurrent, core: Recurrence) -> Operator:
    """Return the recurrence itself: the state is read and written once a step, with its own parameters."""
    layers, tensor = rank.fact("layers", run.count, Unit.LAYERS), rank.cut.tensor
    weights = run.layer.weights_of(mixer, rank.model.hidden_size)
    multiplied = {name for product in (*core.inputs, *core.outputs) for name in product.weights}
    with_products = named(weights, *multiplied)
    own = [w for w in weights if w not in with_products and w.role is not TensorRole.NORM]
    sizes = (rank.fact(s.name, s.on_rank(tensor)) for s in core.sizes)
    (slot,) = mixer.slots()
    entry_bytes = rank.cached(run, slot).entry_bytes
    state = law("state_bytes", state_traffic_bytes, layers, Of.BATCH, entry_bytes)
    return Operator(
        "recurrence",
        "recurrence",
        Kernel.DECODE_ATTENTION,
        run.count,
        rank.plain_format,
        attention_flops=law("attention_flops", core.flops, layers, TOKENS, *sizes),
        weight_bytes=law(
            "weight_bytes", weights_read_bytes, layers, rank.bytes_of("bytes_of_one_layer", own)
        ),
        kv_read_bytes=state,
        kv_write_bytes=state,
        activation_bytes=activations(rank, run, core.features // tensor),
    )


# ------------------------------------------------------------------ the core, and the cache


def _core(
    rank: Rank, run: Run, slot: CacheSlot, kernel: Kernel, flops: Law, features: int, absorbed: bool
) -> Operator:
    name, label = _core_name(rank, slot)
    return Operator(
        name,
        label,
        kernel,
        run.count,
        rank.kv,
        attention_flops=flops,
        kv_read_bytes=_read_bytes(rank, run, slot),
        activation_bytes=activations(rank, run, features),
        absorbed=absorbed,
    )


def _core_name(rank: Rank, slot: CacheSlot) -> tuple[str, str]:
    """Return the key and the words of attention: with what it keeps, where layers differ in that."""
    kinds = {run.slot.sight.retention for run in rank.model.slot_runs()} - {PerRequest()}
    if len(kinds) == 1:
        return "attention", "attention"
    word = kept_word(slot.sight.retention)
    return f"attention_{word}", f"attention, {word.replace('_', ' ')}"


def _core_flops(rank: Rank, run: Run, slot: CacheSlot, formula: Formula[Any, Any], *sizes: Quantity) -> Law:
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    formulas = (full_pairs, window_pairs, chunk_pairs, selected_pairs, selected_block_pairs)
    each = _of_a_request(rank, slot, "pairs_of_a_request", formulas)
    pairs = law("pairs", batch_pairs, Of.BATCH, each)
    return law("attention_flops", formula, layers, pairs, *sizes)


def _divided(rank: Rank, retention: Retention, each: Law | Of) -> Law | Of:
    """Return a rank's share of what belongs to the tokens of a request, where those are divided."""
    if rank.cut.context == 1 or not isinstance(retention, Full):
        return each
    ranks = fact("context_parallel", rank.cut.context, "--cp")
    return law(each.name if isinstance(each, Law) else "tokens", tokens_on_rank, each, ranks)


def _tokens_read(rank: Rank, slot: CacheSlot) -> Law | Of:
    chosen = (selected_step_tokens, selected_block_step_tokens)
    formulas = (full_step_tokens, window_step_tokens, chunk_step_tokens, *chosen)
    return _of_a_request(rank, slot, "tokens", formulas)


def _of_a_request(
    rank: Rank,
    slot: CacheSlot,
    name: str,
    formulas: tuple[
        Formula[Any, Any], Formula[Any, Any], Formula[Any, Any], Formula[Any, Any], Formula[Any, Any]
    ],
) -> Law | Of:
    """Return what a request's step does in a layer, by its formula.

    There is one for full attention, for windows, for chunks, and for tokens or blocks that an indexer
    chooses.
    """
    seen, (full, window, chunk, selected, selected_blocks) = slot.sight.retention, formulas
    match seen:
        case Full() if slot.selected is not None:
            chosen = selected if isinstance(slot.selected, TopTokens) else selected_blocks
            sizes = chosen_sizes(slot.selected, rank.model.source)
            each = law(name, chosen, Of.CONTEXT, Of.NEW_TOKENS, *sizes)
        case Full():
            each = law(name, full, Of.CONTEXT, Of.NEW_TOKENS)
        case Sliding():
            length = seen_through(seen, rank.model.source)
            each = law(name, window, Of.CONTEXT, Of.NEW_TOKENS, length)
        case Chunked(chunk=tokens):
            length = rank.fact("chunk", tokens, Unit.TOKENS)
            each = law(name, chunk, Of.CONTEXT, Of.NEW_TOKENS, length)
        case Compressed() | Unfinished() | PerRequest():
            raise ValueError("what a layer compresses, or keeps of a request, has no formula of tokens")
        case _ as never:
            assert_never(never)
    return _divided(rank, slot.retention, each)


def _read_bytes(rank: Rank, run: Run, slot: CacheSlot) -> Law:
    # Layers that store nothing of their own read all the same.
    cached = rank.cached(run, replace(slot, owned=True))
    tokens = _tokens_read(rank, slot)
    if cached.keys is None:
        return _cache_bytes("kv_read_bytes", cached, tokens)
    group = cached.keys.group_tokens
    groups = law("groups", step_groups, Of.CONTEXT, Of.NEW_TOKENS, group)
    waiting = law("waiting", step_waiting, Of.CONTEXT, Of.NEW_TOKENS, group)
    return _cache_bytes("kv_read_bytes", cached, tokens, groups, waiting)


def _cache_bytes(
    name: str, cached: CacheRun, tokens: Law | Of, groups: Law | None = None, waiting: Law | Of | None = None
) -> Law:
    """Return the bytes of so many tokens of each request; or of groups and waiting keys."""
    every = law("tokens", of_batch, Of.BATCH, tokens)
    if cached.keys is None or groups is None or waiting is None:
        return law(name, cache_of_layers_bytes, cached.layers, every, cached.entry_bytes)
    return law(
        name,
        grouped_cache_bytes,
        cached.layers,
        every,
        cached.entry_bytes,
        law("groups", of_batch, Of.BATCH, groups),
        cached.keys.group_bytes,
        law("waiting", of_batch, Of.BATCH, waiting),
        cached.keys.waiting_bytes,
    )


def _kv_write(rank: Rank, run: Run, slot: CacheSlot) -> Operator:
    cached, groups = rank.cached(run, slot), None
    if cached.keys is not None:
        groups = law("groups", groups_written, Of.CONTEXT, Of.NEW_TOKENS, cached.keys.group_tokens)
    stored = _divided(rank, slot.retention, Of.NEW_TOKENS)
    return Operator(
        "kv_write",
        "cache write",
        Glue.INSIDE,
        run.count,
        rank.kv,
        kv_write_bytes=_cache_bytes("kv_write_bytes", cached, stored, groups, Of.NEW_TOKENS),
    )
