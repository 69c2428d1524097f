"""Every ``quant_method``: the bytes of a small Llama's files by hand, and what is refused."""

import pytest

# Embedding and head of 1,000 x 256 and 5 norms of 256, in bf16; then the linear layers' elements.
PLAIN, LINEAR = 2 * (2 * 256_000 + 5 * 256), 2 * 589_824
# Of both layers: rows (256 + 2 x 128 + 256 + 2 x 512 + 256), columns (6 of 256 and one of 512), matrices.
ROWS, COLUMNS, MATRICES = 2 * 2_048, 2 * 2_048, 14
# Blocks of 128 x 128 in a layer: q 4, k 2, v 2, o 4, gate 8, up 8, down 8.
BLOCKS = 2 * 36
# A group of 128 is 128 elements of a row; none crosses one.
GROUPS = LINEAR // 128


def weights(kind, bits, strategy="tensor", group=None, **more):
    return {
        "type": kind,
        "num_bits": bits,
        "strategy": strategy,
        "group_size": group,
        "symmetric": True,
        **more,
    }


def compressed(layout, stored, inputs=None):
    group = {"targets": ["Linear"], "weights": stored, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "version": "0.12.2",
    }


DYNAMIC, STATIC = {"num_bits": 8, "dynamic": True}, {"num_bits": 8, "dynamic": False}
PACKED = "pack-quantized"
FILES = {
    "fp8 in blocks": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, LINEAR + 4 * BLOCKS),
    "fp8, scales of inputs made in the run": ({"quant_method": "fp8"}, LINEAR + 4 * MATRICES),
    "fp8, scales of inputs in the files": (
        {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None},
        LINEAR + 8 * MATRICES,
    ),
    "fbgemm": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, LINEAR + 4 * ROWS),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
        LINEAR // 2 + GROUPS * 5 // 2,
    ),
    "awq by its defaults": ({"quant_method": "awq"}, LINEAR // 2 + GROUPS * 5 // 2),
    "awq in the first tool's words": (
        {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "version": "GEMM", "zero_point": True},
        LINEAR // 2 + 2 * GROUPS * 5 // 2,
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True},
        LINEAR // 2 + GROUPS * 5 // 2 + 4 * COLUMNS,
    ),
    "gptq in 8 bits, a scale a row": (
        {"quant_method": "gptq", "bits": 8, "group_size": -1},
        LINEAR + ROWS * 3 + 4 * COLUMNS,
    ),
    "bitsandbytes nf4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        LINEAR // 2 + LINEAR // 64 * 4,
    ),
    # Scales of 64 elements; 256 of them share a float32: a layer's matrices have 4, 2, 2, 4, 8, 8 and 8 such.
    "bitsandbytes fp4, doubly quantised": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
        LINEAR // 2 + LINEAR // 64 + 4 * 2 * 36 + 4 * MATRICES,
    ),
    "bitsandbytes in 8 bits": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, LINEAR + 4 * ROWS),
    "compressed-tensors fp8, scale a tensor": (
        compressed("float-quantized", weights("float", 8), DYNAMIC),
        LINEAR + 4 * MATRICES,
    ),
    "compressed-tensors fp8, static inputs": (
        compressed("float-quantized", weights("float", 8), STATIC),
        LINEAR + 8 * MATRICES,
    ),
    "compressed-tensors fp8, scale a row": (
        compressed("float-quantized", weights("float", 8, "channel"), DYNAMIC),
        LINEAR + 4 * ROWS,
    ),
    "compressed-tensors fp8 in blocks": (
        compressed("float-quantized", weights("float", 8, "block", block_structure=[128, 128]), DYNAMIC),
        LINEAR + 4 * BLOCKS,
    ),
    "compressed-tensors mxfp8": (
        compressed("mxfp8-quantized", weights("float", 8, "group", 32), DYNAMIC),
        LINEAR + 4 * GROUPS,
    ),
    "compressed-tensors int8": (
        compressed("int-quantized", weights("int", 8, "channel"), DYNAMIC),
        LINEAR + 4 * ROWS,
    ),
    "compressed-tensors int8, scale a tensor": (
        compressed("int-quantized", weights("int", 8), DYNAMIC),
        LINEAR + 4 * MATRICES,
    ),
    "compressed-tensors int4": (
        compressed(PACKED, weights("int", 4, "group", 128)),
        LINEAR // 2 + 2 * GROUPS + 16 * MATRICES,
    ),
    "compressed-tensors int4 with zeros": (
        compressed(PACKED, weights("int", 4, "group", 128) | {"symmetric": False}),
        LINEAR // 2 + GROUPS * 5 // 2 + 16 * MATRICES,
    ),
    "compressed-tensors int4, columns by activation": (
        compressed(PACKED, weights("int", 4, "group", 32, actorder="group")),
        LINEAR // 2 + 8 * GROUPS + 16 * MATRICES + 4 * COLUMNS,
    ),
    "compressed-tensors int4, scale a row": (
        compressed(PACKED, weights("int", 4, "channel", -1)),
        LINEAR // 2 + 2 * ROWS + 16 * MATRICES,
    ),
    "compressed-tensors int8, packed": (
        compressed(PACKED, weights("int", 8, "group", 128)),
        LINEAR + 2 * GROUPS + 16 * MATRICES,
    ),
    "compressed-tensors nvfp4": (
        compressed(
            "nvfp4-pack-quantized",
            weights("float", 4, "tensor_group", 16),
            {"num_bits": 4, "dynamic": "local"},
        ),
        LINEAR // 2 + 8 * GROUPS + 8 * MATRICES,
    ),
    "compressed-tensors nvfp4, inputs in 16 bits": (
        compressed("nvfp4-pack-quantized", weights("float", 4, "tensor_group", 16)),
        LINEAR // 2 + 8 * GROUPS + 4 * MATRICES,
    ),
    "compressed-tensors mxfp4": (
        compressed("mxfp4-pack-quantized", weights("float", 4, "group", 32)),
        LINEAR // 2 + 4 * GROUPS,
    ),
    "modelopt fp8": (
        {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]},
        LINEAR + 8 * MATRICES,
    ),
    "modelopt fp8 without its name": ({"quant_algo": "FP8", "ignore": ["lm_head"]}, LINEAR + 8 * MATRICES),
    "modelopt nvfp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]},
        LINEAR // 2 + 8 * GROUPS + 8 * MATRICES,
    ),
    "modelopt nvfp4, inputs in 16 bits": (
        {"quant_method": "modelopt_fp4", "quant_algo": "W4A16_NVFP4", "ignore": ["lm_head"]},
        LINEAR // 2 + 8 * GROUPS + 4 * MATRICES,
    ),
    "modelopt mxfp8": (
        {"quant_method": "modelopt", "quant_algo": "MXFP8", "ignore": ["lm_head"]},
        LINEAR + 4 * GROUPS,
    ),
    "modelopt fp8 in blocks": (
        {"quant_method": "modelopt", "quant_algo": "fp8_pb_wo", "ignore": ["lm_head"]},
        LINEAR + 4 * BLOCKS,
    ),
    "modelopt fp8, scale a row": (
        {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "ignore": ["lm_head"]},
        LINEAR + 4 * ROWS,
    ),
}


