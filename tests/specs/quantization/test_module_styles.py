"""What families call the modules of a layer: names as transformers 5.23 or a family's own code has them."""

import json
from pathlib import Path

import pytest

from kvplan.specs.config_json import FAMILIES, import_file
from kvplan.specs.families.common import Identity
from kvplan.specs.quantization.module_names import ModuleNames, UnknownNameError
from kvplan.specs.quantization.module_styles import STYLES

CONFIGS = Path(__file__).parents[2] / "golden" / "configs"
QKV = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}
GATE_UP = {"mlp.gate_proj", "mlp.up_proj"}

# A tiny config of the family, a module of it with * for the number of a layer, and what it is here.
MODULES = [
    ("afmoe", "model.layers.*.self_attn.gate_proj", {"self_attn.g_proj"}),
    ("afmoe", "model.layers.*.mlp.router.gate", {"mlp.gate"}),
    ("baichuan-7b-style", "model.layers.*.self_attn.W_pack", QKV),
    ("bamba", "model.layers.*.feed_forward.down_proj", {"mlp.down_proj"}),
    ("bloom", "transformer.h.*.self_attention.dense", {"self_attn.o_proj"}),
    ("chatglm", "transformer.encoder.layers.*.mlp.dense_h_to_4h", GATE_UP),
    ("codegen", "transformer.h.*.attn.qkv_proj", QKV),
    ("dbrx", "transformer.blocks.*.norm_attn_norm.attn.Wqkv", QKV),
    ("dbrx", "transformer.blocks.*.ffn.router.layer", {"mlp.gate"}),
    ("exaone", "transformer.h.*.mlp.c_fc_1", {"mlp.up_proj"}),
    ("falcon-h1", "model.layers.*.feed_forward.gate_proj", {"mlp.gate_proj"}),
    ("falcon-mamba", "backbone.layers.*.mixer.x_proj", {"mamba.x_proj"}),
    (
        "gemma4-experts",
        "model.layers.*.experts.gate_up_proj",
        {"mlp.experts.gate_proj", "mlp.experts.up_proj"},
    ),
    ("gpt-bigcode", "transformer.h.*.attn.c_attn", QKV),
    ("gpt-neo", "transformer.h.*.attn.attention.out_proj", {"self_attn.o_proj"}),
    ("gpt-neox-serial", "gpt_neox.layers.*.mlp.dense_4h_to_h", {"mlp.down_proj"}),
    ("gptj", "transformer.h.*.mlp.fc_out", {"mlp.down_proj"}),
    (
        "granite-hybrid",
        "model.layers.*.shared_mlp.input_linear",
        {"mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"},
    ),
    ("granite-hybrid", "model.layers.*.block_sparse_moe.router.layer", {"mlp.gate"}),
    ("granite-hybrid-dense", "model.layers.*.shared_mlp.output_linear", {"mlp.down_proj"}),
    ("hunyuan-moe", "model.layers.*.mlp.gate.wg", {"mlp.gate"}),
    ("hunyuan-moe", "model.layers.*.mlp.shared_mlp.up_proj", {"mlp.shared_expert.up_proj"}),
    ("internlm2", "model.layers.*.attention.wqkv", QKV),
    ("jamba", "model.layers.*.feed_forward.router", {"mlp.gate"}),
    ("kimi-linear", "model.layers.*.self_attn.forget_gate.f_a_proj", {"self_attn.f_a_proj"}),
    ("kimi-linear", "model.layers.*.block_sparse_moe.experts.*.w1", {"mlp.experts.gate_proj"}),
    ("lfm2", "model.layers.*.feed_forward.w2", {"mlp.down_proj"}),
    ("lfm2", "model.layers.*.self_attn.out_proj", {"self_attn.o_proj"}),
    ("mamba2", "backbone.layers.*.mixer.in_proj", {"mamba.in_proj", "mamba.in_proj_groups"}),
    ("minimax-m3-text", "model.layers.*.self_attn.indexer.k_proj", {"self_attn.index_k_proj"}),
    ("mpt", "transformer.blocks.*.ffn.up_proj", {"mlp.up_proj"}),
    ("opt", "model.decoder.layers.*.fc1", {"mlp.up_proj"}),
    ("phi-msft", "transformer.h.*.mixer.Wqkv", QKV),
    ("phimoe", "model.layers.*.mlp.router", {"mlp.gate"}),
    ("qwen", "transformer.h.*.mlp.w2", {"mlp.gate_proj"}),
    ("recurrent-gemma", "model.layers.*.mlp_block.down_proj", {"mlp.down_proj"}),
    ("recurrent-gemma", "model.layers.*.temporal_block.o_proj", {"self_attn.o_proj"}),
    ("starcoder2", "model.layers.*.mlp.c_fc", {"mlp.up_proj"}),
]


def names_of(case):
    path = CONFIGS / f"{case}.json"
    model = import_file(path, Identity("imported", "a test"))
    return model, ModuleNames(model, json.loads(path.read_text(encoding="utf-8"))["model_type"])


@pytest.mark.parametrize(("case", "module", "expected"), MODULES)
def test_a_module_of_a_family(case, module, expected):
    model, names = names_of(case)
    by_number, found = set(), set()
    for index in range(len(model.layers)):
        for hit in names.find(module.replace("*", str(index), 1).replace("*", "0")):
            found.add(hit.tensor.name.removesuffix(".weight"))
            by_number.add(hit.tensor)
    assert {name for name in found if not name.endswith("bias")} == expected
    # The same as a pattern, and as a regular expression of its end.
    assert {hit.tensor for hit in names.find(module)} >= by_number
    end = module.partition(".*.")[2].replace(".*.", r"\.\d+\.")
    assert {hit.tensor for hit in names.find(f"re:.*{end}$")} >= by_number


def test_every_family_with_names_of_its_own_is_imported():
    assert set(STYLES) <= set(FAMILIES)


def test_names_of_another_family_are_refused():
    _, names = names_of("jamba")
    with pytest.raises(UnknownNameError, match="block_sparse_moe"):
        names.find("model.layers.0.block_sparse_moe.gate")
    with pytest.raises(UnknownNameError, match="block_sparse_moe"):
        names.find("re:.*block_sparse_moe.*")
