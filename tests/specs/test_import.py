"""From config.json to model: bundled files are their config's import, and the traps of each family."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.mlp import MLP
from kvplan.arch.norm import Norm
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.swiglu import Swiglu
from kvplan.errors import SpecError
from kvplan.plan.weights import parameter_count
from kvplan.specs.catalog import bundled_folder
from kvplan.specs.config_json import FAMILIES, import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.model_yaml import model_yaml
from kvplan.specs.strict_json import read_json

DATA = Path(__file__).parents[1] / "data"


def test_every_bundled_model_has_its_config(model_name):
    """So the two tests below cover them all."""
    assert model_name in {row["name"] for row in bundled_sources()}


def bundled_sources():
    with (DATA / "hf_configs" / "SOURCES.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_bundled_model_is_its_configs_import(config_row, bundled, imported):
    name = config_row["name"]
    model = imported(f"hf_configs/{name}.json", name, config_row["source"])
    assert model == bundled(name)


def test_bundled_file_is_its_configs_import(config_row, imported):
    name = config_row["name"]
    model = imported(f"hf_configs/{name}.json", name, config_row["source"])
    file = bundled_folder() / "models" / f"{name}.yaml"
    assert file.read_text(encoding="utf-8") == model_yaml(model, schema=True)


@pytest.fixture
def changed(tmp_path):
    """A function that imports a bundled model's config.json with some keys changed, or removed."""

    def read(name, removed=(), **keys):
        original = DATA / "hf_configs" / f"{name}.json"
        data = json.loads(original.read_text(encoding="utf-8")) | keys
        path = tmp_path / "config.json"
        path.write_text(json.dumps({k: v for k, v in data.items() if k not in removed}), encoding="utf-8")
        return import_config(read_json(path), Identity("changed", "a test"))

    return read


def windows(model):
    return [layer.mixer.sliding_window for layer in model.layers]


def test_a_head_is_as_wide_as_the_file_says(changed):
    assert changed("llama-3.1-8b", head_dim=64).layers[0].mixer.head_dim == 64
    assert changed("llama-3.1-8b", head_dim=None).layers[0].mixer.head_dim == 128  # 4,096 / 32
    # Family defaults where the key is missing: Qwen 3 dense 128 (not 5,120 / 64), gpt-oss 64, Gemma 256.
    assert changed("qwen3-32b", removed=["head_dim"]).layers[0].mixer.head_dim == 128
    assert changed("gpt-oss-20b", removed=["head_dim"]).layers[0].mixer.head_dim == 64
    assert changed("gemma-2-9b", removed=["head_dim"]).layers[0].mixer.head_dim == 256


def test_missing_kv_heads_mean_one_per_query_head(changed):
    assert changed("llama-3.1-8b", removed=["num_key_value_heads"]).layers[0].mixer.num_key_value_heads == 32


def test_gemma_3_keys_left_out_are_the_class_defaults(bundled):
    # gemma-3-4b's config names no heads, KV heads, head_dim, vocabulary, activation, epsilon or score
    # scale, and no base of a rotation: 8, 4, 256, 262,208, gelu_pytorch_tanh, 1e-6, 256, 1e6 and 1e4.
    model = bundled("gemma-3-4b")
    nearby, everywhere = model.layers[0].mixer, model.layers[5].mixer
    assert nearby == Attention(
        8,
        4,
        256,
        sliding_window=1_024,
        qk_norm=QkNorm.HEAD,
        query_pre_attn_scalar=256.0,
        rope_parameters=RopeParameters(10_000.0),
    )
    assert everywhere.rope_parameters == RopeParameters(1_000_000.0, RopeType.LINEAR, factor=8.0)
    assert (model.vocab_size, model.norm_eps) == (262_208, 1e-6)
    assert model.layers[0].mlp.hidden_act is Activation.GELU_TANH


def test_mistral_windows(changed):
    assert set(windows(changed("mistral-7b-v0.1"))) == {4_096}
    assert set(windows(changed("mistral-7b-v0.1", sliding_window=None))) == {None}
    assert set(windows(changed("mistral-7b-v0.1", removed=["sliding_window"]))) == {4_096}
    assert set(windows(changed("mixtral-8x7b", removed=["sliding_window"]))) == {None}


