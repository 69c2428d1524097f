"""Llama-like models of remote code: Qwen 1, Baichuan, InternLM 1 to 3, Orion, MiMo-7B."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Families,
    Identity,
    activation,
    finished_model,
    head_dim,
    prediction_layers,
)
from kvplan.specs.families.llama import attention, gated_mlp, qwen2
from kvplan.specs.families.rope import RopeDefaults, rope


def qwen(config: Config, identity: Identity) -> Model:
    """Qwen 1: biases on queries, keys and values; ``intermediate_size`` is that of both gates together."""
    hidden, heads = (
        config.integer("hidden_size", default=4096),
        config.integer("num_attention_heads", default=32),
    )
    width = config.integer("kv_channels", default=128)
    if width * heads != hidden:
        config.refuse("kv_channels", f"{heads} heads of {width} are not as wide as hidden_size ({hidden})")
    both = config.integer("intermediate_size", default=22_016)
    if both % 2:
        config.refuse("intermediate_size", f"{both} is odd, and it is the width of two gates together")
    bias = not config.flag("no_bias", True)
    config.only("scale_attn_weights", True, "attention scores are divided by the root of head_dim")
    config.only("use_cache_quantization", False, "the cache is not quantised by this key")
    config.harmless(
        "bf16", "fp16", "fp32", "onnx_safe", "use_flash_attn", "use_cache_kernel", "softmax_in_fp32"
    )
    longest = _qwen_context(config)
    rotation = RopeDefaults(theta_key="rotary_emb_base", partial_key="rotary_pct", partial_rotary_factor=1.0)
    mixer = Attention(
        heads, heads, width, qkv_bias=True, out_bias=bias, rope_parameters=rope(config, longest, rotation)
    )
    return finished_model(
        config,
        identity,
        [Layer(mixer, MLP(both // 2, mlp_bias=bias))] * config.depth("num_hidden_layers", default=32),
        tied=False,
        eps_key="layer_norm_epsilon",
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=151_936),
        max_position_embeddings=longest,
    )


def _qwen_context(config: Config) -> int:
    """Return the longest context: past ``seq_length``, two switches change rotations and scores."""
    trained = config.integer("seq_length", default=8192)
    longest = config.integer("max_position_embeddings", default=trained)
    stretched = [config.flag(key, True) for key in ("use_dynamic_ntk", "use_logn_attn")]
    return trained if any(stretched) else longest


def baichuan(config: Config, identity: Identity) -> Model:
    """Baichuan 1 and 2: the 7B rotates, and the 13B, whose files have no position keys, uses ALiBi.

    The head of Baichuan 2 is normalised once, when it is loaded: it is a plain one then.
    """
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    trained = config.optional_integer("model_max_length")
    longest = config.optional_integer("max_position_embeddings")
    falls = longest is None
    if "BaiChuanForCausalLM" in config.words("architectures") and falls:
        config.refuse("architectures", "BaiChuanForCausalLM rotates, and there is no max_position_embeddings")
    context = longest or trained or 4096
    config.harmless("z_loss_weight")
    mixer = Attention(
        heads,
        heads,
        head_dim(config, hidden, heads),
        alibi=falls,
        rope_parameters=None if falls else rope(config, context),
    )
    return finished_model(
        config,
        identity,
        [Layer(mixer, gated_mlp(config))] * config.depth("num_hidden_layers"),
        tied=False,
        max_position_embeddings=context,
    )


def internlm(config: Config, identity: Identity) -> Model:
    """InternLM 1: Llama with biases in attention, unless ``bias`` is false."""
    bias = config.flag("bias", True)
    mixer = attention(config, qkv_bias=bias, out_bias=bias)
    given = config.optional_inner("rotary")
    if given is not None:
        if given.text("type", default="origin") not in ("origin", "dynamic"):
            given.refuse("type", "expected origin or dynamic")
        # The dynamic one stretches by 1 where the file gives no factor.
        given.only("scaling_factor", 1.0, "a stretched rotation is not known in this family")
        mixer = replace(mixer, rope_parameters=RopeParameters(given.number("base", default=10_000.0)))
        given.finish()
    return _all_alike(config, identity, mixer)


def internlm2(config: Config, identity: Identity) -> Model:
    """InternLM 2 and 2.5: InternLM 1 with grouped queries."""
    bias = config.flag("bias", True)
    return _all_alike(config, identity, attention(config, qkv_bias=bias, out_bias=bias))


def internlm3(config: Config, identity: Identity) -> Model:
    """InternLM 3: ``qkv_bias`` is that of queries, keys and values, ``bias`` that of every other matrix."""
    qkv_bias, bias = (
        config.flag(new if config.has(new) else old, False)
        for old, new in (("qkv_bias", "attention_bias"), ("bias", "mlp_bias"))
    )
    config.harmless("qkv_bias", "bias", "attention_bias", "mlp_bias")
    mixer = attention(config, qkv_bias=qkv_bias, out_bias=bias, default_kv_heads=2, default_head_dim=128)
    mlp = replace(gated_mlp(config), mlp_bias=bias)
    layers = [Layer(mixer, mlp)] * config.depth("num_hidden_layers", default=48)
    return finished_model(config, identity, layers, tied=False, eps=1e-5)


def orion(config: Config, identity: Identity) -> Model:
    """Orion: Llama with LayerNorm."""
    bias = config.flag("attention_bias", False)
    return _all_alike(config, identity, attention(config, qkv_bias=bias, out_bias=bias), Norm.LAYER, 1e-5)


def mimo(config: Config, identity: Identity) -> Model:
    """MiMo-7B: Qwen 2, and a layer that predicts further tokens."""
    config.only("attention_bias", True, "queries, keys and values have biases in this family")
    predicting = prediction_layers(config)
    return replace(qwen2(config, identity), num_nextn_predict_layers=predicting)


def _all_alike(
    config: Config, identity: Identity, mixer: Attention, norm: Norm = Norm.RMS, eps: float = 1e-6
) -> Model:
    mlp = MLP(config.integer("intermediate_size"), hidden_act=activation(config))
    layers = [Layer(mixer, mlp)] * config.depth("num_hidden_layers")
    return finished_model(config, identity, layers, tied=False, norm=norm, eps=eps)


FAMILIES: Families = {
    "baichuan": baichuan,
    "internlm": internlm,
    "internlm2": internlm2,
    "internlm3": internlm3,
    "mimo": mimo,
    "orion": orion,
    "qwen": qwen,
}
