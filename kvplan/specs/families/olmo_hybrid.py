"""OLMo Hybrid: gated delta nets that may turn a state's sign, OLMo 3's attention in every fourth layer."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import rope
from kvplan.specs.families.sizes import Sizes

_SIZES = Sizes(
    vocab_size=100_352,
    hidden_size=3840,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=30,
    max_position_embeddings=65_536,
)
# Of the norm before a delta net's output, whatever the other norms add.
_DELTA_NORM_EPS = 1e-5
# transformers 5.23 draws the weights a training begins with by these.
_OF_TRAINING = (
    *("linear_a_log_min", "linear_a_log_max"),
    *("linear_dt_min", "linear_dt_max", "linear_dt_init_floor"),
)


def olmo_hybrid(config: Config, identity: Identity) -> Model:
    """OLMo Hybrid: norms are behind attention and its MLP, but before a delta net and its."""
    if activation(config) is not Activation.SILU:
        config.refuse("hidden_act", "the delta nets of this family are understood with silu only")
    config.harmless(*_OF_TRAINING)
    sizes = _SIZES.read(config)
    mlp = sizes.gated_mlp(config)
    attends = Layer(_attention(config, sizes), mlp, Block.POST_NORM)
    recurs = Layer(_delta_net(config, sizes), mlp)
    return finished_model(
        config,
        identity,
        [attends if full else recurs for full in _is_full(config, sizes.num_hidden_layers)],
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _is_full(config: Config, depth: int) -> list[bool]:
    types = config.texts("layer_types", depth, ("full_attention", "linear_attention"))
    if types is None:
        # A model of fewer layers than four attends in its last one.
        return [index % 4 == 3 or index == depth - 1 < 3 for index in range(depth)]
    return [kind == "full_attention" for kind in types]


def _attention(config: Config, sizes: Sizes) -> Attention:
    """Return the attention, which rotates nothing where the file says that a rotation has no base."""
    bias, turned = config.flag("attention_bias", False), None
    if _turns(config):
        turned = rope(config, sizes.max_position_embeddings)
    else:
        config.harmless("rope_theta", "rope_parameters", "rope_scaling")
    full = sizes.attention(config, None, qkv_bias=bias, out_bias=bias)
    return replace(full, qk_norm=QkNorm.PROJECTION, rope_parameters=turned)


def _turns(config: Config) -> bool:
    """Whether there is a base: a missing one is the default, a null one is none."""
    given = config.optional_inner("rope_scaling", "rope_parameters")
    owners = [config] if given is None else [config, given]
    said = [owner for owner in owners if "rope_theta" in owner.names()]
    return not said or any(owner.has("rope_theta") for owner in said)


def _delta_net(config: Config, sizes: Sizes) -> GatedDeltaNet:
    heads = sizes.num_attention_heads
    key_heads = config.optional_integer("linear_num_key_heads") or heads
    key_dim = config.optional_integer("linear_key_head_dim") or int(0.75 * sizes.hidden_size / key_heads)
    return GatedDeltaNet(
        linear_num_key_heads=key_heads,
        linear_num_value_heads=config.optional_integer("linear_num_value_heads") or heads,
        linear_key_head_dim=key_dim,
        linear_value_head_dim=config.optional_integer("linear_value_head_dim") or 2 * key_dim,
        linear_conv_kernel_dim=config.integer("linear_conv_kernel_dim", default=4),
        negative_eigenvalues=config.flag("linear_allow_neg_eigval", True),
        norm_eps=_DELTA_NORM_EPS,
    )


FAMILIES: Families = {"olmo_hybrid": olmo_hybrid}
