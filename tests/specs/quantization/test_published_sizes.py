"""Bytes of released files, to the byte: what their index or their headers sum to.

Kimi: a table of all safetensors headers of seven checkpoints, refetched (a public audit of 2026-09-26), whose
K2.5 is also the ``total_size`` of its index. gpt-oss: ``total_size`` of its index.
"""

import json
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "data" / "hf_configs"


def keys_of(name):
    return json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "file_size", "of_rotations"),
    [
        ("gpt-oss-20b", 13_761_264_768, 0),
        ("gpt-oss-120b", 65_248_815_744, 0),
        # The files hold an inv_freq for each of 61 layers, which nothing reads: 56 numbers of 2 bytes.
        ("kimi-k2", 1_029_173_256_720, 61 * 56 * 2),
        ("kimi-k2.5", 595_148_192_736, 0),
    ],
)
def test_a_checkpoint_has_its_published_size(name, file_size, of_rotations, imported, file_bytes):
    assert file_bytes(imported(f"hf_configs/{name}.json")) == file_size - of_rotations


def test_kimi_k2_thinking(from_config, file_bytes):
    """Kimi K2 in the storage of K2.5; its inv_freq are 64 numbers of 4 bytes."""
    quantization = keys_of("kimi-k2.5")["text_config"]["quantization_config"]
    keys = {**keys_of("kimi-k2"), "quantization_config": quantization}
    assert file_bytes(from_config(keys.pop("model_type"), **keys)) == 594_205_920_512 - 61 * 64 * 4


def test_the_librarys_own_files_say_shapes_in_64_bits(from_config):
    """compressed-tensors 0.20: ``torch.tensor(weight.shape)``. Kimi's writer leaves out its keys."""
    quantization = keys_of("kimi-k2.5")["text_config"]["quantization_config"]
    keys = keys_of("kimi-k2")
    keys["num_hidden_layers"], model_type = 2, keys.pop("model_type")
    found = {
        key: from_config(
            model_type, **{**keys, "quantization_config": {**quantization, **added}}
        ).weight_format
        for key, added in (
            ("none", {}),
            ("version", {"version": "0.12.2"}),
            ("ratio", {"global_compression_ratio": None}),
        )
    }
    assert found == {"none": "int4-kimi", "version": "int4-sym-g32", "ratio": "int4-sym-g32"}
