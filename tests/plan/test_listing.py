"""Reports of the catalog."""

from kvplan.plan.listing import gpu_report, gpus_report, model_report, models_report


def test_list_of_models(bundled):
    names = ("llama-3.1-8b", "gemma-2-9b", "qwen3-next-80b-a3b", "mistral-7b-v0.1")
    (table,) = models_report([bundled(name) for name in names]).sections
    rows = [[q.value for q in row] for row in table.rows()]
    assert rows == [
        ["llama-3.1-8b", 8_030_261_248, 8_030_261_248, 32, 131_072, 131_072, 0, "32 full"],
        ["gemma-2-9b", 9_241_705_984, 9_241_705_984, 42, 8_192, 344_064, 0, "21 sliding 4,096 + 21 full"],
        [
            "qwen3-next-80b-a3b",
            79_674_391_296,
            3_874_929_408,
            48,
            262_144,
            24_576,
            # 36 x (8,192 channels of 4 inputs of 2 bytes + 32 heads of 128 x 128 numbers of 4 bytes)
            77_856_768,
            "36 state + 12 full",
        ],
        ["mistral-7b-v0.1", 7_241_732_096, 7_241_732_096, 32, 32_768, 131_072, 0, "32 sliding 4,096"],
    ]


def test_tensors_of_a_model_sum_to_its_parameters(model_name, bundled):
    model = bundled(model_name)
    facts, tensors = model_report(model).sections
    buffers = sum(weight.elements * count for weight, count in model.weights() if not weight.trained)
    assert sum(row[4].number for row in tensors.rows()) == facts["params_total"].value + buffers
    assert facts["layers"].value == len(model.layers)


def test_tensors_say_what_their_files_store_them_in(bundled):
    _, tensors = model_report(bundled("deepseek-v3")).sections
    found = {row[0].value.rpartition("layers.3.")[2]: (row[5].value, row[6].value) for row in tensors.rows()}
    assert found["embed_tokens.weight"] == ("bf16", "embedding")
    assert found["self_attn.kv_b_proj.weight"] == ("fp8-block", "attention matrix")
    assert found["mlp.experts.up_proj.weight"] == ("fp8-block", "expert matrix")
    assert found["mlp.gate.weight"] == ("bf16", "router")
    assert found["mlp.gate.e_score_correction_bias"] == ("fp32", "router, no parameter")


def test_list_of_accelerators(gpu):
    (table,) = gpus_report([gpu("h100-sxm"), gpu("gaudi3")]).sections
    assert [[q.value for q in row] for row in table.rows()] == [
        ["h100-sxm", "NVIDIA H100 SXM5 80GB", 85_520_809_984, "driver", 3_350, 989.4, 1_978.9],
        ["gaudi3", gpu("gaudi3").label, 128_000_000_000, "as sold", 3_670, 1_835, 1_835],
    ]


def test_every_figure_of_an_accelerator_has_a_source(gpu_name, gpu):
    for name, figure in gpu_report(gpu(gpu_name)).figures():
        assert figure.source, name
