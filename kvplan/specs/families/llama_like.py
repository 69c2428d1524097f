"""Models that are Llama but for a detail: Seed-OSS, SmolLM3, ERNIE 4.5, AFM, Helium, CWM, Jais 2, IQuest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

# What CWM's class rotates by where the file says nothing.
_CWM_ROTATION = RopeParameters(
    rope_theta=1_000_000.0,
    rope_type=RopeType.LLAMA3,
    factor=16.0,
    original_max_position_embeddings=8192,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
)


def seed_oss(config: Config, identity: Identity) -> Model:
    """Seed-OSS: biases on queries, keys and values, and a key of its own for the output's."""
    sizes = Sizes(
        vocab_size=155_136,
        hidden_size=4096,
        intermediate_size=27_648,
        num_hidden_layers=64,
        num_attention_heads=80,
        max_position_embeddings=524_288,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    attention = sizes.attention(
        config,
        qkv_bias=config.flag("attention_bias", True),
        out_bias=config.flag("attention_out_bias", False),
    )
    mlp = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False))
    return _model(config, identity, sizes, [Layer(attention, mlp)] * sizes.num_hidden_layers, tied=False)


def smollm3(config: Config, identity: Identity) -> Model:
    """SmolLM3: every fourth layer rotates nothing; no layer slides unless ``use_sliding_window`` is on."""
    sizes = Sizes(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=11_008,
        num_hidden_layers=36,
        num_attention_heads=16,
        max_position_embeddings=32_768,
        num_key_value_heads=4,
    ).read(config)
    bias = config.flag("attention_bias", False)
    rotated = sizes.attention(config, RopeDefaults(rope_theta=2_000_000.0), qkv_bias=bias, out_bias=bias)
    mlp = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False))
    rotates = _rotating_layers(config, sizes.num_hidden_layers)
    layers = [
        Layer(
            replace(
                rotated, sliding_window=window, rope_parameters=rotated.rope_parameters if turns else None
            ),
            mlp,
        )
        for turns, window in zip(rotates, _smollm3_windows(config, rotates), strict=True)
    ]
    return _model(config, identity, sizes, layers, tied=True)


def _rotating_layers(config: Config, depth: int) -> list[bool]:
    """Return which layers rotate: those with a 1 in ``no_rope_layers``, whatever its name says."""
    interval = config.integer("no_rope_layer_interval", default=4)
    given = config.integers("no_rope_layers")
    if not given:
        return [(index + 1) % interval != 0 for index in range(depth)]
    if len(given) != depth:
        config.refuse("no_rope_layers", f"has {len(given):,} entries for {depth:,} layers")
    if not set(given) <= {0, 1}:
        config.refuse("no_rope_layers", "expected a list of 0 and 1")
    return [bool(turns) for turns in given]


def _smollm3_windows(config: Config, rotates: list[bool]) -> list[int | None]:
    config.harmless("max_window_layers")
    window, slides_at_all = (
        config.optional_integer("sliding_window"),
        config.flag("use_sliding_window", False),
    )
    slides = windowed_layers(config, len(rotates)) or [slides_at_all and not turns for turns in rotates]
    return [window if slide else None for slide in slides]


def ernie4_5(config: Config, identity: Identity) -> Model:
    """ERNIE 4.5 without experts: neighbouring elements are rotated together; one key for all biases."""
    sizes = Sizes(
        vocab_size=103_424,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=18,
        num_attention_heads=16,
        max_position_embeddings=131_072,
        num_key_value_heads=2,
        head_dim=128,
    ).read(config)
    bias, rotation = config.flag("use_bias", False), RopeDefaults(rope_theta=500_000.0, interleaved=True)
    config.only("use_rmsnorm", True, "norms are RMSNorm")
    config.only("compression_ratio", 1.0, "positions are not compressed")
    layer = Layer(
        sizes.attention(config, rotation, qkv_bias=bias, out_bias=bias), sizes.gated_mlp(config, bias=bias)
    )
    return _model(config, identity, sizes, [layer] * sizes.num_hidden_layers, tied=True, eps=1e-5)


def arcee(config: Config, identity: Identity) -> Model:
    """AFM (Arcee): an MLP of two matrices with a squared ReLU between them."""
    sizes = Sizes(
        vocab_size=32_000,
        hidden_size=2560,
        intermediate_size=18_432,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=4096,
    ).read(config)
    bias = config.flag("attention_bias", False)
    mlp = sizes.plain_mlp(config, Activation.RELU_SQUARED, bias=False)
    layer = Layer(sizes.attention(config, qkv_bias=bias, out_bias=bias), mlp)
    return _model(config, identity, sizes, [layer] * sizes.num_hidden_layers, tied=False, eps=1e-5)