def test_qwen_windows_are_off_unless_the_file_turns_them_on(changed):
    off = changed("qwen2.5-7b", use_sliding_window=False, sliding_window=4_096, max_window_layers=0)
    assert set(windows(off)) == {None}
    on = changed("qwen2.5-7b", use_sliding_window=True, sliding_window=4_096, max_window_layers=20)
    assert windows(on) == [None] * 20 + [4_096] * 8


def test_layer_types_decide_which_layers_slide(changed):
    types = ["full_attention"] * 40 + ["sliding_attention"] * 2
    assert windows(changed("gemma-2-9b", layer_types=types)) == [None] * 40 + [4_096] * 2


def test_gemma_patterns(bundled, changed):
    assert windows(bundled("gemma-2-9b")) == [4_096, None] * 21
    assert windows(bundled("gemma-3-27b")) == ([1_024] * 5 + [None]) * 10 + [1_024] * 2
    every_other = changed("gemma-3-1b", sliding_window_pattern=2, removed=["layer_types"])
    assert windows(every_other) == [512, None] * 13


def test_missing_is_not_null_in_deepseek_v2(changed):
    # The file says null: queries are projected directly. A copy without the key means the class default.
    assert changed("deepseek-v2-lite").layers[0].mixer.q_lora_rank is None
    dropped = changed("deepseek-v2-lite", removed=["q_lora_rank"])
    assert dropped.layers[0].mixer.q_lora_rank == 1_536
    assert parameter_count(dropped).number == 15_748_993_024


def test_latent_attention_ignores_the_number_of_kv_heads(changed):
    model = changed("deepseek-v3", num_key_value_heads=1)
    assert model.layers == changed("deepseek-v3").layers
    mixer = model.layers[0].mixer
    assert replace(mixer, rope_parameters=None) == LatentAttention(128, 512, 128, 64, 128, 1_536)


def test_dense_layers_come_first_in_deepseek(bundled):
    kinds = [type(layer.mlp) for layer in bundled("deepseek-v3").layers]
    assert kinds == [MLP] * 3 + [Experts] * 58


def test_falcon_kv_heads(bundled, changed):
    assert bundled("falcon-7b").layers[0].mixer.num_key_value_heads == 1
    assert bundled("falcon-40b").layers[0].mixer.num_key_value_heads == 8
    many = changed("falcon-7b", multi_query=False)
    assert many.layers[0].mixer.num_key_value_heads == 71


def test_qwen_moe_layers(changed):
    model = changed("qwen3-30b-a3b", mlp_only_layers=[0, 5], decoder_sparse_step=2)
    dense = [i for i, layer in enumerate(model.layers) if isinstance(layer.mlp, MLP)]
    assert dense == sorted({0, 5} | set(range(0, 48, 2)))


def test_qwen3_next_layers(changed):
    kinds = [isinstance(layer.mixer, Attention) for layer in changed("qwen3-next-80b-a3b").layers]
    assert kinds == [False, False, False, True] * 12
    halves = changed("qwen3-next-80b-a3b", full_attention_interval=2, removed=["layer_types"])
    assert [isinstance(layer.mixer, Attention) for layer in halves.layers] == [False, True] * 24


@pytest.mark.parametrize(
    ("name", "tied"),
    [("llama-3.1-8b", False), ("gemma-2-9b", True), ("gpt2", True), ("falcon-7b", True), ("phi-2", False)],
)
def test_tied_by_family_default_and_by_the_file(name, tied, changed):
    without = changed(name, removed=["tie_word_embeddings"])
    assert without.tie_word_embeddings is tied
    other = changed(name, tie_word_embeddings=not tied)
    head = other.vocab_size * other.hidden_size
    assert parameter_count(other).number - parameter_count(without).number == (head if tied else -head)


