"""Layers that predict further tokens, in releases that store them like the last layer and in others."""

import pytest

from kvplan.arch.prediction_layer import with_prediction_layers
from kvplan.errors import SpecError
from kvplan.specs.catalog import Found, load_model
from kvplan.specs.model_yaml import model_yaml

SIZES = {
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "hidden_size": 256,
    "intermediate_size": 256,
    "moe_intermediate_size": 128,
    "n_routed_experts": 16,
    "num_attention_heads": 2,
}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"}


def packed(model):
    """The matrices that released files have packed, of the last layer and of the one that predicts."""
    drafting = with_prediction_layers(model)
    storage = drafting.as_released()
    return tuple(
        {w.name for w in drafting.layer_weights(layer) if w.format_under(storage) is not None}
        for layer in drafting.layers[-2:]
    )


@pytest.fixture
def released(from_config):
    """A function that imports a small DeepSeek-V3 with a quantisation."""

    def read(quantization):
        return from_config("deepseek_v3", **SIZES, quantization_config=quantization)

    return read


@pytest.mark.parametrize(
    "quantization",
    [
        FP8,
        # The last one's copies of embedding and head are in the files, and no part of what is held.
        {
            **FP8,
            "modules_to_not_convert": [
                *("lm_head", "model.layers.1.mlp.gate", "model.layers.2.mlp.gate", "model.layers.2.eh_proj"),
                *("model.layers.2.enorm", "model.layers.2.shared_head.head", "model.layers.2.embed_tokens"),
            ],
        },
        {**NVFP4, "ignore": ["lm_head"]},
    ],
)
def test_a_prediction_layer_is_stored_like_the_last_where_files_say_no_more(quantization, released):
    model = released(quantization)
    assert model.prediction_stored_otherwise is None
    last, added = packed(model)
    assert added == last
    assert "mlp.experts.down_proj.weight" in added
    assert "eh_proj.weight" not in added


def test_a_prediction_layer_that_is_left_alone_is_plain(released):
    """As in NVIDIA's GLM-5.1: ``model.layers.78*`` is not quantised, layer 77 is."""
    model = released({**NVFP4, "ignore": ["lm_head", "model.layers.2*"]})
    last, added = packed(model)
    assert "mlp.experts.down_proj.weight" in last
    assert added == set()


def test_a_part_of_a_prediction_layer_can_be_left_alone(released):
    model = released({**NVFP4, "ignore": ["lm_head", "model.layers.2.self_attn*"]})
    last, added = packed(model)
    assert last - added == {name for name in last if name.startswith("self_attn.")} != set()


@pytest.mark.parametrize("name", ["mtp*", "mtp.layers.0*", "re:.*mtp.*", "mtp.layers.0.mlp.down_proj"])
def test_prediction_layers_of_qwen_are_counted_by_themselves(name, from_config):
    """NVIDIA's Qwen3.5 and 3.6 leave ``mtp*`` alone."""
    model = from_config(
        "qwen3_5_text",
        num_hidden_layers=4,
        hidden_size=256,
        intermediate_size=256,
        mtp_num_hidden_layers=1,
        quantization_config={**NVFP4, "ignore": ["lm_head", name]},
    )
    last, added = packed(model)
    assert "mlp.down_proj.weight" in last
    assert added == (last - {"mlp.down_proj.weight"} if name.endswith("proj") else set())


def test_it_reads_back_from_yaml(released, tmp_path):
    model = released({**NVFP4, "ignore": ["lm_head", "model.layers.2*"]})
    path = tmp_path / "m.yaml"
    path.write_text(model_yaml(model), encoding="utf-8")
    assert load_model(Found(path.name, path)) == model


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_nextn_predict_layers: 1", "", "prediction_stored_otherwise: needs num_nextn_predict_layers"),
        ("eh_proj", "eh_prod", "no tensor here, or is named twice"),
    ],
)
def test_what_a_yaml_file_says_of_no_layer_or_no_tensor_is_refused(old, new, message, released, tmp_path):
    """``eh_proj`` is plain in any case: it is put among the tensors that are stored otherwise."""
    text = model_yaml(released({**NVFP4, "ignore": ["lm_head", "model.layers.2*"]}))
    before, after = text.split("prediction_stored_otherwise:")
    after = after.replace("tensors:\n", "tensors:\n    - eh_proj.weight\n", 1)
    path = tmp_path / "m.yaml"
    path.write_text((before + "prediction_stored_otherwise:" + after).replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        load_model(Found(path.name, path))
    assert message in " ".join(refused.value.lines())
