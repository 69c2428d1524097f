"""Families with recurrent layers: which layers recur, class defaults, keys of other formats, and refusals."""

import pytest

from kvplan.arch.attention import Attention, OutputGate
from kvplan.arch.entry import StateDtype
from kvplan.arch.experts import Experts
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mamba import Mamba, StateNorm
from kvplan.arch.mamba2 import GateNorm, Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.norm import Block
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.short_convolution import ShortConvolution

# Parameters of transformers 5.23's classes with nothing but a model_type, on the meta device.
OF_CLASS = {
    "mamba": 159_308_544,
    "falcon_mamba": 159_308_544,
    "mamba2": 7_285_403_648,
    "jamba": 51_570_323_328,
    "bamba": 9_992_765_440,
    "granitemoehybrid": 38_601_064_448,
    "falcon_h1": 8_514_961_408,
    "nemotron_h": 1_968_355_712,
    "zamba2": 2_481_848_336,
    "kimi_linear": 49_133_074_464,
    "minimax": 47_373_946_880,
    "recurrent_gemma": 2_010_263_040,
    "lfm2": 2_705_497_600,
    "lfm3": 1_728_801_536,
    "olmo_hybrid": 7_430_870_688,
    "qwen3_next": 79_674_391_296,
    "qwen3_5_text": 8_953_803_264,
    "qwen3_5_moe_text": 34_660_610_688,
}
HYBRID = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
MAMBA2_KEYS = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 8}


def total(model):
    return sum(w.elements * n for w, n in model.weights() if w.trained)


def attending(model):
    return [index for index, layer in enumerate(model.layers) if isinstance(layer.mixer, Attention)]


@pytest.mark.parametrize("model_type", OF_CLASS)
def test_a_file_that_says_nothing_is_its_class(model_type, from_config):
    assert total(from_config(model_type)) == OF_CLASS[model_type]


# ------------------------------------------------------------------ state spaces


@pytest.mark.parametrize(
    "limit", [[0, 1e30], [0.0, {"__float__": "Infinity"}], None, pytest.param("absent", id="absent")]
)
def test_time_steps_without_a_limit(limit, from_config):
    keys = {} if limit == "absent" else {"time_step_limit": limit}
    assert isinstance(from_config("mamba2", num_hidden_layers=1, **keys).layers[0].mixer, Mamba2)


@pytest.mark.parametrize("limit", [[0, 0.1], [0.001, 1e30], [0.0, {"__float__": "NaN"}], [0], [0, 1e30, 2]])
def test_time_steps_with_a_limit_are_refused(limit, config_refusal):
    said = config_refusal("mamba2", time_step_limit=limit)
    assert "time_step_limit: limited time steps are not understood" in said


@pytest.mark.parametrize(
    ("rank", "found"), [({}, 5), ({"time_step_rank": "auto"}, 5), ({"time_step_rank": 7}, 7)]
)
def test_the_rank_of_time_steps_is_a_sixteenth_of_the_width_rounded_up(rank, found, from_config):
    assert from_config("mamba", hidden_size=72, **rank).layers[0].mixer.time_step_rank == found


def test_channels_are_the_files_own_not_its_expansion(from_config):
    """FalconMamba-7B says expand: 16, and intermediate_size: 8192 of a width of 4096."""
    mixer = from_config("falcon_mamba", hidden_size=4096, expand=16, intermediate_size=8192).layers[0].mixer
    assert (mixer.intermediate_size, mixer.state_norm, mixer.state_norm_eps) == (8192, StateNorm.UNIT, 1e-6)


def test_heads_of_mamba2_make_its_channels(config_refusal):
    said = config_refusal("mamba2", hidden_size=64, num_heads=4, head_dim=16)
    assert "num_heads: 4 heads of 16 are not the 128 channels there are" in said


# ------------------------------------------------------------------ hybrids


def test_jamba_attends_and_has_experts_by_period_and_offset(from_config):
    model = from_config("jamba", **HYBRID | {"num_hidden_layers": 12}, intermediate_size=96)
    assert attending(model) == [4]
    assert [isinstance(layer.mlp, Experts) for layer in model.layers] == [False, True] * 6
    other = from_config(
        "jamba",
        **HYBRID | {"num_hidden_layers": 6},
        attn_layer_period=3,
        attn_layer_offset=0,
        expert_layer_period=1,
        expert_layer_offset=0,
        num_experts=1,
    )
    assert attending(other) == [0, 3]
    assert all(isinstance(layer.mlp, MLP) for layer in other.layers)
    assert isinstance(other.layers[1].mixer, Mamba)
    assert other.layers[0].mixer.rope_parameters is None