@pytest.mark.parametrize(("quantization", "linear"), FILES.values(), ids=FILES.keys())
def test_bytes_of_the_files(quantization, linear, llama, file_bytes):
    assert file_bytes(llama(quantization)) == PLAIN + linear


def test_without_quantisation_all_is_in_the_models_dtype(llama, file_bytes):
    model = llama(None)
    assert (model.weight_format, model.stored_otherwise, model.kv_format) == ("", (), "")
    assert file_bytes(model) == PLAIN + 2 * LINEAR


def without_exceptions(quantization):
    return {key: value for key, value in quantization.items() if key != "ignore"}


@pytest.mark.parametrize(
    ("quantization", "head"),
    [
        # Compressed-tensors' target is every linear layer, and the head is one.
        (without_exceptions(FILES["compressed-tensors fp8, scale a row"][0]), "fp8-row"),
        (FILES["compressed-tensors fp8, scale a row"][0], "bf16"),
        ({"quant_method": "gptq", "bits": 4, "lm_head": True}, "int4-gptq"),
        ({"quant_method": "gptq", "bits": 4}, "bf16"),
        # A list replaces transformers' own, which is of the head.
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["q_proj"]}, "int8"),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["lm_head"]},
            "bf16",
        ),
        ({"quant_method": "fp8"}, "bf16"),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["model.layers.0.mlp*"]},
            "nvfp4-static",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "bf16"),
    ],
)
def test_the_output_head(quantization, head, llama, stored):
    assert stored(llama(quantization)) == {"embed_tokens": "bf16", "lm_head": head}


