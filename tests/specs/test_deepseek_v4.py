"""DeepSeek-V4's config files: class defaults, older and newer keys for the same, formats, and refusals."""

import pytest

from kvplan.arch.experts import Scoring
from kvplan.arch.rotary import RopeType
from kvplan.plan.weights import parameter_count
from kvplan.specs.catalog import Found, load_model
from kvplan.specs.model_yaml import model_yaml

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
TINY = {"num_hidden_layers": 4, "n_routed_experts": 8, "moe_intermediate_size": 32}
YARN = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65_536}


@pytest.fixture
def read(from_config):
    """A function that imports a small model with these keys."""
    return lambda **keys: from_config("deepseek_v4", **{**TINY, **keys})


def kinds(model):
    return [(layer.mixer.compress_ratio, layer.mixer.indexer is not None) for layer in model.layers]


def test_a_file_that_says_nothing_is_its_class(from_config):
    """Parameters of transformers 5.23's own class, counted on the meta device."""
    model = from_config("deepseek_v4")
    assert parameter_count(model).number == 284_325_869_015
    assert kinds(model)[:4] == [(128, False), (128, False), (128, False), (4, True)]


def test_which_layers_compress_by_ratios_or_by_names(read):
    expected = [(None, False), (4, True), (128, False), (None, False)]
    # The last ratio is the prediction layer's.
    assert kinds(read(compress_ratios=[0, 4, 128, 0, 0])) == expected
    assert kinds(read(layer_types=[SLIDING, SPARSE, HEAVY, SLIDING])) == expected
    assert kinds(read(layer_types=[SLIDING] * 4, compress_ratios=[4] * 4)) == [(None, False)] * 4


@pytest.mark.parametrize(
    "keys",
    [
        {"compress_rate_csa": 8, "compress_rate_hca": 64},
        {"compress_rates": {SPARSE: 8, HEAVY: 64}},
        {"compress_rates": {SPARSE: 8, HEAVY: 32}, "compress_rate_hca": 64},
    ],
)
def test_how_many_tokens_an_entry_is_of(keys, read):
    assert kinds(read(**keys)) == [(64, False), (64, False), (64, False), (8, True)]


def test_which_layers_look_experts_up(read):
    def hashed(**keys):
        return [layer.mlp.hash_vocab_size for layer in read(**keys).layers]

    assert hashed() == [129_280, 129_280, 129_280, None]
    assert hashed(num_hash_layers=1, vocab_size=500) == [500, None, None, None]
    blocks = ["moe", "hash_moe", "moe", "moe"]
    assert hashed(mlp_layer_types=blocks, num_hash_layers=2) == [None, 129_280, None, None]
    assert [layer.mlp.router_bias_buffer for layer in read().layers] == [False, False, False, True]


def test_only_layers_that_compress_have_a_stretched_rotation(read):
    model = read(layer_types=[SLIDING, SPARSE, HEAVY, HEAVY], rope_scaling=YARN, qk_rope_head_dim=32)
    plain, *stretched = (layer.mixer for layer in model.layers)
    assert (plain.rope_parameters.rope_type, plain.rope_parameters.rope_theta) == (RopeType.DEFAULT, 1e4)
    for mixer in stretched:
        rope = mixer.rope_parameters
        assert (rope.rope_type, rope.rope_theta, rope.attention_factor) == (RopeType.YARN, 1.6e5, 1.0)
    assert {mixer.qk_rope_head_dim for mixer in (plain, *stretched)} == {32}
    assert all(layer.mixer.rope_parameters.interleaved for layer in model.layers)


def test_both_rotations_may_be_named(read):
    """Each with its own share of a head; a yarn without a factor of its own has the usual one."""
    named = {
        "main": {"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 0.25},
        "compress": {**YARN, "rope_type": "yarn", "rope_theta": 700, "partial_rotary_factor": 0.125},
    }
    model = read(layer_types=[SLIDING, SPARSE, HEAVY, HEAVY], rope_parameters=named)
    plain, stretched = model.layers[0].mixer, model.layers[1].mixer
    assert (plain.rope_parameters.rope_theta, plain.qk_rope_head_dim) == (500, 128)
    assert (stretched.rope_parameters.rope_theta, stretched.qk_rope_head_dim) == (700, 64)
    assert stretched.rope_parameters.attention_factor is None


@pytest.mark.parametrize("name", [scoring.value for scoring in Scoring])
def test_every_score_of_the_class(name, read):
    assert read(scoring_func=name).layers[0].mlp.scoring_func is Scoring(name)


def test_a_bias_of_the_shared_expert(read):
    without, with_bias = (parameter_count(read(mlp_bias=bias)).number for bias in (False, True))
    assert with_bias - without == 4 * (32 + 32 + 4096)


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}


