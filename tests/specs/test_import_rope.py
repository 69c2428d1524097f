"""How released files say the rotation of queries and keys, in the old form and in the new one."""

import json
from math import sqrt
from pathlib import Path

import pytest

from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.specs.config_json import import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.strict_json import parse_json

CONFIGS = Path(__file__).parents[1] / "data" / "hf_configs"
PLAIN_4 = RopeParameters(10_000.0)
YARN_40 = {
    "factor": 40.0,
    "original_max_position_embeddings": 4_096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "interleaved": True,
}


@pytest.fixture
def ropes():
    """A function that gives each layer's rotation in a released config.json with keys set or dropped."""

    def of(name, dropped=(), **keys):
        data = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) | keys
        text = json.dumps({key: value for key, value in data.items() if key not in dropped})
        model = import_config(parse_json(text, "config.json"), Identity("changed", "a test"))
        return [getattr(layer.mixer, "rope_parameters", None) for layer in model.layers]

    return of


def stretched(kind, theta, **values):
    return RopeParameters(theta, kind, **values)


def llama3(factor):
    return stretched(
        RopeType.LLAMA3,
        500_000.0,
        factor=factor,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8_192,
    )


# Read off the released files by eye.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-2-7b", PLAIN_4),
        ("llama-3.2-1b", llama3(32.0)),
        ("llama-3.3-70b", llama3(8.0)),
        ("codellama-34b", RopeParameters(1_000_000.0)),
        ("mistral-7b-v0.1", PLAIN_4),
        ("mixtral-8x7b", RopeParameters(1_000_000.0)),
        ("qwen2.5-7b", RopeParameters(1_000_000.0)),
        ("qwen3-8b", RopeParameters(1_000_000.0)),
        ("qwen3-coder-480b-a35b", RopeParameters(10_000_000.0)),
        ("gemma-2-27b", PLAIN_4),
        ("phi-2", RopeParameters(10_000.0, partial_rotary_factor=0.4)),
        ("phi-3-mini-4k", PLAIN_4),
        ("phi-4", RopeParameters(250_000.0)),
        ("falcon-7b", PLAIN_4),
        ("gpt2", None),
        ("deepseek-v3", stretched(RopeType.YARN, 10_000.0, mscale=1.0, mscale_all_dim=1.0, **YARN_40)),
        (
            "deepseek-v2-lite",
            stretched(RopeType.YARN, 10_000.0, mscale=0.707, mscale_all_dim=0.707, **YARN_40),
        ),
        (
            "kimi-k2",
            stretched(
                RopeType.YARN,
                50_000.0,
                mscale=1.0,
                mscale_all_dim=1.0,
                **YARN_40 | {"factor": 32.0, "beta_fast": 1.0},
            ),
        ),
        (
            "gpt-oss-20b",
            stretched(
                RopeType.YARN,
                150_000.0,
                factor=32.0,
                original_max_position_embeddings=4_096,
                beta_fast=32.0,
                beta_slow=1.0,
                truncate=False,
            ),
        ),
    ],
)
def test_released_files(name, expected, ropes):
    assert set(ropes(name)) == {expected}


def test_gemma_3_rotates_sliding_layers_by_a_base_of_their_own(ropes):
    nearby, everywhere = PLAIN_4, stretched(RopeType.LINEAR, 1_000_000.0, factor=8.0)
    assert ropes("gemma-3-27b") == ([nearby] * 5 + [everywhere]) * 10 + [nearby] * 2
    assert ropes("gemma-3-1b")[4:6] == [nearby, RopeParameters(1_000_000.0)]
    changed = ropes("gemma-3-1b", rope_local_base_freq=20_000, rope_theta=30_000)
    assert changed[4:6] == [RopeParameters(20_000.0), RopeParameters(30_000.0)]
    missing = ropes("gemma-3-1b", dropped=["rope_local_base_freq", "rope_theta"])
    assert missing[4:6] == [nearby, RopeParameters(1_000_000.0)]


