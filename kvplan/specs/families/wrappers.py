"""Language models with encoders beside them: a text model under ``text_config``, and towers.

The text model is read by the adapter of its own model_type. The wrapper's dtype and quantisation belong to
it too; whether its embedding is tied is said where the wrapper's class reads it (transformers 5.23).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.errors import did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity
from kvplan.specs.families.text_defaults import TEXT_DEFAULTS, VOXTRAL_TEXT
from kvplan.specs.families.towers import (
    gemma,
    internvl,
    kimi,
    llama,
    merged_patches,
    minimax,
    projectors,
    qwen,
    sound,
)
from kvplan.specs.families.towers.uncounted import uncounted

_PARTS = ("text_config", "vision_config", "audio_config")


class Tied(Enum):
    """Where a wrapper's class reads ``tie_word_embeddings``."""

    HERE_OR_YES = auto()  # from the wrapper; missing means tied
    HERE_OR_NO = auto()  # from the wrapper; missing means not tied
    EITHER = auto()  # tied where the wrapper or the text model says so
    TEXT = auto()  # from the text model
    NEVER = auto()  # from nowhere


def _any_text(config: Config) -> None:
    """Accept every text model."""


def _idefics_text(config: Config) -> None:
    """Accept what their own code's text models say besides, where it is switched off."""
    config.harmless("perceiver_config", "pixel_shuffle_factor")
    config.only("qk_layer_norms", False, "queries and keys are not normalised in this family")
    config.only("use_resampler", False, "patches are merged by their places in this family")


def _prefixed_text(config: Config) -> None:
    """Accept that tokens of the prompt see each other whole: what is cached of them is the same."""
    config.harmless("num_image_tokens")
    config.leave_out("use_bidirectional_attention")


