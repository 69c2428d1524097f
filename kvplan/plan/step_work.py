"""What the layers multiply, read and write in a phase of a run.

Every product with a matrix counts two operations an element and token; embeddings are looked up, not
multiplied. Attention counts the pairs of query and key that are really visible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, assert_never

from kvplan.arch.attention import Attention
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.experts import Experts
from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer, SingleMixer
from kvplan.arch.model import Model, Run, SlotRun
from kvplan.arch.recurrent import Recurrent
from kvplan.arch.retention import Full
from kvplan.arch.slot import Sight
from kvplan.arch.weight import Weight
from kvplan.formula import Formula, formula
from kvplan.plan.cache import Cache, CacheRun
from kvplan.plan.phase import Phase, slot_word
from kvplan.results import Quantity, computed, fact, total
from kvplan.storage import TensorRole, plain_tensor_bytes
from kvplan.units import Count, Unit

# The matrix that makes keys and values from latents.
_EXPANDING = "self_attn.kv_b_proj.weight"

# ------------------------------------------------------------------ formulas


@formula(Unit.FLOPS, "a multiplication and an addition for each element and token")
def matrices_flops(layers: Count, tokens: Count, elements: Count) -> Count:
    """Operations of a run of equal layers' matrices."""
    return 2 * layers * tokens * elements


@formula(Unit.FLOPS, "a multiplication and an addition for each element and token")
def head_flops(tokens: Count, elements: Count) -> Count:
    """Operations of the output head, or of another matrix outside the layers."""
    return 2 * tokens * elements


@formula(Unit.FLOPS, "query times key, weight times value, for each visible pair and query head")
def attention_flops(layers: Count, pairs: Count, heads: Count, k_dim: Count, v_dim: Count) -> Count:
    """Operations of attention over keys and values in a run of equal layers."""
    return 2 * layers * pairs * heads * (k_dim + v_dim)


@formula(Unit.FLOPS, "query and result stay in the latent's space: arXiv 2405.04434, section 2.1.2")
def absorbed_attention_flops(
    layers: Count, pairs: Count, heads: Count, kv_lora_rank: Count, qk_rope_head_dim: Count
) -> Count:
    """Operations of attention over latents in a run of equal layers."""
    return 2 * layers * pairs * heads * (2 * kv_lora_rank + qk_rope_head_dim)


@formula(Unit.FLOPS, "query times key, times the head's weight, for each pair: arXiv 2512.02556, equation 1")
def index_score_flops(layers: Count, pairs: Count, index_n_heads: Count, index_head_dim: Count) -> Count:
    """Operations of the scores that indexers choose by, in a run of equal layers."""
    return 2 * layers * pairs * index_n_heads * (index_head_dim + 1)


@formula(Unit.FLOPS, "query times key for each pair; the best of a block is its score")
def block_score_flops(layers: Count, pairs: Count, index_n_heads: Count, index_head_dim: Count) -> Count:
    """Operations of the scores that indexers choose blocks by, in a run of equal layers."""
    return 2 * layers * pairs * index_n_heads * index_head_dim


@formula(Unit.BYTES, "each step reads and writes the whole state once")
def state_traffic_bytes(layers: Count, steps: Count, entry_bytes: Count) -> Count:
    """Bytes of state that steps read, or write, in a run of equal recurrent layers."""
    return layers * steps * entry_bytes


@formula(Unit.BYTES, "each layer's weights are read once a step")
def layers_read_bytes(layers: Count, elements: Count, element_bytes: int) -> Count:
    """Bytes of weights that one step reads in a run of equal layers."""
    return layers * elements * element_bytes


# ------------------------------------------------------------------ figures of a phase


def phase_matmul_flops(model: Model, phase: Phase) -> Quantity:
    """Return the operations of every product with a weight matrix, explained."""
    parts = [part for run in model.text_runs() for part in _matrices(model, run, phase)]
    outer = [(weight, phase.tokens) for weight in model.multiplied_inputs()]
    outer += [(weight, phase.logits) for weight in model.multiplied_outputs()]
    for weight, rows in outer:
        if weight.is_matrix:
            elements = fact(weight.name, weight.elements, weight.dimensions, Unit.PARAMETERS)
            parts.append(computed(weight.name.removesuffix(".weight"), head_flops, rows, elements))
    return total(f"{phase.name}_matmul_flops", Unit.FLOPS, tuple(parts), f"{phase.name} matmul")