def test_a_tied_head_is_the_embedding_and_stays_plain(llama, stored, file_bytes):
    quantization = without_exceptions(FILES["compressed-tensors fp8, scale a row"][0])
    model = llama(quantization, tie_word_embeddings=True)
    assert stored(model) == {"embed_tokens": "bf16"}
    assert file_bytes(model) == PLAIN - 2 * 256_000 + LINEAR + 4 * ROWS


@pytest.mark.parametrize("name", ["re:.*down_proj", "model.layers.0.mlp.down_proj", "*down_proj"])
def test_a_group_of_names_is_nearer_than_one_of_all_linear_layers(name, llama, stored):
    """compressed-tensors, match_named_modules: whatever the order of the groups."""
    by_name = {"format": "float-quantized", "targets": [name], "weights": weights("float", 8, "channel")}
    linear = {"format": PACKED, "targets": ["Linear"], "weights": weights("int", 4, "group", 128)}
    for groups in ((by_name, linear), (linear, by_name)):
        quantization = compressed("mixed-precision", {}) | {
            "config_groups": {f"group_{index}": group for index, group in enumerate(groups)}
        }
        found = stored(llama(quantization), 0)
        assert found.pop("mlp.down_proj") == "fp8-row"
        assert set(found.values()) == {"int4-sym-g128"}


MIXTRAL = {
    "hidden_size": 256,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
}


def test_mxfp4_stores_experts_only(from_config, stored):
    quantization = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
    }
    model = from_config("mixtral", **MIXTRAL, quantization_config=quantization)
    experts = {f"mlp.experts.{part}_proj": "mxfp4" for part in ("gate", "up", "down")}
    attention = {f"self_attn.{part}_proj": "bf16" for part in "qkvo"}
    assert stored(model, 0) == {**attention, **experts, "mlp.gate": "bf16"}


