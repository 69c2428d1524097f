"""Names, patterns and regular expressions in lists of modules: what keeps its dtype, and what is refused."""

import pytest

LAYER = {
    *(f"self_attn.{part}_proj" for part in "qkvo"),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
}
ATTENTION = {name for name in LAYER if name.startswith("self_attn")}
MLP = LAYER - ATTENTION


@pytest.fixture
def left_alone(llama, stored):
    """A function that returns what an ignore list keeps plain: of layer 0, of layer 1, and outside."""

    def read(*names):
        group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
        model = llama(
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {"group_0": group},
                "ignore": list(names),
            }
        )
        found = [stored(model, layer) for layer in (0, 1, None)]
        return tuple({name for name, storage in part.items() if storage == "bf16"} for part in found)

    return read


OUTER = {"embed_tokens"}
HEAD = {"embed_tokens", "lm_head"}
LISTS = {
    "nothing": ([], set(), set(), OUTER),
    "the head": (["lm_head"], set(), set(), HEAD),
    "one module": (["model.layers.1.self_attn.q_proj"], set(), {"self_attn.q_proj"}, OUTER),
    "a tensor": (["model.layers.1.self_attn.q_proj.weight"], set(), {"self_attn.q_proj"}, OUTER),
    "a block of modules": (["model.layers.0.mlp"], MLP, set(), OUTER),
    "a whole layer": (["model.layers.0"], LAYER, set(), OUTER),
    "a point behind it": (["model.layers.0."], LAYER, set(), OUTER),
    "behind a wrapper's name": (["model.language_model.layers.1.mlp"], set(), MLP, OUTER),
    "in every layer": (["self_attn.o_proj"], {"self_attn.o_proj"}, {"self_attn.o_proj"}, OUTER),
    "by its last word": (["down_proj"], {"mlp.down_proj"}, {"mlp.down_proj"}, OUTER),
    "fused": (
        ["model.layers.0.self_attn.qkv_proj", "gate_up_proj"],
        {*(f"self_attn.{part}_proj" for part in "qkv"), "mlp.gate_proj", "mlp.up_proj"},
        {"mlp.gate_proj", "mlp.up_proj"},
        OUTER,
    ),
    "a pattern": (["model.layers.0.self_attn*"], ATTENTION, set(), OUTER),
    "a pattern for layers": (["model.layers.*.mlp.up_proj"], {"mlp.up_proj"}, {"mlp.up_proj"}, OUTER),
    # fnmatch: a star takes anything, so that "0*" begins layers 0 and 0x, and no layer 1.
    "a pattern of a number": (["model.layers.0*"], LAYER, set(), OUTER),
    "a pattern for all": (["*"], LAYER, LAYER, HEAD),
    "a regular expression": (["re:.*self_attn.*"], ATTENTION, ATTENTION, OUTER),
    "from the beginning": (["re:self_attn", "re:model\\.layers\\.1\\..*"], set(), LAYER, OUTER),
    "alternatives": (
        ["re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "re:.*lm_head"],
        MLP,
        MLP,
        HEAD,
    ),
    "what is no matrix": (["model.norm", "model.layers.0.input_layernorm"], set(), set(), OUTER),
    "what is not counted": (
        ["vision_tower", "re:.*vision_tower.*", "mtp*", "model.visual.blocks.0", "mlp1"],
        set(),
        set(),
        OUTER,
    ),
    "a layer that predicts": (["model.layers.2.self_attn.q_proj"], set(), set(), OUTER),
    "experts of other models": (["re:.*mlp.gate$", "gate", "experts"], set(), set(), OUTER),
}


@pytest.mark.parametrize(("names", "first", "second", "outer"), LISTS.values(), ids=LISTS.keys())
def test_what_a_list_leaves_alone(names, first, second, outer, left_alone):
    assert left_alone(*names) == (first, second, outer)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "model.layers.0.zzz",
            "quantization_config.ignore[1]: 'model.layers.0.zzz' stands for no module known here ('zzz')",
        ),
        ("model.layers.0.mlp.gate", "stands for no module known here ('mlp.gate')"),
        ("model.layers.0.feed_forward.up_proj", "stands for no module known here ('feed_forward')"),
        ("re:.*feed_forward.*", "stands for no module known here ('feed_forward')"),
        ("model.zzz.layers.0.mlp", "stands for no module known here ('zzz')"),
        ("zzz", "stands for no module known here ('zzz')"),
        ("zzz*", "stands for no module known here ('zzz')"),
        ("re:.*zzz.*", "stands for no module known here ('zzz')"),
        ("re:(a", "is no regular expression"),
        ("re:(a+)+$", "is a regular expression that is not understood"),
        ("re:" + ".*" * 5, "is a regular expression that is not understood"),
        ("re:" + "a" * 301, "is a regular expression that is not understood"),
        ("re:[z-a]", "is no regular expression"),
    ],
)
def test_a_name_of_nothing_that_is_known_is_refused(name, said, llama_refusal):
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head", name]}
    assert said in llama_refusal(quantization)


# ------------------------------------------------------------------ names of families

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
MIXTRAL = {
    "hidden_size": 256,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
}
EXPERTS = {f"mlp.experts.{part}_proj" for part in ("gate", "up", "down")}