def test_an_offset_is_below_its_period(config_refusal):
    said = config_refusal("jamba", **HYBRID, attn_layer_period=4, attn_layer_offset=4)
    assert "attn_layer_offset: must be below attn_layer_period (4), not 4" in said


def test_granite_4_goes_by_its_list_not_by_the_keys_it_carries(from_config):
    types = ["mamba", "attention", "mamba", "mamba"]
    model = from_config("granitemoehybrid", **HYBRID, **MAMBA2_KEYS, layer_types=types)
    assert attending(model) == [1]
    assert model.layers[1].mixer.rope_parameters is None
    dense = from_config(
        "granitemoehybrid",
        **HYBRID,
        mamba_n_heads=3,
        layer_types=["attention"] * 4,
        num_local_experts=0,
        position_embedding_type="rope",
    )
    assert attending(dense) == [0, 1, 2, 3]
    assert all(isinstance(layer.mlp, MLP) for layer in dense.layers)
    assert dense.layers[0].mixer.rope_parameters is not None


def test_falcon_h1_goes_by_mamba_d_ssm(from_config):
    keys = MAMBA2_KEYS | {"mamba_d_head": "auto", "mamba_d_ssm": 48}
    mixer = from_config("falcon_h1", **HYBRID, **keys).layers[3].mixer
    assert (mixer.mamba2.num_heads, mixer.mamba2.head_dim, mixer.mamba2.gate_norm) == (4, 12, None)
    expanded = from_config("falcon_h1", **HYBRID, **keys | {"mamba_d_ssm": None}).layers[0].mixer.mamba2
    assert expanded.head_dim == 32


@pytest.mark.parametrize(("before", "found"), [(True, GateNorm.BEFORE_GATE), (False, GateNorm.AFTER_GATE)])
def test_where_falcon_h1_normalises(before, found, from_config):
    keys = {"mamba_d_ssm": 128, "mamba_rms_norm": True, "mamba_norm_before_gate": before}
    mixer = from_config("falcon_h1", **HYBRID, **MAMBA2_KEYS, **keys).layers[0].mixer
    assert mixer.mamba2.gate_norm is found


def test_multipliers_of_one_are_none(from_config):
    keys = HYBRID | MAMBA2_KEYS | {"mamba_d_ssm": 128}
    plain = from_config("falcon_h1", **keys)
    ones = {"ssm_multipliers": [1.0] * 5, "mlp_multipliers": [1.0, 1.0], "key_multiplier": 1.0}
    assert plain.layers == from_config("falcon_h1", **keys, **ones).layers
    keyed = from_config("falcon_h1", **keys, key_multiplier=0.5)
    assert keyed.layers[0].mixer.attention.attention_multiplier == 0.5 / 4
    assert plain.layers[0].mixer.attention.attention_multiplier is None
    assert plain.layers[0].mixer.mamba2.ssm_multipliers is None


def test_a_wrong_number_of_multipliers(config_refusal):
    said = config_refusal("falcon_h1", **HYBRID, **MAMBA2_KEYS, mamba_d_ssm=128, ssm_multipliers=[1.0, 2.0])
    assert "ssm_multipliers: expected 5 numbers, not 2" in said


def test_bamba_attends_where_its_indices_say(from_config, config_refusal):
    model = from_config("bamba", **HYBRID, **MAMBA2_KEYS, attn_layer_indices=[1, 3])
    assert attending(model) == [1, 3]
    assert model.layers[1].mixer.rope_parameters.rotated(16) == 8
    said = config_refusal("bamba", **HYBRID, **MAMBA2_KEYS, attn_layer_indices=[4])
    assert "attn_layer_indices: expected layers 0 to 3, not 4" in said


# ------------------------------------------------------------------ Nemotron-H


def test_a_pattern_of_nemotron_h_is_its_depth(from_config):
    model = from_config("nemotron_h", hybrid_override_pattern="M*-EM", num_hidden_layers=52, hidden_size=64)
    kinds = [type(layer.mixer or layer.mlp) for layer in model.layers]
    assert kinds == [Mamba2, Attention, MLP, Experts, Mamba2]
    assert all((layer.mixer is None) != (layer.mlp is None) for layer in model.layers)


