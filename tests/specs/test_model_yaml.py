"""A model written as a file reads back as the same model, and the file says only what is particular."""

import pytest
import yaml

from kvplan.specs.catalog import Found, load_model
from kvplan.specs.model_yaml import SCHEMA_LINE, model_yaml


def reread(model, folder, **options):
    path = folder / f"{model.name}.yaml"
    path.write_text(model_yaml(model, **options), encoding="utf-8")
    return load_model(Found(path.name, path))


@pytest.mark.parametrize("schema", [False, True])
def test_bundled_models_read_back(model_name, schema, bundled, tmp_path):
    model = bundled(model_name)
    assert reread(model, tmp_path, schema=schema) == model


def test_measured_models_read_back(truth, imported, tmp_path):
    model = imported(truth["config"])
    assert reread(model, tmp_path) == model


def test_a_uniform_model_is_short(bundled):
    text = model_yaml(bundled("llama-3.1-8b"))
    data = yaml.safe_load(text)
    assert data["kinds"] == {
        "decoder": {
            "attention": {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
            "mlp": {"intermediate_size": 14_336},
        }
    }
    assert data["layers"] == [{"repeat": 32, "pattern": ["decoder"]}]
    assert "tie_word_embeddings" not in data
    assert len(text.splitlines()) < 25


def test_a_pattern_is_on_one_line(bundled):
    text = model_yaml(bundled("gemma-2-9b"), schema=True)
    assert text.startswith(SCHEMA_LINE)
    assert "  - repeat: 21\n    pattern: [sliding_attention, full_attention]\n" in text
    assert not model_yaml(bundled("gemma-2-9b")).startswith("#")
