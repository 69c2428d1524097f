"""The operators of a layer's feed-forward block: dense products, or a router and the experts it picks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from kvplan.arch.experts import LATENT_IN, LATENT_OUT, SHARED, Experts
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Run
from kvplan.arch.weight import Weight
from kvplan.hardware.efficiency import Kernel
from kvplan.plan.deployment import Parallelism
from kvplan.plan.law import Law, Of, law
from kvplan.plan.operator import Operator
from kvplan.plan.operator_formulas import distinct_experts, experts_read_bytes, ranks_share, routed_tokens
from kvplan.plan.products import activations, adapter_operators, products
from kvplan.plan.rank import Rank
from kvplan.plan.step_work import matrices_flops
from kvplan.results import fact
from kvplan.units import Unit


def mlp_operators(rank: Rank, run: Run) -> Iterator[Operator]:
    """Iterate over the operators of equal layers' feed-forward blocks, in the order they run."""
    yield from _fed(rank, run)
    given = run.layer.input_weights(rank.model.hidden_size, rank.model.norm)
    if matrices := [w for w in given if w.is_matrix]:
        yield products(rank, run, "per_layer_input", "per-layer input", matrices)
    if run.layer.hyper_connections is not None:
        # Around each part streams are read to weigh them and to sum them, and read and written to mix them.
        streams = run.layer.hyper_connections.hc_mult * rank.model.hidden_size
        weighing = products(
            rank,
            run,
            "hyper_connections",
            "hyper-connections",
            [w for w in run.layer.stream_weights(rank.model.hidden_size) if w.is_matrix],
        )
        yield replace(weighing, activation_bytes=activations(rank, run, 2 * 4 * streams))


def _fed(rank: Rank, run: Run) -> Iterator[Operator]:
    for block in run.layer.feed_forwards():
        match block:
            case MLP() as mlp:
                weights = list(run.layer.weights_of(mlp, rank.model.hidden_size))
                yield from adapter_operators(rank, run, "gate_up", weights)
                yield from _two_steps(rank, run, "", "", weights)
            case Experts() as experts:
                yield from _experts(rank, run, experts)
            case _ as never:
                assert_never(never)
    if run.layer.shared_block is not None:
        behind = run.layer.shared_block.output_weight(rank.model.hidden_size)
        yield products(rank, run, "block_output", "behind the shared block", [behind])


def _two_steps(rank: Rank, run: Run, prefix: str, which: str, weights: list[Weight]) -> Iterator[Operator]:
    """Iterate over a block's products: into its width, gate and all, and back."""
    back = [w for w in weights if "down_proj" in w.name]
    into = [w for w in weights if "_proj" in w.name and w not in back]
    gated = any("gate_proj" in w.name for w in into)
    first = ("gate_up_proj", "gate and up") if gated else ("up_proj", "up")
    yield products(rank, run, prefix + first[0], f"{which}{first[1]}", into)
    yield products(rank, run, f"{prefix}down_proj", f"{which}down", back)


def _experts(rank: Rank, run: Run, experts: Experts) -> Iterator[Operator]:
    weights = run.layer.weights_of(experts, rank.model.hidden_size)
    router = [w for w in weights if w.name.startswith("mlp.gate.") or "shared_expert_gate" in w.name]
    routed = _beginning(weights, "mlp.experts.")
    yield products(rank, run, "router", "router", router)
    if shared := _beginning(weights, f"{SHARED}."):
        yield from _two_steps(rank, run, "shared_", "shared expert, ", shared)
    if into := _beginning(weights, LATENT_IN):
        yield products(rank, run, "latent_in_proj", "into the experts' latent", into)
    yield _routed(rank, run, experts, routed)
    if back := _beginning(weights, LATENT_OUT):
        yield products(rank, run, "latent_out_proj", "out of the experts' latent", back)


def _beginning(weights: tuple[Weight, ...], prefix: str) -> list[Weight]:
    return [w for w in weights if w.name.startswith(prefix)]


def _routed(rank: Rank, run: Run, experts: Experts, weights: list[Weight]) -> Operator:
    """Return the routed experts: a rank runs its share of the picks, and reads the experts that were picked.

    Under expert parallelism a rank holds whole experts and takes tokens of every replica.
    """
    cut, layers = rank.cut, rank.fact("layers", run.count, Unit.LAYERS)
    holder = replace(rank, cut=Parallelism()) if cut.expert > 1 else rank
    one = [replace(w, copies=1, active_copies=1) for w in weights]
    tokens: Law | Of = Of.TOKENS
    if cut.expert > 1:
        replicas = fact("replicas", cut.data, "--dp")
        tokens = law("tokens", routed_tokens, replicas, Of.REPLICA_SHARE, Of.BATCH, Of.NEW_TOKENS)
    # Routers may send every token to the same experts: those of one token are read in any case.
    chosen = -(-experts.num_experts_per_tok // cut.expert)
    fewest = fact("distinct", chosen, "every token picks the same experts")
    distinct = law(
        "distinct",
        distinct_experts,
        fact("experts_on_rank", experts.num_experts // cut.expert, "the experts shared by --ep ranks"),
        rank.fact("experts", experts.num_experts),
        rank.fact("chosen", experts.num_experts_per_tok),
        tokens,
        fewest,
    )
    elements = holder.elements_of("elements", weights)
    flops = law("matmul_flops", matrices_flops, layers, tokens, elements)
    if cut.expert > 1:
        flops = law("matmul_flops", ranks_share, flops, fact("expert_parallel", cut.expert, "--ep"))
    width = experts.moe_intermediate_size // (1 if cut.expert > 1 else cut.tensor)
    # An activation takes what the first step made, both halves of it or one, and gives the second its input.
    between = (3 if experts.gated else 2) * width
    touched = 2 * experts.expert_input(rank.model.hidden_size) + between
    per_token = experts.num_experts_per_tok * touched // cut.expert
    one_bytes = holder.bytes_of("bytes_of_one_expert", one)
    return Operator(
        "experts",
        "experts",
        Kernel.EXPERTS,
        run.count,
        rank.format_of(weights),
        matmul_flops=flops,
        weight_bytes=law("weight_bytes", experts_read_bytes, layers, distinct, one_bytes),
        least_weight_bytes=law("least_weight_bytes", experts_read_bytes, layers, fewest, one_bytes),
        activation_bytes=activations(rank, run, per_token, tokens),
    )