def test_a_list_says_the_same(from_config, config_refusal):
    words = ["linear_attention", "full_attention", "mlp", "moe", "mamba"]
    listed = from_config("nemotron_h", layers_block_type=words, hidden_size=64)
    assert listed.layers == from_config("nemotron_h", hybrid_override_pattern="M*-EM", hidden_size=64).layers
    said = config_refusal("nemotron_h", layers_block_type=words, hybrid_override_pattern="M*-E-")
    assert "contradicts 'hybrid_override_pattern'" in said
    said = config_refusal("nemotron_h", hybrid_override_pattern="MX")
    assert "'X' is not one of M, *, -, E" in said


@pytest.mark.parametrize(
    ("key", "found"),
    [({}, StateDtype.FP32), ({"mamba_ssm_cache_dtype": "float16"}, StateDtype.FP16)],
)
def test_states_of_nemotron_h_are_served_in_float32_unless_the_file_asks_otherwise(key, found, from_config):
    model = from_config("nemotron_h", hybrid_override_pattern="M", hidden_size=64, **key)
    assert model.layers[0].mixer.state_dtype is found


def test_states_served_in_a_dtype_that_is_none(config_refusal):
    said = config_refusal("nemotron_h", hybrid_override_pattern="M", mamba_ssm_cache_dtype="int8")
    assert "mamba_ssm_cache_dtype: 'int8' is not one of bfloat16, float16, float32" in said


# ------------------------------------------------------------------ delta nets


@pytest.mark.parametrize("model_type", ["qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"])
def test_every_fourth_layer_attends_or_those_of_the_list(model_type, from_config):
    sizes = {"num_hidden_layers": 6, "hidden_size": 64}
    assert attending(from_config(model_type, **sizes)) == [3]
    assert attending(from_config(model_type, **sizes, full_attention_interval=2)) == [1, 3, 5]
    types = ["full_attention"] + ["linear_attention"] * 5
    assert attending(from_config(model_type, **sizes, layer_types=types)) == [0]


def test_states_of_qwen_3_5_are_served_as_its_file_asks(from_config):
    sizes = {"num_hidden_layers": 1, "hidden_size": 64}
    asked = from_config("qwen3_5_text", **sizes, mamba_ssm_dtype="float32").layers[0].mixer
    assert asked.state_dtype is StateDtype.FP32
    assert from_config("qwen3_5_text", **sizes).layers[0].mixer.state_dtype is None


def test_gates_of_delta_nets_are_silu(from_config, config_refusal):
    sizes = {"num_hidden_layers": 1, "hidden_size": 64}
    from_config("qwen3_5_text", **sizes, output_gate_type="swish")
    said = config_refusal("qwen3_5_text", **sizes, output_gate_type="gelu")
    assert "output_gate_type: the delta nets of this family are gated by silu" in said


def test_lists_of_kimi_linear_count_from_one(from_config, config_refusal):
    lists = {"full_attn_layers": [2, 4], "kda_layers": [1, 3]}
    model = from_config("kimi_linear", num_hidden_layers=4, hidden_size=64, linear_attn_config=lists)
    recurs = [isinstance(layer.mixer, KimiDeltaAttention) for layer in model.layers]
    assert recurs == [True, False, True, False]
    assert [isinstance(layer.mlp, MLP) for layer in model.layers] == [True, False, False, False]
    wrong = {"full_attn_layers": [1, 3], "kda_layers": [0, 2]}
    said = config_refusal("kimi_linear", num_hidden_layers=4, linear_attn_config=wrong)
    assert "full_attn_layers and kda_layers must name each layer from 1 to 4 once" in said


@pytest.mark.parametrize(
    ("depth", "found"), [(5, [3]), (9, [3, 7]), (4, [3]), (3, [2]), (2, [1])], ids=lambda x: str(x)
)
def test_olmo_hybrid_attends_in_every_fourth_layer_or_in_the_last(depth, found, from_config):
    model = from_config("olmo_hybrid", num_hidden_layers=depth)
    assert attending(model) == found
    blocks = [layer.block for layer in model.layers]
    assert blocks == [Block.POST_NORM if i in found else Block.PRE_NORM for i in range(depth)]


def test_sizes_of_olmo_hybrids_delta_nets_follow_from_attentions(from_config):
    """30 heads of 3840: keys of 0.75 x 3840 / 30 = 96, values twice as wide."""
    net = from_config("olmo_hybrid", num_hidden_layers=1, layer_types=["linear_attention"]).layers[0].mixer
    assert (net.linear_num_key_heads, net.linear_num_value_heads) == (30, 30)
    assert (net.linear_key_head_dim, net.linear_value_head_dim) == (96, 192)
    assert (net.negative_eigenvalues, net.norm_eps) == (True, 1e-5)


