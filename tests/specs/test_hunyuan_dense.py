"""Hunyuan without experts: norms behind the rotation, and a base stretched by a fixed alpha."""

import pytest

from kvplan.arch.attention import QkNorm

ALPHA = {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "type": "dynamic"}


def test_norms_are_behind_the_rotation(from_config):
    mixer = from_config("hunyuan_v1_dense", head_dim=128).layers[0].mixer
    assert (mixer.qk_norm, mixer.qk_norm_after_rope) == (QkNorm.HEAD, True)


def test_an_alpha_stretches_the_base_once_for_all_lengths(from_config):
    """10,000 x 1000^(128 / 126)."""
    rope = from_config("hunyuan_v1_dense", head_dim=128, rope_scaling=ALPHA).layers[0].mixer.rope_parameters
    assert rope.rope_theta == pytest.approx(11_158_839.925, rel=1e-9)
    assert rope.rope_type.value == "default"


def test_without_an_alpha_dynamic_is_dynamic(from_config):
    plain = {"type": "dynamic", "factor": 4.0}
    rope = from_config("hunyuan_v1_dense", rope_scaling=plain).layers[0].mixer.rope_parameters
    assert (rope.rope_type.value, rope.factor, rope.rope_theta) == ("dynamic", 4.0, 10_000.0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"use_cla": True}, "layers that share keys and values"),
        ({"use_qk_norm": False}, "use_qk_norm: false is not understood"),
        ({"attention_head_dim": 64}, "attention_head_dim: 64 is not understood"),
        ({"num_experts": 16}, "another family"),
        ({"norm_type": "layer"}, "is not one of rms, hf_rms"),
        ({"rope_scaling": ALPHA | {"type": "linear"}}, "alpha goes with dynamic only"),
    ],
)
def test_what_the_family_does_not_do_is_refused(config_refusal, keys, said):
    assert said in config_refusal("hunyuan_v1_dense", head_dim=128, **keys)


def test_keys_of_released_files_change_nothing(from_config):
    """Hunyuan-7B-Instruct carries these."""
    released = {
        "add_classification_head": False,
        "attention_head_dim": 128,
        "cla_share_factor": 2,
        "class_num": 0,
        "dense_list": [4096, 0],
        "enable_lm_head_fp32": True,
        "norm_type": "hf_rms",
        "org_vocab_size": 128_167,
        "pool_type": "last",
        "use_cla": False,
        "use_qk_norm": True,
        "use_rotary_pos_emb": True,
        "xdrope_section": None,
    }
    assert from_config("hunyuan_v1_dense", head_dim=128, **released) == from_config(
        "hunyuan_v1_dense", head_dim=128
    )
