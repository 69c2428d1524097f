"""GPT-2, GPT-BigCode, GPT-Neo and OPT: LayerNorm, plain MLPs, learned positions, one head for both ends."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model, head_dim

# Rows of OPT's table of positions before the first position's.
_OPT_OFFSET = 2


def gpt2(config: Config, identity: Identity) -> Model:
    """GPT-2: biases everywhere, an MLP of four times the width."""
    hidden, heads = _width(config, 768), _heads(config, 12)
    every = Attention(heads, heads, head_dim(config, hidden, heads), qkv_bias=True, out_bias=True)
    depth = config.depth("n_layer", "num_hidden_layers", default=12)
    scale = every.head_dim**-0.5 if config.flag("scale_attn_weights", True) else 1.0
    # Computed in single precision or not, the scores are the same.
    config.harmless("reorder_and_upcast_attn", "n_ctx", "n_special", "predict_special_tokens")
    mixers = [every] * depth if scale != 1 else [replace(every, attention_multiplier=1.0)] * depth
    if config.flag("scale_attn_by_inverse_layer_idx", False):
        mixers = [replace(every, attention_multiplier=scale / (index + 1)) for index in range(depth)]
    mlp = _plain_mlp(config, hidden, Activation.GELU_TANH)
    layers = [Layer(mixer, mlp) for mixer in mixers]
    return _with_learned_positions(config, identity, layers, hidden, _positions(config))


def gpt_bigcode(config: Config, identity: Identity) -> Model:
    """GPT-BigCode (SantaCoder, StarCoder): GPT-2 with one KV head unless ``multi_query`` is false."""
    hidden, heads = _width(config, 768), _heads(config, 12)
    scaled = config.flag("scale_attn_weights", True)
    kv_heads = 1 if config.flag("multi_query", True) else heads
    config.only("num_key_value_heads", kv_heads, "multi_query says it")
    attention = Attention(
        heads,
        kv_heads,
        head_dim(config, hidden, heads),
        qkv_bias=True,
        out_bias=True,
        attention_multiplier=None if scaled else 1.0,
    )
    config.harmless("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
    config.harmless("inference_runner", "validate_runner_input", "runner_max_sequence_length")
    config.harmless("max_batch_size", "pad_key_length", "pre_allocate_kv_cache", "n_ctx")
    layer = Layer(attention, _plain_mlp(config, hidden, Activation.GELU_TANH))
    layers = [layer] * config.depth("n_layer", "num_hidden_layers", default=12)
    return _with_learned_positions(config, identity, layers, hidden, _positions(config))


def gpt_neo(config: Config, identity: Identity) -> Model:
    """GPT-Neo: local layers see a window of a cache that keeps every token; scores are not scaled."""
    hidden = config.integer("hidden_size", default=2048)
    heads = config.integer("num_heads", "num_attention_heads", default=16)
    depth = config.depth("num_layers", "num_hidden_layers", default=24)
    window = config.integer("window_size", default=256)
    everywhere = Attention(
        heads, heads, head_dim(config, hidden, heads), out_bias=True, attention_multiplier=1.0
    )
    nearby = replace(everywhere, visible_window=window)
    mlp = MLP(
        config.integer("intermediate_size", default=4 * hidden),
        gated=False,
        mlp_bias=True,
        hidden_act=activation(config, "activation_function", Activation.GELU_TANH),
    )
    kinds = _repeated_kinds(config, depth)
    layers = [Layer(nearby if kind == "local" else everywhere, mlp) for kind in kinds]
    config.harmless("init_std")
    positions = config.integer("max_position_embeddings", default=2048)
    return _with_learned_positions(config, identity, layers, hidden, positions)


def opt(config: Config, identity: Identity) -> Model:
    """OPT: 350m has narrower embeddings, norms behind each sum, and none behind the last layer."""
    hidden, heads = (
        config.integer("hidden_size", default=768),
        config.integer("num_attention_heads", default=12),
    )
    bias, before = config.flag("enable_bias", True), config.flag("do_layer_norm_before", True)
    mlp = MLP(
        config.integer("ffn_dim", default=3072),
        gated=False,
        mlp_bias=bias,
        hidden_act=activation(config, "activation_function", Activation.RELU),
    )
    attention = Attention(heads, heads, head_dim(config, hidden, heads), qkv_bias=bias, out_bias=bias)
    layer = Layer(attention, mlp, Block.PRE_NORM if before else Block.RESIDUAL_NORM)
    embedded = config.optional_integer("word_embed_proj_dim") or hidden
    positions = config.integer("max_position_embeddings", default=2048)
    weighted = config.flag("layer_norm_elementwise_affine", True)
    left_out = config.flag("_remove_final_layer_norm", False)
    config.harmless("init_std")
    return finished_model(
        config,
        identity,
        [layer] * config.depth("num_hidden_layers", default=12),
        tied=True,
        norm=Norm.LAYER if weighted else Norm.LAYER_UNIT,
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=50_272),
        max_position_embeddings=positions,
        learned_positions=positions,
        position_offset=_OPT_OFFSET,
        embedding_size=None if embedded == hidden else embedded,
        final_norm=before and not left_out,
    )


def _width(config: Config, default: int) -> int:
    return config.integer("n_embd", "hidden_size", default=default)


def _heads(config: Config, default: int) -> int:
    return config.integer("n_head", "num_attention_heads", default=default)


def _positions(config: Config) -> int:
    return config.integer("n_positions", "max_position_embeddings", default=1024)


def _plain_mlp(config: Config, hidden: int, default: Activation) -> MLP:
    act = activation(config, "activation_function", default)
    return MLP(config.integer("n_inner", default=4 * hidden), gated=False, mlp_bias=True, hidden_act=act)


def _with_learned_positions(
    config: Config, identity: Identity, layers: list[Layer], hidden: int, positions: int
) -> Model:
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        norm=Norm.LAYER,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=50_257),
        max_position_embeddings=positions,
        learned_positions=positions,
    )


def _repeated_kinds(config: Config, depth: int) -> list[str]:
    """Return what each layer of GPT-Neo sees: pairs of a pattern and how often it comes.

    Raises:
        SpecError: they are no such pairs, or not for as many layers as there are.
    """
    pairs = config.list_as_given("attention_types") or [[["global", "local"], 12]]
    kinds: list[str] = []
    for pair in pairs:
        match pair:
            case [[*pattern], int(times)] if {"global", "local"}.issuperset(map(str, pattern)):
                kinds += [str(kind) for kind in pattern] * times
            case _:
                config.refuse("attention_types", "expected pairs such as [['global', 'local'], 12]")
    if config.texts("attention_layers", depth, ("global", "local")) not in (None, kinds):
        config.refuse("attention_layers", "contradicts 'attention_types'")
    if len(kinds) != depth:
        config.refuse("attention_types", f"has {len(kinds):,} entries for {depth:,} layers")
    return kinds


FAMILIES: Families = {
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neo": gpt_neo,
    "opt": opt,
}
