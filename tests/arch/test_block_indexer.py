"""The indexer of blocks: what it weighs and keeps, what it refuses, and how small it is made."""

from dataclasses import replace

import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.entry import KV, IndexKey
from kvplan.arch.layer import Layer
from kvplan.arch.limits import Limits
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.retention import Full
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.selected import TopBlocks
from kvplan.arch.slot import CacheSlot
from kvplan.arch.what_if import with_kv_heads, with_latent_attention, with_window
from kvplan.checks import FieldError
from kvplan.errors import UsageError
from kvplan.storage import TensorRole

INDEXER = BlockIndexer(4, 128, 128, 16)
# MiniMax-M3.
ATTENTION = Attention(
    64, 4, 128, rope_parameters=RopeParameters(5e6, partial_rotary_factor=0.5), indexer=INDEXER
)


def test_an_index_key_lies_behind_keys_and_values():
    kept, index = ATTENTION.slots()
    assert kept == CacheSlot(KV(4, 128, 128), Full(), selected=TopBlocks(16, 128))
    assert index == CacheSlot(IndexKey(128, of_blocks=True), Full())


def test_weights_of_minimax_m3():
    """Of its 6,144 inputs four index queries and one index key of 128 are made, each with a norm."""
    own = {w.name: w for w in ATTENTION.weights(6_144) if "index" in w.name}
    assert {name: weight.shape for name, weight in own.items()} == {
        "self_attn.index_q_proj.weight": (512, 6_144),
        "self_attn.index_k_proj.weight": (128, 6_144),
        "self_attn.index_q_norm.weight": (128,),
        "self_attn.index_k_norm.weight": (128,),
    }
    # Two ranks have two index heads each, eight ranks one each; the key is made by all of them.
    queries, keys = own["self_attn.index_q_proj.weight"], own["self_attn.index_k_proj.weight"]
    assert [queries.on_rank(ranks).shape[0] for ranks in (1, 2, 4, 8)] == [512, 256, 128, 128]
    assert [keys.on_rank(ranks).shape[0] for ranks in (1, 2, 8)] == [128, 128, 128]
    assert {queries.role, keys.role} == {TensorRole.ATTENTION}


def test_buffers_hold_index_queries_and_the_key():
    without = replace(ATTENTION, indexer=None)
    elements = [sum(b.elements for b in mixer.buffers(6_144)) for mixer in (ATTENTION, without)]
    assert elements[0] - elements[1] == 512 + 128


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sliding_window": 64}, "is for layers that store every token and see it"),
        ({"attention_chunk_size": 64}, "is for layers that store every token and see it"),
        ({"visible_window": 64}, "is for layers that store every token and see it"),
        ({"shares_kv": True}, "is for layers that store every token and see it"),
        ({"sinks": True}, "cannot be beside sinks, alibi or a softcap"),
        ({"alibi": True}, "cannot be beside sinks, alibi or a softcap"),
        ({"attn_logit_softcapping": 30.0}, "cannot be beside sinks, alibi or a softcap"),
        ({"indexer": replace(INDEXER, index_n_heads=3)}, "must divide num_key_value_heads"),
        ({"indexer": replace(INDEXER, index_n_heads=8)}, "must divide num_key_value_heads"),
        ({"indexer": replace(INDEXER, index_head_dim=62)}, "must be at least the 64 elements"),
    ],
)
def test_what_an_indexer_cannot_be_beside(changes, said):
    with pytest.raises(FieldError, match=said):
        replace(ATTENTION, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"index_n_heads": 0}, "index_n_heads"),
        ({"index_block_size": 0}, "index_block_size"),
        ({"index_local_blocks": 0}, "index_local_blocks"),
        ({"index_local_blocks": 17}, r"must be at most index_topk_blocks \(16\), not 17"),
    ],
)
def test_sizes_of_an_indexer(changes, said):
    with pytest.raises(FieldError, match=said):
        replace(INDEXER, **changes)


def test_no_indexer_beside_a_state_space():
    mamba = Mamba2(num_heads=4, head_dim=16, state_size=16, n_groups=1, conv_kernel=4)
    AttentionBesideMamba(replace(ATTENTION, indexer=None), mamba)
    with pytest.raises(FieldError, match="is for layers with attention alone"):
        AttentionBesideMamba(ATTENTION, mamba)


def test_a_scaled_model_leaves_blocks_out_of_a_short_run():
    limits = Limits(hidden_size=256, of_hidden_size=6_144, window=128)
    small = ATTENTION.scaled_down(limits)
    assert (small.num_attention_heads, small.num_key_value_heads) == (16, 1)
    assert small.indexer == BlockIndexer(1, 128, 32, 4)
    # 6 KV heads that each serve 2 queries stay 4, of which two index heads have two each.
    pair = BlockIndexer(2, 64, 8, 9, index_local_blocks=5)
    few = replace(ATTENTION, num_attention_heads=12, num_key_value_heads=6, indexer=pair).scaled_down(limits)
    assert (few.num_key_value_heads, few.indexer) == (4, BlockIndexer(2, 64, 8, 5, index_local_blocks=5))


MODEL = Model("m3", "a test", "bf16", 6_144, 200_064, 1 << 20, (Layer(ATTENTION, MLP(3_072)),))


def test_what_if_it_had_fewer_kv_heads():
    """Each KV head keeps an index head; where one serves several already, so many as share the heads left."""
    for left, index_heads in ((2, 2), (1, 1)):
        mixer = with_kv_heads(MODEL, left).layers[0].mixer
        assert (mixer.num_key_value_heads, mixer.indexer) == (
            left,
            replace(INDEXER, index_n_heads=index_heads),
        )
    shared = replace(ATTENTION, indexer=replace(INDEXER, index_n_heads=2))
    one = with_kv_heads(replace(MODEL, layers=(Layer(shared, MLP(3_072)),)), 1).layers[0].mixer
    assert one.indexer == replace(INDEXER, index_n_heads=1)


def test_what_if_it_had_a_window():
    """There is nothing left to choose."""
    mixer = with_window(MODEL, 4_096, 4).layers[0].mixer
    assert mixer == replace(ATTENTION, indexer=None, sliding_window=4_096, sink_tokens=4)


def test_latents_do_not_choose_blocks():
    with pytest.raises(UsageError, match="latent attention cannot keep m3's chosen blocks"):
        with_latent_attention(MODEL)