def test_gemma_3_by_kind_of_layer(ropes):
    by_kind = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
    }
    dropped = ["rope_theta", "rope_local_base_freq", "rope_scaling"]
    everywhere = stretched(RopeType.LINEAR, 500_000.0, factor=8.0)
    found = ropes("gemma-3-1b", dropped, rope_parameters=by_kind)
    assert found[4:6] == [RopeParameters(5_000.0), everywhere]
    half = ropes("gemma-3-1b", dropped, rope_parameters=by_kind | {"sliding_attention": None})
    assert half[4:6] == [PLAIN_4, everywhere]


def test_qwen3_next_rotates_a_quarter_of_each_head(ropes):
    quarter = RopeParameters(10_000_000.0, partial_rotary_factor=0.25)
    assert ropes("qwen3-next-80b-a3b") == [None, None, None, quarter] * 12
    assert ropes("qwen3-next-80b-a3b", ["partial_rotary_factor"])[3] == quarter
    inside = {"rope_type": "default", "partial_rotary_factor": 0.5}
    assert ropes("qwen3-next-80b-a3b", ["partial_rotary_factor"], rope_parameters=inside)[
        3
    ] == RopeParameters(10_000_000.0, partial_rotary_factor=0.5)


# transformers 5.23: the class's default_theta, and what a class says of the share of a head.
@pytest.mark.parametrize(
    ("name", "theta", "share"),
    [
        ("llama-3.1-8b", 10_000.0, 1.0),
        ("mistral-7b-v0.3", 10_000.0, 1.0),
        ("mixtral-8x7b", 1_000_000.0, 1.0),
        ("qwen2.5-7b", 10_000.0, 1.0),
        ("qwen3-8b", 10_000.0, 1.0),
        ("qwen3-30b-a3b", 10_000.0, 1.0),
        ("qwen3-next-80b-a3b", 10_000.0, 0.25),
        ("gemma-2-9b", 10_000.0, 1.0),
        ("phi-2", 10_000.0, 0.5),
        ("phi-4", 10_000.0, 1.0),
        ("falcon-7b", 10_000.0, 1.0),
    ],
)
def test_where_the_file_says_nothing(name, theta, share, ropes):
    dropped = ["rope_theta", "rope_scaling", "partial_rotary_factor"]
    assert ropes(name, dropped)[-1] == RopeParameters(theta, partial_rotary_factor=share)


def test_gpt_oss_is_stretched_where_the_file_says_nothing(ropes):
    assert ropes("gpt-oss-20b", ["rope_theta", "rope_scaling"]) == ropes("gpt-oss-20b")
    plain = {"rope_type": "default"}
    assert set(ropes("gpt-oss-20b", ["rope_theta"], rope_scaling=plain)) == {RopeParameters(150_000.0)}


def test_phi_3_5_attends_by_a_factor_of_its_lengths(ropes):
    found = ropes("phi-3.5-mini")[0]
    # 131,072 is 4,096 x 32, and ln 32 / ln 4,096 is 5 / 12.
    assert found.attention_factor == pytest.approx(sqrt(17 / 12), rel=1e-15)
    assert (found.rope_type, found.original_max_position_embeddings) == (RopeType.LONGROPE, 4_096)
    assert (found.short_factor[:2], found.short_factor[-1]) == ((1.0, 1.0199999809265137), 2.8399994373321533)
    assert (found.long_factor[0], found.long_factor[-1]) == (1.0800000429153442, 64.83999633789062)
    assert len(found.short_factor) == len(found.long_factor) == 96 // 2