REFUSED = {
    "awq in 3 bits": (
        {"quant_method": "awq", "bits": 3},
        "quantization_config.bits: AWQ of 3 bits in groups of 128",
    ),
    "awq of another layout": (
        {"quant_method": "awq", "version": "marlin"},
        "version: 'marlin' is not understood (gemm is)",
    ),
    "awq in groups of 16": ({"quant_method": "awq", "group_size": 16}, "AWQ of 4 bits in groups of 16"),
    "gptq in 2 bits": (
        {"quant_method": "gptq", "bits": 2},
        "bits: GPTQ of 2 bits in groups of 128 is not understood",
    ),
    "gptq laid out for Marlin": (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
        "'marlin'",
    ),
    "unknown key": (
        {"quant_method": "gptq", "bits": 4, "zz": 1},
        "quantization_config.zz: this key is not understood",
    ),
    "fbgemm with blocks": (
        {"quant_method": "fbgemm_fp8", "weight_block_size": [128, 128]},
        "weight_block_size: this key is not understood",
    ),
    "plain fp8": ({"quant_method": "fp8", "dequantize": True}, "dequantize: true is not understood"),
    "bitsandbytes of nothing": ({"quant_method": "bitsandbytes"}, "neither load_in_4bit nor load_in_8bit"),
    "bitsandbytes of other numbers": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "af4"},
        "bnb_4bit_quant_type: 'af4' is not nf4 or fp4",
    ),
    "bitsandbytes in other blocks": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_blocksize": 128},
        "bnb_4bit_blocksize: 128 is not understood",
    ),
    "compressed-tensors in 2 bits": (
        compressed(PACKED, weights("int", 2, "group", 128)),
        "config_groups.group_0.weights.num_bits: int of 2 bits is not understood as pack-quantized",
    ),
    "compressed-tensors in odd groups": (
        compressed(PACKED, weights("int", 4, "group", 48)),
        "pack-quantized: int of 4 bits, group of 48, symmetric True is not understood",
    ),
    "compressed-tensors of an unknown layout": (
        compressed("marlin-24", weights("int", 4, "group", 128)),
        "format 'marlin-24' is not understood",
    ),
    "compressed-tensors, sparse": (
        compressed(PACKED, weights("int", 4, "group", 128)) | {"sparsity_config": {"format": "sparse-24"}},
        "sparsity_config.format: 'sparse-24' is not understood: sparse weights",
    ),
    "compressed-tensors, not compressed": (
        compressed(PACKED, weights("int", 4, "group", 128)) | {"quantization_status": "initialized"},
        "quantization_status: 'initialized': the files are not quantised",
    ),
    "modelopt of an unknown algorithm": (
        {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"},
        "quant_algo: 'W4A8_AWQ' is not understood (FP8, ",
    ),
    "modelopt in other groups": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32},
        "group_size: NVFP4 in groups of 32 is not understood",
    ),
}


@pytest.mark.parametrize(("quantization", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_understood_is_refused_by_name(quantization, said, llama_refusal):
    assert said in llama_refusal(quantization)


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}


def test_gptqmodel_leaves_modules_alone_by_regular_expression(llama, stored):
    """The dictionary of Qwen3.5-27B-GPTQ-Int4: an entry without the sign changes nothing."""
    dynamic = {"lm_head": {}, "model.embed_tokens": {}, "-:.*attn.*": {}, "-:.*mtp.*": {}, "-:.*visual.*": {}}
    found = stored(llama({**GPTQ, "dynamic": dynamic}), 1)
    assert {name for name, storage in found.items() if storage == "bf16"} == {
        f"self_attn.{part}_proj" for part in "qkvo"
    }
    assert found["mlp.up_proj"] == "int4-gptq"


def test_optimum_names_what_it_quantises_in_each_block(llama, stored):
    groups = [["self_attn.k_proj", "self_attn.v_proj"], ["mlp.down_proj"]]
    model = llama({**GPTQ, "modules_in_block_to_quantize": groups})
    assert [sorted(n for n, s in stored(model, layer).items() if s == "int4-gptq") for layer in (0, 1)] == [
        ["mlp.down_proj", "self_attn.k_proj", "self_attn.v_proj"]
    ] * 2
    assert stored(model)["lm_head"] == "bf16"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"dynamic": {"+:.*down.*": {"bits": 8}}}, "+:.*down.*: modules of other bits or groups"),
        ({"dynamic": {"-:.*zzz.*": {}}}, "stands for no module known here ('zzz')"),
        ({"modules_in_block_to_quantize": [["self_attn.zzz"]]}, "stands for no module known here ('zzz')"),
        ({"modules_in_block_to_quantize": [[3]]}, "expected lists of texts"),
        ({"quant_block_list": ["model.layers"]}, "a list is not understood: some blocks only"),
    ],
)
def test_other_choices_of_gptq_are_refused(keys, said, llama_refusal):
    assert said in llama_refusal({**GPTQ, **keys})