def phase_attention_flops(model: Model, phase: Phase) -> Quantity:
    """Return the operations of attention and recurrences, explained."""
    parts = tuple(part for run in model.text_runs() for part in _cores(model, run, phase))
    return total(f"{phase.name}_attention_flops", Unit.FLOPS, parts, f"{phase.name} attention")


def phase_read_bytes(model: Model, cache: Cache, phase: Phase) -> Quantity:
    """Return the bytes of cache read, explained; ``cache`` is one request's over all layers."""

    def read(run: SlotRun, cached: CacheRun) -> Quantity:
        # Layers that store nothing of their own read all the same.
        layers = fact("layers", run.count, model.source, Unit.LAYERS)
        return cached.bytes_of(slot_name(run), layers, phase.read[run.slot.sight])

    return _traffic(f"{phase.name}_cache_read_bytes", f"{phase.name} cache read", model, cache, phase, read)


def phase_written_bytes(model: Model, cache: Cache, phase: Phase) -> Quantity:
    """Return the bytes of cache written, explained; ``cache`` is one request's over all layers."""

    def written(run: SlotRun, cached: CacheRun) -> Quantity:
        return cached.bytes_of(slot_name(run), cached.layers, phase.written[run.slot.retention])

    name, label = f"{phase.name}_cache_written_bytes", f"{phase.name} cache written"
    return _traffic(name, label, model, cache, phase, written)


def step_weights_bytes(model: Model, element_bytes: Quantity) -> Quantity:
    """Return the bytes of weights a decode step reads whatever its tokens are, explained.

    Rows of embeddings are looked up and not counted; which routed experts are read depends on the tokens.
    """
    parts = [_layers_read(model, run, element_bytes) for run in model.text_runs()]
    for weight in (*model.multiplied_inputs(), *model.multiplied_outputs()):
        elements = fact("elements", weight.elements, weight.dimensions, Unit.PARAMETERS)
        parts.append(computed(weight.name, plain_tensor_bytes, elements, element_bytes))
    routed = any(isinstance(run.layer.mlp, Experts) for run in model.runs())
    note = "routed experts are left out: which ones a step reads depends on its tokens" if routed else ""
    name = "decode_step_weights_bytes"
    return total(name, Unit.BYTES, tuple(parts), "weights read by a decode step", note)


def run_name(layer: Layer) -> str:
    """Return equal layers' name in a sum: ``full_layers``, ``window_4096_expert_layers``, ``mlp_layers``."""
    words = [slot_word(slot) for slot in layer.slots()]
    if isinstance(layer.mlp, Experts):
        words.append("expert")
    return "_".join((*dict.fromkeys(words or ["mlp"]), "layers"))


def slot_name(run: SlotRun) -> str:
    """Return the name in a sum of one of equal layers' slots: ``full_layers``, ``state_expert_layers``."""
    experts = "_expert" if isinstance(run.layer.mlp, Experts) else ""
    return f"{slot_word(run.slot)}{experts}_layers"


# ------------------------------------------------------------------ of a run of equal layers


def _matrices(model: Model, run: Run, phase: Phase) -> tuple[Quantity, ...]:
    """Return the products with a run's matrices; those that expand latents are counted by latents read."""
    layers = fact("layers", run.count, model.source, Unit.LAYERS)
    matrices = [w for w in model.layer_weights(run.layer) if w.is_matrix]
    expands = any(_expands_cached(mixer, phase) for mixer in run.layer.mixers())
    always = [w for w in matrices if not (expands and w.name == _EXPANDING)]
    name, found = run_name(run.layer), []
    found.append(computed(name, matrices_flops, layers, phase.tokens, _elements(always)))
    if expands:
        (expanding,) = (w for w in matrices if w.name == _EXPANDING)
        latents = phase.read[run.layer.slots()[0].sight].tokens
        found.append(computed(f"{name}_kv_b", matrices_flops, layers, latents, _elements([expanding])))
    return tuple(found)


def _expands_cached(mixer: SingleMixer, phase: Phase) -> bool:
    """Whether a mixer makes keys and values of every latent in view, and not of its own tokens alone."""
    return isinstance(mixer, LatentAttention) and not (phase.absorbed or mixer.expanded_cache)


def _elements(weights: list[Weight]) -> Quantity:
    parts = tuple(fact(w.name, w.multiplied_elements, _shape(w), Unit.PARAMETERS) for w in weights)
    return total("elements", Unit.PARAMETERS, parts)