@pytest.mark.parametrize(
    ("keys", "base"),
    [
        ({}, 10_000.0),
        ({"rope_parameters": None}, 10_000.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": None}}, None),
        ({"rope_theta": None}, None),
    ],
)
def test_olmo_hybrid_rotates_unless_there_is_no_base(keys, base, from_config):
    rotation = from_config("olmo_hybrid", num_hidden_layers=4, **keys).layers[3].mixer.rope_parameters
    assert (None if rotation is None else rotation.rope_theta) == base


# ------------------------------------------------------------------ lightning, RG-LRU, short convolutions


def test_minimax_in_both_formats(from_config):
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    native = from_config("minimax", **sizes)
    assert [type(layer.mixer) for layer in native.layers] == [Attention, LightningAttention]
    assert native.layers[0].block is Block.NORMED_RESIDUAL
    released = from_config("minimax_m1", **sizes, attn_type_list=[0, 1], rotary_dim=8)
    assert [type(layer.mixer) for layer in released.layers] == [LightningAttention, Attention]
    assert released.layers[1].mixer.rope_parameters.rotated(16) == 8
    assert released.layers[1].block is Block.PRE_NORM
    after = from_config("minimax_m1", **sizes, attn_type_list=[0, 1], postnorm=True)
    assert after.layers[1].block is Block.NORMED_RESIDUAL


def test_minimax_names_the_kind_of_every_layer(config_refusal):
    said = config_refusal("minimax_m1", num_hidden_layers=2, attn_type_list=[0, 2])
    assert "attn_type_list: expected a 0 or a 1 for each of 2 layers" in said


def test_recurrent_gemma_repeats_its_blocks(from_config):
    model = from_config("recurrent_gemma", num_hidden_layers=5, hidden_size=80, num_attention_heads=4)
    assert attending(model) == [2]
    assert model.layers[2].mixer.sliding_window == 2048
    assert isinstance(model.layers[4].mixer, RgLru)
    # The file's width is of both halves of the first step: 7680 is 3840 features.
    assert model.layers[0].mlp.intermediate_size == 3840


@pytest.mark.parametrize(
    ("keys", "width"),
    [
        # LFM2-1.2B: two thirds of 12,288, up to a multiple of 256.
        ({"block_ff_dim": 12_288, "block_auto_adjust_ff_dim": True}, 8192),
        ({"block_ff_dim": 12_288, "block_auto_adjust_ff_dim": False}, 12_288),
        ({"block_ff_dim": 1000, "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 100}, 900),
    ],
)
def test_the_width_of_an_lfm2_block(keys, width, from_config):
    assert from_config("lfm2", num_hidden_layers=1, **keys).layers[0].mlp.intermediate_size == width


def test_lfm2_convolves_where_it_does_not_attend(from_config, config_refusal):
    old = from_config("lfm2", num_hidden_layers=3, full_attn_idxs=[1])
    assert attending(old) == [1]
    assert isinstance(old.layers[0].mixer, ShortConvolution)
    assert attending(from_config("lfm2", num_hidden_layers=3)) == [0, 1, 2]
    said = config_refusal("lfm2", num_hidden_layers=3, full_attn_idxs=[3])
    assert "full_attn_idxs: expected layers 0 to 2, not 3" in said


def test_lfm3_slides_convolves_and_attends_in_turn(from_config):
    model = from_config("lfm3", num_hidden_layers=7)
    windows = [layer.mixer.sliding_window for layer in model.layers if isinstance(layer.mixer, Attention)]
    assert (attending(model), windows) == ([2, 4, 6], [None, 256, None])
    full, sliding = model.layers[2].mixer, model.layers[4].mixer
    # Half of a head's pairs turn in full layers, all of them in sliding ones.
    assert (full.rope_parameters.partial_rotary_factor, full.rope_parameters.rope_theta) == (0.5, 1e6)
    assert (sliding.rope_parameters.partial_rotary_factor, sliding.rope_parameters.rope_theta) == (1, 1e4)
    assert (full.output_gate, model.layers[0].block) == (OutputGate.HEAD, Block.SANDWICH)
    plain = from_config("lfm3", num_hidden_layers=3, use_attention_gate=False, use_sandwich_norm=False)
    assert (plain.layers[2].mixer.output_gate, plain.layers[0].block) == (None, Block.PRE_NORM)
