"""What files with latent attention have in common: sizes, an indexer, and experts after dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.arch.experts import Experts
from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Identity, activation, finished_model, prediction_layers
from kvplan.specs.families.rope import RopeDefaults, rope
from kvplan.specs.families.routed import corrected_experts, sparse_layers

INTERLEAVED = RopeDefaults(interleaved=True)


@dataclass(frozen=True, slots=True)
class LatentSizes:
    """What a file says of a model with latent attention, or what its class says where the file says nothing.

    ``q_lora_rank`` is null in a file whose queries are not compressed; missing, it is the class's.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int | None

    def read(self, config: Config) -> LatentSizes:
        """Return the sizes of a file of the class with these ones."""
        hidden = config.integer("hidden_size", default=self.hidden_size)
        heads = config.integer("num_attention_heads", default=self.num_attention_heads)
        value = config.optional_integer("v_head_dim", default=self.v_head_dim)
        # The latent is shared by all heads; what follows from sizes, transformers 5 writes and never reads.
        config.harmless("num_key_value_heads", "head_dim", "qk_head_dim")
        return LatentSizes(
            vocab_size=config.integer("vocab_size", default=self.vocab_size),
            hidden_size=hidden,
            intermediate_size=config.integer("intermediate_size", default=self.intermediate_size),
            num_hidden_layers=config.depth("num_hidden_layers", default=self.num_hidden_layers),
            num_attention_heads=heads,
            max_position_embeddings=config.integer(
                "max_position_embeddings", default=self.max_position_embeddings
            ),
            kv_lora_rank=config.integer("kv_lora_rank", default=self.kv_lora_rank),
            q_lora_rank=config.optional_integer("q_lora_rank", default=self.q_lora_rank),
            qk_nope_head_dim=config.integer("qk_nope_head_dim", default=self.qk_nope_head_dim),
            qk_rope_head_dim=config.integer("qk_rope_head_dim", default=self.qk_rope_head_dim),
            v_head_dim=value or hidden // heads,
        )

    def attention(self, config: Config, rotation: RopeDefaults) -> LatentAttention:
        """Return latent attention of these sizes, rotated as the file says."""
        return LatentAttention(
            num_attention_heads=self.num_attention_heads,
            kv_lora_rank=self.kv_lora_rank,
            qk_nope_head_dim=self.qk_nope_head_dim,
            qk_rope_head_dim=self.qk_rope_head_dim,
            v_head_dim=self.v_head_dim or self.hidden_size // self.num_attention_heads,
            q_lora_rank=self.q_lora_rank,
            rope_parameters=rope(config, self.max_position_embeddings, rotation),
            attention_bias=config.flag("attention_bias", False),
        )

    def dense(self, config: Config) -> MLP:
        """Return the block of a layer without experts."""
        return MLP(self.intermediate_size, hidden_act=activation(config))


@dataclass(frozen=True, slots=True)
class ExpertDefaults:
    """What a class with DeepSeek-V3's router says of its experts where a file says nothing."""

    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    routed_scaling_factor: float
    n_group: int
    topk_group: int

    def read(self, config: Config) -> Experts:
        """Return the experts of a file of the class; groups that are null in it are none (vLLM)."""
        found = corrected_experts(
            config,
            activation(config),
            n_routed_experts=self.n_routed_experts,
            num_experts_per_tok=self.num_experts_per_tok,
            moe_intermediate_size=self.moe_intermediate_size,
            n_shared_experts=1,
        )
        return replace(
            found,
            # Also by its older name (transformers 5.23, configuration_deepseek_v32.py).
            num_experts=config.integer(
                "n_routed_experts", "num_local_experts", "num_experts", default=self.n_routed_experts
            ),
            n_group=config.optional_integer("n_group", default=self.n_group) or 1,
            topk_group=config.optional_integer("topk_group", default=self.topk_group) or 1,
            routed_scaling_factor=config.number("routed_scaling_factor", default=self.routed_scaling_factor),
        )


def indexer(config: Config, *, default_heads: int, interleaved: bool) -> Indexer:
    """Return the indexer of a file; whether neighbours are rotated together in it is the class's."""
    return Indexer(
        index_n_heads=config.integer("index_n_heads", default=default_heads),
        index_head_dim=config.integer("index_head_dim", default=128),
        index_topk=config.integer("index_topk", default=2048),
        indexer_rope_interleave=interleaved,
    )


def model_with_experts(
    config: Config,
    identity: Identity,
    sizes: LatentSizes,
    mixers: Sequence[LatentAttention],
    experts: Experts,
    *,
    default_dense: int,
    eps: float,
) -> Model:
    """Return the model with these mixers in its layers, dense first ones before those with experts."""
    config.only("moe_layer_freq", 1, "every layer after the dense ones has experts")
    first, dense = config.count("first_k_dense_replace", default_dense), sizes.dense(config)
    sparse = sparse_layers(config, len(mixers), [index >= first for index in range(len(mixers))])
    config.harmless("layer_types")  # every layer is of the same kind, whatever it is called
    layers = [
        Layer(mixer, experts if has_experts else dense)
        for mixer, has_experts in zip(mixers, sparse, strict=True)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        num_nextn_predict_layers=prediction_layers(config),
    )