@pytest.mark.parametrize(
    ("key", "value", "dtype"),
    [("torch_dtype", "float16", "fp16"), ("dtype", "float32", "fp32"), ("torch_dtype", "bfloat16", "bf16")],
)
def test_dtype_under_either_name(key, value, dtype, changed):
    assert changed("llama-3.1-8b", removed={"torch_dtype", "dtype"} - {key}, **{key: value}).dtype == dtype


def test_released_formats(bundled):
    assert bundled("deepseek-v3").weight_format == "fp8-block"
    assert bundled("gpt-oss-20b").weight_format == "mxfp4"
    assert bundled("llama-3.1-8b").weight_format == ""


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("llama-3.1-8b", {"model_type": "lama"}, "model_type 'lama' is not understood (did you mean llama"),
        ("llama-3.1-8b", {"cache_every": 2}, "cache_every: this key is not understood"),
        ("llama-3.1-8b", {"num_attention_heads": 31}, "hidden_size (4096) is no multiple of 31 heads"),
        ("deepseek-v3", {"moe_layer_freq": 2}, "moe_layer_freq: 2 is not understood"),
        ("gemma-2-9b", {"layer_types": ["full_attention"]}, "layer_types: has 1 entries for 42 layers"),
        (
            "llama-3.1-8b",
            {"quantization_config": {"quant_method": "hqq"}},
            "quant_method: 'hqq' is not understood",
        ),
    ],
)
def test_what_would_change_the_numbers_is_refused_by_name(name, keys, message, changed):
    with pytest.raises(SpecError) as error:
        changed(name, **keys)
    assert message in error.value.message


@pytest.mark.parametrize(
    ("name", "norm", "eps"),
    [
        ("llama-2-7b", Norm.RMS, 1e-5),
        ("qwen2.5-7b", Norm.RMS, 1e-6),
        ("qwen2.5-14b", Norm.RMS, 1e-5),
        ("gemma-2-9b", Norm.RMS_UNIT_OFFSET, 1e-6),
        ("gemma-3-1b", Norm.RMS_UNIT_OFFSET, 1e-6),
        ("qwen3-next-80b-a3b", Norm.RMS_UNIT_OFFSET, 1e-6),
        ("gpt2", Norm.LAYER, 1e-5),
        ("phi-2", Norm.LAYER, 1e-5),
        ("falcon-7b", Norm.LAYER, 1e-5),
    ],
)
def test_norms(name, norm, eps, bundled):
    assert (bundled(name).norm, bundled(name).norm_eps) == (norm, eps)


# The class defaults of transformers 5.23 where the file does not say.
@pytest.mark.parametrize(
    ("name", "key", "default"),
    [
        ("llama-3.1-8b", "rms_norm_eps", 1e-6),
        ("mistral-7b-v0.1", "rms_norm_eps", 1e-6),
        ("mixtral-8x7b", "rms_norm_eps", 1e-5),
        ("phi-4", "rms_norm_eps", 1e-5),
        ("qwen2.5-14b", "rms_norm_eps", 1e-6),
        ("qwen3-8b", "rms_norm_eps", 1e-6),
        ("qwen3-30b-a3b", "rms_norm_eps", 1e-6),
        ("gemma-2-9b", "rms_norm_eps", 1e-6),
        ("deepseek-v3", "rms_norm_eps", 1e-6),
        ("gpt-oss-20b", "rms_norm_eps", 1e-5),
        ("gpt2", "layer_norm_epsilon", 1e-5),
        ("phi-2", "layer_norm_eps", 1e-5),
        ("falcon-7b", "layer_norm_epsilon", 1e-5),
    ],
)
def test_the_epsilon_is_the_files_or_the_class_default(name, key, default, changed):
    assert changed(name, removed=[key]).norm_eps == default
    assert changed(name, **{key: None}).norm_eps == default
    assert changed(name, **{key: 0.25}).norm_eps == 0.25