def _uncapped_text(config: Config) -> None:
    config.only("final_logit_softcapping", None, "logits are not capped in this family's class with images")


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How a multimodal class is read.

    Args:
        text_type: the model_type of a text model that does not say it.
        towers: returns the towers of the wrapper's config beside a text model.
        tied: where the class reads whether the embedding is tied.
        flat: older files have the text model's keys beside ``vision_config``.
        missing: the encoders that are not counted, and said to be missing.
        check_text: understands keys that text models have in this wrapper only, or refuses their values.
        text_defaults: what it reads where its text model's class would read something else.
    """

    text_type: str
    towers: Callable[[Config, Model], tuple[Tower, ...]]
    tied: Tied = Tied.HERE_OR_NO
    flat: bool = False
    missing: tuple[str, ...] = ()
    check_text: Callable[[Config], None] = _any_text
    text_defaults: Mapping[str, object] = field(default_factory=dict)


_GRANITE_SPEECH = Wrapper(
    "granite",
    uncounted("encoder_config", "projector_config", "has_lora_adapter", "downsample_rate", "window_size"),
    Tied.HERE_OR_YES,
    missing=("audio_tower",),
)
WRAPPERS: dict[str, Wrapper] = {
    "aya_vision": Wrapper("cohere2", merged_patches.aya_vision, Tied.HERE_OR_YES),
    "cohere2_vision": Wrapper("cohere2", merged_patches.cohere2_vision, Tied.HERE_OR_YES),
    "deepseek_vl": Wrapper("llama", projectors.deepseek_vl, Tied.HERE_OR_YES),
    "deepseek_vl_hybrid": Wrapper(
        "llama",
        uncounted("vision_config", "high_res_vision_config"),
        Tied.HERE_OR_YES,
        missing=("vision_tower",),
    ),
    "exaone4_5": Wrapper("exaone4", uncounted("vision_config"), missing=("vision_tower",)),
    "gemma3": Wrapper("gemma3_text", projectors.gemma3, Tied.HERE_OR_YES, check_text=_uncapped_text),
    # Its encoder of images is timm's, known by its name alone.
    "gemma3n": Wrapper(
        "gemma3n_text",
        uncounted(
            *("vision_config", "vision_soft_tokens_per_image"),
            *("audio_config", "audio_soft_tokens_per_image"),
        ),
        Tied.HERE_OR_YES,
        missing=("vision_tower", "audio_tower"),
    ),
    "gemma4": Wrapper("gemma4_text", gemma.gemma4, Tied.HERE_OR_YES),
    "glm46v": Wrapper("glm4v_text", qwen.glm4v),
    "glm4v": Wrapper("glm4v_text", qwen.glm4v, Tied.EITHER),
    "glm4v_moe": Wrapper("glm4v_moe_text", qwen.glm4v, Tied.EITHER),
    "glmasr": Wrapper(
        "llama", uncounted("audio_config", "projector_hidden_act"), Tied.HERE_OR_YES, missing=("audio_tower",)
    ),
    "got_ocr2": Wrapper(
        "qwen2", uncounted("vision_config", "image_seq_length"), Tied.HERE_OR_YES, missing=("vision_tower",)
    ),
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": _GRANITE_SPEECH,
    "idefics2": Wrapper("mistral", uncounted("vision_config", "perceiver_config"), missing=("vision_tower",)),
    "idefics3": Wrapper("llama", merged_patches.idefics3, check_text=_idefics_text),
    "internvl": Wrapper("qwen2", internvl.internvl, Tied.HERE_OR_YES),
    "kimi_k25": Wrapper("deepseek_v3", kimi.kimi_k25, Tied.HERE_OR_YES),
    "lfm2_vl": Wrapper("lfm2", merged_patches.lfm2_vl, Tied.HERE_OR_YES),
    "lighton_ocr": Wrapper("qwen3", projectors.mistral3, Tied.HERE_OR_YES),
    "llama4": Wrapper("llama4_text", llama.llama4, Tied.TEXT),
    "llava": Wrapper("llama", projectors.llava, Tied.EITHER),
    "llava_next": Wrapper("llama", projectors.llava_next),
    "llava_next_video": Wrapper("llama", projectors.llava_next_video, Tied.EITHER),
    "llava_onevision": Wrapper("qwen2", projectors.llava_onevision, Tied.EITHER),
    "minimax_m3_vl": Wrapper("minimax_m3_vl_text", minimax.minimax_m3_vl, Tied.EITHER),
    "mistral3": Wrapper("mistral", projectors.mistral3, Tied.HERE_OR_YES),
    "mllama": Wrapper("mllama_text_model", llama.mllama, Tied.NEVER),
    "paligemma": Wrapper("gemma", projectors.paligemma, Tied.HERE_OR_YES, check_text=_prefixed_text),
    "qwen2_5_vl": Wrapper("qwen2_5_vl_text", qwen.qwen2_5_vl, Tied.EITHER, flat=True),
    "qwen2_audio": Wrapper("qwen2", sound.qwen2_audio, Tied.NEVER),
    "qwen2_vl": Wrapper("qwen2_vl_text", qwen.qwen2_vl, Tied.EITHER, flat=True),
    "qwen3_5": Wrapper("qwen3_5_text", qwen.qwen3_5),
    "qwen3_5_moe": Wrapper("qwen3_5_moe_text", qwen.qwen3_5),
    "qwen3_asr": Wrapper(
        "qwen3",
        uncounted("audio_config", "timestamp_token_id", "token_classification_bias"),
        Tied.HERE_OR_YES,
        missing=("audio_tower",),
    ),
    "qwen3_vl": Wrapper("qwen3_vl_text", qwen.qwen3_vl),
    "qwen3_vl_moe": Wrapper("qwen3_vl_moe_text", qwen.qwen3_vl),
    "smolvlm": Wrapper("llama", merged_patches.idefics3, check_text=_idefics_text),
    "video_llama_3": Wrapper("qwen2", uncounted("vision_config"), Tied.EITHER, missing=("vision_tower",)),
    "video_llava": Wrapper("llama", projectors.video_llava),
    "vipllava": Wrapper("llama", projectors.vipllava),
    "voxtral": Wrapper("llama", sound.voxtral, Tied.NEVER, text_defaults=VOXTRAL_TEXT),
}


def adapters(texts: Families) -> Families:
    """Return an adapter for each wrapper that hands its text model to one of ``texts``."""
    return {name: _adapter(wrapper, texts) for name, wrapper in WRAPPERS.items()}


def _adapter(wrapper: Wrapper, texts: Families) -> Callable[[Config, Identity], Model]:
    def adapt(config: Config, identity: Identity) -> Model:
        # transformers gives every part the wrapper's dtype.
        config.rule(_PARTS, ("torch_dtype", "dtype"))
        model = _text_model(config, wrapper, texts, identity)
        found = replace(
            model,
            tie_word_embeddings=_tied(config, wrapper, model),
            towers=tuple(_marked(tower, config) for tower in wrapper.towers(config, model)),
            missing_towers=wrapper.missing,
        )
        config.harmless("model_type", "ignore_index")
        config.finish()
        return found

    return adapt


def _marked(tower: Tower, config: Config) -> Tower:
    """Return the tower, marked as assumed where the file has no config of its own for it."""
    return replace(tower, assumed=not config.has(tower.name.replace("tower", "config")))


def _text_model(config: Config, wrapper: Wrapper, texts: Families, identity: Identity) -> Model:
    if wrapper.flat and not config.has("text_config"):
        config.harmless("text_config", "vision_config")
        return texts[wrapper.text_type](config, identity)
    text = config.inner_with("text_config", ("quantization_config",))
    text.harmless("architectures", "is_composition")
    wrapper.check_text(text)
    kind = text.text("model_type", default=wrapper.text_type)
    if kind not in texts:
        known = did_you_mean(kind, texts) or f"{len(texts)} others are, such as llama"
        text.refuse("model_type", f"{shown(kind)} is no text model that is understood ({known})")
    text.complete({**TEXT_DEFAULTS.get(kind, {}), **wrapper.text_defaults})
    return texts[kind](text, identity)


def _tied(config: Config, wrapper: Wrapper, model: Model) -> bool:
    here = config.flag("tie_word_embeddings", wrapper.tied is Tied.HERE_OR_YES)
    match wrapper.tied:
        case Tied.NEVER:
            if here or model.tie_word_embeddings:
                config.refuse("tie_word_embeddings", "this family's class never ties its head")
            return False
        case Tied.EITHER:
            return here or model.tie_word_embeddings
        case Tied.TEXT:
            return model.tie_word_embeddings
    return here