def formats(model):
    released = {}
    for layer in model.layers:
        for weight in model.layer_weights(layer):
            packed = weight.format_under(model.as_released())
            if weight.is_matrix:
                released.setdefault(packed.name if packed else "plain", set()).add(weight.name)
    return released


def test_experts_have_four_bits_and_compressors_sixteen(read):
    found = formats(read(quantization_config=FP8, expert_dtype="fp4"))
    assert found["mxfp4"] == {f"mlp.experts.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert {"self_attn.q_b_proj.weight", "self_attn.o_a_proj.weight"} <= found["fp8-block"]
    assert "self_attn.compressor.indexer.q_b_proj.weight" in found["fp8-block"]
    compressors = {name for name in found["plain"] if "compressor" in name}
    assert compressors == {
        *(f"self_attn.compressor.{name}_proj.weight" for name in ("kv", "gate")),
        *(f"self_attn.compressor.indexer.{name}_proj.weight" for name in ("kv", "gate", "scorer.weights")),
    }


def test_the_format_of_experts_may_stand_with_the_others(read):
    inside = read(quantization_config={**FP8, "expert_dtype": "fp4"})
    assert inside == read(quantization_config=FP8, expert_dtype="fp4")
    assert inside != read(quantization_config=FP8)


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("layers.3.attn.wo_a", {"self_attn.o_a_proj.weight"}),
        ("layers.3.attn.compressor.wgate", {"self_attn.compressor.gate_proj.weight"}),
        ("layers.3.attn.indexer.compressor.wkv", {"self_attn.compressor.indexer.kv_proj.weight"}),
        ("layers.3.attn.indexer.wq_b", {"self_attn.compressor.indexer.q_b_proj.weight"}),
        ("layers.3.ffn.shared_experts.w2", {"mlp.shared_expert.down_proj.weight"}),
    ],
)
def test_names_of_released_tensors(name, tensors, read):
    everything = formats(read(quantization_config=FP8))["fp8-block"]
    layers = read(quantization_config={**FP8, "modules_to_not_convert": [name]}).layers
    plain = {tensor for stored in layers[3].stored_otherwise for tensor in stored.tensors}
    assert plain == tensors & everything


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"compress_ratios": [0, 4, 8, 128]}, "8 is not one of 0, 4, 128"),
        ({"compress_ratios": [0, 4]}, "has 2 entries for 4 layers"),
        ({"layer_types": [SLIDING] * 3}, "has 3 entries for 4 layers"),
        ({"layer_types": ["full_attention"] * 4}, "'full_attention' is not one of"),
        ({"mlp_layer_types": ["dense"] * 4}, "'dense' is not one of hash_moe, moe"),
        ({"num_key_value_heads": 2}, "all heads share one key"),
        ({"n_shared_experts": 2}, "there is one shared expert"),
        ({"norm_topk_prob": False}, "shares are scaled to one"),
        ({"topk_method": "greedy"}, "correction bias"),
        ({"hidden_act": "gelu"}, "gated by silu"),
        ({"scoring_func": "relu"}, "'relu' is not one of softmax, sigmoid, sqrtsoftplus"),
        ({"quantization_config": FP8, "expert_dtype": "int4"}, "'int4' is not fp8 or fp4"),
        ({"kv_lora_rank": 512}, "this key is not understood"),
    ],
)
def test_what_is_not_understood_is_refused(keys, said, config_refusal):
    assert said in config_refusal("deepseek_v4", **{**TINY, **keys})


def test_the_reference_format_is_refused_by_its_name(config_refusal):
    """It leaves out the factor of experts' shares and their bounds, which are not the class's defaults."""
    assert "model_type 'deepseek_ref' is not understood" in config_refusal("deepseek_ref")


def test_a_model_file_says_the_same(read, tmp_path):
    keys = {"compress_ratios": [0, 4, 128, 4], "rope_scaling": YARN, "num_hash_layers": 1}
    model = read(**keys, quantization_config=FP8, expert_dtype="fp4")
    path = tmp_path / "v4.yaml"
    path.write_text(model_yaml(model), encoding="utf-8")
    assert load_model(Found(path.name, path)) == model
    kinds = ("sliding_attention:", "compressed_sparse_attention:", "heavily_compressed_attention:")
    assert all(kind in path.read_text(encoding="utf-8") for kind in kinds)
