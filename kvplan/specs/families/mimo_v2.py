"""MiMo-V2-Flash: windows with sinks and more KV heads beside full attention, values narrower than keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.rope import RopeDefaults, rope_from
from kvplan.specs.families.routed import corrected_experts, ones_in, sparse_layers
from kvplan.specs.families.sizes import Sizes

_FULL_THETA, _WINDOW_THETA = 5_000_000.0, 10_000.0
_ROTATED = 0.334


@dataclass(frozen=True, slots=True)
class _Rotations:
    full: RopeParameters
    window: RopeParameters


def mimo_v2_flash(config: Config, identity: Identity) -> Model:
    """MiMo-V2-Flash: experts in all layers but the first; a window in five of six.

    Next-token-prediction layers are not part of the main model.
    """
    sizes = Sizes(
        vocab_size=152_576,
        hidden_size=4096,
        intermediate_size=16_384,
        num_hidden_layers=48,
        num_attention_heads=64,
        max_position_embeddings=131_072,
        num_key_value_heads=4,
        head_dim=192,
    ).read(config)
    config.only("n_shared_experts", None, "this family has no shared expert")
    config.count("num_nextn_predict_layers", 0)
    depth, dense = sizes.num_hidden_layers, sizes.gated_mlp(config)
    experts = corrected_experts(
        config, dense.hidden_act, n_routed_experts=256, num_experts_per_tok=8, moe_intermediate_size=2048
    )
    sparse = sparse_layers(
        config, depth, ones_in(config, "moe_layer_freq", depth) or [index > 0 for index in range(depth)]
    )
    full, sliding = _mixers(config, sizes)
    layers = [
        Layer(sliding if slides else full, experts if routed else dense)
        for slides, routed in zip(_slides(config, depth), sparse, strict=True)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps_key=_eps_key(config),
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _eps_key(config: Config) -> str:
    """Return the key of the norms' epsilon: transformers 5 saves it under both."""
    if not config.has("layernorm_epsilon"):
        return "rms_norm_eps"
    config.only("rms_norm_eps", config.number("layernorm_epsilon"), "layernorm_epsilon says another")
    return "layernorm_epsilon"


def _slides(config: Config, depth: int) -> list[bool]:
    """Return which layers slide: all but the first and every sixth where the file does not say."""
    listed = ones_in(config, "hybrid_layer_pattern", depth)
    types = windowed_layers(config, depth)
    if listed is not None and types is not None and listed != types:
        config.refuse("layer_types", "contradicts hybrid_layer_pattern")
    return types or listed or [index > 0 and (index + 1) % 6 > 0 for index in range(depth)]


def _mixers(config: Config, sizes: Sizes) -> tuple[Attention, Attention]:
    """Return full attention, and that of a window, which has twice the KV heads unless the file says so."""
    rotations = _rotations(config, sizes.max_position_embeddings)
    full = replace(
        sizes.attention(config, None, qkv_bias=config.flag("attention_bias", False)),
        v_head_dim=config.integer("v_head_dim", default=128),
        sinks=config.flag("add_full_attention_sink_bias", False),
        attention_value_scale=config.optional_number("attention_value_scale", default=0.707),
        rope_parameters=rotations.full,
    )
    sliding = replace(
        full,
        num_attention_heads=config.integer("swa_num_attention_heads", default=full.num_attention_heads),
        num_key_value_heads=config.integer("swa_num_key_value_heads", default=2 * full.num_key_value_heads),
        head_dim=config.integer("swa_head_dim", default=full.head_dim),
        v_head_dim=config.integer("swa_v_head_dim", default=full.value_dim),
        sliding_window=_window(config),
        sinks=config.flag("add_swa_attention_sink_bias", True),
        rope_parameters=rotations.window,
    )
    return full, sliding


def _window(config: Config) -> int:
    """Return the tokens a query sees, itself included, which ``sliding_window_size`` does not count."""
    config.harmless("attention_chunk_size")
    own = config.integer("sliding_window", default=129)
    before = config.optional_integer("sliding_window_size")
    return own if before is None else before + 1


def _rotations(config: Config, longest: int) -> _Rotations:
    """Return both rotations, from a mapping for each kind of layer or from the keys outside one."""
    both = config.optional_inner("rope_parameters")
    thetas = (
        ("full_attention", "rope_theta", _FULL_THETA),
        ("sliding_attention", "swa_rope_theta", _WINDOW_THETA),
    )
    found = [
        rope_from(
            config,
            None if both is None else both.inner(kind),
            longest,
            RopeDefaults(rope_theta=theta, theta_key=key, partial_rotary_factor=_ROTATED),
        )
        for kind, key, theta in thetas
    ]
    if both is not None:
        both.finish()
    return _Rotations(*found)


FAMILIES: Families = {"mimo_v2_flash": mimo_v2_flash}
