"""What GPUs exchange in a step: sums of partial results, tokens sent to experts, hidden states sent on."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Run
from kvplan.arch.norm import Block
from kvplan.arch.retention import Full
from kvplan.plan.law import Of, law
from kvplan.plan.operator import Collective, Operator
from kvplan.plan.operator_formulas import dispatched_bytes, hidden_bytes
from kvplan.plan.rank import Rank
from kvplan.plan.stages import Stage
from kvplan.results import fact
from kvplan.units import Unit

_EMBEDDED = "all-reduce, embedding"
_ONE_SUM = (Block.PARALLEL, Block.PARALLEL_TWO_NORMS)


def layer_exchanges(rank: Rank, run: Run) -> Iterator[Operator]:
    """Iterate over the exchanges of equal layers."""
    cut, model = rank.cut, rank.model
    routed = isinstance(run.layer.mlp, Experts) and cut.expert > 1 and cut.data > 1
    sums = 1 if run.layer.block in _ONE_SUM or routed else 2
    if cut.tensor > 1:
        yield _exchange(
            rank, Collective.ALL_REDUCE, "all-reduce, tensor parallel", run.count * sums, cut.tensor
        )
    if routed:
        assert isinstance(run.layer.mlp, Experts)
        yield Operator(
            "all_to_all",
            "all-to-all, experts",
            Collective.ALL_TO_ALL,
            2 * run.count,
            rank.plain_format,
            collective_bytes=law(
                "collective_bytes",
                dispatched_bytes,
                rank.fact("layers", run.count, Unit.LAYERS),
                Of.TOKENS,
                rank.fact("chosen", run.layer.mlp.num_experts_per_tok),
                rank.fact("hidden_size", model.hidden_size),
                rank.element_bytes,
                fact("expert_parallel", cut.expert, "--ep"),
            ),
            ranks=cut.expert,
        )
    if cut.context > 1 and isinstance(run.layer.slot().retention, Full):
        yield _context_exchange(rank, run)


def outer_exchanges(rank: Rank, stage: Stage) -> Iterator[Operator]:
    """Iterate over the exchanges of a stage outside its layers: embedding, logits, the next stage."""
    cut = rank.cut
    if cut.tensor > 1 and stage.is_first:
        yield _exchange(rank, Collective.ALL_REDUCE, _EMBEDDED, 1, cut.tensor)
    if cut.tensor > 1 and stage.is_last:
        rows = rank.model.head_weight().on_rank(cut.tensor).shape[0]
        yield Operator(
            "all_gather",
            "all-gather, logits",
            Collective.ALL_GATHER,
            1,
            rank.plain_format,
            collective_bytes=law(
                "collective_bytes",
                hidden_bytes,
                fact("exchanges", cut.tensor - 1, "every other rank's logits"),
                Of.LOGIT_ROWS,
                fact("vocabulary", rows, "rows of the head on one rank"),
                rank.element_bytes,
            ),
            ranks=cut.tensor,
        )
    if not stage.is_last:
        yield _exchange(rank, Collective.SEND, "send, next stage", 1, 2)


def _exchange(rank: Rank, kind: Collective, label: str, calls: int, ranks: int) -> Operator:
    exchanges = fact("exchanges", calls, "two a layer, or one where mixer and MLP run side by side")
    hidden = rank.fact("hidden_size", rank.model.hidden_size)
    sent = law("collective_bytes", hidden_bytes, exchanges, Of.TOKENS, hidden, rank.element_bytes)
    return Operator(kind.value, label, kind, calls, rank.plain_format, collective_bytes=sent, ranks=ranks)


def _context_exchange(rank: Rank, run: Run) -> Operator:
    """Return the sum of partial attention results over the ranks that hold a request's tokens."""
    mixer = run.layer.mixer
    assert isinstance(mixer, Attention | LatentAttention)
    width = mixer.head_dim if isinstance(mixer, Attention) else mixer.kv_lora_rank
    heads = rank.query_heads(mixer.num_attention_heads)
    sent = law(
        "collective_bytes",
        hidden_bytes,
        fact("exchanges", run.count, "one a layer"),
        Of.TOKENS,
        fact("features", heads * (width + 1), "results of every query head, and the sum of its weights"),
        rank.element_bytes,
    )
    return Operator(
        "context_all_reduce",
        "all-reduce, context parallel",
        Collective.CONTEXT_ALL_REDUCE,
        run.count,
        rank.plain_format,
        collective_bytes=sent,
        ranks=rank.cut.context,
    )
