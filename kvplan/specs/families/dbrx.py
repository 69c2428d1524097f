"""DBRX: attention and experts each in a mapping of their own, LayerNorm without biases, clipping."""

from __future__ import annotations

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults, rope


def dbrx(config: Config, identity: Identity) -> Model:
    """DBRX: heads of ``d_model / n_heads``; the head is never tied."""
    config.only("tie_word_embeddings", False, "the output head is not the embedding in this family")
    hidden, longest = config.integer("d_model", default=2048), config.integer("max_seq_len", default=2048)
    layer = Layer(_attention(config, hidden, longest), _experts(config, hidden))
    return finished_model(
        config,
        identity,
        [layer] * config.depth("n_layers", default=24),
        tied=False,
        norm=Norm.LAYER_NO_BIAS,
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=32_000),
        max_position_embeddings=longest,
    )


def _attention(config: Config, hidden_size: int, longest: int) -> Attention:
    heads = config.integer("n_heads", default=16)
    if hidden_size % heads:
        config.refuse("d_model", f"{hidden_size} is no multiple of {heads} heads")
    given = config.inner_or("attn_config", {})
    attention = Attention(
        num_attention_heads=heads,
        num_key_value_heads=given.integer("kv_n_heads", default=1),
        head_dim=hidden_size // heads,
        clip_qkv=given.optional_number("clip_qkv"),
        rope_parameters=rope(config, longest, RopeDefaults(rope_theta=_theta(config, given))),
    )
    # transformers 5 writes the size of the whole model, and of KV heads, once more.
    config.only("num_key_value_heads", attention.num_key_value_heads, "attn_config says kv_n_heads")
    given.harmless("model_type", "attn_pdrop")
    given.finish()
    return attention


def _theta(config: Config, given: Config) -> float:
    """Return the base of the rotation: the mapping's, else the file's own, else the class's."""
    inside = given.optional_number("rope_theta")
    config.only("rope_theta", inside, "attn_config says another")
    return inside or 10_000.0


def _experts(config: Config, hidden_size: int) -> Experts:
    given = config.inner_or("ffn_config", {})
    power = given.optional_number("moe_normalize_expert_weights", default=1.0)
    if power not in (None, 1.0):
        given.refuse("moe_normalize_expert_weights", f"{power:g} is not understood: shares sum to one")
    experts = Experts(
        num_experts=given.integer("moe_num_experts", default=4),
        num_experts_per_tok=given.integer("moe_top_k", default=1),
        moe_intermediate_size=given.integer("ffn_hidden_size", default=3584),
        hidden_act=_activation(given),
        norm_topk_prob=power is not None,
    )
    given.only("hidden_size", hidden_size, "experts read and write the hidden state")
    given.harmless("model_type", "moe_jitter_eps", "moe_loss_weight", "uniform_expert_assignment")
    given.finish()
    return experts


def _activation(given: Config) -> Activation:
    named = given.optional_inner("ffn_act_fn")
    if named is None:
        return Activation.SILU
    found = activation(named, "name")
    named.finish()
    return found


FAMILIES: Families = {"dbrx": dbrx}
