"""Multimodal files: what the outer file says of the model inside, and what is said of its encoders."""

import pytest

from kvplan.plan.weights import parameter_count

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "image_size": 30,
    "patch_size": 6,
}
GEMMA_3N = {
    "num_hidden_layers": 5,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_kv_shared_layers": 0,
    "activation_sparsity_pattern": [0.0] * 5,
}
# As released: what a file leaves out is in its text model's class. Parameters as transformers 5.23 has them.
RELEASED = {
    "llava-1.5-7b": (
        {
            "model_type": "llava",
            "text_config": {
                "_name_or_path": "lmsys/vicuna-7b-v1.5",
                "architectures": ["LlamaForCausalLM"],
                "max_position_embeddings": 4096,
                "model_type": "llama",
                "rms_norm_eps": 1e-05,
                "torch_dtype": "float16",
                "vocab_size": 32_064,
            },
            "torch_dtype": "float16",
            "vision_config": {
                "hidden_size": 1024,
                "image_size": 336,
                "intermediate_size": 4096,
                "model_type": "clip_vision_model",
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "projection_dim": 768,
                "vocab_size": 32_000,
            },
            "ignore_index": -100,
            "vocab_size": 32_064,
        },
        7_063_427_072,
    ),
    "qwen2-audio-7b": (
        {
            "model_type": "qwen2_audio",
            "audio_config": {
                "model_type": "qwen2_audio_encoder",
                "num_mel_bins": 128,
                "encoder_layers": 32,
                "encoder_attention_heads": 20,
                "encoder_ffn_dim": 5120,
                "d_model": 1280,
                "scale_embedding": False,
                "max_source_positions": 1500,
            },
            "ignore_index": -100,
            "text_config": {
                "intermediate_size": 11_008,
                "max_position_embeddings": 8192,
                "model_type": "qwen2",
                "rms_norm_eps": 1e-5,
                "rope_theta": 10_000,
                "sliding_window": 32_768,
                "torch_dtype": "bfloat16",
                "use_mrope": False,
                "vocab_size": 156_032,
            },
            "torch_dtype": "bfloat16",
            "vocab_size": 156_032,
        },
        8_397_094_912,
    ),
    "paligemma-3b": (
        {
            "model_type": "paligemma",
            "hidden_size": 2048,
            "ignore_index": -100,
            "projection_dim": 2048,
            "text_config": {
                "hidden_size": 2048,
                "intermediate_size": 16_384,
                "model_type": "gemma",
                "num_attention_heads": 8,
                "num_hidden_layers": 18,
                "num_image_tokens": 256,
                "num_key_value_heads": 1,
                "torch_dtype": "float32",
                "vocab_size": 257_216,
            },
            "torch_dtype": "float32",
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "model_type": "siglip_vision_model",
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "num_image_tokens": 256,
                "patch_size": 14,
                "projection_dim": 2048,
                "projector_hidden_act": "gelu_fast",
                "vision_use_head": False,
            },
        },
        2_923_466_480,
    ),
    "paligemma2-3b": (
        {
            "model_type": "paligemma",
            "hidden_size": 2304,
            "num_hidden_layers": 26,
            "projection_dim": 2304,
            "text_config": {
                "model_type": "gemma2",
                "hidden_size": 2304,
                "intermediate_size": 9216,
                "num_attention_heads": 8,
                "num_hidden_layers": 26,
                "num_key_value_heads": 4,
                "use_bidirectional_attention": True,
                "vocab_size": 257_216,
            },
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "model_type": "siglip_vision_model",
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "num_positions": 256,
                "patch_size": 14,
                "vision_use_head": False,
            },
        },
        3_032_242_416,
    ),
}


@pytest.fixture
def llava(from_config):
    """A function that imports a small LLaVA with these keys in text_config, vision_config and outside."""

    def read(text=None, vision=None, **outer):
        inner = {"text_config": LLAMA | (text or {}), "vision_config": CLIP | (vision or {})}
        return from_config("llava", **{key: value for key, value in (inner | outer).items() if value != {}})

    return read


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_file_has_the_parameters_of_its_class(name, from_config):
    config, parameters = RELEASED[name]
    assert parameter_count(from_config(**config)).number == parameters


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_the_wrappers_dtype_is_every_parts(key, llava):
    model = llava({"torch_dtype": "bfloat16"}, {"dtype": "float32"}, **{key: "float16"})
    assert model.dtype == "fp16"


def test_a_wrapper_without_a_dtype_has_its_text_models(llava, config_refusal):
    assert llava({"torch_dtype": "float16"}).dtype == "fp16"
    config = {"text_config": LLAMA | {"torch_dtype": "float16"}, "vision_config": CLIP | {"dtype": "float32"}}
    message = "vision_config.dtype: 'float32' is not the dtype of the surrounding file, fp16"
    assert message in config_refusal("llava", **config)


def test_the_wrappers_quantisation_is_its_text_models(llava):
    blocks = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert llava(quantization_config=blocks).weight_format == "fp8-block"


def test_a_tower_the_file_describes_is_not_assumed(llava):
    assert [tower.assumed for tower in llava().towers] == [False]


def test_a_tower_the_file_leaves_out_is_its_classs_and_is_said_to_be_assumed(llava):
    (tower,) = llava(vision_config=None).towers
    assert (tower.name, tower.assumed) == ("vision_tower", True)


def test_only_the_encoder_that_is_left_out_is_assumed(from_config):
    text = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    model = from_config("gemma4", text_config=text, vision_config={})
    assert [(tower.name, tower.assumed) for tower in model.towers] == [("vision_tower", False)]


def test_gemma_3ns_encoders_are_missing_and_said_so(from_config):
    model = from_config("gemma3n", text_config=GEMMA_3N, vision_config={"architecture": "x"}, audio_config={})
    alone = from_config("gemma3n_text", **GEMMA_3N)
    assert (model.towers, model.missing_towers) == ((), ("vision_tower", "audio_tower"))
    assert parameter_count(model).number == parameter_count(alone).number


def test_what_a_text_model_says_of_its_own_code_is_refused_where_it_is_on(from_config, config_refusal):
    off = {"qk_layer_norms": False, "use_resampler": False, "perceiver_config": {"model_type": "vllama3"}}
    assert from_config("smolvlm", text_config=LLAMA | off).towers
    assert "qk_layer_norms: true" in config_refusal("smolvlm", text_config=LLAMA | {"qk_layer_norms": True})
    assert "use_resampler: true" in config_refusal("smolvlm", text_config=LLAMA | {"use_resampler": True})


def test_gemma_3_with_images_does_not_cap_its_logits(config_refusal):
    text = {"num_hidden_layers": 2, "final_logit_softcapping": 30.0}
    assert "final_logit_softcapping: 30.0" in config_refusal("gemma3", text_config=text)


def test_sizes_that_are_null_are_not_the_classs(config_refusal):
    message = config_refusal("llava", text_config={"model_type": "llama", "hidden_size": None})
    assert "'hidden_size' is required" in message