@pytest.mark.parametrize(
    ("name", "key", "default"),
    [
        ("llama-3.1-8b", "hidden_act", Activation.SILU),
        ("mixtral-8x7b", "hidden_act", Activation.SILU),
        ("qwen3-30b-a3b", "hidden_act", Activation.SILU),
        ("deepseek-v3", "hidden_act", Activation.SILU),
        ("phi-2", "hidden_act", Activation.GELU_TANH),
        ("gpt2", "activation_function", Activation.GELU_TANH),
        ("gemma-2-9b", "hidden_activation", Activation.GELU_TANH),
        ("gemma-3-1b", "hidden_activation", Activation.GELU_TANH),
        ("falcon-7b", "activation", Activation.GELU),
    ],
)
def test_the_activation_is_the_files_or_the_class_default(name, key, default, changed):
    assert changed(name, removed=[key]).layers[-1].mlp.hidden_act is default
    assert {layer.mlp.hidden_act for layer in changed(name, **{key: "relu2"}).layers} == {
        Activation.RELU_SQUARED
    }


@pytest.mark.parametrize(
    ("word", "activation"),
    [
        ("silu", Activation.SILU),
        ("swish", Activation.SILU),
        ("gelu", Activation.GELU),
        ("gelu_new", Activation.GELU_TANH),
        ("gelu_fast", Activation.GELU_TANH),
        ("gelu_pytorch_tanh", Activation.GELU_TANH),
        ("relu", Activation.RELU),
    ],
)
def test_activations_under_every_name(word, activation, changed):
    assert changed("llama-3.1-8b", hidden_act=word).layers[0].mlp.hidden_act is activation


def test_gemma_reads_one_of_two_keys_for_its_activation(changed):
    model = changed("gemma-2-9b", hidden_act="relu", hidden_activation="gelu_pytorch_tanh")
    assert model.layers[0].mlp.hidden_act is Activation.GELU_TANH


def test_gemma_scales_its_scores_and_embeddings(bundled):
    # gemma-2-27b: query_pre_attn_scalar 144, not head_dim 128; sqrt(4,608) = 48 sqrt(2).
    large = bundled("gemma-2-27b")
    assert {layer.mixer.query_pre_attn_scalar for layer in large.layers} == {144.0}
    assert {layer.mixer.attn_logit_softcapping for layer in large.layers} == {50.0}
    assert large.final_logit_softcapping == 30.0
    assert large.embedding_multiplier == pytest.approx(67.88225099390856, rel=1e-15)
    assert bundled("gemma-3-27b").layers[0].mixer.query_pre_attn_scalar == 168.0
    assert bundled("llama-3.1-8b").embedding_multiplier == 1.0
    assert bundled("llama-3.1-8b").layers[0].mixer.query_pre_attn_scalar is None


def test_gemma_softcaps_that_are_null_are_none_and_missing_ones_the_class_default(changed):
    keys = ("attn_logit_softcapping", "final_logit_softcapping")
    missing, null = changed("gemma-2-9b", removed=keys), changed("gemma-2-9b", **dict.fromkeys(keys))
    assert (missing.layers[0].mixer.attn_logit_softcapping, missing.final_logit_softcapping) == (50.0, 30.0)
    assert (null.layers[0].mixer.attn_logit_softcapping, null.final_logit_softcapping) == (None, None)
    third = changed("gemma-3-1b", removed=keys)
    assert (third.layers[0].mixer.attn_logit_softcapping, third.final_logit_softcapping) == (None, None)
    assert changed("gemma-3-1b", final_logit_softcapping=30.0).final_logit_softcapping == 30.0
    assert (
        changed("gemma-3-1b", removed=["query_pre_attn_scalar"]).layers[0].mixer.query_pre_attn_scalar == 256
    )


def routing(model):
    e = model.layers[-1].mlp
    groups = (e.topk_method, e.n_group, e.topk_group)
    return e.scoring_func, *groups, e.norm_topk_prob, e.routed_scaling_factor


SOFTMAX_GREEDY = (Scoring.SOFTMAX, TopkMethod.GREEDY, 1, 1)