def helium(config: Config, identity: Identity) -> Model:
    """Helium: neighbouring elements are rotated together; the output projection never has a bias."""
    sizes = Sizes(
        vocab_size=48_000,
        hidden_size=2560,
        intermediate_size=7040,
        num_hidden_layers=24,
        num_attention_heads=20,
        max_position_embeddings=4096,
        num_key_value_heads=20,
        head_dim=128,
    ).read(config)
    if sizes.head_dim is not None and sizes.num_attention_heads * sizes.head_dim != sizes.hidden_size:
        config.refuse("head_dim", "all heads together must be as wide as hidden_size")
    rotation = RopeDefaults(rope_theta=100_000.0, interleaved=True)
    attention = sizes.attention(config, rotation, qkv_bias=config.flag("attention_bias", False))
    mlp = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False))
    layers = [Layer(attention, mlp)] * sizes.num_hidden_layers
    return _model(config, identity, sizes, layers, tied=False, eps=1e-8)


def cwm(config: Config, identity: Identity) -> Model:
    """CWM (Meta): the first layer of every four sees everything; rotations are stretched by default."""
    sizes = Sizes(
        vocab_size=128_256,
        hidden_size=6144,
        intermediate_size=21_504,
        num_hidden_layers=64,
        num_attention_heads=48,
        max_position_embeddings=131_072,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    stretched = config.has("rope_scaling") or config.has("rope_parameters")
    config.only("attention_bias", False, "attention has no biases in this family")
    full = sizes.attention(config, RopeDefaults(rope_theta=_CWM_ROTATION.rope_theta))
    if not stretched:
        config.only("rope_theta", _CWM_ROTATION.rope_theta, "without rope_scaling it is the class's own")
        full = replace(full, rope_parameters=_CWM_ROTATION)
    sliding = replace(full, sliding_window=config.optional_integer("sliding_window", default=8192))
    mlp, depth = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False)), sizes.num_hidden_layers
    slides = windowed_layers(config, depth) or [index % 4 != 0 for index in range(depth)]
    layers = [Layer(sliding if slide else full, mlp) for slide in slides]
    return _model(config, identity, sizes, layers, tied=False, eps=1e-5)


def jais2(config: Config, identity: Identity) -> Model:
    """Jais 2: LayerNorm, biases everywhere, an MLP of two matrices with a squared ReLU between them."""
    sizes = Sizes(
        vocab_size=150_272,
        hidden_size=3328,
        intermediate_size=26_624,
        num_hidden_layers=32,
        num_attention_heads=26,
        max_position_embeddings=8192,
    ).read(config)
    bias = config.flag("attention_bias", True)
    mlp = sizes.plain_mlp(config, Activation.RELU_SQUARED, bias=True)
    layers = [Layer(sizes.attention(config, qkv_bias=bias, out_bias=bias), mlp)] * sizes.num_hidden_layers
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        norm=Norm.LAYER,
        eps_key="layer_norm_eps",
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def iquestcoder(config: Config, identity: Identity) -> Model:
    """IQuest-Coder: Llama with defaults of its own; what its first code could do besides is in no release."""
    sizes = Sizes(
        vocab_size=76_800,
        hidden_size=5120,
        intermediate_size=27_648,
        num_hidden_layers=80,
        num_attention_heads=40,
        max_position_embeddings=131_072,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    config.only("clip_qkv", None, "no release clips")
    config.only("use_sliding_window", False, "no release slides")
    config.harmless("sliding_window", "max_window_layers")
    bias = config.flag("attention_bias", False)
    mlp = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False))
    layer = Layer(sizes.attention(config, qkv_bias=bias, out_bias=bias), mlp)
    return _model(config, identity, sizes, [layer] * sizes.num_hidden_layers, tied=False, eps=1e-5)


def _model(
    config: Config,
    identity: Identity,
    sizes: Sizes,
    layers: Sequence[Layer],
    *,
    tied: bool,
    eps: float = 1e-6,
) -> Model:
    return finished_model(
        config,
        identity,
        layers,
        tied=tied,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {
    "arcee": arcee,
    "cwm": cwm,
    "ernie4_5": ernie4_5,
    "helium": helium,
    "iquestcoder": iquestcoder,
    "jais2": jais2,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
}
