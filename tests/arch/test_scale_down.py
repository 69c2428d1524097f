"""A model scaled down is small, and behaves in a cache as the large one does."""

from dataclasses import fields, replace

import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.mlp import MLP
from kvplan.arch.scale_down import scaled_down

# What may differ between a layer and its small form; every other field must be the same.
CUT = {
    Attention: {"num_attention_heads", "num_key_value_heads", "sliding_window", "attention_chunk_size"},
    LatentAttention: {"num_attention_heads", "q_lora_rank"},
    GatedDeltaNet: {"linear_num_key_heads", "linear_num_value_heads"},
    MLP: {"intermediate_size"},
    Experts: {"moe_intermediate_size", "shared_expert_intermediate_size"},
}
CUT_OF_MODEL = {
    *("source", "dtype", "weight_format", "hidden_size", "vocab_size", "layers"),
    *("embedding_multiplier", "vision"),
}


def differing(one, other):
    assert type(one) is type(other)
    return {field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)}


def test_only_sizes_are_cut(model_name, bundled):
    model = bundled(model_name)
    small = scaled_down(model)
    assert differing(model, small) <= CUT_OF_MODEL
    for large, layer in zip(model.layers, small.layers, strict=False):
        assert layer.block == large.block
        assert differing(large.mixer, layer.mixer) <= CUT[type(layer.mixer)]
        assert differing(large.mlp, layer.mlp) <= CUT[type(layer.mlp)]


def test_heads_keep_their_ratio_and_windows_a_limit(model_name, bundled):
    model = bundled(model_name)
    for large, layer in zip(model.layers, scaled_down(model).layers, strict=False):
        match large.mixer, layer.mixer:
            case Attention() as big, Attention() as little:
                group = big.num_attention_heads // big.num_key_value_heads
                assert little.num_attention_heads == group * little.num_key_value_heads
                assert little.num_attention_heads <= max(8, group)
                assert little.num_key_value_heads <= big.num_key_value_heads
                for window, cut in [
                    (big.sliding_window, little.sliding_window),
                    (big.attention_chunk_size, little.attention_chunk_size),
                ]:
                    assert cut == (None if window is None else min(window, 128))
            case LatentAttention() as big, LatentAttention() as little:
                assert little.num_attention_heads == min(8, big.num_attention_heads)
                assert little.q_lora_rank == (big.q_lora_rank and min(big.q_lora_rank, 256))
            case GatedDeltaNet() as big, GatedDeltaNet() as little:
                ratio = big.linear_num_value_heads // big.linear_num_key_heads
                assert little.linear_num_value_heads == ratio * little.linear_num_key_heads
                assert little.linear_num_value_heads <= 4


def test_it_is_small_and_in_float32(model_name, bundled):
    model = bundled(model_name)
    small = scaled_down(model)
    assert small.hidden_size == min(model.hidden_size, 256)
    assert small.vocab_size == min(model.vocab_size, 512)
    assert (small.dtype, small.weight_format, small.vision) == ("fp32", "", None)
    assert sum(weight.elements * count for weight, count in small.weights()) < 60e6
    for layer in small.layers:
        if isinstance(layer.mlp, Experts):
            assert layer.mlp.num_experts * layer.mlp.moe_intermediate_size <= 8192


def test_it_has_every_kind_of_layer_in_the_order_they_come(model_name, bundled):
    """As few layers as have them all, and four where there are so many."""
    model = bundled(model_name)
    depth = len(scaled_down(model).layers)
    assert depth >= min(4, len(model.layers))
    assert set(model.layers[:depth]) == set(model.layers)
    if depth > 4:
        assert set(model.layers[: depth - 1]) < set(model.layers)


@pytest.mark.parametrize(("layers", "hidden"), [(1, 8), (2, 24), (3, 100), (7, 512), (10**6, 1)])
def test_depth_and_width_can_be_chosen(model_name, layers, hidden, bundled):
    model = bundled(model_name)
    small = scaled_down(model, layers=layers, hidden_size=hidden)
    assert len(small.layers) == min(layers, len(model.layers))
    assert small.hidden_size == min(hidden, model.hidden_size)
    kinds = [(type(layer.mixer), type(layer.mlp)) for layer in model.layers[:layers]]
    assert [(type(layer.mixer), type(layer.mlp)) for layer in small.layers] == kinds


def test_widths_scale_with_the_models_in_steps_of_32(bundled):
    """Llama 3.1 8B: 14,336 of 4,096 is 896 of 256, and 84 of 24, which is rounded up."""
    llama = bundled("llama-3.1-8b")
    for hidden, width in [(256, 896), (24, 96), (8, 32), (4096, 14_336), (10_000, 14_336)]:
        assert scaled_down(llama, hidden_size=hidden).layers[0].mlp.intermediate_size == width


def test_a_width_below_a_step_stays(bundled):
    llama = bundled("llama-3.1-8b")
    narrow = replace(llama, layers=(replace(llama.layers[0], mlp=MLP(20)),))
    assert scaled_down(narrow).layers[0].mlp.intermediate_size == 20


def test_experts_share_a_limit(bundled):
    """Mixtral's eight get 14,336 x 256 / 4,096 = 896 each; 512 of Qwen3-Next get 8,192 / 512 = 16."""
    assert scaled_down(bundled("mixtral-8x7b")).layers[0].mlp.moe_intermediate_size == 896
    block = scaled_down(bundled("qwen3-next-80b-a3b")).layers[0].mlp
    assert (block.num_experts, block.num_experts_per_tok, block.moe_intermediate_size) == (512, 10, 16)
    assert block.shared_expert_intermediate_size == 64


def test_heads_by_hand(bundled):
    expected = {
        "llama-3.1-8b": (8, 2),  # 32 of 8: groups of 4
        "gpt2": (8, 8),  # 12 of 12
        "falcon-7b": (71, 1),  # 71 of 1: a group stays whole
        "smollm2-135m": (6, 2),  # 9 of 3: groups of 3
    }
    for name, heads in expected.items():
        mixer = scaled_down(bundled(name)).layers[0].mixer
        assert (mixer.num_attention_heads, mixer.num_key_value_heads) == heads
    net = scaled_down(bundled("qwen3-next-80b-a3b")).layers[0].mixer
    assert (net.linear_num_key_heads, net.linear_num_value_heads) == (2, 4)  # 16 of 32


def test_a_multiplier_that_is_the_root_of_the_width_stays_one(bundled):
    gemma = bundled("gemma-2-2b")
    assert gemma.embedding_multiplier == 48  # the root of 2,304
    assert scaled_down(gemma).embedding_multiplier == 16
    assert scaled_down(gemma, hidden_size=24).embedding_multiplier == 24**0.5
    assert scaled_down(replace(gemma, embedding_multiplier=12.0)).embedding_multiplier == 12
    assert scaled_down(bundled("llama-3.1-8b")).embedding_multiplier == 1


def test_a_small_model_is_not_enlarged(bundled):
    """It scales to itself, but for where it says it comes from."""
    small = scaled_down(bundled("gemma-2-2b"))
    again = scaled_down(small, hidden_size=4096)
    assert again == replace(small, source=again.source)
    smollm = bundled("smollm2-135m")
    whole = scaled_down(smollm, layers=99, hidden_size=99_999)
    assert (len(whole.layers), whole.hidden_size) == (30, 576)
    assert whole.layers[0].mlp == smollm.layers[0].mlp