@pytest.fixture
def mixtral(from_config, stored):
    """A function that returns what a list keeps plain of a small Mixtral's first layer."""

    def read(*names):
        quantization = {**FP8, "modules_to_not_convert": list(names)}
        model = from_config("mixtral", **MIXTRAL, quantization_config=quantization)
        return {name for name, storage in stored(model, 0).items() if storage == "bf16"}

    return read


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        ([], set()),
        (["gate"], set()),
        (["model.layers.0.block_sparse_moe"], EXPERTS),
        (["block_sparse_moe.experts"], EXPERTS),
        ([f"model.layers.0.block_sparse_moe.experts.{i}.w1" for i in range(3)], {"mlp.experts.gate_proj"}),
        ([f"model.layers.0.block_sparse_moe.experts.{i}" for i in range(3)], EXPERTS),
        ([f"experts.{i}.w2" for i in range(3)], {"mlp.experts.down_proj"}),
        (["re:.*experts\\.\\d+\\.w2"], {"mlp.experts.down_proj"}),
        (["*.w3"], {"mlp.experts.up_proj"}),
    ],
)
def test_experts_of_mixtral(names, plain, mixtral):
    assert mixtral(*names) == {"mlp.gate", *plain}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["model.layers.0.block_sparse_moe.experts.1.w1"],
            "1 of 3 pieces are named; only all or none are understood",
        ),
        (["experts.0.w1", "experts.1.w1"], "2 of 3 pieces are named; only all or none are understood"),
        (["re:.*experts\\.0\\..*"], "stands for some experts of a layer only"),
    ],
)
def test_some_experts_of_a_layer_are_refused(names, said, config_refusal):
    quantization = {**FP8, "modules_to_not_convert": names}
    assert said in config_refusal("mixtral", **MIXTRAL, quantization_config=quantization)


def test_a_module_that_other_layers_have_is_none_here(from_config, stored):
    """DeepSeek's lists name the router of every layer, and the first layers have none."""
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"num_hidden_layers": 2, "mlp_only_layers": [0], "vocab_size": 100, "head_dim": 64}
    names = [f"model.layers.{layer}.mlp.gate" for layer in (0, 1)]
    quantization = {**FP8, "modules_to_not_convert": names}
    model = from_config("qwen3_moe", **shape, max_position_embeddings=64, quantization_config=quantization)
    assert "bf16" not in stored(model, 0).values()


QWEN = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "layer_types": ["linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "vocab_size": 100,
}


def test_parts_that_are_one_tensor_here_are_stored_alike(from_config, config_refusal, stored):
    """Qwen 3.5's files have in_proj_qkv and in_proj_z, and a and b, apart."""

    def keys(*names):
        return {**QWEN, "quantization_config": {**FP8, "modules_to_not_convert": list(names)}}

    start = "model.language_model.layers.0.linear_attn."
    both = from_config("qwen3_5_text", **keys(f"{start}in_proj_qkv", f"{start}in_proj_z"))
    assert stored(both, 0)["linear_attn.in_proj_qkvz"] == "bf16"
    assert stored(both, 0)["linear_attn.out_proj"] == "fp8-block"
    small = from_config("qwen3_5_text", **keys(f"{start}in_proj_a", f"{start}in_proj_b"))
    assert stored(small, 0)["linear_attn.in_proj_qkvz"] == "fp8-block"
    assert stored(small, 0)["linear_attn.in_proj_ba"] == "bf16"
    patterns = from_config("qwen3_5_text", **keys("re:.*in_proj_a$", "re:.*in_proj_b$"))
    assert patterns.layers == small.layers
    for one in (f"{start}in_proj_z", "re:.*in_proj_z", "in_proj_z"):
        said = config_refusal("qwen3_5_text", **keys(one))
        assert "layer 0, linear_attn.in_proj_qkvz.weight: 1 of 2 pieces are named" in said


@pytest.mark.parametrize(
    ("model_type", "keys", "name", "plain"),
    [
        ("phi", {"intermediate_size": 512}, "model.layers.0.mlp.fc1", {"mlp.up_proj"}),
        ("opt", {"ffn_dim": 512}, "model.decoder.layers.0.fc2", {"mlp.down_proj"}),
        ("gpt_neox", {"intermediate_size": 512}, "gpt_neox.layers.0.attention.dense", {"self_attn.o_proj"}),
        (
            "gpt2",
            {"n_embd": 256, "n_head": 4, "n_layer": 1},
            "transformer.h.0.attn.c_attn",
            {f"self_attn.{part}_proj" for part in "qkv"},
        ),
        (
            "llama4_text",
            {"intermediate_size": 512, "num_local_experts": 2, "moe_layers": [], "head_dim": 64},
            "model.layers.0.feed_forward.down_proj",
            {"mlp.down_proj"},
        ),
    ],
)
def test_names_of_other_families(model_type, keys, name, plain, from_config, stored):
    shape = {"hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    quantization = {**FP8, "modules_to_not_convert": [name]}
    given = {"vocab_size": 100, "max_position_embeddings": 512, "quantization_config": quantization, **keys}
    if model_type in ("opt", "gpt_neox", "gpt2"):
        shape.pop("num_key_value_heads")
    if model_type == "gpt2":
        shape = {}
        given["n_positions"] = given.pop("max_position_embeddings")
    model = from_config(model_type, **shape, **given)
    assert {name for name, storage in stored(model, 0).items() if storage == "bf16"} == plain
