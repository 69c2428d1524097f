"""The names of every family's tensors in files: those that transformers saves, and those of released code.

tests/golden/checkpoints.py wrote data/saved_tensors.json with transformers: names and shapes as it saves
them. The reference step of CI makes them anew, and compares values too. data/released_names.json has the
config.json of released models, as public repositories hold copies of them, and the names that the index of
their weights has.
"""

import json
import re
import runpy
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.checkpoint.assemble import weights_from
from kvplan.checkpoint.names import NAMES, kinds, mixer_kinds, names_of
from kvplan.checkpoint.names.released import ROOTS, file_tensors, found_in
from kvplan.engine.random_weights import named_weights
from kvplan.errors import UsageError
from kvplan.specs.config_json import FAMILIES, TEXT_FAMILIES, import_file, text_type
from kvplan.specs.families.common import Identity
from kvplan.specs.families.wrappers import WRAPPERS
from kvplan.specs.strict_json import read_json

GOLDEN = Path(__file__).parents[1] / "golden"
replay = runpy.run_path(str(GOLDEN / "replay.py"))
golden_weights = runpy.run_path(str(GOLDEN / "weights.py"))["golden_weights"]
saved_tensors = runpy.run_path(str(GOLDEN / "saved_tensors.py"))
SAVED, WITH_ENCODERS = saved_tensors["read"](), saved_tensors["WITH_ENCODERS"]

# Words of what stands beside a text model.
TOWERS = set("vision visual audio image video high patch newline projector encoder aligner".split())
TOWERS |= {"connector", "projection"}


# What released files hold that the engine does not run: masks, frequencies, a layer that drafts; a tied head.
BESIDE = {
    "RedPajama-INCITE-7B-Base": {
        *("gpt_neox.layers.N.attention.bias", "gpt_neox.layers.N.attention.masked_bias"),
        "gpt_neox.layers.N.attention.rotary_emb.inv_freq",
    },
    "internlm-7b": {"model.layers.N.self_attn.rotary_emb.inv_freq"},
}
PICTURES = ("vision_tower.", "multi_modal_projector.", "model.mtp_layers.")


class Held:
    """A file of arrays that are in memory."""

    label = "a file"

    def __init__(self, arrays):
        self.arrays = arrays

    def names(self):
        return tuple(self.arrays)

    def place(self, name):
        return self.label

    def shape(self, name):
        return self.arrays[name].shape

    def dtype(self, name):
        return "fp32"

    def read(self, name):
        return self.arrays[name].copy()


class Shapes(Held):
    """A file of which only shapes are known: it is full of zeros."""

    def __init__(self, shapes):
        super().__init__({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()})


class Index(Held):
    """Names of a file's tensors, without their shapes."""

    def __init__(self, names):
        super().__init__(dict.fromkeys(names))

    def shape(self, name):
        return ()


def released_files():
    """Configs of released models, and the names that the index of their weights has."""
    stored = json.loads((Path(__file__).parent / "data" / "released_names.json").read_text())
    line, tensors_of = saved_tensors["Line"], saved_tensors["tensors_of"]
    return {
        name: (config, tensors_of(line(there, (), tuple(numbers)) for there, numbers in found))
        for name, (config, found) in stored.items()
    }


RELEASED_FILES = released_files()


@cache
def case_model(name):
    return replay["read_model"](name)


def shapes_here(model):
    return {
        name: (weight.shape if weight.copies == 1 else (weight.copies, *weight.shape))
        for name, weight in named_weights(model)
    }


def opened(model, names, file):
    return weights_from(model, found_in(file, names), file)


def golden(name, seed=0):
    return golden_weights(case_model(name), seed)


def test_every_golden_case_and_every_class_with_encoders_is_among_what_was_saved():
    # Gemma 3n's encoder of images is another package's.
    wrapped = {f"{kind}{WITH_ENCODERS}" for kind in WRAPPERS if kind != "gemma3n"}
    assert SAVED.keys() == {*replay["NAMES"], *wrapped}


