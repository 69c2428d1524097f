"""What the layers multiply, read and write in a phase of a run.

Every product with a matrix counts two operations an element and token; embeddings are looked up, not
multiplied. Attention counts the pairs of query and key that are really visible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model, Run
from kvplan.arch.weight import Weight
from kvplan.formula import formula
from kvplan.plan.cache import Cache, CacheRun
from kvplan.plan.phase import Phase, kept_word
from kvplan.results import Quantity, computed, fact, total
from kvplan.storage import plain_tensor_bytes
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
    """Operations of the output head."""
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


@formula(Unit.FLOPS, "the convolution; the state is read, corrected and read again: arXiv 2412.06464")
def delta_net_flops(
    layers: Count,
    tokens: Count,
    conv_kernel: Count,
    conv_channels: Count,
    value_heads: Count,
    key_head_dim: Count,
    value_head_dim: Count,
) -> Count:
    """Operations of the recurrence in a run of equal gated delta nets."""
    return (
        layers * tokens * (2 * conv_kernel * conv_channels + 6 * value_heads * key_head_dim * value_head_dim)
    )


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
    parts = [part for run in model.runs() for part in _matrices(model, run, phase)]
    head = model.head_weight()
    elements = fact(head.name, head.elements, head.dimensions, Unit.PARAMETERS)
    parts.append(computed("lm_head", head_flops, phase.logits, elements))
    return total(f"{phase.name}_matmul_flops", Unit.FLOPS, tuple(parts), f"{phase.name} matmul")


def phase_attention_flops(model: Model, phase: Phase) -> Quantity:
    """Return the operations of attention and recurrences, explained."""
    parts = tuple(_core(model, run, phase) for run in model.runs())
    return total(f"{phase.name}_attention_flops", Unit.FLOPS, parts, f"{phase.name} attention")


def phase_read_bytes(model: Model, cache: Cache, phase: Phase) -> Quantity:
    """Return the bytes of cache read, explained; ``cache`` is one request's over all layers."""

    def read(run: Run, cached: CacheRun) -> Quantity:
        stored = phase.read[run.layer.slot().retention]
        return cached.bytes_of(run_name(run.layer), cached.layers, stored)

    return _traffic(f"{phase.name}_cache_read_bytes", f"{phase.name} cache read", model, cache, phase, read)


def phase_written_bytes(model: Model, cache: Cache, phase: Phase) -> Quantity:
    """Return the bytes of cache written, explained; ``cache`` is one request's over all layers."""

    def written(run: Run, cached: CacheRun) -> Quantity:
        return cached.bytes_of(run_name(run.layer), cached.layers, phase.written)

    name, label = f"{phase.name}_cache_written_bytes", f"{phase.name} cache written"
    return _traffic(name, label, model, cache, phase, written)


def step_weights_bytes(model: Model, element_bytes: Quantity) -> Quantity:
    """Return the bytes of weights a decode step reads whatever its tokens are, explained.

    Rows of embeddings are looked up and not counted; which routed experts are read depends on the tokens.
    """
    parts = [_layers_read(model, run, element_bytes) for run in model.runs()]
    for weight in _output_weights(model):
        elements = fact("elements", weight.elements, weight.dimensions, Unit.PARAMETERS)
        parts.append(computed(weight.name, plain_tensor_bytes, elements, element_bytes))
    routed = any(isinstance(run.layer.mlp, Experts) for run in model.runs())
    note = "routed experts are left out: which ones a step reads depends on its tokens" if routed else ""
    name = "decode_step_weights_bytes"
    return total(name, Unit.BYTES, tuple(parts), "weights read by a decode step", note)


def run_name(layer: Layer) -> str:
    """Return equal layers' name in a sum: ``full_layers``, ``window_4096_expert_layers``."""
    experts = "_expert" if isinstance(layer.mlp, Experts) else ""
    return f"{kept_word(layer.slot().retention)}{experts}_layers"


# ------------------------------------------------------------------ of a run of equal layers


