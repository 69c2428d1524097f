"""OLMo 1, 2 and 3: norms of three kinds, clipping, and rotations by the kind of layer."""

from kvplan.arch.attention import QkNorm
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeType

YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}


def test_olmo_1_has_norms_without_weights(from_config):
    model = from_config("olmo", num_hidden_layers=1)
    assert (model.norm, model.norm_eps, model.tie_word_embeddings) == (Norm.LAYER_UNIT, 1e-5, False)
    assert not [w.name for w, _ in model.weights() if "norm" in w.name]
    # 2 x 50,304 x 4,096 of embedding and head, 4 x 4,096^2 of attention, 3 x 4,096 x 11,008 of the MLP.
    assert sum(w.elements * n for w, n in model.weights()) == 412_090_368 + 67_108_864 + 135_266_304


def test_clipping_is_read_and_null_is_none(from_config):
    assert from_config("olmo", clip_qkv=8.0).layers[0].mixer.clip_qkv == 8.0
    assert from_config("olmo", clip_qkv=None).layers[0].mixer.clip_qkv is None


def test_olmo_1_adds_what_its_class_says(config_refusal):
    assert "rms_norm_eps: 1e-06 is not understood" in config_refusal("olmo", rms_norm_eps=1e-6)


def test_olmo_2_has_norms_behind_its_blocks_and_of_projections(from_config):
    model = from_config("olmo2", num_key_value_heads=8)
    layer = model.layers[0]
    shapes = {w.name: w.shape for w in model.layer_weights(layer) if "norm" in w.name}
    assert (layer.block, layer.mixer.qk_norm, model.norm_eps) == (Block.POST_NORM, QkNorm.PROJECTION, 1e-5)
    assert shapes == {
        "post_attention_layernorm.weight": (4096,),
        "post_feedforward_layernorm.weight": (4096,),
        "self_attn.q_norm.weight": (4096,),
        "self_attn.k_norm.weight": (1024,),
    }


def test_three_of_four_layers_of_olmo_3_slide(from_config):
    model = from_config("olmo3", num_hidden_layers=8, sliding_window=1024)
    assert [layer.mixer.sliding_window for layer in model.layers] == 2 * [1024, 1024, 1024, None]
    assert {layer.mixer.rope_parameters.rope_theta for layer in model.layers} == {500_000.0}


def test_rope_scaling_stretches_the_full_layers_of_olmo_3_only(from_config):
    model = from_config("olmo3", max_position_embeddings=65_536, rope_scaling=YARN)
    kinds = [layer.mixer.rope_parameters.rope_type for layer in model.layers[:4]]
    assert kinds == 3 * [RopeType.DEFAULT] + [RopeType.YARN]


def test_rope_parameters_of_olmo_3_go_by_kind(from_config, config_refusal):
    by_kind = {"full_attention": YARN | {"rope_theta": 2e5}, "sliding_attention": {"rope_theta": 3e4}}
    model = from_config("olmo3", rope_parameters=by_kind)
    assert [layer.mixer.rope_parameters.rope_theta for layer in model.layers[:4]] == 3 * [3e4] + [2e5]
    assert "cannot be beside rope_parameters" in config_refusal(
        "olmo3", rope_parameters=by_kind, rope_scaling=YARN
    )
    assert "not understood" in config_refusal("olmo3", rope_parameters={"rope_theta": 3e4})
