"""StableLM: a quarter of a head is rotated, and the switches of the 12B."""

from kvplan.arch.attention import QkNorm
from kvplan.arch.norm import Block, Norm


def test_a_file_without_sizes_is_stablelm_3b(from_config):
    """2,795,443,200 parameters as published."""
    model = from_config("stablelm")
    mixer = model.layers[0].mixer
    assert sum(w.elements * n for w, n in model.weights()) == 2_795_443_200
    assert (mixer.head_dim, mixer.rope_parameters.rotated(80)) == (80, 20)
    assert (model.norm, model.norm_eps, model.layers[0].block) == (Norm.LAYER, 1e-5, Block.PRE_NORM)
    assert (mixer.qkv_bias, mixer.out_bias, mixer.qk_norm) == (False, False, None)


def test_switches_of_stablelm_2_12b(from_config):
    model = from_config(
        "stablelm", num_key_value_heads=8, use_qkv_bias=True, qk_layernorm=True, use_parallel_residual=True
    )
    layer = model.layers[0]
    shapes = {w.name: w.shape for w in model.layer_weights(layer)}
    assert (layer.block, layer.mixer.qk_norm) == (Block.PARALLEL, QkNorm.EACH_HEAD)
    assert (shapes["self_attn.q_norm.weight"], shapes["self_attn.k_norm.weight"]) == ((32, 80), (8, 80))
    assert "self_attn.q_proj.bias" in shapes
    assert "self_attn.o_proj.bias" not in shapes
    assert "post_attention_layernorm.weight" not in shapes


def test_a_head_is_a_share_of_the_width(config_refusal):
    assert "head_dim: 128 is not understood" in config_refusal("stablelm", head_dim=128)
