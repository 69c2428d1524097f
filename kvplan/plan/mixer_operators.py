"""The operators of a layer's mixer: projections, the core that reads the cache, and writing the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_never

from kvplan.arch.attention import Attention
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Run
from kvplan.arch.retention import Chunked, Full, PerRequest, Retention, Sliding
from kvplan.arch.weight import Weight
from kvplan.formula import Formula
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.cache import CacheRun, cache_of_layers_bytes
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
    step_groups,
    step_waiting,
    tokens_on_rank,
    weights_read_bytes,
    window_step_tokens,
)
from kvplan.plan.phase import kept_word
from kvplan.plan.rank import Rank
from kvplan.plan.step_work import (
    absorbed_attention_flops,
    attention_flops,
    delta_net_flops,
    matrices_flops,
    state_traffic_bytes,
)
from kvplan.plan.visibility import chunk_pairs, full_pairs, groups_written, window_pairs
from kvplan.results import Quantity, fact
from kvplan.storage import TensorRole
from kvplan.units import Unit

TOKENS = Of.TOKENS


def mixer_operators(rank: Rank, run: Run) -> Iterator[Operator]:
    """Iterate over the operators of equal layers' mixers, in the order they run."""
    match run.layer.mixer:
        case Attention() as mixer:
            yield from _attention(rank, run, mixer)
        case LatentAttention() as mixer:
            yield from _latent(rank, run, mixer)
        case GatedDeltaNet() as mixer:
            yield from _delta_net(rank, run, mixer)
        case _ as never:
            assert_never(never)


def products(
    rank: Rank, run: Run, name: str, label: str, weights: list[Weight], *, absorbed: bool | None = None
) -> Operator:
    """Return products with matrices as one operator: their biases are read with them."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    elements = rank.elements_of("elements", weights)
    one_layer = rank.bytes_of("bytes_of_one_layer", weights)
    return Operator(
        name,
        label,
        Kernel.GEMM,
        run.count,
        rank.format_of(weights),
        matmul_flops=law("matmul_flops", matrices_flops, layers, TOKENS, elements),
        weight_bytes=law("weight_bytes", weights_read_bytes, layers, one_layer),
        activation_bytes=activations(rank, run, _features(rank, weights)),
        absorbed=absorbed,
    )


def activations(rank: Rank, run: Run, features: int, tokens: Law | Of = TOKENS) -> Law:
    """Return the law of an operator that reads and writes so many numbers for each token."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    width = fact("features", features, "numbers read and written for a token on this rank")
    return law("activation_bytes", activations_bytes, layers, tokens, width, rank.element_bytes)


def _features(rank: Rank, weights: list[Weight]) -> int:
    """Return the inputs and outputs of matrices that share their input, on one rank."""
    shapes = [w.on_rank(rank.cut.tensor).shape for w in weights if len(w.shape) == 2]
    return max(columns for _, columns in shapes) + sum(rows for rows, _ in shapes)


def _named(weights: tuple[Weight, ...], *names: str) -> list[Weight]:
    return [w for w in weights if w.name.rsplit(".", 1)[0].rsplit(".", 1)[-1] in names]


# ------------------------------------------------------------------ kinds of mixers


def _attention(rank: Rank, run: Run, mixer: Attention) -> Iterator[Operator]:
    weights = mixer.weights(rank.model.hidden_size)
    yield products(rank, run, "qkv_proj", "qkv projection", _named(weights, "q_proj", "k_proj", "v_proj"))
    heads, width = rank.query_heads(mixer.num_attention_heads), mixer.head_dim
    sizes = (rank.fact("heads", heads), rank.fact("k_dim", width), rank.fact("v_dim", width))
    for absorbed, kernel in ((True, Kernel.DECODE_ATTENTION), (False, Kernel.PREFILL_ATTENTION)):
        core = _core_flops(rank, run, attention_flops, *sizes)
        yield _core(rank, run, kernel, core, 2 * heads * width, absorbed)
    yield _kv_write(rank, run)
    yield products(rank, run, "o_proj", "output projection", _named(weights, "o_proj"))