def test_every_family_has_names():
    assert NAMES.keys() == TEXT_FAMILIES.keys()


def test_a_family_without_names_is_refused():
    with pytest.raises(UsageError, match=r"^the tensor names of mamba5 files are not known$"):
        names_of("mamba5", case_model("mamba"))


@pytest.mark.parametrize("name", SAVED)
def test_saved_tensors_make_every_tensor_of_the_engine(name):
    saved = SAVED[name]
    model = case_model(saved.case)
    if name.endswith(WITH_ENCODERS):
        model = replace(model, missing_towers=("vision_tower",))
    made = opened(model, names_of(saved.text_type, model), Shapes(saved.tensors))
    assert {name: array.shape for name, array in made.items()} == shapes_here(model)


@pytest.mark.parametrize("name", SAVED)
def test_every_saved_tensor_of_a_text_model_is_used_once(name):
    saved = SAVED[name]
    model, file = case_model(saved.case), Shapes(saved.tensors)
    names = found_in(file, names_of(saved.text_type, model))
    used = Counter(tensor.name for recipe in names.recipes(model, file) for tensor in recipe.of)
    assert set(used.values()) == {1}
    # A tied head, and numbers that lightning attention makes of a layer's place.
    left = set(saved.tensors) - set(used) - set(names.repeated(model))
    words = {"slope_rate", "query_decay", "key_decay", "diagonal_decay"} if "minimax" in name else set()
    for tensor in left:
        if name.endswith(WITH_ENCODERS):
            assert TOWERS & set(re.split(r"[._]", ".".join(tensor.split(".")[:2]))), tensor
        else:
            assert tensor.rpartition(".")[2] in words, tensor


@pytest.mark.parametrize("name", replay["NAMES"])
def test_what_a_family_writes_is_read_back(name):
    model, weights = case_model(name), golden(name)
    names = names_of(replay["model_type"](name), model)
    made = opened(model, names, Held(file_tensors(names, model, weights)))
    assert made.keys() == weights.keys()
    for tensor, array in made.items():
        assert np.array_equal(array, weights[tensor]), tensor


