"""Zamba2: Mamba-2 layers, and before some of them a transformer block that they share."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.shared_block import SharedBlock
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import rope
from kvplan.specs.families.state_spaces import ROTATION_KEYS, read_harmless_keys

_KINDS = {"mamba": "mamba", "linear_attention": "mamba", "hybrid": "hybrid"}
# What the class makes again of other keys, and keys of the training code that it does not read: it always has
# a bias in its convolutions and adapters in its MLPs.
_UNREAD = (
    *("attention_hidden_size", "kv_channels", "num_query_groups", "mamba_headdim", "use_conv_bias"),
    *("conv_dimension", "expansion_factor", "ffn_hidden_size", "state_size", "lora_rank", "vocab_pad_size"),
    *("use_shared_mlp_adapter", "use_shared_mlp_lora", "use_shared_block_lora", "ft_lora"),
    *("mamba_dt_rank", "use_low_rank_mamba_proj", "gated_linear_unit", "rotary_percent"),
)
_LONG_CONTEXT = 16_384


def zamba2(config: Config, identity: Identity) -> Model:
    """Zamba2: ``layers_block_type`` says which layers run a shared block, ``num_mem_blocks`` take turns.

    The class limits time steps to ``time_step_min`` in prompts and not in decode, and other runtimes do in
    neither: so does the engine.
    """
    read_harmless_keys(config)
    config.harmless(*_UNREAD)
    config.only("sliding_window", None, "this family has no windows")
    if config.number("rms_norm_eps", default=1e-5) != 1e-5:
        config.refuse("rms_norm_eps", "the gated norms of this family have 1e-05: another is not understood")
    hidden = config.integer("hidden_size", default=2560)
    kinds = _kinds(config)
    recurs = _mamba2(config, hidden)
    layers = [Layer(recurs, None) for _ in kinds]
    hybrid = [index for index, kind in enumerate(kinds) if kind == "hybrid"]
    _require_ids(config, hybrid)
    longest = _longest(config)
    blocks = config.integer("num_mem_blocks", default=1)
    block = _block(config, hidden, longest) if hybrid else None
    for turn, index in enumerate(hybrid):
        assert block is not None
        layers[index] = Layer(recurs, None, shared_block=replace(block, number=turn % blocks))
    config.harmless(*_KEYS_OF_BLOCKS)
    return finished_model(
        config,
        identity,
        layers,
        tied=_tied(config, len(hybrid) > blocks),
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=32_000),
        max_position_embeddings=longest,
    )


_KEYS_OF_BLOCKS = (
    *("num_attention_heads", "num_key_value_heads", "head_dim", "attention_head_dim", "intermediate_size"),
    *("hidden_act", "use_shared_attention_adapter", "adapter_rank", "use_mem_rope"),
    *ROTATION_KEYS,
)


def _kinds(config: Config) -> list[str]:
    """Return what each layer is: the class's own list where the file has none."""
    depth = config.depth("num_hidden_layers", default=54)
    for key in ("layers_block_type", "layer_types"):
        given = config.texts(key, depth, tuple(_KINDS))
        if given is not None:
            return [_KINDS[kind] for kind in given]
    found = ["mamba", *(["mamba"] * 5 + ["hybrid"]) * 7, *["mamba"] * 4, "hybrid", *["mamba"] * 3, "hybrid"]
    found += ["mamba"] * 2
    if len(found) != depth:
        message = f"{depth} layers need a 'layers_block_type': the one of this family is for {len(found)}"
        config.refuse("num_hidden_layers", message)
    return found


def _require_ids(config: Config, hybrid: list[int]) -> None:
    """Refuse ``hybrid_layer_ids`` that are not those of the list of kinds: the class makes them of it."""
    if config.has("hybrid_layer_ids") and config.integers("hybrid_layer_ids") != hybrid:
        config.refuse("hybrid_layer_ids", "contradicts 'layers_block_type'")


def _longest(config: Config) -> int:
    longest = config.integer("max_position_embeddings", default=4096)
    return _LONG_CONTEXT if config.flag("use_long_context", False) else longest


def _tied(config: Config, shares: bool) -> bool:
    """Return the default of ``tie_word_embeddings``; without it the class ties no blocks either."""
    if shares and not config.flag("tie_word_embeddings", True):
        config.refuse("tie_word_embeddings", "false is not understood: blocks would not be shared either")
    return True


def _mamba2(config: Config, hidden_size: int) -> Mamba2:
    heads = config.integer("n_mamba_heads", default=8)
    width = int(config.number("mamba_expand", default=2) * hidden_size)
    if width % heads:
        config.refuse("n_mamba_heads", f"{heads:,} heads cannot share {width:,} channels evenly")
    bias = config.flag("add_bias_linear", False)
    return Mamba2(
        num_heads=heads,
        head_dim=width // heads,
        state_size=config.integer("mamba_d_state", default=64),
        n_groups=config.integer("mamba_ngroups", default=1),
        conv_kernel=config.integer("mamba_d_conv", default=4),
        use_bias=bias,
        out_bias=bias,
    )


def _block(config: Config, hidden_size: int, longest: int) -> SharedBlock:
    return SharedBlock(0, _attention(config, hidden_size, longest), _mlp(config, hidden_size))


def _attention(config: Config, hidden_size: int, longest: int) -> Attention:
    """Return attention over two streams: scores are divided by the root of half a head's size."""
    heads, adapted = config.integer("num_attention_heads", default=32), None
    cached = config.optional_integer("num_key_value_heads") or heads
    size = 2 * hidden_size // heads
    for key in ("attention_head_dim", "head_dim"):
        config.only(key, size, "this family makes heads of twice the hidden size")
    if config.flag("use_shared_attention_adapter", False):
        if cached * size != 2 * hidden_size or heads * size != 2 * hidden_size:
            message = "true needs heads, and as many KV heads, that make twice the hidden size"
            config.refuse("use_shared_attention_adapter", message)
        adapted = config.integer("adapter_rank", default=128)
    rotated = config.flag("use_mem_rope", False)
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=cached,
        head_dim=size,
        query_pre_attn_scalar=size / 2,
        rope_parameters=rope(config, longest) if rotated else None,
        input_streams=2,
        adapter_rank=adapted,
    )


def _mlp(config: Config, hidden_size: int) -> MLP:
    return MLP(
        config.optional_integer("intermediate_size") or 4 * hidden_size,
        mlp_bias=config.flag("add_bias_linear", False),
        hidden_act=activation(config, default=Activation.GELU),
        adapter_rank=config.integer("adapter_rank", default=128),
    )


FAMILIES: Families = {"zamba2": zamba2}
