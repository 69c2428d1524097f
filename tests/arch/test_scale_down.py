"""A model scaled down is small, and behaves in a cache as the large one does."""

from dataclasses import fields, replace

import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mamba import Mamba
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.released import StoredAs
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.scale_down import kept_layers, scaled_down
from kvplan.arch.short_convolution import ShortConvolution

# What may differ between a layer and its small form; every other field must be the same.
CUT = {
    Attention: {
        *("num_attention_heads", "num_key_value_heads", "indexer"),
        *("sliding_window", "attention_chunk_size", "visible_window"),
    },
    CompressedAttention: {
        *("num_attention_heads", "q_lora_rank", "o_groups", "o_lora_rank"),
        *("sliding_window", "indexer"),
    },
    CrossAttention: {"num_attention_heads", "num_key_value_heads"},
    LatentAttention: {"num_attention_heads", "q_lora_rank", "indexer"},
    GatedDeltaNet: {"linear_num_key_heads", "linear_num_value_heads"},
    KimiDeltaAttention: {"linear_num_heads"},
    LightningAttention: {"num_attention_heads"},
    Mamba: {"intermediate_size", "time_step_rank"},
    Mamba2: {"num_heads", "n_groups"},
    RgLru: {"lru_width", "num_attention_heads"},
    ShortConvolution: {"conv_dim"},
    MLP: {"intermediate_size"},
    Experts: {"moe_intermediate_size", "shared_expert_intermediate_size", "moe_latent_size"}
    | {"hash_vocab_size"},
}
CUT_OF_MODEL = {
    *("source", "dtype", "hidden_size", "vocab_size", "layers", "embedding_size"),
    *("embedding_multiplier", "per_layer_input", "towers", "missing_towers"),
}


def parts(mixer):
    """The mixers of a layer: two in one of Falcon-H1, whose multipliers stay."""
    if not isinstance(mixer, AttentionBesideMamba):
        return () if mixer is None else (mixer,)
    return mixer.attention, mixer.mamba2


def differing(one, other):
    assert type(one) is type(other)
    return {field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)}


def kept(model):
    """The layers of a model that stay, at their real size."""
    return [model.layers[index] for index in kept_layers(model)]


def test_only_sizes_are_cut(representative, bundled):
    model = bundled(representative)
    small = scaled_down(model)
    assert differing(model, small) <= CUT_OF_MODEL
    for large, layer in zip(kept(model), small.layers, strict=True):
        assert layer.block == large.block
        for mixer, cut in zip(parts(large.mixer), parts(layer.mixer), strict=True):
            assert differing(mixer, cut) <= CUT[type(cut)]
        if large.mlp is None:
            assert layer.mlp is None
        else:
            assert differing(large.mlp, layer.mlp) <= CUT[type(layer.mlp)]


def test_heads_keep_their_ratio_and_windows_a_limit(representative, bundled):
    model = bundled(representative)
    for large, layer in zip(kept(model), scaled_down(model).layers, strict=True):
        match large.mixer, layer.mixer:
            case Attention() as big, Attention() as little:
                group = big.num_attention_heads // big.num_key_value_heads
                assert little.num_attention_heads == group * little.num_key_value_heads
                assert little.num_attention_heads <= max(8, group)
                assert little.num_key_value_heads <= big.num_key_value_heads
                for window, cut in [
                    (big.sliding_window, little.sliding_window),
                    (big.attention_chunk_size, little.attention_chunk_size),
                    (big.visible_window, little.visible_window),
                ]:
                    assert cut == (None if window is None else min(window, 128))
            case LatentAttention() as big, LatentAttention() as little:
                assert little.num_attention_heads == min(8, big.num_attention_heads)
                assert little.q_lora_rank == (big.q_lora_rank and min(big.q_lora_rank, 256))
            case GatedDeltaNet() as big, GatedDeltaNet() as little:
                ratio = big.linear_num_value_heads // big.linear_num_key_heads
                assert little.linear_num_value_heads == ratio * little.linear_num_key_heads
                assert little.linear_num_value_heads <= 4
            case Mamba2() as big, Mamba2() as little:
                assert little.n_groups == min(big.n_groups, 2)
                assert little.num_heads == min(big.num_heads, 8)
            case Mamba() as big, Mamba() as little:
                # Channels by the width's share, in whole steps of 32, as the model itself.
                share = min(256, model.hidden_size) / model.hidden_size
                assert 0 <= little.intermediate_size - big.intermediate_size * share < 32
            case ShortConvolution(), ShortConvolution() as little:
                assert little.conv_dim == min(256, model.hidden_size)
            case RgLru() as big, RgLru() as little:
                assert little.block_width == big.block_width
                assert little.num_attention_heads == min(big.num_attention_heads, 2)
            case LightningAttention() as big, LightningAttention() as little:
                assert little.num_attention_heads == min(big.num_attention_heads, 4)
            case KimiDeltaAttention() as big, KimiDeltaAttention() as little:
                assert little.linear_num_heads == min(big.linear_num_heads, 4)