def _matrices(model: Model, run: Run, phase: Phase) -> tuple[Quantity, ...]:
    """Return the products with a run's matrices; those that expand latents are counted by latents read."""
    layers = fact("layers", run.count, model.source, Unit.LAYERS)
    matrices = [w for w in model.layer_weights(run.layer) if len(w.shape) == 2]
    expands = isinstance(run.layer.mixer, LatentAttention) and not phase.absorbed
    always = [w for w in matrices if not (expands and w.name == _EXPANDING)]
    name, found = run_name(run.layer), []
    found.append(computed(name, matrices_flops, layers, phase.tokens, _elements(always)))
    if expands:
        (expanding,) = (w for w in matrices if w.name == _EXPANDING)
        latents = phase.read[run.layer.slot().retention].tokens
        found.append(computed(f"{name}_kv_b", matrices_flops, layers, latents, _elements([expanding])))
    return tuple(found)


def _elements(weights: list[Weight]) -> Quantity:
    parts = tuple(fact(w.name, w.active_elements, _shape(w), Unit.PARAMETERS) for w in weights)
    return total("elements", Unit.PARAMETERS, parts)


def _shape(weight: Weight) -> str:
    chosen = f"{weight.active_copies} of {weight.copies} x " if weight.copies > 1 else ""
    return f"{chosen}({weight.dimensions})"


def _core(model: Model, run: Run, phase: Phase) -> Quantity:
    name, source, mixer = run_name(run.layer), model.source, run.layer.mixer
    layers = fact("layers", run.count, source, Unit.LAYERS)

    def sizes(**named: int) -> tuple[Quantity, ...]:
        return tuple(fact(key, value, source) for key, value in named.items())

    match mixer:
        case Attention(num_attention_heads=heads, head_dim=width):
            pairs = phase.pairs[run.layer.slot().retention]
            known = sizes(heads=heads, k_dim=width, v_dim=width)
            return computed(name, attention_flops, layers, pairs, *known)
        case LatentAttention(num_attention_heads=heads):
            pairs = phase.pairs[run.layer.slot().retention]
            if phase.absorbed:
                known = sizes(
                    heads=heads, kv_lora_rank=mixer.kv_lora_rank, qk_rope_head_dim=mixer.qk_rope_head_dim
                )
                return computed(name, absorbed_attention_flops, layers, pairs, *known)
            known = sizes(heads=heads, qk_head_dim=mixer.qk_head_dim, v_head_dim=mixer.v_head_dim)
            return computed(name, attention_flops, layers, pairs, *known)
        case GatedDeltaNet():
            known = sizes(
                conv_kernel=mixer.linear_conv_kernel_dim,
                conv_channels=2 * mixer.key_width + mixer.value_width,
                value_heads=mixer.linear_num_value_heads,
                key_head_dim=mixer.linear_key_head_dim,
                value_head_dim=mixer.linear_value_head_dim,
            )
            return computed(name, delta_net_flops, layers, phase.tokens, *known)
        case _ as never:
            assert_never(never)


def _traffic(
    name: str,
    label: str,
    model: Model,
    cache: Cache,
    phase: Phase,
    figure: Callable[[Run, CacheRun], Quantity],
) -> Quantity:
    parts = []
    for run, cached in zip(model.runs(), cache.runs, strict=True):
        if cached.live is None:
            sizes = (cached.layers, phase.steps, cached.entry_bytes)
            parts.append(computed(run_name(run.layer), state_traffic_bytes, *sizes))
        else:
            parts.append(figure(run, cached))
    return total(name, Unit.BYTES, tuple(parts), label)


def _layers_read(model: Model, run: Run, element_bytes: Quantity) -> Quantity:
    weights = [w for w in model.layer_weights(run.layer) if w.copies == 1]
    parts = tuple(fact(w.name, w.elements, _shape(w), Unit.PARAMETERS) for w in weights)
    elements = total("elements", Unit.PARAMETERS, parts)
    layers = fact("layers", run.count, model.source, Unit.LAYERS)
    return computed(run_name(run.layer), layers_read_bytes, layers, elements, element_bytes)


def _output_weights(model: Model) -> tuple[Weight, ...]:
    tied = (model.head_weight(),) if model.tie_word_embeddings else ()
    return (*model.output_weights(), *tied)
