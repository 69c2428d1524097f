import json
import re

import numpy as np
import pytest

from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.engine.random_weights import random_weights
from kvplan.errors import UsageError

# By hand: 291 tokens of 64; per layer q and o of 64 x 64, k and v of 32 x 64, three matrices of 96 x 64 and
# two norms; the last norm.
EMBEDDING = 291 * 64
LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64
TIED_PARAMETERS = EMBEDDING + 2 * LAYER + 64


def rewrite(make, folder, change):
    """Write the folder's weights again after a change to the dictionary of them."""
    tensors = make.weights()
    change(tensors)
    make.write_safetensors(folder, tensors, "F32")


@pytest.mark.parametrize("form", [{}, {"dtype": "F32"}, {"dtype": "F16"}, {"shards": 3}], ids=str)
def test_weights_have_the_engines_names_and_the_files_values(make, checkpoints, form):
    weights = open_checkpoint(checkpoints(**form)).weights()
    written = {name.removeprefix("model."): array for name, array in make.weights().items()}
    assert weights.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(weights[name], array)


@pytest.mark.parametrize(
    ("tied", "parameters"), [(True, TIED_PARAMETERS), (False, TIED_PARAMETERS + EMBEDDING)]
)
def test_the_file_holds_exactly_the_parameters_that_the_plan_counts(make, checkpoints, tied, parameters):
    checkpoint = open_checkpoint(checkpoints(tied=tied))
    assert sum(array.size for array in make.weights(tied).values()) == parameters
    assert sum(weight.elements * times for weight, times in checkpoint.model.weights()) == parameters
    assert sum(array.size for array in checkpoint.weights().values()) == parameters


def test_the_weights_are_those_that_the_engine_would_draw(checkpoints):
    checkpoint = open_checkpoint(checkpoints())
    drawn = random_weights(checkpoint.model, 0)
    assert {n: (a.shape, a.dtype) for n, a in checkpoint.weights().items()} == {
        n: (a.shape, a.dtype) for n, a in drawn.items()
    }


def test_a_tied_models_file_may_hold_its_head_where_that_is_the_embedding(make, broken):
    folder = broken(tied=True)

    def same_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    rewrite(make, folder, same_head)
    assert "lm_head.weight" not in open_checkpoint(folder).weights()


def test_a_tied_models_head_that_is_not_the_embedding_is_refused(make, broken):
    folder = broken(tied=True)
    rewrite(make, folder, lambda tensors: tensors["lm_head.weight"].__imul__(2))
    with pytest.raises(UsageError) as caught:
        open_checkpoint(folder).weights()
    assert str(caught.value) == (
        f"{folder}/model.safetensors: tensor 'lm_head.weight' is not equal to 'model.embed_tokens.weight', "
        "to which the model ties it"
    )


def test_tables_of_frequencies_are_passed_over(make, broken):
    folder = broken()

    def frequencies(tensors):
        for layer in range(2):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = np.ones(8, np.float32)

    rewrite(make, folder, frequencies)
    assert len(open_checkpoint(folder).weights()) == 21


def refusal(folder):
    """The one line in which the weights of a folder are refused."""
    with pytest.raises(UsageError) as caught:
        open_checkpoint(folder).weights()
    (line,) = caught.value.lines()
    return line.replace(str(folder), "FOLDER")


def test_a_missing_tensor_is_named_with_its_shape(make, broken):
    folder = broken()
    rewrite(make, folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert refusal(folder) == (
        "FOLDER/model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight' (96 x 64) is missing"
    )


def test_of_many_missing_tensors_the_first_few_are_named(make, broken):
    folder = broken()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}), encoding="utf-8")
    name = r"'model\.layers\.[23]\.\w+(\.\w+)*'"
    assert re.fullmatch(
        rf"FOLDER/model\.safetensors: tensor {name} \([\d x]+\) is missing; "
        rf"{name}, {name} and 15 more are missing too",
        refusal(folder),
    )


def test_a_surplus_tensor_is_named_with_its_shape(make, broken):
    folder = broken()

    def another(tensors):
        tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(16, np.float32)

    rewrite(make, folder, another)
    name = "model.layers.0.self_attn.q_norm.weight"
    assert refusal(folder) == f"FOLDER/model.safetensors: tensor '{name}' (16) is none of the model's"


def test_of_many_surplus_tensors_the_first_few_are_named(make, broken):
    folder = broken()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}), encoding="utf-8")
    assert refusal(folder).endswith(
        " is none of the model's; 'model.layers.1.self_attn.k_proj.weight', "
        "'model.layers.1.self_attn.v_proj.weight' and 6 more are not either"
    )


def test_a_tensor_of_another_shape_is_named_with_both_shapes(make, broken):
    folder = broken()

    def turned(tensors):
        name = "model.layers.1.mlp.down_proj.weight"
        tensors[name] = np.ascontiguousarray(tensors[name].T)

    rewrite(make, folder, turned)
    assert refusal(folder) == (
        "FOLDER/model.safetensors: tensor 'model.layers.1.mlp.down_proj.weight' has the shape 96 x 64, "
        "and the model's is 64 x 96"
    )


def test_two_tensors_of_other_shapes_are_both_named(make, broken):
    folder = broken()

    def shorter(tensors):
        for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
            tensors[name] = tensors[name][:32]

    rewrite(make, folder, shorter)
    line = refusal(folder)
    assert line.endswith(" has another too")
    assert "'model.norm.weight'" in line
    assert "'model.layers.0.input_layernorm.weight'" in line


def test_a_shard_with_a_tensor_of_another_shape_is_named(make, broken):
    folder = broken()
    tensors = make.weights()
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:32]
    (folder / "model.safetensors").unlink()
    make.write_safetensors(folder, tensors, shards=3)
    assert refusal(folder).startswith("FOLDER/model-00003-of-00003.safetensors: tensor 'model.norm.weight' ")


def with_values(*values):
    """Return a change that puts values at the beginning of a matrix."""

    def change(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][0, : len(values)] = values

    return change


@pytest.mark.parametrize("values", [[np.nan], [np.inf], [-np.inf, np.inf]], ids=str)
def test_a_tensor_that_holds_what_is_no_number_is_named(make, broken, values):
    folder = broken()
    rewrite(make, folder, with_values(*values))
    tensor = "FOLDER/model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight'"
    hint = "(the file may be damaged)"
    assert refusal(folder) == f"{tensor} holds what is infinite or no number   {hint}"


def test_a_tensor_whose_sum_is_infinite_is_none_of_these(make, broken):
    folder = broken()
    rewrite(make, folder, with_values(3e38, 3e38))
    assert open_checkpoint(folder).weights()["layers.1.mlp.up_proj.weight"][0, 1] == np.float32(3e38)


def test_a_tensor_of_a_dtype_that_is_not_read_is_named(make, broken):
    folder = broken()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[:] = content.replace(
        b'"model.norm.weight": {"dtype": "BF16"', b'"model.norm.weight": {"dtype": "I16" '
    )
    (folder / "model.safetensors").write_bytes(content)
    assert refusal(folder) == (
        "FOLDER/model.safetensors: tensor 'model.norm.weight' has the dtype I16   "
        "(weights are read in BF16, F16, F32)"
    )