@pytest.mark.parametrize("name", RELEASED_FILES)
def test_the_names_in_the_index_of_a_released_model_are_those_expected(name, tmp_path):
    config, held = RELEASED_FILES[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    model, file = import_file(path, Identity(name, "")), Index(held)
    names = found_in(file, names_of(text_type(read_json(path)), model))
    expected = [tensor.name for recipe in names.recipes(model, file) for tensor in recipe.of]
    assert len(expected) == len(set(expected))
    assert set(expected) <= set(held)
    left = set(held) - set(expected) - set(names.repeated(model))
    assert all(names.is_surplus(model, tensor) for tensor in left)
    assert {re.sub(r"\d+", "N", tensor) for tensor in left if not tensor.startswith(PICTURES)} == BESIDE.get(
        name, set()
    )


@pytest.mark.parametrize("root", [None, *ROOTS], ids=str)
@pytest.mark.parametrize("name", ["llama-gqa", "gpt2", "nemotron-h", "opt", "gemma3n"])
def test_a_text_model_is_found_wherever_a_file_has_it(name, root):
    model, weights = case_model(name), golden(name)
    names = names_of(replay["model_type"](name), model)
    made = opened(model, names, Held(file_tensors(names, model, weights, root)))
    assert all(np.array_equal(made[tensor], weights[tensor]) for tensor in weights)


# The names that the released code of families has that transformers has no class for, or that its class has
# otherwise: outside the layers, and in the first layer of a golden case.
RELEASED = {
    "baichuan-7b-style": """
        model.embed_tokens.weight model.norm.weight lm_head.weight
        model.layers.0.self_attn.W_pack.weight model.layers.0.self_attn.o_proj.weight
        model.layers.0.mlp.gate_proj.weight model.layers.0.mlp.up_proj.weight
        model.layers.0.mlp.down_proj.weight
        model.layers.0.input_layernorm.weight model.layers.0.post_attention_layernorm.weight
    """,
    "chatglm": """
        transformer.embedding.word_embeddings.weight transformer.encoder.final_layernorm.weight
        transformer.output_layer.weight transformer.encoder.layers.0.input_layernorm.weight
        transformer.encoder.layers.0.self_attention.query_key_value.weight
        transformer.encoder.layers.0.self_attention.query_key_value.bias
        transformer.encoder.layers.0.self_attention.dense.weight
        transformer.encoder.layers.0.post_attention_layernorm.weight
        transformer.encoder.layers.0.mlp.dense_h_to_4h.weight
        transformer.encoder.layers.0.mlp.dense_4h_to_h.weight
    """,
    "exaone": """
        transformer.wte.weight transformer.ln_f.weight lm_head.weight transformer.h.0.ln_1.weight
        transformer.h.0.attn.attention.q_proj.weight transformer.h.0.attn.attention.k_proj.weight
        transformer.h.0.attn.attention.v_proj.weight transformer.h.0.attn.attention.out_proj.weight
        transformer.h.0.ln_2.weight transformer.h.0.mlp.c_fc_0.weight transformer.h.0.mlp.c_fc_1.weight
        transformer.h.0.mlp.c_proj.weight
    """,
    "internlm2": """
        model.tok_embeddings.weight model.norm.weight output.weight
        model.layers.0.attention.wqkv.weight model.layers.0.attention.wo.weight
        model.layers.0.feed_forward.w1.weight model.layers.0.feed_forward.w2.weight
        model.layers.0.feed_forward.w3.weight
        model.layers.0.attention_norm.weight model.layers.0.ffn_norm.weight
    """,
    "phi-msft": """
        transformer.embd.wte.weight lm_head.ln.weight lm_head.ln.bias
        lm_head.linear.weight lm_head.linear.bias
        transformer.h.0.ln.weight transformer.h.0.ln.bias
        transformer.h.0.mixer.Wqkv.weight transformer.h.0.mixer.Wqkv.bias
        transformer.h.0.mixer.out_proj.weight transformer.h.0.mixer.out_proj.bias
        transformer.h.0.mlp.fc1.weight transformer.h.0.mlp.fc1.bias
        transformer.h.0.mlp.fc2.weight transformer.h.0.mlp.fc2.bias
    """,
    "qwen": """
        transformer.wte.weight transformer.ln_f.weight lm_head.weight
        transformer.h.0.ln_1.weight transformer.h.0.attn.c_attn.weight transformer.h.0.attn.c_attn.bias
        transformer.h.0.attn.c_proj.weight transformer.h.0.ln_2.weight
        transformer.h.0.mlp.w1.weight transformer.h.0.mlp.w2.weight transformer.h.0.mlp.c_proj.weight
    """,
}


@pytest.mark.parametrize("name", RELEASED)
def test_remote_code_has_its_own_names(name):
    written = file_tensors(NAMES[replay["model_type"](name)], case_model(name), golden(name))
    outside_or_first = {there for there in written if not re.search(r"\.[1-9]\d*\.", there)}
    biases = {there for there in outside_or_first if there.endswith(".bias")}
    assert outside_or_first - biases == {t for t in RELEASED[name].split() if not t.endswith(".bias")}
    assert name == "internlm2" or biases == {t for t in RELEASED[name].split() if t.endswith(".bias")}


def test_qwens_second_matrix_goes_through_the_silu():
    weights = golden("qwen")
    written = file_tensors(NAMES["qwen"], case_model("qwen"), weights)
    assert np.array_equal(written["transformer.h.0.mlp.w2.weight"], weights["layers.0.mlp.gate_proj.weight"])


def test_internlm2_has_the_queries_of_a_kv_head_before_its_key_and_value():
    weights, model = golden("internlm2"), case_model("internlm2")
    mixer = model.layers[0].mixer
    group = mixer.num_attention_heads // mixer.num_key_value_heads
    dim = mixer.head_dim
    rows = file_tensors(NAMES["internlm2"], model, weights)["model.layers.0.attention.wqkv.weight"]
    assert group > 1
    assert np.array_equal(rows[: group * dim], weights["layers.0.self_attn.q_proj.weight"][: group * dim])
    assert np.array_equal(rows[group * dim :][:dim], weights["layers.0.self_attn.k_proj.weight"][:dim])
    assert np.array_equal(rows[(group + 1) * dim :][:dim], weights["layers.0.self_attn.v_proj.weight"][:dim])


def test_the_head_of_baichuan_2_is_normalised_when_it_is_read():
    model = replace(case_model("baichuan-7b-style"), vocab_size=125_696)
    names, shapes = names_of("baichuan", model), shapes_here(model)
    arrays = {name: np.full(shape, 3, np.float32) for name, shape in shapes.items()}
    head = opened(model, names, Held(file_tensors(names, model, arrays)))["lm_head.weight"]
    assert np.allclose((head**2).sum(axis=1), 1)
    first = case_model("baichuan-7b-style")
    plain = opened(
        first, names_of("baichuan", first), Held(file_tensors(NAMES["baichuan"], first, golden(first.name)))
    )
    assert np.array_equal(plain["lm_head.weight"], golden(first.name)["lm_head.weight"])


@pytest.mark.parametrize(
    ("name", "surplus"),
    [
        ("llama-gqa", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt-neox", "gpt_neox.layers.0.attention.masked_bias"),
        ("qwen3-next", "mtp.fc.weight"),
        ("gemma3n", "model.layers.{last}.self_attn.k_proj.weight"),
    ],
)
def test_known_surplus_is_left_out(name, surplus):
    model, weights = case_model(name), golden(name)
    names = NAMES[replay["model_type"](name)]
    tensors = file_tensors(names, model, weights)
    tensors[surplus.format(last=len(model.layers) - 1)] = np.zeros((2, 2), np.float32)
    assert opened(model, names, Held(tensors)).keys() == weights.keys()


def test_layers_that_draft_tokens_are_left_out_up_to_their_number():
    model = replace(case_model("deepseek-v3"), num_nextn_predict_layers=1)
    tensors = file_tensors(NAMES["deepseek_v3"], model, golden("deepseek-v3"))
    depth = len(model.layers)
    tensors[f"model.layers.{depth}.eh_proj.weight"] = np.zeros((2, 2), np.float32)
    opened(model, NAMES["deepseek_v3"], Held(tensors))
    tensors[f"model.layers.{depth + 1}.eh_proj.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(
        UsageError, match=rf"'model\.layers\.{depth + 1}\.eh_proj\.weight' .*none of the model's"
    ):
        opened(model, NAMES["deepseek_v3"], Held(tensors))


@pytest.mark.parametrize(
    "surplus", ["model.vision_tower.a.weight", "model.layers.0.self_attn.q_norm.weight", "score.weight"]
)
def test_a_tensor_that_nothing_is_known_of_is_refused(surplus):
    model = case_model("llama-gqa")
    tensors = file_tensors(NAMES["llama"], model, golden("llama-gqa"))
    tensors[surplus] = np.zeros((2, 2), np.float32)
    with pytest.raises(UsageError, match=f"'{re.escape(surplus)}' .*is none of the model's"):
        opened(model, NAMES["llama"], Held(tensors))


def test_a_text_tensor_that_nothing_is_known_of_is_refused_beside_a_tower():
    model = replace(case_model("llama-gqa"), missing_towers=("vision_tower",))
    root = ROOTS[1]
    tensors = file_tensors(NAMES["llama"], model, golden("llama-gqa"), root)
    tensors["model.vision_tower.a.weight"] = np.zeros((2, 2), np.float32)
    opened(model, NAMES["llama"], Held(tensors))
    tensors[f"{root.body}.norm.bias"] = np.zeros(2, np.float32)
    with pytest.raises(UsageError, match=rf"'{re.escape(root.body)}\.norm\.bias' .*is none of the model's"):
        opened(model, NAMES["llama"], Held(tensors))


def test_a_missing_expert_is_named_as_released_files_have_it():
    model = case_model("qwen3-moe")
    tensors = file_tensors(NAMES["qwen3_moe"], model, golden("qwen3-moe"))
    del tensors["model.layers.0.mlp.experts.3.up_proj.weight"]
    with pytest.raises(
        UsageError, match=r"'model\.layers\.0\.mlp\.experts\.3\.up_proj\.weight' .* is missing"
    ):
        opened(model, NAMES["qwen3_moe"], Held(tensors))


def test_experts_are_read_one_by_one_and_in_stacks():
    model, weights = case_model("qwen3-moe"), golden("qwen3-moe")
    tensors = file_tensors(NAMES["qwen3_moe"], model, weights)
    for layer in [index for index, layer in enumerate(model.layers) if isinstance(layer.mlp, Experts)]:
        prefix = f"model.layers.{layer}.mlp.experts"
        for name in [there for there in tensors if there.startswith(f"{prefix}.")]:
            del tensors[name]
        gate, up, down = (
            weights[f"layers.{layer}.mlp.experts.{part}_proj.weight"] for part in ("gate", "up", "down")
        )
        tensors[f"{prefix}.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        tensors[f"{prefix}.down_proj"] = down
    made = opened(model, NAMES["qwen3_moe"], Held(tensors))
    assert all(np.array_equal(made[name], weights[name]) for name in weights)


def test_the_text_model_of_a_config_is_known(tmp_path):
    path = tmp_path / "config.json"
    for text, known in (
        ('{"model_type": "llama"}', "llama"),
        ('{"model_type": "llava", "text_config": {"model_type": "mistral"}}', "mistral"),
        ('{"model_type": "llava", "text_config": {}}', "llama"),
        ('{"model_type": "qwen2_vl"}', "qwen2_vl_text"),
        ('{"architectures": ["MiniCPM3ForCausalLM"]}', "minicpm3"),
    ):
        path.write_text(text)
        assert text_type(read_json(path)) == known
    assert {wrapper.text_type for wrapper in WRAPPERS.values()} <= NAMES.keys() < FAMILIES.keys()


# Each kind, with the engine's shapes that it takes out of four sizes.
KINDS = {
    "SAME": (kinds.SAME, lambda a, b, c, d: [(a, b)]),
    "ROWS": (kinds.ROWS, lambda a, b, c, d: [(a, b), (c, b), (d, b)]),
    "ROWS of biases": (kinds.ROWS, lambda a, b, c, d: [(a,), (b,)]),
    "EXPERT_ROWS": (kinds.EXPERT_ROWS, lambda a, b, c, d: [(a, b, c), (a, d, c)]),
    "CONV1D": (kinds.CONV1D, lambda a, b, c, d: [(a, b), (c, b), (d, b)]),
    "CONV1D of biases": (kinds.CONV1D, lambda a, b, c, d: [(a,), (b,), (c,)]),
    "EXPERT_COLUMNS": (kinds.EXPERT_COLUMNS, lambda a, b, c, d: [(a, b, c), (a, d, c)]),
    "INTERLEAVED": (kinds.INTERLEAVED, lambda a, b, c, d: [(a, b, c), (a, b, c)]),
    "INTERLEAVED of biases": (kinds.INTERLEAVED, lambda a, b, c, d: [(a, b), (a, b)]),
    "APART": (kinds.APART, lambda a, b, c, d: [(a, b, c)]),
    "UNDER_ONE_ANOTHER": (kinds.UNDER_ONE_ANOTHER, lambda a, b, c, d: [(a, b, c)]),
    "UNDER_ONE_ANOTHER_TURNED": (kinds.UNDER_ONE_ANOTHER_TURNED, lambda a, b, c, d: [(a, b, c)]),
    "reshaped": (kinds.reshaped(1, 1, -1, 1), lambda a, b, c, d: [(a,)]),
    "a number": (kinds.reshaped(), lambda a, b, c, d: [(1,)]),
    "BY_MACHINE": (mixer_kinds.BY_MACHINE, lambda a, b, c, d: [(4 * a, b), (4 * c, b), (4 * d, b)]),
    "QKV_IN_THIRDS": (mixer_kinds.QKV_IN_THIRDS, lambda a, b, c, d: [(a + b + 1, 1, c)]),
}
SIZES = st.integers(1, 5)


def drawn(shapes):
    state = np.random.RandomState(0)
    return [state.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_undone(kind, layer, shapes):
    arrays = drawn(shapes)
    there = kind.join(layer, arrays)
    assert [array.shape for array in there] == [tuple(shape) for shape in kind.shapes(layer, shapes)]
    again = kind.split(layer, there, shapes)
    assert len(again) == len(arrays)
    assert all(np.array_equal(a, b) for a, b in zip(again, arrays, strict=True))
    whole = np.concatenate([array.ravel() for array in there])
    assert sorted(whole) == sorted(np.concatenate([array.ravel() for array in arrays]))


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=30, deadline=None)
@given(sizes=st.tuples(SIZES, SIZES, SIZES, SIZES))
def test_what_a_kind_joins_it_splits(name, sizes):
    kind, shapes = KINDS[name]
    assert_undone(kind, None, shapes(*sizes))


@settings(max_examples=30, deadline=None)
@given(heads=SIZES, group=SIZES, dim=SIZES, value_dim=SIZES, width=SIZES)
def test_rows_by_kv_head_are_split_as_they_were_joined(heads, group, dim, value_dim, width):
    layer = replace(case_model("falcon-new-decoder").layers[0], mixer=Attention(heads * group, heads, dim))
    shapes = [(heads * group * dim, width), (heads * dim, width), (heads * value_dim, width)]
    assert_undone(mixer_kinds.BY_KV_HEAD, layer, shapes)
    assert_undone(mixer_kinds.BY_HEAD_UNLESS_SHARED, layer, shapes)


# Kinds that a layer's own sizes say the rest of: everything in golden cases that is kept so.
def test_kinds_of_recurrent_layers_are_split_as_they_were_joined():
    seen = set()
    for name in ("qwen3-5", "olmo-hybrid", "kimi-linear", "mamba2", "falcon-h1", "recurrent-gemma"):
        model = case_model(name)
        shapes = shapes_here(model)
        for (index, layer), fusion in product(
            enumerate(model.layers), NAMES[replay["model_type"](name)].fusions
        ):
            here = [shapes.get(f"layers.{index}.{tensor}") for tensor in fusion.here]
            if None not in here:
                assert_undone(fusion.kind, layer, here)
                seen.add(id(fusion.kind))
    assert {id(k) for k in (mixer_kinds.STEPS_LAST, mixer_kinds.BY_BLOCK, mixer_kinds.QKV_APART)} <= seen


def test_gpt_oss_has_gate_and_up_in_turn_and_outputs_last():
    gate, up = np.arange(4).reshape(1, 2, 2), 10 + np.arange(4).reshape(1, 2, 2)
    (there,) = kinds.INTERLEAVED.join(None, [gate, up])
    # Inputs are rows; columns are gate 0, up 0, gate 1, up 1.
    assert there.tolist() == [[[0, 10, 2, 12], [1, 11, 3, 13]]]


def test_codegen_has_values_before_keys_in_each_of_four_machines():
    queries, keys, values = (np.arange(4)[:, None] + start for start in (0, 10, 20))
    (there,) = mixer_kinds.BY_MACHINE.join(None, [queries, keys, values])
    assert there[:, 0].tolist() == [0, 20, 10, 1, 21, 11, 2, 22, 12, 3, 23, 13]