def _latent(rank: Rank, run: Run, mixer: LatentAttention) -> Iterator[Operator]:
    weights = mixer.weights(rank.model.hidden_size)
    heads = rank.query_heads(mixer.num_attention_heads)
    yield products(
        rank,
        run,
        "qkv_a_proj",
        "latent projections",
        _named(weights, "q_a_proj", "q_proj", "kv_a_proj_with_mqa"),
    )
    if mixer.q_lora_rank is not None:
        yield products(rank, run, "q_b_proj", "query projection", _named(weights, "q_b_proj"))
    yield _kv_write(rank, run)
    expanding = _named(weights, "kv_b_proj")
    yield products(rank, run, "kv_b_proj", "latent to heads and back", expanding, absorbed=True)
    yield _expansion(rank, run, expanding)
    count = rank.fact("heads", heads)
    lora, rope = (
        rank.fact("kv_lora_rank", mixer.kv_lora_rank),
        rank.fact("qk_rope_head_dim", mixer.qk_rope_head_dim),
    )
    inside = _core_flops(rank, run, absorbed_attention_flops, count, lora, rope)
    read = heads * (2 * mixer.kv_lora_rank + mixer.qk_rope_head_dim)
    yield _core(rank, run, Kernel.LATENT_ATTENTION, inside, read, True)
    k_dim, v_dim = rank.fact("qk_head_dim", mixer.qk_head_dim), rank.fact("v_head_dim", mixer.v_head_dim)
    expanded = _core_flops(rank, run, attention_flops, count, k_dim, v_dim)
    width = heads * (mixer.qk_head_dim + mixer.v_head_dim)
    yield _core(rank, run, Kernel.PREFILL_ATTENTION, expanded, width, False)
    yield products(rank, run, "o_proj", "output projection", _named(weights, "o_proj"))


def _expansion(rank: Rank, run: Run, weights: list[Weight]) -> Operator:
    """Return the product that makes keys and values of every latent in view, as prefill does."""
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    latents = law("latents", of_batch, Of.BATCH, _tokens_read(rank, run))
    flops = law("matmul_flops", matrices_flops, layers, latents, rank.elements_of("elements", weights))
    width = fact("features", _features(rank, weights), "numbers read and written for a latent on this rank")
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