def test_it_is_small_and_in_float32(model_name, bundled):
    model = bundled(model_name)
    small = scaled_down(model)
    assert small.hidden_size == min(model.hidden_size, 256)
    assert small.vocab_size == min(model.vocab_size, 512)
    assert (small.dtype, small.towers) == ("fp32", ())
    assert sum(weight.elements * count for weight, count in small.weights()) < 45e6
    for layer in small.layers:
        if isinstance(layer.mlp, Experts):
            assert layer.mlp.num_experts * layer.mlp.moe_intermediate_size <= 8192


def test_it_has_every_kind_of_layer_in_the_order_they_come(model_name, bundled):
    """Four layers where there are so many, and more only where there are more kinds, or work is shared."""
    model = bundled(model_name)
    indices = kept_layers(model)
    assert list(indices) == sorted(set(indices))
    assert set(kept(model)) == set(model.layers)
    shared = sum(not slot.owned for layer in kept(model) for slot in layer.slots())
    assert min(4, len(model.layers)) <= len(indices) <= max(4, len(set(model.layers)) + shared)


def makers(model):
    """Return for each layer the layers that store what it reads."""
    made_by = {place: layer for layer, places in enumerate(model.own_places()) for place in places}
    return [[made_by[place] for place in places] for places in model.places()]


def test_a_layer_reads_what_the_same_layer_as_before_has_stored(model_name, bundled):
    model = bundled(model_name)
    indices = kept_layers(model)
    small = makers(scaled_down(model))
    assert [[indices[maker] for maker in layer] for layer in small] == [makers(model)[i] for i in indices]


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("llama-3.1-8b", (0, 1, 2, 3)),
        ("gemma-3-4b", (0, 1, 2, 5)),  # every sixth sees all tokens
        # Every fifth sees all tokens, from the eleventh on nothing is left out between the matrices, and from
        # the twenty-first on layers read what the last of their kind before has stored.
        ("gemma-3n-e2b", (0, 4, 10, 14, 18, 19, 20, 24)),
        # Dense to the third. The fourth takes the third's choice of tokens, the seventh makes its own.
        ("glm-5.2", (0, 2, 3, 6)),
    ],
)
def test_the_layers_that_stay_by_hand(name, indices, bundled):
    assert kept_layers(bundled(name)) == indices


def test_a_changed_model_keeps_the_layers_of_the_one_it_was(bundled):
    """The fourth layer sees all tokens instead of the sixth, which stays; the fourth does not."""
    gemma = bundled("gemma-3-4b")
    sliding, full = gemma.layers[0], gemma.layers[5]
    changed = replace(gemma, layers=(sliding, sliding, sliding, full, sliding, sliding, *gemma.layers[6:]))
    assert kept_layers(changed) == (0, 1, 2, 3)
    assert scaled_down(changed, like=gemma).layers == (scaled_down(gemma).layers[0],) * 4


def test_layers_that_are_only_stored_otherwise_are_of_one_kind(bundled):
    llama = bundled("llama-3.1-8b")
    last = replace(llama.layers[-1], stored_otherwise=(StoredAs("fp8", ("mlp.down_proj.weight",)),))
    assert kept_layers(replace(llama, layers=(*llama.layers[:-1], last))) == (0, 1, 2, 3)


@pytest.mark.parametrize(("layers", "hidden"), [(1, 8), (2, 24), (3, 100), (7, 512), (10**6, 1)])
def test_depth_and_width_can_be_chosen(representative, layers, hidden, bundled):
    model = bundled(representative)
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
