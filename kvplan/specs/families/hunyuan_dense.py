"""Hunyuan without experts (0.5B to 7B): queries and keys are normalised after they are rotated."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import PLAIN, rope_from
from kvplan.specs.families.sizes import Sizes

_NORMS = ("rms", "hf_rms")


def hunyuan_v1_dense(config: Config, identity: Identity) -> Model:
    """Hunyuan dense: norms of each head behind the rotation, whose base is stretched by a fixed alpha."""
    sizes = Sizes(
        vocab_size=290_943,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
    ).read(config)
    bias = config.flag("attention_bias", False)
    plain = sizes.attention(config, None, qkv_bias=bias, out_bias=bias)
    attention = replace(
        plain,
        qk_norm=QkNorm.HEAD,
        qk_norm_after_rope=True,
        rope_parameters=ntk_alpha_rope(config, sizes.max_position_embeddings, plain.head_dim),
    )
    _what_released_files_say(config, plain.head_dim)
    return finished_model(
        config,
        identity,
        [Layer(attention, sizes.gated_mlp(config))] * sizes.num_hidden_layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def ntk_alpha_rope(config: Config, longest: int, head_dim: int) -> RopeParameters:
    """Return the rotation of a Hunyuan file: ``dynamic`` with an alpha is a larger base, whatever the length.

    Rule from transformers 5.23, modeling_hunyuan_v1_dense.py.
    """
    given = config.optional_inner("rope_scaling", "rope_parameters")
    alpha = given.amount("alpha") if given is not None else None
    if given is None or not alpha:
        return rope_from(config, given, longest, PLAIN)
    given.only("type", "dynamic", "alpha goes with dynamic only")
    given.only("rope_type", "dynamic", "alpha goes with dynamic only")
    given.harmless("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    outside, inside = config.optional_number("rope_theta"), given.optional_number("rope_theta")
    if outside is not None and inside is not None and outside != inside:
        config.refuse("rope_theta", f"{outside:g} contradicts the rotation's own, {inside:g}")
    given.finish()
    theta = outside or inside or PLAIN.rope_theta
    return RopeParameters(rope_theta=theta * alpha ** (head_dim / (head_dim - 2)))


def _what_released_files_say(config: Config, head_dim: int) -> None:
    """Refuse other values of keys that describe what every dense model of the family does."""
    config.only("attention_head_dim", head_dim, "it is head_dim")
    config.only("use_qk_norm", True, "queries and keys are normalised in this family")
    config.only("use_rotary_pos_emb", True, "queries and keys are rotated in this family")
    config.only("position_embedding_xdrope", False, "positions are numbers, not pictures' coordinates")
    config.only("use_cla", False, "layers that share keys and values are not understood in this family")
    config.only("num_experts", 1, "a model with experts is another family")
    config.only("add_classification_head", False, "a classifier's head is not counted")
    norm = config.text("norm_type", default=_NORMS[0])
    if norm not in _NORMS:
        config.refuse("norm_type", f"{shown(norm)} is not one of {', '.join(_NORMS)}")
    config.harmless("cla_share_factor", "class_num", "dense_list", "enable_lm_head_fp32", "mask_init_id")
    config.harmless("org_vocab_size", "pool_type", "xdrope_section", "pad_id", "sep_id", "eod_id")
    config.harmless("im_start_id", "im_end_id", "im_newline_id", "text_start_id", "text_end_id")


FAMILIES: Families = {"hunyuan_v1_dense": hunyuan_v1_dense}
