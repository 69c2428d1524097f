"""Small models of every kind of layer and ways to run them, and tiles with something in every slot."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.arch.attention import Attention, OutputGate, QkNorm
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.shared_block import SharedBlock
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder
from kvplan.engine.kv_tiles import KVTiles
from kvplan.engine.random_weights import random_weights
from kvplan.storage import kv_format

VOCABULARY = 97
ROPE = RopeParameters(10_000.0)
FULL = Attention(4, 2, 16, rope_parameters=ROPE, qk_norm=QkNorm.HEAD)
BIASED = Attention(2, 2, 24, qkv_bias=True, out_bias=True)
DENSE = MLP(48)
MOE = Experts(6, 2, 16, shared_expert_intermediate_size=16, shared_expert_gate=True)
COMPRESSED = CompressedAttention(
    4, 16, 24, 8, 2, 12, 8, RopeParameters(10_000.0, interleaved=True), 4, EntryIndexer(9, 12, 6)
)
STREAMS = HyperConnections(3, 4)
SPACE = Mamba2(num_heads=4, head_dim=16, state_size=8, n_groups=2, conv_kernel=4)
SHARED = SharedBlock(
    0,
    Attention(4, 2, 16, rope_parameters=ROPE, input_streams=2, adapter_rank=5),
    MLP(48, adapter_rank=7),
)
KINDS = {
    "gqa": [Layer(FULL, DENSE)] * 2,
    "mha": [Layer(BIASED, MLP(48, gated=False, mlp_bias=True))] * 2,
    "mqa": [Layer(Attention(4, 1, 16, rope_parameters=ROPE), DENSE, Block.PARALLEL)] * 2,
    "windows": [
        Layer(replace(FULL, sliding_window=8, attn_logit_softcapping=20.0), DENSE, Block.SANDWICH),
        Layer(FULL, MOE, Block.SANDWICH),
    ],
    "sinks": [Layer(replace(FULL, sliding_window=6, sink_tokens=3, sinks=True), DENSE)] * 2,
    "chunks": [Layer(replace(FULL, attention_chunk_size=8), DENSE), Layer(FULL, DENSE)],
    "blocks": [Layer(replace(FULL, indexer=BlockIndexer(2, 24, 4, 3)), DENSE), Layer(FULL, MOE)],
    "latent": [Layer(LatentAttention(4, 32, 16, 8, 16, q_lora_rank=24, rope_parameters=ROPE), MOE)] * 2,
    "compressed": [
        Layer(COMPRESSED, replace(MOE, hash_vocab_size=VOCABULARY), hyper_connections=STREAMS),
        Layer(replace(COMPRESSED, compress_ratio=7, indexer=None), DENSE, hyper_connections=STREAMS),
    ],
    "shared block": [
        Layer(SPACE, None),
        Layer(SPACE, None, shared_block=SHARED),
        Layer(SPACE, None, shared_block=replace(SHARED, number=1)),
        Layer(SPACE, None, shared_block=SHARED),
    ],
    "delta": [
        Layer(GatedDeltaNet(2, 4, 16, 16, 4), MOE),
        Layer(replace(FULL, output_gate=OutputGate.QUERY), DENSE),
    ],
}


def small_model(kind):
    return Model(
        name=kind,
        source="a test",
        dtype="fp32",
        hidden_size=40,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        layers=tuple(KINDS[kind]),
        hyper_connections=KINDS[kind][0].hyper_connections,
        norm=Norm.LAYER if kind == "mha" else Norm.RMS,
        learned_positions=512 if kind == "mha" else 0,
        tie_word_embeddings=kind in ("gqa", "windows"),
    )


class Runner:
    """A small model with its weights, and short words for running it."""

    def __init__(self, kind):
        self.model = small_model(kind)
        self.decoder = Decoder(self.model, random_weights(self.model, seed=3), max_tokens=512)

    def cache(self, kv, allocation, sequences=8, blocks=None):
        return Cache(self.model, kv, allocation, 512, sequences, blocks)

    def feed(self, cache, *batch, decode=False):
        """Logits of the last of each sequence's new tokens."""
        given = [(sequence, np.asarray(tokens)) for sequence, tokens in batch]
        return self.decoder.forward(cache, given, Counter(), decode=decode)

    def greedy(self, cache, sequence, logits, count):
        """The next tokens of one sequence, and the logits behind the last."""
        tokens = []
        for _ in range(count):
            tokens.append(int(logits.argmax()))
            logits = self.feed(cache, (sequence, tokens[-1:]), decode=True)[0]
        return tokens, logits


_RUNNERS = {}


@pytest.fixture(params=KINDS)
def runner(request):
    """A runner of each kind of model in turn."""
    if request.param not in _RUNNERS:
        _RUNNERS[request.param] = Runner(request.param)
    return _RUNNERS[request.param]


@pytest.fixture
def runner_of():
    """A function from a kind of model to its runner."""

    def find(kind):
        if kind not in _RUNNERS:
            _RUNNERS[kind] = Runner(kind)
        return _RUNNERS[kind]

    return find


@pytest.fixture
def prompt():
    """A function that draws a prompt of some length."""

    def draw(length, seed=0):
        return np.random.default_rng([seed, length]).integers(0, VOCABULARY, length)

    return draw


@pytest.fixture
def filled_tiles():
    """A function that makes tiles with every slot written, and their keys and values by (block, offset).

    Shapes are (kv heads, key channels, value channels, tokens of a block).
    """

    def normal(shape, seed):
        return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32)

    def fill(name, shape=(2, 64, 64, 64), blocks=4, seed=0, **options):
        heads, k_dim, v_dim, tokens = shape
        tiles = KVTiles(heads, k_dim, v_dim, blocks, tokens, kv_format(name), **options)
        slots = np.arange(blocks * tokens)
        keys = normal((len(slots), heads, k_dim), seed)
        values = normal((len(slots), heads, v_dim), seed + 1)
        hot = np.zeros(len(slots), np.int64) if tiles.hot else None
        tiles.write(slots // tokens, slots % tokens, keys, values, hot)
        return tiles, keys, values

    return fill
