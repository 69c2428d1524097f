"""GPT-J, CodeGen, GPT-NeoX, Phi 1.5 and 2, StarCoder2: LayerNorm, plain MLPs with biases, rotated heads."""

from __future__ import annotations

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model, head_dim
from kvplan.specs.families.rope import RopeDefaults, rope


def gptj(config: Config, identity: Identity) -> Model:
    """GPT-J and CodeGen: attention and MLP behind one norm, biases in the MLP and the head only."""
    config.only("rotary", True, "queries and keys are rotated")
    config.only("scale_attn_weights", True, "attention scores are divided by the root of head_dim")
    config.harmless("n_ctx")
    rotated = config.optional_integer("rotary_dim", default=64)
    if rotated is None:
        config.refuse("rotary_dim", "null is not understood: it says how much of a head is rotated")
    return _beside_each_other(config, identity, rotated, interleaved=True, attention_bias=False)


def phi_msft(config: Config, identity: Identity) -> Model:
    """Phi 1.5 as first released: the same model under GPT-J's key names."""
    config.harmless("flash_attn", "flash_rotary", "fused_dense", "img_processor")
    return _beside_each_other(
        config, identity, config.integer("rotary_dim", default=32), interleaved=False, attention_bias=True
    )


def _beside_each_other(
    config: Config, identity: Identity, rotated: int, *, interleaved: bool, attention_bias: bool
) -> Model:
    hidden = config.integer("n_embd", "hidden_size", default=4096)
    heads = config.integer("n_head", "num_attention_heads", default=16)
    width = head_dim(config, hidden, heads)
    _refuse_stretched(config)
    if rotated > width:
        config.refuse("rotary_dim", f"{rotated} is more than a head's {width} elements")
    attention = Attention(
        heads,
        config.optional_integer("n_head_kv") or heads,
        width,
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        rope_parameters=RopeParameters(
            rope_theta=10_000.0, partial_rotary_factor=rotated / width, interleaved=interleaved
        ),
    )
    mlp = MLP(
        config.integer("n_inner", default=4 * hidden),
        gated=False,
        mlp_bias=True,
        hidden_act=activation(config, "activation_function", Activation.GELU_TANH),
    )
    return finished_model(
        config,
        identity,
        [Layer(attention, mlp, Block.PARALLEL)] * config.depth("n_layer", "num_hidden_layers", default=28),
        tied=False,
        norm=Norm.LAYER,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=50_400),
        max_position_embeddings=config.integer("n_positions", "max_position_embeddings", default=2048),
        lm_head_bias=True,
    )


def _refuse_stretched(config: Config) -> None:
    """Refuse a rotation other than the plain one; some files name it after the family."""
    given = config.optional_inner("rope_scaling", "rope_parameters")
    if given is None:
        return
    name = given.text("rope_type", "type", default="default")
    if name not in ("default", "gptj"):
        given.refuse("rope_type", f"{name[:40]!r} is not understood: rotations are plain in this family")
    given.finish()


def gpt_neox(config: Config, identity: Identity) -> Model:
    """GPT-NeoX (Pythia, RedPajama): attention and MLP side by side unless ``use_parallel_residual`` is false.

    Queries, keys and values are one matrix of equal thirds, so every head has its own keys.
    """
    hidden = config.integer("hidden_size", default=6144)
    heads = config.integer("num_attention_heads", default=64)
    bias, longest = (
        config.flag("attention_bias", True),
        config.integer("max_position_embeddings", default=2048),
    )
    config.harmless("init_method", "init_std", "classifier_dropout")
    attention = Attention(
        heads,
        heads,
        head_dim(config, hidden, heads),
        qkv_bias=bias,
        out_bias=bias,
        rope_parameters=rope(
            config,
            longest,
            RopeDefaults(theta_key="rotary_emb_base", partial_key="rotary_pct", partial_rotary_factor=0.25),
        ),
    )
    mlp = MLP(
        config.integer("intermediate_size", default=24_576),
        gated=False,
        mlp_bias=True,
        hidden_act=activation(config, default=Activation.GELU),
    )
    beside = config.flag("use_parallel_residual", True)
    layer = Layer(attention, mlp, Block.PARALLEL_TWO_NORMS if beside else Block.PRE_NORM)
    return finished_model(
        config,
        identity,
        [layer] * config.depth("num_hidden_layers", default=44),
        tied=False,
        norm=Norm.LAYER,
        eps_key="layer_norm_eps",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=50_432),
        max_position_embeddings=longest,
    )


def phi(config: Config, identity: Identity) -> Model:
    """Phi 1.5 and 2: attention and MLP behind one norm, biases everywhere, the head's too."""
    hidden = config.integer("hidden_size", default=2048)
    heads = config.integer("num_attention_heads", default=32)
    longest = config.integer("max_position_embeddings", default=2048)
    attention = Attention(
        heads,
        config.integer("num_key_value_heads", default=heads),
        head_dim(config, hidden, heads),
        qkv_bias=True,
        out_bias=True,
        rope_parameters=rope(config, longest, RopeDefaults(partial_rotary_factor=0.5)),
    )
    config.only("qk_layernorm", False, "normalised queries and keys are not counted in this family")
    mlp = MLP(
        config.integer("intermediate_size", default=8192),
        gated=False,
        mlp_bias=True,
        hidden_act=activation(config, default=Activation.GELU_TANH),
    )
    return finished_model(
        config,
        identity,
        [Layer(attention, mlp, Block.PARALLEL)] * config.depth("num_hidden_layers", default=24),
        tied=False,
        norm=Norm.LAYER,
        eps_key="layer_norm_eps",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=51_200),
        max_position_embeddings=longest,
        lm_head_bias=True,
    )


def starcoder2(config: Config, identity: Identity) -> Model:
    """StarCoder2: biases everywhere unless ``use_bias`` is false; a window, if any, is in every layer."""
    hidden = config.integer("hidden_size", default=3072)
    heads = config.integer("num_attention_heads", default=24)
    bias, longest = config.flag("use_bias", True), config.integer("max_position_embeddings", default=4096)
    config.only("mlp_type", "default", "the MLP is plain in this family")
    config.only("norm_type", "layer_norm", "norms are LayerNorm in this family")
    config.only("scale_attn_weights", True, "attention scores are divided by the root of head_dim")
    # Left over from GPT-BigCode; the class reads hidden_act and norm_epsilon.
    config.harmless("activation_function", "layer_norm_epsilon")
    config.harmless("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
    attention = Attention(
        heads,
        config.optional_integer("num_key_value_heads", default=2) or heads,
        head_dim(config, hidden, heads),
        sliding_window=config.optional_integer("sliding_window"),
        qkv_bias=bias,
        out_bias=bias,
        rope_parameters=rope(config, longest),
    )
    mlp = MLP(
        config.integer("intermediate_size", default=12_288),
        gated=False,
        mlp_bias=bias,
        hidden_act=activation(config, default=Activation.GELU_TANH),
    )
    return finished_model(
        config,
        identity,
        [Layer(attention, mlp)] * config.depth("num_hidden_layers", default=30),
        tied=True,
        norm=Norm.LAYER,
        eps_key="norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=49_152),
        max_position_embeddings=longest,
    )


FAMILIES: Families = {
    "codegen": gptj,
    "gpt_neox": gpt_neox,
    "gptj": gptj,
    "phi": phi,
    "phi-msft": phi_msft,
    "starcoder2": starcoder2,
}
