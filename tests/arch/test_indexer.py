"""Indexers of sparse attention: what they cache, what they weigh, and which layers share one."""

from dataclasses import replace

import pytest

from kvplan.arch.entry import IndexKey, Latent
from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.checks import FieldError

INDEXER = Indexer(index_n_heads=64, index_head_dim=128, index_topk=2_048)
SHARED = replace(INDEXER, shared=True)
MIXER = LatentAttention(
    num_attention_heads=128,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    q_lora_rank=1_536,
    indexer=INDEXER,
)


def elements(mixer):
    return sum(weight.elements for weight in mixer.weights(7_168))


def test_deepseek_v32s_indexer_is_13_959_424_parameters_a_layer():
    """64 x 128 queries of 1,536, a key of 128 of 7,168 and its LayerNorm, 64 weights of 7,168."""
    assert elements(MIXER) - elements(replace(MIXER, indexer=None)) == 13_959_424
    assert 8_192 * 1_536 + 128 * 7_168 + 2 * 128 + 64 * 7_168 == 13_959_424


def test_a_token_leaves_an_index_key_behind_its_latent():
    latent, key = MIXER.slots()
    assert (latent.entry, key.entry) == (Latent(512, 64), IndexKey(128))
    assert latent.selected.tokens == 2_048
    assert key.selected is None, "every key is scored"


def test_a_layer_that_shares_a_choice_has_neither_weights_nor_keys():
    mixer = replace(MIXER, indexer=SHARED)
    assert elements(mixer) == elements(replace(MIXER, indexer=None))
    (latent,) = mixer.slots()
    assert latent.selected.tokens == 2_048
    assert SHARED.buffers() == ()
    assert sum(buffer.elements for buffer in INDEXER.buffers()) == 64 * 128 + 128 + 64


def model(*mixers):
    return Model("m", "a test", "bf16", 96, 64, 512, tuple(Layer(mixer, MLP(64)) for mixer in mixers))


def test_a_choice_can_be_shared_once_a_layer_has_made_one():
    sharing, plain = replace(MIXER, indexer=SHARED), replace(MIXER, indexer=None)
    assert len(model(plain, MIXER, plain, sharing, sharing).stored_slots()) == 6
    for mixers in ((sharing,), (plain, sharing, MIXER)):
        at = mixers.index(sharing)
        with pytest.raises(
            FieldError, match=f"layer {at} shares a selection of tokens that no layer before it makes"
        ):
            model(*mixers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q_lora_rank": None}, "is needed: an indexer takes the compressed queries"),
        ({"indexer": replace(INDEXER, index_head_dim=63)}, "must be at least qk_rope_head_dim"),
        ({"expanded_cache": True}, "cannot be beside an indexer, whose kernels read latents"),
    ],
)
def test_what_does_not_go_with_an_indexer_is_refused(change, message):
    with pytest.raises(FieldError, match=message):
        replace(MIXER, **change)


def test_scaled_down_it_leaves_some_tokens_out_of_a_short_run():
    small = INDEXER.scaled_down(Limits(hidden_size=256, of_hidden_size=7_168))
    assert (small.index_n_heads, small.index_head_dim, small.index_topk) == (8, 128, 128)