def test_routing(bundled):
    assert routing(bundled("mixtral-8x7b")) == (*SOFTMAX_GREEDY, True, 1.0)
    assert routing(bundled("gpt-oss-20b")) == (*SOFTMAX_GREEDY, True, 1.0)
    assert routing(bundled("qwen3-30b-a3b")) == (*SOFTMAX_GREEDY, True, 1.0)
    assert routing(bundled("deepseek-v2-lite")) == (*SOFTMAX_GREEDY, False, 1.0)
    sigmoid = (Scoring.SIGMOID, TopkMethod.NOAUX_TC)
    assert routing(bundled("deepseek-v3")) == (*sigmoid, 8, 4, True, 2.5)
    assert routing(bundled("kimi-k2")) == (*sigmoid, 1, 1, True, 2.827)


def test_routing_where_the_file_does_not_say(changed):
    keys = ("scoring_func", "topk_method", "n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor")
    assert routing(changed("qwen3-30b-a3b", removed=keys)) == (*SOFTMAX_GREEDY, False, 1.0)
    assert routing(changed("qwen3-next-80b-a3b", removed=keys)) == (*SOFTMAX_GREEDY, True, 1.0)
    assert routing(changed("deepseek-v2-lite", removed=keys)) == (*SOFTMAX_GREEDY, False, 1.0)
    third = (Scoring.SIGMOID, TopkMethod.NOAUX_TC, 8, 4, True, 2.5)
    assert routing(changed("kimi-k2", removed=keys)) == third


def test_groups_that_are_null_are_one_and_greedy_choice_ignores_them(changed):
    null = routing(changed("deepseek-v3", n_group=None, topk_group=None))
    assert null[1:4] == (TopkMethod.NOAUX_TC, 1, 1)
    assert routing(changed("deepseek-v2-lite", n_group=8, topk_group=3))[1:4] == (TopkMethod.GREEDY, 1, 1)
    limited = changed(
        "deepseek-v2-lite",
        topk_method="group_limited_greedy",
        n_group=8,
        topk_group=3,
        routed_scaling_factor=16.0,
    )
    chosen = (TopkMethod.GROUP_LIMITED_GREEDY, 8, 3)
    assert routing(limited) == (Scoring.SOFTMAX, *chosen, False, 16.0)


def test_gpt_oss_clamps_its_experts(bundled, changed):
    assert bundled("gpt-oss-20b").layers[0].mlp.swiglu == Swiglu(7.0, 1.702, 1.0)
    assert changed("gpt-oss-20b", removed=["swiglu_limit"]).layers[0].mlp.swiglu.limit == 7.0
    assert changed("gpt-oss-20b", swiglu_limit=5).layers[0].mlp.swiglu.limit == 5.0
    assert changed("gpt-oss-20b", swiglu_alpha=1.5).layers[0].mlp.swiglu.alpha == 1.5
    assert bundled("qwen3-30b-a3b").layers[0].mlp.swiglu is None


def model_types(value):
    """Return every model_type in a config and in the configs inside it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {value["model_type"]} if isinstance(value, dict) and "model_type" in value else set()
    return own.union(*map(model_types, inner))


def test_every_model_type_is_read_from_a_file_that_others_measured():
    """A released file, a case whose logits transformers made, or one whose encoder it counted."""
    files = [*DATA.glob("*hf_configs/*.json"), *DATA.parent.glob("golden/configs/*.json")]
    found = model_types([json.loads(path.read_text(encoding="utf-8")) for path in files])
    found |= model_types(yaml.safe_load((DATA / "towers.yaml").read_text(encoding="utf-8")))
    # Its encoder of images is another package's (test_wrappers.py).
    assert set(FAMILIES) - found == {"gemma3n"}


def test_a_null_flag_is_false_as_in_python(changed):
    """transformers asks ``if config.flag``: null is not the class's default."""
    assert not changed("deepseek-v3", norm_topk_prob=None).layers[-1].mlp.norm_topk_prob
    assert changed("falcon-7b", multi_query=None).layers[0].mixer.num_key_value_heads == 71
    assert not changed("gemma-2-9b", tie_word_embeddings=None).tie_word_embeddings


def test_a_trained_context_of_one_token_is_refused(changed):
    with pytest.raises(SpecError, match="a trained context of one token gives no attention factor"):
        changed("phi-3.5-mini", original_max_position_embeddings=1)
