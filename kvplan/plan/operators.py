"""All operators of a pipeline stage on one GPU, from embedding to logits, exchanges included."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.arch.experts import Experts
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Run
from kvplan.arch.weight import Weight
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.collectives import layer_exchanges, outer_exchanges
from kvplan.plan.law import Of, law
from kvplan.plan.mixer_operators import mixer_operators
from kvplan.plan.mlp_operators import mlp_operators
from kvplan.plan.operator import Glue, Operator
from kvplan.plan.operator_formulas import (
    activations_bytes,
    embedding_read_bytes,
    head_read_bytes,
    weights_read_bytes,
)
from kvplan.plan.products import activations
from kvplan.plan.rank import Rank
from kvplan.plan.stages import Stage
from kvplan.plan.step_work import head_flops
from kvplan.results import fact
from kvplan.storage import TensorRole
from kvplan.units import Unit


def stage_operators(rank: Rank, stage: Stage) -> tuple[Operator, ...]:
    """Return the operators of a stage in the order they run, equal layers as one."""
    found = list(_embedding(rank)) if stage.is_first else []
    for run in (run for run in stage.runs() if not run.layer.images_only):
        # A shared block's attention and its MLP run before the layer's own mixer.
        mixers = run.layer.mixers()
        first = len(mixers) if run.layer.shared_block is None else 1
        found += (_glue(rank, run), *mixer_operators(rank, run, mixers[:first]), *mlp_operators(rank, run))
        found += (*mixer_operators(rank, run, mixers[first:]), *layer_exchanges(rank, run))
    if stage.is_last:
        found += _head(rank)
    found += outer_exchanges(rank, stage)
    if stage.is_last:
        found.append(Operator("host", "host, between steps", Glue.HOST, 1, rank.plain_format))
    return tuple(found)


def _embedding(rank: Rank) -> Iterator[Operator]:
    model = rank.model
    table = model.input_weights()[0]
    looked_up = (TensorRole.EMBEDDING, TensorRole.POSITIONS)
    tables = [w for w in model.input_weights() if w.role in looked_up]
    # A packed row is rounded down to whole bytes: some rows are longer where their scales are shared.
    row = sum(_row_bytes(rank, w) for w in tables)
    row_bytes = fact("row_bytes", row, "bytes of one row of the embedding", Unit.BYTES)
    yield Operator(
        "embedding",
        "embedding",
        Glue.INSIDE,
        1,
        rank.format_of([table]),
        weight_bytes=law("weight_bytes", embedding_read_bytes, Of.TOKENS, row_bytes),
        activation_bytes=law(
            "activation_bytes",
            activations_bytes,
            fact("layers", 1, "the embedding", Unit.LAYERS),
            Of.TOKENS,
            rank.fact("features", model.hidden_size),
            rank.element_bytes,
        ),
    )
    if inside := model.multiplied_inputs():
        yield _embedded(rank, inside)


def _embedded(rank: Rank, weights: tuple[Weight, ...]) -> Operator:
    """Return what is done with embeddings before the first layer: a projection, a norm."""
    once = fact("layers", 1, "the embedding", Unit.LAYERS)
    projected = any(w.is_matrix for w in weights)
    flops = law("matmul_flops", head_flops, Of.TOKENS, rank.elements_of("elements", weights))
    features = fact("features", 2 * rank.model.hidden_size, "numbers read and written for a token")
    return Operator(
        "embedded",
        "projection and norm of embeddings",
        Kernel.GEMM if projected else Glue.INSIDE,
        1,
        rank.format_of(weights) if projected else rank.plain_format,
        matmul_flops=flops if projected else None,
        weight_bytes=law("weight_bytes", weights_read_bytes, once, rank.bytes_of("bytes", weights)),
        activation_bytes=law(
            "activation_bytes",
            activations_bytes,
            once,
            Of.TOKENS,
            features,
            rank.element_bytes,
        ),
    )


def _row_bytes(rank: Rank, table: Weight) -> int:
    """Return the bytes of one row of a table."""
    return rank.bytes_of("row_bytes", [table]).number // table.on_rank(rank.cut.tensor).shape[0]


def _glue(rank: Rank, run: Run) -> Operator:
    """Return norms, residual sums, rotations and activations: little arithmetic, much passing through."""
    model, layer = rank.model, run.layer
    # Attention sinks are a few numbers: they are counted here, not with the cache. A bias is read with its
    # matrix or its recurrence.
    norms = [
        w
        for w in model.layer_weights(layer)
        if w.role is TensorRole.NORM or (w.role is TensorRole.BIAS and not w.name.endswith("bias"))
    ]
    layers = rank.fact("layers", run.count, Unit.LAYERS)
    one_layer = rank.bytes_of("bytes_of_one_layer", norms)
    # A norm takes the residual and the block's output and leaves both their sum and the normalised sum.
    # A shared block's first norm takes two streams, its second one, and its output is added to another.
    widths = len(layer.norm_names()) + (0 if layer.shared_block is None else 3)
    features = 4 * model.hidden_size * widths + _activated(rank, run)
    return Operator(
        "norms",
        "norms and activations",
        Glue.LAYER,
        run.count,
        rank.plain_format,
        weight_bytes=law("weight_bytes", weights_read_bytes, layers, one_layer),
        activation_bytes=activations(rank, run, features),
    )


def _activated(rank: Rank, run: Run) -> int:
    """Return the numbers an activation reads and writes for a token between the two steps of an MLP."""
    found = 0
    for block in run.layer.feed_forwards():
        match block:
            case MLP(intermediate_size=width, gated=gated):
                found += (3 if gated else 2) * width // rank.cut.tensor
            case Experts(moe_intermediate_size=width, num_experts_per_tok=chosen, gated=gated):
                found += (3 if gated else 2) * width * chosen // rank.cut.tensor
    return found


def _head(rank: Rank) -> Iterator[Operator]:
    model = rank.model
    head = model.head_weight()
    stored = model.input_weights()[0] if model.tie_word_embeddings else head
    rows = head.on_rank(rank.cut.tensor).shape[0]
    read = (*model.output_weights(), *((stored,) if model.tie_word_embeddings else ()))
    elements = rank.elements_of("elements", model.multiplied_outputs())
    head_bytes = rank.bytes_of("head_bytes", read)
    yield Operator(
        "lm_head",
        "output head",
        Kernel.GEMM,
        1,
        rank.format_of([stored]),
        matmul_flops=law("matmul_flops", head_flops, Of.LOGIT_ROWS, elements),
        weight_bytes=law("weight_bytes", head_read_bytes, Of.LOGIT_ROWS, head_bytes),
        activation_bytes=law(
            "activation_bytes",
            activations_bytes,
            fact("layers", 1, "the head", Unit.LAYERS),
            Of.LOGIT_ROWS,
            fact("features", model.hidden_size + rows, "numbers read and written for a token on this rank"),
            rank.element_bytes,
        ),
    )