def _shape(weight: Weight) -> str:
    chosen = f"{weight.active_copies} of {weight.copies} x " if weight.copies > 1 else ""
    return f"{chosen}({weight.dimensions})"


def _cores(model: Model, run: Run, phase: Phase) -> Iterator[Quantity]:
    """Iterate over the attention and the recurrence of a run of equal layers."""
    for mixer in run.layer.mixers():
        match mixer:
            case LatentAttention(indexer=Indexer(shared=False) as indexer):
                yield _index_scores(model, run, indexer, index_score_flops, phase.pairs[Sight(Full())])
            case CompressedAttention(indexer=EntryIndexer() as indexer):
                pairs = phase.pairs[Sight(mixer.attended()[1].retention)]
                yield _index_scores(model, run, indexer, index_score_flops, pairs)
            case Attention(indexer=BlockIndexer() as indexer):
                yield _index_scores(model, run, indexer, block_score_flops, phase.pairs[Sight(Full())])
        yield _core(model, run, mixer, phase)


def _index_scores(
    model: Model,
    run: Run,
    indexer: Indexer | BlockIndexer | EntryIndexer,
    flops: Formula[Any, Any],
    pairs: Quantity,
) -> Quantity:
    """Return the operations of an indexer, which scores every token, or every entry, in view."""
    return computed(
        f"{run_name(run.layer)}_scores",
        flops,
        fact("layers", run.count, model.source, Unit.LAYERS),
        pairs,
        fact("index_n_heads", indexer.index_n_heads, model.source),
        fact("index_head_dim", indexer.index_head_dim, model.source),
    )


def _core(model: Model, run: Run, mixer: SingleMixer, phase: Phase) -> Quantity:
    name, source = run_name(run.layer), model.source
    layers = fact("layers", run.count, source, Unit.LAYERS)

    def sizes(**named: int) -> tuple[Quantity, ...]:
        return tuple(fact(key, value, source) for key, value in named.items())

    match mixer:
        case Attention(num_attention_heads=heads):
            pairs = phase.pairs[mixer.slots()[0].sight]
            known = sizes(heads=heads, k_dim=mixer.head_dim, v_dim=mixer.value_dim)
            return computed(name, attention_flops, layers, pairs, *known)
        case LatentAttention(num_attention_heads=heads):
            pairs = phase.pairs[mixer.slots()[0].sight]
            if phase.absorbed and not mixer.expanded_cache:
                known = sizes(
                    heads=heads, kv_lora_rank=mixer.kv_lora_rank, qk_rope_head_dim=mixer.qk_rope_head_dim
                )
                return computed(name, absorbed_attention_flops, layers, pairs, *known)
            known = sizes(heads=heads, qk_head_dim=mixer.qk_head_dim, v_head_dim=mixer.v_head_dim)
            return computed(name, attention_flops, layers, pairs, *known)
        case CompressedAttention(num_attention_heads=heads, head_dim=dim):
            seen = tuple(phase.pairs[slot.sight] for slot in mixer.attended())
            pairs = total("pairs", Unit.PAIRS, seen)
            return computed(name, attention_flops, layers, pairs, *sizes(heads=heads, k_dim=dim, v_dim=dim))
        case Recurrent():
            core = mixer.recurrence()
            known = sizes(**{size.name: size.value for size in core.sizes})
            return computed(name, core.flops, layers, phase.tokens, *known)
        case _ as never:
            assert_never(never)


def _traffic(
    name: str,
    label: str,
    model: Model,
    cache: Cache,
    phase: Phase,
    figure: Callable[[SlotRun, CacheRun], Quantity],
) -> Quantity:
    parts = []
    for run, cached in zip(model.slot_runs(), cache.runs, strict=True):
        if cached.live is None:
            sizes = (cached.layers, phase.steps, cached.entry_bytes)
            parts.append(computed(slot_name(run), state_traffic_bytes, *sizes))
        else:
            parts.append(figure(run, cached))
    return total(name, Unit.BYTES, tuple(parts), label)


def _layers_read(model: Model, run: Run, element_bytes: Quantity) -> Quantity:
    weights = [
        w for w in model.layer_weights(run.layer) if w.copies == 1 and w.role is not TensorRole.EMBEDDING
    ]
    parts = tuple(fact(w.name, w.elements, _shape(w), Unit.PARAMETERS) for w in weights)
    elements = total("elements", Unit.PARAMETERS, parts)
    layers = fact("layers", run.count, model.source, Unit.LAYERS)
    return computed(run_name(run.layer), layers_read_bytes, layers, elements, element_bytes)
