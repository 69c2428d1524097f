"""Experts chosen by sigmoid scores and a correction bias, and which layers of a model have experts."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.arch.activation import Activation
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.specs.config import REQUIRED, Config
from kvplan.specs.document import shown


def corrected_experts(
    config: Config,
    hidden_act: Activation,
    *,
    n_routed_experts: int = REQUIRED,
    num_experts_per_tok: int = REQUIRED,
    moe_intermediate_size: int = REQUIRED,
    n_shared_experts: int = 0,
    norm_topk_prob: bool = True,
) -> Experts:
    """Return experts with DeepSeek-V3's router and keys; the arguments are what the class says by default."""
    config.only("scoring_func", "sigmoid", "this family's router is a sigmoid")
    config.only("topk_method", "noaux_tc", "experts are chosen with the correction bias in this family")
    width = config.integer("moe_intermediate_size", default=moe_intermediate_size)
    return Experts(
        num_experts=config.integer("n_routed_experts", "num_local_experts", default=n_routed_experts),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=num_experts_per_tok),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("n_shared_experts", n_shared_experts) * width,
        router_bias_buffer=True,
        hidden_act=hidden_act,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        n_group=config.integer("n_group", default=1),
        topk_group=config.integer("topk_group", default=1),
        norm_topk_prob=config.flag("norm_topk_prob", norm_topk_prob),
        routed_scaling_factor=config.number("routed_scaling_factor", default=1.0),
    )


def layers_in(config: Config, key: str, depth: int) -> frozenset[int]:
    """Return the numbers of layers listed under the key; none where it is missing or null.

    Raises:
        SpecError: there is no layer of such a number.
    """
    found = frozenset(config.integers(key))
    if wrong := sorted(found - frozenset(range(depth))):
        config.refuse(key, f"expected layers 0 to {depth - 1}, not {shown(wrong[0])}")
    return found


def ones_in(config: Config, key: str, depth: int) -> list[bool] | None:
    """Return which layers have a 1 in the list under the key, and not a 0; ``None`` without such a list."""
    given = config.integers(key)
    if not given:
        return None
    if len(given) != depth:
        config.refuse(key, f"has {len(given):,} entries for {depth:,} layers")
    if not set(given) <= {0, 1}:
        config.refuse(key, "expected a list of 0 and 1")
    return [value == 1 for value in given]


def sparse_layers(config: Config, depth: int, otherwise: Sequence[bool]) -> list[bool]:
    """Return which layers have experts by ``mlp_layer_types``, where the file has it."""
    types = config.texts("mlp_layer_types", depth, ("dense", "sparse"))
    return list(otherwise) if types is None else [kind == "sparse" for kind in types]
