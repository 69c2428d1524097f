"""Mixed precision as modelopt writes it, files beside config.json, and the KV format they ask for."""

import json
import time

import pytest

from kvplan.errors import SpecError
from kvplan.specs.config_json import import_file
from kvplan.specs.document import MAX_BYTES
from kvplan.specs.families.common import Identity

MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
}
PARTS = ("gate_proj", "up_proj", "down_proj")


@pytest.fixture
def folder(tmp_path):
    """A function that imports a folder with this config.json and hf_quant_config.json."""

    def read(config, beside=None):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if beside is not None:
            (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside), encoding="utf-8")
        return import_file(tmp_path / "config.json", Identity("imported", "a test"))

    return read


def mixed(layers, experts):
    """Attention in fp8, experts in nvfp4, named one by one; the last layer's attention is not named."""
    named = {
        f"model.layers.{layer}.self_attn.{p}_proj": {"quant_algo": "FP8"}
        for layer in layers[:-1]
        for p in "qkvo"
    }
    for layer in layers:
        for expert in range(experts):
            for part in PARTS:
                name = f"model.layers.{layer}.mlp.experts.{expert}.{part}"
                named[name] = {"quant_algo": "NVFP4", "group_size": 16}
    return {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": named}


def test_every_module_has_the_format_it_is_named_with(folder, stored, file_bytes):
    model = folder({**MOE, "quantization_config": mixed([0, 1], 4)})
    attention = {f"self_attn.{part}_proj" for part in "qkvo"}
    experts = dict.fromkeys((f"mlp.experts.{part}" for part in PARTS), "nvfp4-static")
    assert stored(model, 0) == {**dict.fromkeys(attention, "fp8-static"), **experts, "mlp.gate": "bf16"}
    assert stored(model, 1) == {**dict.fromkeys(attention, "bf16"), **experts, "mlp.gate": "bf16"}
    assert model.as_released().name == "nvfp4-static+fp8-static+bf16"
    # Embedding and head 2 x 100 x 256; norms 5 x 256 and 2 layers x 2 x 64; routers 2 x 4 x 256: in 2 bytes.
    # Attention 196,608: in 1 byte with 4 matrices of 8 more, and in 2. Experts: 2 layers x 12 of 64 x 256
    # in half a byte, a scale for 16, and 8 bytes.
    plain = 2 * (51_200 + 1_280 + 256 + 2_048)
    assert file_bytes(model) == plain + 196_608 + 32 + 2 * 196_608 + 24 * (8_192 + 1_024 + 8)


def test_an_unknown_algorithm_of_one_module_is_refused(folder):
    quantization = mixed([0, 1], 4)
    quantization["quantized_layers"]["model.layers.0.self_attn.q_proj"] = {"quant_algo": "W4A8_AWQ"}
    with pytest.raises(SpecError, match="'W4A8_AWQ' is not understood"):
        folder({**MOE, "quantization_config": quantization})


def test_a_module_that_is_not_there_is_refused(folder):
    quantization = mixed([0, 1], 4)
    quantization["quantized_layers"]["model.layers.0.mixer.zzz"] = {"quant_algo": "FP8"}
    with pytest.raises(SpecError, match=r"model.layers.0.mixer.zzz.*stands for no module known here"):
        folder({**MOE, "quantization_config": quantization})


@pytest.mark.timeout(60)
def test_a_file_that_names_every_expert_is_read_in_seconds(folder, stored):
    """MiniMax-M3-NVFP4 has 22,422 modules by name in 2.8 MB."""
    layers = list(range(40))
    quantization = mixed(layers, 160)
    assert len(json.dumps(quantization)) > MAX_BYTES
    start = time.perf_counter()
    model = folder({**MOE, "num_hidden_layers": 40, "num_experts": 160, "quantization_config": quantization})
    assert time.perf_counter() - start < 20
    assert {stored(model, layer)["mlp.experts.up_proj"] for layer in layers} == {"nvfp4-static"}


# ------------------------------------------------------------------ hf_quant_config.json

BESIDE = {
    "producer": {"name": "modelopt", "version": "0.29.0"},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
}


def test_a_file_beside_config_json_is_its_quantisation(folder):
    model = folder(MOE, BESIDE)
    assert (model.weight_format, model.kv_format) == ("fp8-static", "fp8")
    assert folder(MOE | {"quantization_config": None}).weight_format == "fp8-static"


def test_config_json_has_the_last_word(folder):
    own = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
    model = folder({**MOE, "quantization_config": own}, BESIDE)
    assert (model.weight_format, model.kv_format) == ("nvfp4-static", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"quant_algo": "INT4_AWQ"},
            "hf_quant_config.json:1:.*quantization.quant_algo: 'INT4_AWQ' is not understood",
        ),
        ({"zz": 1}, "quantization.zz: this key is not understood"),
        ({"kv_cache_quant_algo": "INT8"}, "a KV cache in 'INT8' is not understood"),
        ({"quant_method": "quark"}, "the quantisation of another program"),
    ],
)
def test_a_mistake_in_the_file_beside_is_placed_there(changes, said, folder):
    with pytest.raises(SpecError, match=said):
        folder(MOE, {**BESIDE, "quantization": {**BESIDE["quantization"], **changes}})


# ------------------------------------------------------------------ the KV format


def scheme(**changes):
    return {
        "num_bits": 8,
        "type": "float",
        "dynamic": False,
        "strategy": "tensor",
        "symmetric": True,
        **changes,
    }


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("kv_cache_quant_algo", "FP8", "fp8"),
        ("kv_cache_quant_algo", None, ""),
        ("kv_cache_scheme", "FP8", "fp8"),
        ("kv_cache_scheme", {"num_bits": 8, "type": "float", "dynamic": False}, "fp8"),
        ("kv_cache_scheme", scheme(observer="minmax", group_size=None), "fp8"),
        ("kv_cache_scheme", None, ""),
    ],
)
def test_the_kv_format_files_have_scales_for(key, value, found, llama):
    assert llama({"quant_method": "modelopt", "quant_algo": "FP8", key: value}).kv_format == found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (scheme(num_bits=4), "kv_cache_scheme.num_bits: 4 is not understood"),
        (scheme(type="int"), "kv_cache_scheme.type: 'int' is not understood"),
        (scheme(strategy="channel"), "kv_cache_scheme.strategy: 'channel' is not understood"),
        (scheme(zz=1), "kv_cache_scheme.zz: this key is not understood"),
        ("NVFP4", "kv_cache_scheme: a KV cache in 'NVFP4' is not understood"),
    ],
)
def test_other_kv_formats_are_refused(value, said, llama_refusal):
    assert said in llama_refusal({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": value})


def test_deepseek_v4s_experts_are_nvfp4_in_an_fp8_checkpoint(folder, stored):
    """Its ignore list is of modelopt's work: what stands there is in fp8 all the same."""
    named = {
        f"model.layers.{layer}.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16} for layer in (0, 1)
    }
    quantization = {
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
        "activation_scheme": "dynamic",
        "quant_algo": "MIXED_PRECISION",
        "moe_quant_algo": "NVFP4",
        "kv_cache_quant_algo": None,
        "quantized_layers": named,
        "ignore": ["*.attn.*", "head", "mtp.*"],
    }
    model = folder({**MOE, "quantization_config": quantization})
    found = stored(model, 1)
    assert found["mlp.experts.down_proj"] == "nvfp4-static"
    assert found["self_attn.q_proj"] == "fp8-block"