@pytest.mark.parametrize(
    ("extra", "longest", "expected"),
    [
        ({}, 4_096, 1.0),
        ({}, 2_048, 1.0),
        ({"factor": 4.0}, 131_072, sqrt(1 + 2 / 12)),
        ({"attention_factor": 1.5}, 131_072, 1.5),
        ({"attention_factor": None}, 16_384, sqrt(1 + 2 / 12)),
    ],
)
def test_longropes_factor(extra, longest, expected, ropes):
    lists = {"short_factor": [1] * 48, "long_factor": [2.0] * 48}
    scaling = {"type": "longrope", **lists, **extra}
    found = ropes("phi-3.5-mini", rope_scaling=scaling, max_position_embeddings=longest)[0]
    assert found.attention_factor == pytest.approx(expected, rel=1e-15)
    assert found.short_factor == (1.0,) * 48


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
def test_phi_3_has_three_names_for_longrope(name, ropes):
    scaling = {"type": name, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    assert ropes("phi-3.5-mini", rope_scaling=scaling)[0].rope_type is RopeType.LONGROPE


def test_phi_3s_trained_context_is_its_classs_where_the_file_says_none(ropes):
    dropped = ["original_max_position_embeddings"]
    assert ropes("phi-3.5-mini", dropped)[0].original_max_position_embeddings == 4_096


SCALINGS = [
    {"rope_type": "linear", "factor": 4},
    {"rope_type": "dynamic", "factor": 2.5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.75, "beta_fast": 16, "mscale": 0},
    {"rope_type": "default"},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_the_old_and_the_new_form_mean_the_same(scaling, ropes):
    old = {("type" if key == "rope_type" else key): value for key, value in scaling.items()}
    new = {**scaling, "rope_theta": 1_000_000.0}
    found = ropes("qwen2.5-7b", rope_scaling=scaling)
    assert ropes("qwen2.5-7b", rope_scaling=old) == found
    assert ropes("qwen2.5-7b", ["rope_theta"], rope_parameters=new) == found
    assert ropes("qwen2.5-7b", rope_scaling=new, rope_parameters=new) == found


def test_values_of_each_form(ropes):
    found = [ropes("qwen2.5-7b", rope_scaling=scaling)[0] for scaling in SCALINGS]
    theta, longest = 1_000_000.0, 131_072
    assert found == [
        RopeParameters(theta, RopeType.LINEAR, factor=4.0),
        RopeParameters(theta, RopeType.DYNAMIC, factor=2.5, original_max_position_embeddings=longest),
        RopeParameters(theta, RopeType.YARN, factor=4.0, original_max_position_embeddings=32_768),
        RopeParameters(
            theta,
            RopeType.YARN,
            factor=4.0,
            original_max_position_embeddings=longest,
            attention_factor=0.75,
            beta_fast=16.0,
        ),
        RopeParameters(theta),
    ]


def test_yarns_factor_is_the_ratio_of_the_lengths_where_it_is_null(ropes):
    scaling = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 32_768}
    assert ropes("qwen2.5-7b", rope_scaling=scaling)[0].factor == 4.0


def test_the_trained_context_may_stand_outside(ropes):
    scaling = {"rope_type": "yarn", "factor": 4.0}
    outside = ropes("qwen2.5-7b", rope_scaling=scaling, original_max_position_embeddings=32_768)
    assert outside[0].original_max_position_embeddings == 32_768


def test_dynamic_changes_past_the_longest_context_whatever_is_called_original(ropes):
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    found = ropes("qwen2.5-7b", rope_scaling=scaling, original_max_position_embeddings=32_768)
    assert found[0].original_max_position_embeddings == 131_072


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_mapping_says_nothing(nothing, ropes):
    assert ropes("qwen2.5-7b", rope_scaling=nothing) == ropes("qwen2.5-7b")
    assert ropes("gpt-oss-20b", rope_scaling=nothing) == ropes("gpt-oss-20b")


def test_deepseek_rotates_neighbours_unless_the_file_says_no(ropes):
    assert ropes("deepseek-v3")[0].interleaved
    assert not ropes("deepseek-v3", rope_interleave=False)[0].interleaved
    assert ropes("deepseek-v2-lite")[0].interleaved
    assert not ropes("llama-3.1-8b")[0].interleaved
