"""GPT-2 to StarCoder2, BLOOM, MPT, Falcon and OPT: what their keys say, what is default, what is refused."""

import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.norm import Block, Norm


def first(model):
    return model.layers[0].mixer


def biases(model):
    return {w.name for w in model.layer_weights(model.layers[0]) if w.name.endswith("proj.bias")}


# ------------------------------------------------------------------ learned positions


def test_gpt2_scores_are_divided_multiplied_by_nothing_or_by_each_layers_own(from_config):
    """Heads of 64: an eighth, one, and an eighth over the layer's number from one on."""
    assert first(from_config("gpt2")).attention_multiplier is None
    assert first(from_config("gpt2", scale_attn_weights=False)).attention_multiplier == 1
    layers = from_config("gpt2", n_layer=3, scale_attn_by_inverse_layer_idx=True).layers
    assert [layer.mixer.attention_multiplier for layer in layers] == [1 / 8, 1 / 16, 1 / 24]
    assert from_config("gpt2", reorder_and_upcast_attn=True) == from_config("gpt2")


def test_gpt_bigcode_has_one_kv_head_unless_told_otherwise(from_config, config_refusal):
    assert first(from_config("gpt_bigcode")).num_key_value_heads == 1
    assert first(from_config("gpt_bigcode", multi_query=False)).num_key_value_heads == 12
    assert "multi_query says it" in config_refusal("gpt_bigcode", num_key_value_heads=12)


def test_gpt_neo_repeats_pairs_of_kinds(from_config, config_refusal):
    pairs = [[["global"], 2], [["global", "local"], 1]]
    layers = from_config("gpt_neo", num_layers=4, attention_types=pairs, window_size=7).layers
    assert [layer.mixer.visible_window for layer in layers] == [None, None, None, 7]
    assert {layer.mixer.attention_multiplier for layer in layers} == {1.0}
    assert "has 4 entries for 5 layers" in config_refusal("gpt_neo", num_layers=5, attention_types=pairs)
    other = config_refusal("gpt_neo", num_layers=4, attention_types=pairs, attention_layers=["local"] * 4)
    assert "contradicts 'attention_types'" in other
    assert "expected pairs" in config_refusal("gpt_neo", num_layers=1, attention_types=[[["near"], 1]])


def test_opt_350m_has_its_norms_behind_each_sum_and_narrow_embeddings(from_config):
    """Published: 1,024 wide, embeddings of 512, and two rows of positions before the first."""
    narrow = {"hidden_size": 1024, "num_attention_heads": 16, "word_embed_proj_dim": 512}
    small = from_config("opt", **narrow, do_layer_norm_before=False)
    assert (small.layers[0].block, small.final_norm, small.embedding_size) == (
        Block.RESIDUAL_NORM,
        False,
        512,
    )
    assert (small.learned_positions, small.position_offset) == (2048, 2)
    large = from_config(
        "opt", word_embed_proj_dim=768, enable_bias=False, layer_norm_elementwise_affine=False
    )
    assert (large.layers[0].block, large.final_norm, large.embedding_size) == (Block.PRE_NORM, True, None)
    assert (large.norm, biases(large)) == (Norm.LAYER_UNIT, set())


# ------------------------------------------------------------------ scores that fall with the distance


def test_bloom_and_falcon_scale_their_slopes_otherwise(from_config):
    assert (first(from_config("bloom")).alibi, first(from_config("bloom")).alibi_scaled) == (True, False)
    falcon = first(from_config("falcon", alibi=True))
    assert (falcon.alibi, falcon.alibi_scaled, falcon.rope_parameters) == (True, True, None)
    assert first(from_config("falcon")).rope_parameters.rope_theta == 10_000


def test_bloom_normalises_its_embeddings(from_config):
    model = from_config("bloom")
    assert (model.embedding_norm, model.vocab_size, model.max_position_embeddings) == (True, 250_880, 2048)
    normed = from_config("bloom", apply_residual_connection_post_layernorm=True)
    assert normed.layers[0].block is Block.NORMED_RESIDUAL


@pytest.mark.parametrize(
    ("kind", "kv_heads"),
    [({}, 16), ({"attn_type": "multiquery_attention"}, 1), ({"attn_type": "grouped_query_attention"}, 4)],
)
def test_kv_heads_of_mpt(from_config, kind, kv_heads):
    model = from_config("mpt", attn_config={**kind, "kv_n_heads": 4})
    assert first(model).num_key_value_heads == kv_heads


