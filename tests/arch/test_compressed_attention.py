"""Compressed attention, hyper-connections and tables of experts: what they hold and keep, counted by hand."""

from dataclasses import replace
from math import prod

import pytest

from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry import KV, CompressedKV, IndexKey, Pending
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.experts import Experts, TopkMethod
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.layer import Layer
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.retention import Compressed, PerRequest, Sliding, Unfinished
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.selected import TopTokens
from kvplan.arch.slot import CacheSlot
from kvplan.checks import FieldError
from kvplan.errors import UsageError

# DeepSeek-V4-Flash.
HIDDEN = 4096
WINDOW = CompressedAttention(64, 512, 1024, 64, 8, 1024, 128, RopeParameters(10_000.0, interleaved=True))
HEAVY = replace(WINDOW, compress_ratio=128)
SPARSE = replace(WINDOW, compress_ratio=4, indexer=EntryIndexer(64, 128, 512))
STREAMS = HyperConnections(4)


def elements(weights):
    return sum(weight.elements for weight in weights if weight.trained)


def test_parameters_by_hand():
    """Queries, the key, their norms, sinks, and the output by groups; then compressors, and the indexer."""
    window = 4096 * 1024 + 1024 + 1024 * 64 * 512 + 4096 * 512 + 512 + 64 + 8192 * 4096 + 4096 * 8192
    heavy = 2 * 4096 * 512 + 128 * 512 + 512
    entries, keys = 2 * 4096 * 1024 + 4 * 1024 + 512, 2 * 4096 * 256 + 4 * 256 + 128
    indexer = keys + 1024 * 64 * 128 + 4096 * 64
    assert elements(WINDOW.weights(HIDDEN)) == window
    assert elements(HEAVY.weights(HIDDEN)) == window + heavy
    assert elements(SPARSE.weights(HIDDEN)) == window + entries + indexer


def test_hyper_connections_by_hand():
    """Of each part: 24 numbers from 4 streams of 4,096, as many added, and three scales; of the head 4."""
    assert elements(STREAMS.layer_weights(HIDDEN)) == 2 * (24 * 4 * 4096 + 24 + 3)
    assert elements(STREAMS.output_weights(HIDDEN)) == 4 * 4 * 4096 + 4 + 1


def test_a_table_of_experts_is_no_parameter():
    experts = Experts(256, 6, 2048, hash_vocab_size=129_280)
    (table,) = set(experts.weights(HIDDEN)) - set(replace(experts, hash_vocab_size=None).weights(HIDDEN))
    assert (prod(table.shape), table.trained, table.is_matrix) == (129_280 * 6, False, False)


def test_what_is_kept():
    """A window of one vector for all heads, and an entry for each run; what makes the next one waits."""
    window = CacheSlot(KV(1, 512, 512, one_vector=True), Sliding(128))
    assert WINDOW.slots() == WINDOW.attended() == (window,)
    assert HEAVY.slots() == (
        window,
        CacheSlot(CompressedKV(512), Compressed(128)),
        CacheSlot(Pending(2 * 512), Unfinished(128)),
    )
    assert SPARSE.slots() == (
        window,
        CacheSlot(CompressedKV(512), Compressed(4), selected=TopTokens(512)),
        CacheSlot(IndexKey(128), Compressed(4)),
        # Two series, each a product and a gate, of the entry and of its index key.
        CacheSlot(Pending(2 * 2 * (512 + 128)), Unfinished(4)),
        CacheSlot(Pending(4 * 2 * (512 + 128)), PerRequest()),
    )
    assert SPARSE.attended() == SPARSE.slots()[:2]


def test_tensor_parallel_ranks_share_heads_by_their_groups():
    weights = {weight.name: weight for weight in SPARSE.weights(HIDDEN)}
    cut = {name for name, weight in weights.items() if weight.on_rank(4).shape != weight.shape}
    assert cut == {
        *("self_attn.q_b_proj.weight", "self_attn.sinks"),
        *("self_attn.o_a_proj.weight", "self_attn.o_b_proj.weight"),
    }
    assert weights["self_attn.o_a_proj.weight"].on_rank(4).shape == (2 * 1024, 4096)
    with pytest.raises(UsageError, match="8 groups of heads"):
        weights["self_attn.o_a_proj.weight"].on_rank(16)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"compress_ratio": None}, "indexer needs a compress_ratio"),
        ({"compress_ratio": 0}, "compress_ratio must be at least 1"),
        ({"o_groups": 7}, "num_attention_heads must be a multiple of o_groups"),
        ({"qk_rope_head_dim": 130}, "qk_rope_head_dim must be at most the 128 elements"),
        ({"qk_rope_head_dim": 63}, "must rotate an even number"),
    ],
)
def test_what_cannot_be_is_refused(change, complaint):
    with pytest.raises(FieldError, match=complaint):
        replace(SPARSE, **change)


def test_a_scaled_model_compresses_as_the_real_one_and_chooses_fewer():
    scaled = SPARSE.scaled_down(Limits(256, HIDDEN))
    assert (scaled.head_dim, scaled.compress_ratio, scaled.sliding_window) == (512, 4, 128)
    assert (scaled.num_attention_heads, scaled.o_groups, scaled.indexer.index_topk) == (8, 8, 32)
    assert HEAVY.scaled_down(Limits(256, HIDDEN)).compress_ratio == 128


def model(*layers, **others):
    return Model("streams", "a test", "bf16", 64, 100, 512, layers, **others)


def test_hyper_connections_are_of_every_layer_and_plain():
    plain = Layer(HEAVY, MLP(64), hyper_connections=STREAMS)
    assert model(plain, hyper_connections=STREAMS).hyper_connections == STREAMS
    with pytest.raises(FieldError, match="hyper_connections must be that of every layer"):
        model(plain)
    with pytest.raises(FieldError, match="needs a plain pre_norm"):
        replace(plain, block=Block.SANDWICH)
    with pytest.raises(FieldError, match="needs a plain pre_norm"):
        replace(plain, mlp=None)


def test_a_table_has_a_row_for_each_token_and_chooses_alone():
    experts = Experts(8, 2, 16, hash_vocab_size=100)
    assert model(Layer(HEAVY, experts)).layers[0].mlp == experts
    with pytest.raises(FieldError, match="hash_vocab_size must be vocab_size"):
        model(Layer(HEAVY, replace(experts, hash_vocab_size=99)))
    with pytest.raises(FieldError, match="hash_vocab_size goes with topk_method greedy"):
        replace(experts, topk_method=TopkMethod.NOAUX_TC)