def _delta_net(rank: Rank, run: Run, mixer: GatedDeltaNet) -> Iterator[Operator]:
    weights = mixer.weights(rank.model.hidden_size)
    yield products(rank, run, "in_proj", "recurrence inputs", _named(weights, "in_proj_qkvz", "in_proj_ba"))
    layers, tensor = rank.fact("layers", run.count, Unit.LAYERS), rank.cut.tensor
    channels = (2 * mixer.key_width + mixer.value_width) // tensor
    values = mixer.linear_num_value_heads // tensor
    cached = rank.cached(run)
    others = [w for w in weights if len(w.shape) != 2 and w.role is not TensorRole.NORM]
    one_layer = rank.bytes_of("bytes_of_one_layer", others)
    state = law("state_bytes", state_traffic_bytes, layers, Of.BATCH, cached.entry_bytes)
    yield Operator(
        "recurrence",
        "recurrence",
        Kernel.DECODE_ATTENTION,
        run.count,
        rank.plain_format,
        attention_flops=law(
            "attention_flops",
            delta_net_flops,
            layers,
            TOKENS,
            rank.fact("conv_kernel", mixer.linear_conv_kernel_dim),
            rank.fact("conv_channels", channels),
            rank.fact("value_heads", values),
            rank.fact("key_head_dim", mixer.linear_key_head_dim),
            rank.fact("value_head_dim", mixer.linear_value_head_dim),
        ),
        weight_bytes=law("weight_bytes", weights_read_bytes, layers, one_layer),
        kv_read_bytes=state,
        kv_write_bytes=state,
        activation_bytes=activations(rank, run, channels + 2 * mixer.value_width // tensor),
    )
    yield products(rank, run, "out_proj", "recurrence output", _named(weights, "out_proj"))


# ------------------------------------------------------------------ the core, and the cache


def _core(rank: Rank, run: Run, kernel: Kernel, flops: Law, features: int, absorbed: bool) -> Operator:
    retention = run.layer.slot().retention
    name, label = _core_name(rank, retention)
    return Operator(
        name,
        label,
        kernel,
        run.count,
        rank.kv,
        attention_flops=flops,
        kv_read_bytes=_read_bytes(rank, run),
        activation_bytes=activations(rank, run, features),
        absorbed=absorbed,
    )


def _core_name(rank: Rank, retention: Retention) -> tuple[str, str]:
    """Return the key and the words of attention: with what it sees, where layers differ in that."""
    kinds = {r.layer.slot().retention for r in rank.model.runs()} - {PerRequest()}
    if len(kinds) == 1:
        return "attention", "attention"
    word = kept_word(retention)
    return f"attention_{word}", f"attention, {word.replace('_', ' ')}"


def _core_flops(rank: Rank, run: Run, formula: Formula[Any, Any], *sizes: Quantity) -> Law:
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    each = _of_a_request(rank, run, "pairs_of_a_request", (full_pairs, window_pairs, chunk_pairs))
    pairs = law("pairs", batch_pairs, Of.BATCH, each)
    return law("attention_flops", formula, layers, pairs, *sizes)


def _divided(rank: Rank, retention: Retention, each: Law | Of) -> Law | Of:
    """Return a rank's share of what belongs to the tokens of a request, where those are divided."""
    if rank.cut.context == 1 or not isinstance(retention, Full):
        return each
    ranks = fact("context_parallel", rank.cut.context, "--cp")
    return law(each.name if isinstance(each, Law) else "tokens", tokens_on_rank, each, ranks)


def _tokens_read(rank: Rank, run: Run) -> Law | Of:
    formulas = (full_step_tokens, window_step_tokens, chunk_step_tokens)
    return _of_a_request(rank, run, "tokens", formulas)


def _of_a_request(
    rank: Rank, run: Run, name: str, formulas: tuple[Formula[Any, Any], Formula[Any, Any], Formula[Any, Any]]
) -> Law | Of:
    """Return what a request's step does in a layer: by its formula for full attention, windows or chunks."""
    retention, (full, window, chunk) = run.layer.slot().retention, formulas
    match retention:
        case Full():
            each = law(name, full, Of.CONTEXT, Of.NEW_TOKENS)
        case Sliding():
            seen = seen_through(retention, rank.model.source)
            each = law(name, window, Of.CONTEXT, Of.NEW_TOKENS, seen)
        case Chunked(chunk=tokens):
            length = rank.fact("chunk", tokens, Unit.TOKENS)
            each = law(name, chunk, Of.CONTEXT, Of.NEW_TOKENS, length)
        case PerRequest():
            raise ValueError("a recurrent layer works on its state, not on tokens")
        case _ as never:
            assert_never(never)
    return _divided(rank, retention, each)


def _read_bytes(rank: Rank, run: Run) -> Law:
    cached, tokens = rank.cached(run), _tokens_read(rank, run)
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


def _kv_write(rank: Rank, run: Run) -> Operator:
    cached, groups = rank.cached(run), None
    if cached.keys is not None:
        groups = law("groups", groups_written, Of.CONTEXT, Of.NEW_TOKENS, cached.keys.group_tokens)
    stored = _divided(rank, run.layer.slot().retention, Of.NEW_TOKENS)
    return Operator(
        "kv_write",
        "cache write",
        Glue.INSIDE,
        run.count,
        rank.kv,
        kv_write_bytes=_cache_bytes("kv_write_bytes", cached, stored, groups, Of.NEW_TOKENS),
    )
