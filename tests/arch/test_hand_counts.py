"""Parameters by hand: every product written out, none taken from kvplan."""

import pytest

from kvplan.plan.weights import parameter_count

# name: (total, active). The products are in the comments of the tests below where they are not published.
PUBLISHED = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b-v0.1": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-7b": 7_615_616_512,
    "gemma-2-9b": 9_241_705_984,
    "gpt2": 124_439_808,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "deepseek-v2-lite": 15_706_484_224,
    "falcon-7b": 6_921_720_704,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name, bundled):
    assert parameter_count(bundled(name)).number == PUBLISHED[name]


def by_name(model, layer):
    return {w.name: w.elements for w in model.layer_weights(layer)}


def test_llama_layer(bundled):
    model = bundled("llama-3.1-8b")
    # q, o: 4,096 x 4,096; k, v: 8 heads x 128 = 1,024 x 4,096; three of 14,336 x 4,096; two norms of 4,096.
    assert by_name(model, model.layers[0]) == {
        "input_layernorm.weight": 4_096,
        "post_attention_layernorm.weight": 4_096,
        "self_attn.q_proj.weight": 16_777_216,
        "self_attn.k_proj.weight": 4_194_304,
        "self_attn.v_proj.weight": 4_194_304,
        "self_attn.o_proj.weight": 16_777_216,
        "mlp.gate_proj.weight": 58_720_256,
        "mlp.up_proj.weight": 58_720_256,
        "mlp.down_proj.weight": 58_720_256,
    }
    # 32 x 218,112,000 + embedding and head of 128,256 x 4,096 = 525,336,576 each + the last norm.
    assert 32 * 218_112_000 + 2 * 525_336_576 + 4_096 == 8_030_261_248


def test_gpt2_counts_its_learned_positions(bundled):
    model = bundled("gpt2")
    outer = {w.name: w.elements for w in (*model.input_weights(), *model.output_weights())}
    # 50,257 x 768; 1,024 positions x 768; the last LayerNorm's scale and bias; the head is the embedding.
    assert outer == {
        "embed_tokens.weight": 38_597_376,
        "embed_positions.weight": 786_432,
        "norm.weight": 768,
        "norm.bias": 768,
    }
    # A layer: 4 matrices of 768 x 768 with 4 biases, 2 of 768 x 3,072 with 3,072 + 768, 2 LayerNorms:
    # 2,359,296 + 3,072 + 4,718,592 + 3,840 + 3,072 = 7,087,872; times 12 = 85,054,464.
    assert sum(by_name(model, model.layers[0]).values()) == 7_087_872
    assert 38_597_376 + 786_432 + 1_536 + 85_054_464 == 124_439_808


def test_head_dim_is_not_hidden_over_heads(bundled):
    # Qwen3-30B-A3B: 2,048 / 32 = 64, but heads are 128 wide, so q is 4,096 x 2,048. gpt-oss: 2,880 / 64 = 45,
    # not 64: 4,096 x 2,880. Gemma-2-9B: 3,584 / 16 = 224, but 256: 4,096 x 3,584.
    queries = {"qwen3-30b-a3b": 8_388_608, "gpt-oss-20b": 11_796_480, "gemma-2-9b": 14_680_064}
    for name, elements in queries.items():
        model = bundled(name)
        assert by_name(model, model.layers[0])["self_attn.q_proj.weight"] == elements


def test_deepseek_v3_attention(bundled):
    model = bundled("deepseek-v3")
    found = by_name(model, model.layers[-1])
    assert {k: v for k, v in found.items() if k.startswith("self_attn")} == {
        "self_attn.q_a_proj.weight": 11_010_048,  # 1,536 x 7,168
        "self_attn.q_a_layernorm.weight": 1_536,
        "self_attn.q_b_proj.weight": 37_748_736,  # 128 heads x (128 + 64) = 24,576 x 1,536
        "self_attn.kv_a_proj_with_mqa.weight": 4_128_768,  # (512 + 64) x 7,168
        "self_attn.kv_a_layernorm.weight": 512,
        "self_attn.kv_b_proj.weight": 16_777_216,  # 128 heads x (128 + 128) = 32,768 x 512
        "self_attn.o_proj.weight": 117_440_512,  # 7,168 x 128 heads x 128 = 16,384
    }
    # Experts: 256 x 3 x 2,048 x 7,168 = 11,274,289,152; the shared one is one more of them.
    assert sum(v for k, v in found.items() if ".experts." in k) == 11_274_289_152
    assert sum(v for k, v in found.items() if ".shared_expert." in k) == 44_040_192


def test_active_parameters_of_a_mixture(bundled):
    # Mixtral: 2 of 8 experts. One expert: 3 x 14,336 x 4,096 = 176,160,768; 6 unused ones in 32 layers.
    mixtral = parameter_count(bundled("mixtral-8x7b"), active=True)
    assert mixtral.number == 46_702_792_704 - 32 * 6 * 176_160_768
    # DeepSeek-V3: 8 of 256, 58 layers with experts, each 3 x 2,048 x 7,168 = 44,040,192.
    deepseek = parameter_count(bundled("deepseek-v3"), active=True)
    assert deepseek.number == 671_026_404_352 - 58 * 248 * 44_040_192


def test_qwen3_next_recurrent_layer(bundled):
    model = bundled("qwen3-next-80b-a3b")
    found = by_name(model, model.layers[0])
    assert {k: v for k, v in found.items() if k.startswith("linear_attn")} == {
        "linear_attn.in_proj_qkvz.weight": 25_165_824,  # (2 x 16 x 128 + 2 x 32 x 128) = 12,288 x 2,048
        "linear_attn.in_proj_ba.weight": 131_072,  # 2 x 32 x 2,048
        "linear_attn.conv1d.weight": 32_768,  # 8,192 channels x 4
        "linear_attn.dt_bias": 32,
        "linear_attn.A_log": 32,
        "linear_attn.norm.weight": 128,
        "linear_attn.out_proj.weight": 8_388_608,  # 2,048 x 32 x 128
    }
    # The full-attention layer's query projection also makes the gate: 2 x 16 x 256 = 8,192 x 2,048.
    assert by_name(model, model.layers[3])["self_attn.q_proj.weight"] == 16_777_216


def test_gemma_3_tower_is_held_but_not_active(bundled):
    model = bundled("gemma-3-27b")
    # SigLIP and its projector: 423,060,336 (published); no text token uses it.
    assert sum(w.elements for tower in model.towers for w in tower.weights()) == 423_060_336
    assert parameter_count(model).number - parameter_count(model, active=True).number == 423_060_336
