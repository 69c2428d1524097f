"""Small multimodal configs: each encoder in sizes of its own, in its class's, and with every switch.

Sizes differ from each other, so that a mixed-up one shows.
"""

from __future__ import annotations

from typing import Any

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = {**EXPERTS, "shared_expert_intermediate_size": 24}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "head_dim": 12,
}
LATENT = {
    **{key: value for key, value in ROUTED.items() if key != "head_dim"},
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
LINEAR = {
    "head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "num_hidden_layers": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
}
PLAIN = {
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 45,
    "patch_size": 6,
}
QWEN = {
    "depth": 3,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_heads": 2,
    "in_channels": 4,
    "patch_size": 6,
    "spatial_merge_size": 3,
    "temporal_patch_size": 1,
    "out_hidden_size": 48,
}
SOUND_ONLY = ("qwen2_audio", "voxtral")
# What each wrapper's encoder is made of, by case.
CASES: dict[str, dict[str, Any]] = {}


def case(name: str, text: dict[str, Any], vision: dict[str, Any] | None = None, **outer: Any) -> None:
    """Note one config; without ``vision`` it has no vision_config."""
    config = {"text_config": {**TEXT, **text}, **outer}
    CASES[name] = config if vision is None else {**config, "vision_config": vision}


def both(name: str, text: dict[str, Any], vision: dict[str, Any], **outer: Any) -> None:
    """Note the config of a model_type, the same without its vision_config, and with an empty one."""
    case(name, text, vision, model_type=name, **outer)
    case(f"{name}, no vision_config", text, None, model_type=name, **outer)
    case(f"{name}, empty vision_config", text, {}, model_type=name, **outer)


LLAMA = {"model_type": "llama"}
SIGLIP = {**PLAIN, "model_type": "siglip_vision_model"}
both("gemma3", {"model_type": "gemma3_text", "head_dim": 12}, {**SIGLIP, "num_channels": 2})
case("gemma3, no head", {"head_dim": 12}, {**SIGLIP, "vision_use_head": False}, model_type="gemma3")
both("llava", LLAMA, {**PLAIN, "model_type": "clip_vision_model", "num_channels": 2})
case("llava, SigLIP", LLAMA, SIGLIP, model_type="llava", vision_feature_layer=[-1, 2])
case("llava, Pixtral", LLAMA, {**PLAIN, "model_type": "pixtral"}, model_type="llava")
case("llava, no biases", LLAMA, PLAIN, model_type="llava", multimodal_projector_bias=False)
both("llava_next", LLAMA, PLAIN)
both(
    "mistral3",
    {"model_type": "mistral", "head_dim": 12},
    {**PLAIN, "model_type": "pixtral", "num_channels": 2},
)
case(
    "mistral3, biases",
    {"model_type": "mistral", "head_dim": 12},
    {**PLAIN, "model_type": "pixtral"},
    model_type="mistral3",
    multimodal_projector_bias=True,
    spatial_merge_size=3,
    vision_feature_layer=[-1, 1],
)
both("idefics3", LLAMA, {**PLAIN, "num_channels": 2}, scale_factor=3)
both("smolvlm", LLAMA, PLAIN)
COHERE = {"model_type": "cohere2", "head_dim": 12}
case("aya_vision", COHERE, {**SIGLIP, "vision_use_head": False}, model_type="aya_vision")
case("aya_vision, empty vision_config", COHERE, {}, model_type="aya_vision", downsample_factor=3)
both("cohere2_vision", COHERE, SIGLIP, alignment_intermediate_size=44, downsample_factor=3)
case("cohere2_vision, defaults", COHERE, SIGLIP, model_type="cohere2_vision")
both("deepseek_vl", LLAMA, SIGLIP)
both("llava_next_video", LLAMA, PLAIN)
both("llava_onevision", {"model_type": "qwen2"}, SIGLIP, vision_feature_layer=[-1, -2])
both("video_llava", LLAMA, PLAIN)
both("vipllava", LLAMA, PLAIN)
case("vipllava, one layer", LLAMA, PLAIN, model_type="vipllava", vision_feature_layer=-2)
both("lighton_ocr", {"model_type": "qwen3", "head_dim": 12}, {**PLAIN, "model_type": "pixtral"})
SIZES = {key: value for key, value in PLAIN.items() if key != "image_size"}
SIGLIP2 = {**SIZES, "model_type": "siglip2_vision_model"}
LFM2 = {
    "model_type": "lfm2",
    "layer_types": ["full_attention"],
    "block_auto_adjust_ff_dim": False,
}
both("lfm2_vl", LFM2, {**SIGLIP2, "num_patches": 35, "num_channels": 2}, downsample_factor=3)
case(
    "lfm2_vl, every switch",
    LFM2,
    {**SIGLIP2, "vision_use_head": False},
    model_type="lfm2_vl",
    projector_hidden_size=44,
    projector_bias=False,
    projector_use_layernorm=False,
)
WHISPER = {
    "d_model": 20,
    "encoder_ffn_dim": 28,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "num_mel_bins": 12,
}
POSITIONS = {"max_source_positions": 30}
case("qwen2_audio", {"model_type": "qwen2"}, model_type="qwen2_audio", audio_config={**WHISPER, **POSITIONS})
case("qwen2_audio, defaults", {"model_type": "qwen2"}, model_type="qwen2_audio")
USUAL = {
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_mel_bins": 12,
}
VOXTRAL = {**LLAMA, "head_dim": 12}
case("voxtral", VOXTRAL, model_type="voxtral", audio_config={**USUAL, **POSITIONS})
case("voxtral, defaults", VOXTRAL, model_type="voxtral")
both("paligemma", {"model_type": "gemma", "head_dim": 12}, SIGLIP, projection_dim=48)
both("internvl", {"model_type": "qwen2"}, {**PLAIN, "image_size": [45, 30], "patch_size": [6, 5]})
case(
    "internvl, every switch",
    {"model_type": "qwen2"},
    {
        **PLAIN,
        "attention_bias": True,
        "use_qk_norm": True,
        "norm_type": "rms_norm",
        "use_mask_token": True,
        "use_absolute_position_embeddings": False,
        "use_mean_pooling": False,
        "num_channels": 2,
    },
    model_type="internvl",
    downsample_ratio=0.25,
)
both(
    "llama4",
    {"head_dim": 12, "num_local_experts": 4},
    {
        **PLAIN,
        "projector_input_dim": 36,
        "projector_output_dim": 44,
        "vision_output_dim": 44,
        "num_channels": 2,
    },
)
both(
    "mllama",
    {"cross_attention_layers": [0], "pad_token_id": 0},
    {
        **PLAIN,
        "num_global_layers": 2,
        "vision_output_dim": 60,
        "max_num_tiles": 3,
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        "num_channels": 2,
    },
)
QWEN2 = {key: value for key, value in QWEN.items() if key not in ("intermediate_size", "out_hidden_size")}
both("qwen2_vl", {}, {**QWEN2, "embed_dim": 16, "hidden_size": 48, "mlp_ratio": 3})
both("qwen2_5_vl", {}, QWEN)
both(
    "qwen3_vl", {"head_dim": 12}, {**QWEN, "num_position_embeddings": 49, "deepstack_visual_indexes": [0, 2]}
)
case(
    "qwen3_vl, not deep",
    {"head_dim": 12},
    {**QWEN, "deepstack_visual_indexes": []},
    model_type="qwen3_vl",
)
both("qwen3_vl_moe", EXPERTS, QWEN)
both("qwen3_5", LINEAR, {**QWEN, "num_position_embeddings": 49})
both("qwen3_5_moe", {**LINEAR, **SHARED}, QWEN)
both("glm4v", {}, {**QWEN, "image_size": 45})
both("glm46v", {"model_type": "glm4v_text"}, {**QWEN, "image_size": 45})
both("glm4v_moe", ROUTED, {**QWEN, "image_size": 45, "attention_bias": True})
case(
    "kimi_k25",
    LATENT,
    {**SIZES, "pos_emb_height": 7, "pos_emb_width": 5, "merge_kernel_size": [2, 3]},
    model_type="kimi_k25",
    projection_hidden_size=20,
)
case("kimi_k25, no vision_config", LATENT, model_type="kimi_k25")
case("kimi_k25, empty vision_config", LATENT, {}, model_type="kimi_k25")
M3 = {
    "head_dim": 12,
    "rotary_dim": 12,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "dense_intermediate_size": 40,
    "shared_intermediate_size": 24,
    "mlp_layer_types": ["dense"],
    "layer_types": ["full_attention"],
}
both("minimax_m3_vl", M3, {**SIZES, "spatial_merge_size": 3}, projector_hidden_size=44)
# Encoders that are not counted, beside text models that are.
UNCOUNTED: dict[str, dict[str, Any]] = {
    "deepseek_vl_hybrid": LLAMA,
    "exaone4_5": {"model_type": "exaone4"},
    "glmasr": LLAMA,
    "got_ocr2": {"model_type": "qwen2"},
    "granite_speech": {"model_type": "granite"},
    "granite_speech_plus": {"model_type": "granite"},
    "idefics2": {"model_type": "mistral", "head_dim": 12},
    "qwen3_asr": {"model_type": "qwen3", "head_dim": 12},
    "video_llama_3": {"model_type": "qwen2"},
}
GEMMA4 = {
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 6,
    "patch_size": 4,
    "position_embedding_size": 30,
    "standardize": True,
    "use_clipped_linears": True,
}
SOUND = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "subsampling_conv_channels": [12, 6],
    "conv_kernel_size": 3,
    "output_proj_dims": 44,
}
GEMMA4_TEXT = {"head_dim": 12, "layer_types": ["full_attention"], "num_kv_shared_layers": 0}
case("gemma4", GEMMA4_TEXT, GEMMA4, model_type="gemma4", audio_config=SOUND)
case("gemma4, nothing beside", GEMMA4_TEXT, None, model_type="gemma4")
case(
    "gemma4, defaults",
    GEMMA4_TEXT,
    {"patch_size": 16},
    model_type="gemma4",
    audio_config={"hidden_size": 1024},
)
