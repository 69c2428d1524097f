"""The activation peak: the largest set of arrays alive at once while one prefill step runs.

A block's input, its intermediates and its output are alive together with the residual stream, as when
its layers run one after another without reusing each other's buffers. Attention scores are not stored:
they are computed tile by tile (arXiv 2205.14135).
"""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.arch.buffer import Buffer
from kvplan.arch.layer import FeedForward, Mixer
from kvplan.arch.model import Model
from kvplan.formula import formula
from kvplan.plan.deployment import Deployment
from kvplan.plan.kept_tokens import context_ranks, tokens_of_rank
from kvplan.plan.stages import Stage
from kvplan.results import Quantity, computed, fact, total
from kvplan.storage import DTYPE_BYTES
from kvplan.units import Count, Unit

# Requests whose logits exist at once: larger batches are sampled in pieces.
LOGIT_ROWS = 256


@formula(Unit.BYTES, "residual, the block's input, and every intermediate of the block are alive together")
def block_peak_bytes(
    chunk_tokens: Count, hidden_size: Count, intermediates: Count, element_bytes: int
) -> Count:
    """Bytes alive while a mixer or an MLP runs."""
    return chunk_tokens * (2 * hidden_size + intermediates) * element_bytes


@formula(Unit.BYTES, "final hidden states, logits in the model's dtype, their float32 copy and probabilities")
def head_peak_bytes(
    chunk_tokens: Count, hidden_size: Count, element_bytes: int, logit_rows: Count, vocabulary: Count
) -> Count:
    """Bytes alive while logits are made and sampled."""
    return chunk_tokens * hidden_size * element_bytes + logit_rows * vocabulary * (element_bytes + 4 + 4)


@formula(Unit.BYTES, "only one of them runs at a time")
def largest_of(mixer: int, mlp: int, head: int) -> Count:
    """The largest of three peaks."""
    return max(mixer, mlp, head)


def activation_bytes(model: Model, stage: Stage, deployment: Deployment) -> Quantity:
    """Return the activation peak of one rank of a stage, explained."""
    runs = stage.runs()
    mixers = [mixer for run in runs for mixer in run.layer.blocks_of_mixers()]
    mlps = [mlp for run in runs for mlp in run.layer.feed_forwards()]
    return computed(
        "activation_bytes",
        largest_of,
        _largest_block("mixer", mixers, model, deployment),
        _largest_block("mlp", mlps, model, deployment),
        _head_peak(model, deployment)
        if stage.is_last
        else fact("head", 0, "no head on this stage", Unit.BYTES),
        label=f"activations ({deployment.chunk_tokens:,}-token step)",
    )


def _largest_block(
    name: str, blocks: Sequence[Mixer | FeedForward], model: Model, deployment: Deployment
) -> Quantity:
    """Return the largest peak of a stage's mixers, or of its MLPs; it may have none of them."""
    peaks = [_block_peak(name, block.buffers(model.hidden_size), model, deployment) for block in blocks]
    none = fact(name, 0, f"no {name} on this stage", Unit.BYTES)
    return max(peaks, key=lambda peak: peak.number, default=none)


def _block_peak(name: str, buffers: tuple[Buffer, ...], model: Model, deployment: Deployment) -> Quantity:
    ranks = deployment.parallelism.tensor
    # Residual streams beside the one that every model has.
    others = Buffer("other residual streams", (model.residual_streams - 1) * model.hidden_size)
    alive = (*buffers, *((others,) if others.elements else ()))
    parts = tuple(fact(b.name, b.on_rank(ranks), "elements per token on this rank") for b in alive)
    return computed(
        name,
        block_peak_bytes,
        _rank_chunk(deployment),
        fact("hidden_size", model.hidden_size, model.source),
        total("intermediates", Unit.NONE, parts),
        fact("element_bytes", DTYPE_BYTES[model.dtype], model.dtype),
    )


def _rank_chunk(deployment: Deployment) -> Quantity:
    """Return the tokens of a step that one rank works on: context-parallel ranks share them."""
    chunk = fact("chunk_tokens", deployment.chunk_tokens, "--chunk", Unit.TOKENS)
    ranks = deployment.parallelism.context
    return chunk if ranks == 1 else computed("chunk_tokens", tokens_of_rank, chunk, context_ranks(ranks))


def _head_peak(model: Model, deployment: Deployment) -> Quantity:
    return computed(
        "head",
        head_peak_bytes,
        _rank_chunk(deployment),
        fact("hidden_size", model.hidden_size, model.source),
        fact("element_bytes", DTYPE_BYTES[model.dtype], model.dtype),
        fact("logit_rows", LOGIT_ROWS, "kvplan: logits of at most 256 requests exist at once"),
        fact("vocabulary", model.vocab_size, "gathered whole on every rank to be sampled"),
    )