def test_mpt_has_learned_positions_only_without_alibi(from_config):
    """And no biases, norms' included, unless no_bias is off."""
    falls = from_config("mpt")
    assert (falls.learned_positions, first(falls).alibi, falls.norm) == (0, True, Norm.LAYER_NO_BIAS)
    learned = from_config("mpt", no_bias=False, attn_config={"alibi": False, "clip_qkv": 8})
    assert (learned.learned_positions, first(learned).alibi, learned.norm) == (2048, False, Norm.LAYER)
    assert first(learned).clip_qkv == 8


@pytest.mark.parametrize(
    "given",
    [
        {"qk_ln": True},
        {"rope": True},
        {"prefix_lm": True},
        {"sliding_window_size": 64},
        {"alibi_bias_max": 16},
        {"attn_type": "sparse"},
    ],
)
def test_what_mpt_could_do_besides_is_refused_by_its_key(config_refusal, given):
    assert f"attn_config.{next(iter(given))}: " in config_refusal("mpt", attn_config=given)


def test_logits_of_mpt_may_be_scaled_by_name(from_config, config_refusal):
    assert from_config("mpt", logit_scale="inv_sqrt_d_model").logits_multiplier == 2048**-0.5
    assert from_config("mpt", logit_scale=0.5).logits_multiplier == 0.5
    assert "inv_sqrt_d_model" in config_refusal("mpt", logit_scale="other")


@pytest.mark.parametrize(
    ("given", "block"),
    [
        ({}, Block.PARALLEL),
        ({"parallel_attn": False}, Block.PRE_NORM),
        ({"new_decoder_architecture": True}, Block.PARALLEL_TWO_NORMS),
        ({"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}, Block.PARALLEL),
    ],
)
def test_blocks_of_falcon(from_config, given, block):
    assert from_config("falcon", **given).layers[0].block is block


def test_the_head_that_falcon_shares_is_the_new_decoders_only(from_config):
    assert (
        first(
            from_config("falcon", num_kv_heads=8, num_attention_heads=64, hidden_size=4096)
        ).num_key_value_heads
        == 1
    )
    new = from_config(
        "falcon", num_kv_heads=8, num_attention_heads=64, hidden_size=4096, new_decoder_architecture=True
    )
    assert first(new).num_key_value_heads == 8


# ------------------------------------------------------------------ rotations beside a plain MLP


def test_gptj_rotates_neighbours_at_the_beginning_of_a_head(from_config, config_refusal):
    model = from_config("gptj")
    rope = first(model).rope_parameters
    assert (rope.rotated(256), rope.interleaved, model.lm_head_bias) == (64, True, True)
    assert biases(model) == {"mlp.up_proj.bias", "mlp.down_proj.bias"}
    assert "null is not understood" in config_refusal("gptj", rotary_dim=None)
    assert "is more than a head's 256" in config_refusal("gptj", rotary_dim=512)
    assert "rotary: " in config_refusal("gptj", rotary=False)


def test_gpt_neox_stands_side_by_side_unless_told_otherwise(from_config):
    beside, serial = from_config("gpt_neox"), from_config("gpt_neox", use_parallel_residual=False)
    assert (beside.layers[0].block, serial.layers[0].block) == (Block.PARALLEL_TWO_NORMS, Block.PRE_NORM)
    assert first(from_config("gpt_neox", rotary_pct=1.0)).rope_parameters.rotated(96) == 96
    assert first(beside).rope_parameters.rotated(96) == 24


def test_phi_under_either_set_of_keys(from_config):
    new = from_config(
        "phi", hidden_size=96, num_attention_heads=3, intermediate_size=384, num_hidden_layers=2
    )
    old = from_config("phi-msft", n_embd=96, n_head=3, n_layer=2, rotary_dim=16, vocab_size=51_200)
    assert first(new) == first(old)
    assert new.layers == old.layers


def test_starcoder2_has_biases_and_windows_where_the_file_says(from_config):
    plain = from_config("starcoder2", use_bias=False, sliding_window=64)
    assert (biases(plain), first(plain).sliding_window) == (set(), 64)
    model = from_config("starcoder2")
    assert (len(biases(model)), first(model).sliding_window) == (6, None)
    assert model.layers[0].mlp.hidden_act is Activation.GELU_TANH
