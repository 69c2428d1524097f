"""What GPUs exchange in a step: sums of partial results, tokens sent to experts, hidden states sent on."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Run
from kvplan.arch.recurrent import Recurrent
from kvplan.arch.retention import Full
from kvplan.plan.law import Of, law
from kvplan.plan.operator import Collective, Operator
from kvplan.plan.operator_formulas import dispatched_bytes, hidden_bytes
from kvplan.plan.rank import Rank
from kvplan.plan.stages import Stage
from kvplan.results import fact
from kvplan.units import Unit

_EMBEDDED = "all-reduce, embedding"


def layer_exchanges(rank: Rank, run: Run) -> Iterator[Operator]:
    """Iterate over the exchanges of equal layers."""
    cut, model = rank.cut, rank.model
    routed = isinstance(run.layer.mlp, Experts) and cut.expert > 1 and cut.data > 1
    parts = len(run.layer.mixers()) + len(run.layer.feed_forwards())
    sums = 1 if run.layer.block.is_parallel else parts - routed
    if cut.tensor > 1 and sums:
        yield _exchange(
            rank, Collective.ALL_REDUCE, "all-reduce, tensor parallel", run.count * sums, cut.tensor
        )
    if cut.tensor > 1:
        yield from _inner_sum(rank, run)
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
                rank.fact("expert_input", run.layer.mlp.expert_input(model.hidden_size)),
                rank.element_bytes,
                fact("expert_parallel", cut.expert, "--ep"),
            ),
            ranks=cut.expert,
        )
    if cut.context > 1 and any(isinstance(slot.retention, Full) for slot in run.layer.slots()):
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
    exchanges = fact("exchanges", calls, "one for each part of a layer, or one where they run side by side")
    # What parts add is one stream; from stage to stage go all there are.
    streams = rank.model.residual_streams if kind is Collective.SEND else 1
    hidden = rank.fact("hidden_size", streams * rank.model.hidden_size)
    sent = law("collective_bytes", hidden_bytes, exchanges, Of.TOKENS, hidden, rank.element_bytes)
    return Operator(kind.value, label, kind, calls, rank.plain_format, collective_bytes=sent, ranks=ranks)


def _inner_sum(rank: Rank, run: Run) -> Iterator[Operator]:
    """Iterate over the sum that a recurrent mixer needs before it can go on."""
    recurrent = [mixer for mixer in run.layer.mixers() if isinstance(mixer, Recurrent)]
    summed = sum(mixer.recurrence().summed for mixer in recurrent)
    if summed:
        yield Operator(
            "inner_all_reduce",
            "all-reduce, inside the mixer",
            Collective.ALL_REDUCE,
            run.count,
            rank.plain_format,
            collective_bytes=law(
                "collective_bytes",
                hidden_bytes,
                fact("exchanges", run.count, "one a layer"),
                Of.TOKENS,
                rank.fact("features", summed),
                rank.element_bytes,
            ),
            ranks=rank.cut.tensor,
        )


def _context_exchange(rank: Rank, run: Run) -> Operator:
    """Return the sum of partial attention results over the ranks that hold a request's tokens."""
    (mixer,) = (mixer for mixer in run.layer.mixers() if isinstance(mixer, Attention | LatentAttention))
    width = mixer.value_dim if isinstance(mixer, Attention) else mixer.kv_lora_rank
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
