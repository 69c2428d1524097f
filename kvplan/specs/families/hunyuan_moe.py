"""Hunyuan with experts (A13B, Large): sizes that may be lists over the layers, and a shared expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.hunyuan_dense import ntk_alpha_rope
from kvplan.specs.families.sizes import Sizes

_SIZES = Sizes(
    vocab_size=290_943,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2048,
)


def hunyuan_v1_moe(config: Config, identity: Identity) -> Model:
    """Hunyuan in transformers' own class: experts and the shared one are ``intermediate_size`` wide."""
    sizes = _SIZES.read(config)
    depth, width = sizes.num_hidden_layers, sizes.intermediate_size
    experts, chosen = _by_layer(config, "num_experts", depth, 1), _by_layer(config, "moe_topk", depth, 1)
    dense = sizes.gated_mlp(config)
    blocks: list[FeedForward] = [
        Experts(count, k, width, width, hidden_act=dense.hidden_act) if max(experts) > 1 else dense
        for count, k in zip(experts, chosen, strict=True)
    ]
    return _model(config, identity, sizes, blocks)


def hunyuan(config: Config, identity: Identity) -> Model:
    """Hunyuan in its remote code: every size of the experts has a key of its own, and may be a list."""
    head_dim = config.optional_integer("attention_head_dim")
    sizes = replace(_SIZES, head_dim=head_dim).read(config)
    depth, dense = sizes.num_hidden_layers, sizes.gated_mlp(config)
    config.only("use_mla", False, "latent attention is not understood in this family")
    config.only("norm_topk_prob", True, "shares sum to one in this family")
    config.only("routed_scaling_factor", 1.0, "shares are not scaled in this family")
    config.only("group_limited_greedy", False, "experts are chosen among all in this family")
    config.harmless("moe_drop_tokens", "moe_random_routing_dropped_token")
    experts, chosen = _by_layer(config, "num_experts", depth, 1), _by_layer(config, "moe_topk", depth, 1)
    widths = _by_layer(config, "moe_intermediate_size", depth, sizes.intermediate_size)
    shared = _by_layer(config, "num_shared_expert", depth, 1)
    if not config.flag("use_mixed_mlp_moe", False):
        shared = [0] * depth
    skipped = config.count("moe_layer_num_skipped", 0)
    blocks: list[FeedForward] = [
        Experts(count, k, width, beside * width, hidden_act=dense.hidden_act)
        if max(experts) > 1 and index >= skipped
        else dense
        for index, (count, k, width, beside) in enumerate(zip(experts, chosen, widths, shared, strict=True))
    ]
    return _model(config, identity, sizes, blocks)


def _by_layer(config: Config, key: str, depth: int, default: int) -> list[int]:
    """Return a size for each layer: one for all of them, or a list."""
    if not config.is_list(key):
        return [config.integer(key, default=default)] * depth
    given = config.integers(key)
    if len(given) != depth:
        config.refuse(key, f"has {len(given):,} entries for {depth:,} layers")
    if min(given) < 1:
        config.refuse(key, f"expected numbers from 1, not {min(given)}")
    return given


def _model(config: Config, identity: Identity, sizes: Sizes, blocks: Sequence[FeedForward]) -> Model:
    mixers = _mixers(config, sizes)
    _what_released_files_say(config)
    return finished_model(
        config,
        identity,
        [Layer(mixer, block) for mixer, block in zip(mixers, blocks, strict=True)],
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _mixers(config: Config, sizes: Sizes) -> list[Attention]:
    """Return each layer's attention; with ``use_cla`` one of so many layers stores for those behind it."""
    bias = config.flag("attention_bias", False)
    plain = sizes.attention(config, None, qkv_bias=bias, out_bias=bias)
    own = replace(
        plain,
        qk_norm=QkNorm.HEAD,
        qk_norm_after_rope=True,
        rope_parameters=ntk_alpha_rope(config, sizes.max_position_embeddings, plain.head_dim),
    )
    every = config.integer("cla_share_factor", default=1)
    shared = replace(own, shares_kv=True)
    if not config.flag("use_cla", False):
        every = 1
    return [shared if index % every else own for index in range(sizes.num_hidden_layers)]


def _what_released_files_say(config: Config) -> None:
    """Refuse other values of keys that describe what every model of the family does."""
    config.only("use_qk_norm", True, "queries and keys are normalised in this family")
    config.only("use_rotary_pos_emb", True, "queries and keys are rotated in this family")
    config.only("position_embedding_xdrope", False, "positions are numbers, not pictures' coordinates")
    config.only("norm_type", "rms", "norms are RMSNorm")
    config.only("add_classification_head", False, "a classifier's head is not counted")
    config.only("vit_path", None, "an encoder of pictures is not understood in this family")
    config.only("vit_type", None, "an encoder of pictures is not understood in this family")
    config.only("mlp_bias", False, "matrices of the MLP have no bias in this family")
    for key in ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        config.only(key, None, "latent attention is not understood in this family")
    config.only("n_group", None, "experts are chosen among all in this family")
    config.only("topk_group", None, "experts are chosen among all in this family")
    config.harmless(*_IDLE)


# Keys of Hunyuan's picture encoders, classifiers and tokenisers, which a text model's file carries too.
_IDLE = (
    *("anyres_pooling_size", "anyres_vit_max_image_size", "anyres_vit_two_views", "class_num", "dense_list"),
    *("im_start_id", "im_end_id", "im_newline_id", "video_start_id", "video_end_id", "mask_init_id"),
    *("text_start_id", "text_end_id", "pad_id", "num_media_embeds", "org_vocab_size", "pool_type"),
    *("skip_cls_token", "vit_add_patchemb_bias", "vit_input_resolution", "vit_mapping_type"),
    *("vit_norm_type", "vit_patch", "vit_remove_prenorm", "vit_token", "vit_used_rms_norm", "xdrope_section"),
)

FAMILIES: Families = {
    "hunyuan": hunyuan,
    "hunyuan_v1_moe": hunyuan_v1_moe,
}
