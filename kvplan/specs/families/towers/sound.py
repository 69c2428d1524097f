"""Whisper's encoder before a language model: Qwen2-Audio and Voxtral."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config
from kvplan.specs.families.towers.parts import (
    AUDIO,
    Encoder,
    Tensors,
    finish_encoder,
    ignore_what_is_not_counted,
    layer_norm,
    linear,
    parameter,
    tower,
    two_layer_mlp,
)

_PROJECTOR = "multi_modal_projector"


def qwen2_audio(config: Config, model: Model) -> tuple[Tower, ...]:
    """Qwen2-Audio: one matrix with a bias behind the encoder."""
    sound = _whisper(config.inner_or("audio_config", {}), model)
    projector = linear(f"{_PROJECTOR}.linear", model.hidden_size, sound.hidden_size)
    return (tower(AUDIO, sound.tensors, projector),)


def voxtral(config: Config, model: Model) -> tuple[Tower, ...]:
    """Voxtral: positions side by side, as wide as the encoder's feed-forward blocks, and two matrices."""
    config.harmless("projector_hidden_act")
    # The class keeps the text model's here too, and reads it nowhere.
    config.only("hidden_size", model.hidden_size, "it is the text model's width")
    audio = config.inner_or("audio_config", {})
    features = audio.integer("intermediate_size", "encoder_ffn_dim", default=5120)
    projector = (
        *linear(f"{_PROJECTOR}.linear_1", model.hidden_size, features, bias=False),
        *linear(f"{_PROJECTOR}.linear_2", model.hidden_size, model.hidden_size, bias=False),
    )
    return (tower(AUDIO, _whisper(audio, model).tensors, projector),)


def _whisper(config: Config, model: Model) -> Encoder:
    """Return the encoder; keys are Whisper's or, where transformers 5 wrote them, the usual ones."""
    width = config.integer("d_model", "hidden_size", default=1280)
    inner = config.integer("encoder_ffn_dim", "intermediate_size", default=5120)
    depth = config.depth("encoder_layers", "num_hidden_layers", default=32)
    ignore_what_is_not_counted(config)
    config.harmless("model_type", "encoder_attention_heads", "activation_function", "scale_embedding")
    config.harmless("encoder_layerdrop", "layerdrop", "dropout", "activation_dropout", "attention_dropout")
    config.harmless("vocab_size", "head_dim", "num_key_value_heads")
    tensors = (
        *parameter("conv1.weight", width, config.integer("num_mel_bins", default=128), 3),
        *parameter("conv1.bias", width),
        *parameter("conv2.weight", width, width, 3),
        *parameter("conv2.bias", width),
        *parameter("embed_positions.weight", config.integer("max_source_positions", default=1500), width),
        *_layers(width, inner, depth),
        *layer_norm("layer_norm", width),
    )
    finish_encoder(config, model)
    return Encoder(width, tensors)


def _layers(width: int, inner: int, depth: int) -> Tensors:
    """Return the blocks; of the attention's projections the keys' alone has no bias."""
    attention = "layers.self_attn"
    return (
        *linear(f"{attention}.k_proj", width, width, depth, bias=False),
        *(
            t
            for part in ("q_proj", "v_proj", "out_proj")
            for t in linear(f"{attention}.{part}", width, width, depth)
        ),
        *layer_norm("layers.self_attn_layer_norm", width, depth),
        *two_layer_mlp("layers", width, inner, depth),
        *layer_norm("layers.final_layer_norm", width, depth),
    )
