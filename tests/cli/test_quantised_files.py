"""Commands on a folder of quantised files: weights and KV are what the files ask for."""

import json

import pytest

CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
BESIDE = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
NOTE = "KV in fp8: the released files have scales for it, and vLLM takes it (--kv)"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(BESIDE), encoding="utf-8")
    return str(tmp_path)


@pytest.fixture
def told(command):
    """A function that returns what a command prints as JSON."""

    def run(*arguments):
        status, out, lines = command(*arguments, "--json")
        assert status == 0, lines
        return json.loads(out)

    return run


@pytest.mark.parametrize("name", ["capacity", "roofline"])
def test_a_plan_stores_what_the_files_ask_for(name, folder, told):
    report = told(name, folder, "--gpu", "h100-sxm")
    assert (report["deployment"]["weights"], report["deployment"]["kv"]) == ("fp8-static", "fp8")
    assert NOTE in report["notes"]


def test_bytes_of_a_token(folder, told):
    """2 layers x 2 x 2 heads x 64, in a byte; asked for bf16, in two."""
    released = told("capacity", folder, "--gpu", "h100-sxm")
    asked = told("capacity", folder, "--gpu", "h100-sxm", "--kv", "bf16")
    assert released["kv"]["bytes_per_token"] == 512
    assert asked["kv"]["bytes_per_token"] == 1024
    assert NOTE not in asked["notes"]


def test_a_simulation_caches_what_the_files_ask_for(folder, command):
    status, out, _ = command("simulate", folder, "--tokens", "2", "--prompt-tokens", "64", "--layers", "1")
    assert status == 0
    assert "fp8 KV in blocks" in out
