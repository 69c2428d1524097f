"""Recurrent mixers that are no state spaces, against their equations in float64: one token at a time."""

from math import erf

import numpy as np
import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.layer import Layer
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.short_convolution import ShortConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.kimi_delta_mixer import KimiDeltaMixer
from kvplan.engine.lightning_mixer import LightningMixer, decay_rates
from kvplan.engine.rg_lru_mixer import RgLruMixer
from kvplan.engine.short_convolution_mixer import ShortConvolutionMixer
from kvplan.engine.state_store import StateStore
from kvplan.engine.step import Step
from kvplan.storage import kv_format

HIDDEN, EPS, SLOTS, INDEX, DEPTH = 24, 1e-3, 6, 2, 5


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rms(x, weight, eps):
    return x / np.sqrt((x**2).mean() + eps) * weight


class Sequence:
    """One sequence: the inputs its convolution keeps, (channels, columns), its state, and tokens so far."""

    def __init__(self, arch, weights, conv, recurrent, tokens):
        self.arch, self.tokens = arch, tokens
        self.w = {name: array.astype(float) for name, array in weights.items()}
        self.conv, self.state = conv.astype(float), recurrent.astype(float)

    def convolve(self, new, filters, kernel):
        """Return each channel's sum of the last inputs, the new one the last; keep as many as are kept."""
        seen = np.concatenate((self.conv, new[:, None]), axis=1)
        self.conv = seen[:, seen.shape[1] - self.conv.shape[1] :]
        return np.array([seen[c, -kernel:] @ filters[c, 0] for c in range(len(new))])


class KimiDelta(Sequence):
    def token(self, x):
        w, heads, dim = self.w, self.arch.linear_num_heads, self.arch.linear_head_dim
        new = np.concatenate([w[f"self_attn.{n}_proj.weight"] @ x for n in "qkv"])
        mixed = self.convolve(new, w["self_attn.conv1d.weight"], self.arch.linear_conv_kernel_dim)
        q, k, v = (mixed * sigmoid(mixed)).reshape(3, heads, dim)
        decay = w["self_attn.f_b_proj.weight"] @ (w["self_attn.f_a_proj.weight"] @ x)
        steps = np.log1p(np.exp(decay + w["self_attn.dt_bias"])).reshape(heads, dim)
        strengths = sigmoid(w["self_attn.b_proj.weight"] @ x)
        gates = w["self_attn.g_b_proj.weight"] @ (w["self_attn.g_a_proj.weight"] @ x)
        states, out = self.state.reshape(heads, dim, dim), []
        for h in range(heads):
            query = q[h] / np.sqrt((q[h] ** 2).sum() + 1e-6) / np.sqrt(dim)
            key = k[h] / np.sqrt((k[h] ** 2).sum() + 1e-6)
            states[h] = np.diag(np.exp(-np.exp(w["self_attn.A_log"][h]) * steps[h])) @ states[h]
            states[h] += np.outer(key, strengths[h] * (v[h] - key @ states[h]))
            out.append(rms(query @ states[h], w["self_attn.o_norm.weight"], EPS))
        return w["self_attn.o_proj.weight"] @ (np.concatenate(out) * sigmoid(gates))


class Lightning(Sequence):
    def token(self, x):
        heads, dim = self.arch.num_attention_heads, self.arch.head_dim
        mixed = self.w["self_attn.qkv_proj.weight"] @ x
        mixed = (mixed * sigmoid(mixed)).reshape(heads, 3, dim)
        states, out = self.state.reshape(heads, dim, dim), []
        for h in range(heads):
            slope = 2 ** (-8 * (h + 1) / heads) * (1 - INDEX / (DEPTH - 1 + 1e-5) + 1e-5)
            query, key, value = mixed[h]
            states[h] = np.exp(-slope) * states[h] + np.outer(key, value)
            out.append(query @ states[h])
        # Whatever the model's own norms have.
        normed = rms(np.concatenate(out), self.w["self_attn.norm.weight"], 1e-6)
        gate = sigmoid(self.w["self_attn.output_gate.weight"] @ x)
        return self.w["self_attn.out_proj.weight"] @ (gate * normed)


class RealGated(Sequence):
    def gate(self, name, x):
        blocks, matrices = x.reshape(self.arch.num_attention_heads, -1), self.w[f"{name}_weight"]
        made = [block @ matrix for block, matrix in zip(blocks, matrices, strict=True)]
        return sigmoid(np.concatenate(made) + self.w[f"{name}_bias"])

    def token(self, x):
        w, block = self.w, "temporal_block"
        y = w[f"{block}.linear_y.weight"] @ x + w[f"{block}.linear_y.bias"]
        y = np.array([value * (1 + erf(value / 2**0.5)) / 2 for value in y])
        new = w[f"{block}.linear_x.weight"] @ x + w[f"{block}.linear_x.bias"]
        mixed = self.convolve(new, w[f"{block}.conv_1d.weight"], self.arch.conv1d_width)
        mixed += w[f"{block}.conv_1d.bias"]
        softplus = np.log1p(np.exp(w[f"{block}.rg_lru.recurrent_param"]))
        kept = np.exp(-8 * softplus * self.gate(f"{block}.rg_lru.recurrent_gate", mixed))
        size = np.sqrt(1 - kept**2) if self.tokens else 1
        self.state = kept * self.state + size * mixed * self.gate(f"{block}.rg_lru.input_gate", mixed)
        self.tokens += 1
        return w[f"{block}.linear_out.weight"] @ (self.state * y) + w[f"{block}.linear_out.bias"]


class Short(Sequence):
    def plus(self, name):
        return self.w.get(f"conv.{name}.bias", 0)

    def token(self, x):
        before, after, value = np.split(self.w["conv.in_proj.weight"] @ x + self.plus("in_proj"), 3)
        mixed = self.convolve(before * value, self.w["conv.conv.weight"], self.arch.conv_L_cache)
        return self.w["conv.out_proj.weight"] @ (after * (mixed + self.plus("conv"))) + self.plus("out_proj")


MIXERS = {
    "kimi delta": (KimiDeltaAttention(3, 8, 4), KimiDelta),
    "kimi delta, one head": (KimiDeltaAttention(1, 20, 2), KimiDelta),
    "lightning": (LightningAttention(4, 6), Lightning),
    "rg-lru": (RgLru(30, 3, 4, Activation.GELU), RealGated),
    "rg-lru, one block": (RgLru(12, 1, 2, Activation.GELU), RealGated),
    "short": (ShortConvolution(HIDDEN, 3), Short),
    "short with biases": (ShortConvolution(HIDDEN, 4, conv_bias=True), Short),
}


@pytest.fixture(params=MIXERS)
def case(request):
    return MIXERS[request.param]


def random_weights(arch):
    random = np.random.default_rng(3)
    return {w.name: random.standard_normal(w.shape).astype(np.float32) for w in arch.weights(HIDDEN)}


def mixer_of(arch, weights):
    model = Model("tiny", "", "fp32", HIDDEN, 8, 8, (Layer(arch, MLP(8)),), norm_eps=EPS)
    match arch:
        case KimiDeltaAttention():
            return KimiDeltaMixer(arch, model, weights, 0)
        case LightningAttention():
            return LightningMixer(arch, weights, 0, INDEX, DEPTH)
        case RgLru():
            return RgLruMixer(arch, weights, 0)
        case ShortConvolution():
            return ShortConvolutionMixer(arch, weights, 0)


def store_of(arch, filled):
    """Return all slots' states: zero, or something to begin from."""
    (slot,) = arch.slots()
    store, random = StateStore(slot.entry, SLOTS), np.random.default_rng(4)
    if filled:
        store.conv[...] = random.standard_normal(store.conv.shape)
        store.recurrent[...] = random.standard_normal(store.recurrent.shape)
    return store


def normal(rows, seed=0):
    return np.random.default_rng((seed, rows)).standard_normal((rows, HIDDEN), dtype=np.float32)


def run(arch, weights, x, starts, lengths, slots, store, counter=None):
    step = Step(starts, lengths, np.array(slots), False, {}, [store], kv_format("fp32"))
    return mixer_of(arch, weights)(x, step, counter or Counter())


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max(initial=0) < 3e-5 * max(1, np.abs(expected).max(initial=0))


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (9,), (1, 1, 1), (2, 5, 1, 7)])
def test_sequences_follow_the_equations(case, lengths, filled):
    arch, reference = case
    weights, store, x = random_weights(arch), store_of(arch, filled), normal(sum(lengths))
    slots, start = [4, 0, 3, 2][: len(lengths)], 11 if filled else 0
    conv, recurrent, given = store.conv.copy(), store.recurrent.copy(), x.copy()
    found = run(arch, weights, x, [start] * len(lengths), lengths, slots, store)
    done = 0
    for length, slot in zip(lengths, slots, strict=True):
        oracle = reference(arch, weights, conv[slot], recurrent[slot], start)
        expected = np.array([oracle.token(token) for token in x[done : done + length].astype(float)])
        assert_close(found[done : done + length], expected)
        assert_close(store.conv[slot], oracle.conv)
        assert_close(store.recurrent[slot], oracle.state.ravel())
        done += length
    others = np.setdiff1d(np.arange(SLOTS), slots)
    assert np.array_equal(store.conv[others], conv[others])
    assert np.array_equal(store.recurrent[others], recurrent[others])
    assert np.array_equal(x, given)


def test_pieces_of_a_prompt_are_the_prompt(case):
    arch, _ = case
    weights, x = random_weights(arch), normal(10)
    whole = run(arch, weights, x, [0], [10], [1], store_of(arch, filled=False))
    store, start, pieces = store_of(arch, filled=False), 0, []
    for length in (1, 4, 1, 2, 2):
        pieces.append(run(arch, weights, x[start : start + length], [start], [length], [1], store))
        start += length
    assert_close(np.concatenate(pieces), whole)


# Of 7 tokens of two sequences; operations a token as the equations multiply, two for each product.
FLOPS = {
    # 3 x 24 channels by 4 inputs; 3 states of 8 x 8 read, written and read.
    "kimi delta": 2 * 72 * 4 + 3 * 2 * 3 * 64,
    "kimi delta, one head": 2 * 60 * 2 + 3 * 2 * 400,
    "lightning": 2 * 2 * 4 * 36,
    # 30 channels by 4 inputs; two gates of 3 blocks of 10 x 10; a decay and a sum.
    "rg-lru": 2 * 30 * 4 + 2 * 2 * 300 + 2 * 30,
    "rg-lru, one block": 2 * 12 * 2 + 2 * 2 * 144 + 2 * 12,
    "short": 2 * 24 * 3,
    "short with biases": 2 * 24 * 4,
}
# Columns kept: all inputs of a convolution, all but the newest in RG-LRU.
STATE_BYTES = {
    "kimi delta": 4 * (72 * 4 + 3 * 64),
    "kimi delta, one head": 4 * (60 * 2 + 400),
    "lightning": 4 * 4 * 36,
    "rg-lru": 4 * (30 * 3 + 30),
    "rg-lru, one block": 4 * (12 + 12),
    "short": 4 * 24 * 3,
    "short with biases": 4 * 24 * 4,
}


@pytest.mark.parametrize("name", MIXERS)
def test_what_is_counted(name):
    arch, _ = MIXERS[name]
    weights, counter = random_weights(arch), Counter()
    run(arch, weights, normal(7), [0, 3], [2, 5], [5, 1], store_of(arch, filled=False), counter)
    matrices = sum(w.size for name, w in weights.items() if w.ndim == 2)
    assert counter.matmul_flops == 7 * 2 * matrices
    assert counter.attention_flops == 7 * FLOPS[name]
    assert counter.cache_read_bytes == counter.cache_written_bytes == 2 * STATE_BYTES[name]
    assert counter.weights_read_bytes == 4 * sum(w.size for w in weights.values())
    assert mixer_of(arch, weights).nbytes == 4 * sum(w.size for w in weights.values())


@pytest.mark.parametrize("name", MIXERS)
def test_the_plan_counts_the_same_operations(name):
    core = MIXERS[name][0].recurrence()
    assert core.flops(2, 7, *(size.value for size in core.sizes)) == 2 * 7 * FLOPS[name]


def test_the_first_token_of_a_sequence_is_taken_whole():
    """There is nothing to keep the size of yet: not so at a later token with an empty state."""
    arch, _ = MIXERS["rg-lru"]
    weights, x = random_weights(arch), normal(1)
    first = run(arch, weights, x, [0], [1], [0], store_of(arch, filled=False))
    later = run(arch, weights, x, [1], [1], [0], store_of(arch, filled=False))
    assert np.abs(first - later).max() > 1e-2


def test_a_head_forgets_by_its_slope_and_its_layers_place():
    # 2^-2 and 2^-4 ... of four heads, in the first of three layers, the second, and the last.
    slopes = np.array([0.25, 0.0625, 0.015625, 0.00390625])
    assert decay_rates(4, 0, 3) == pytest.approx(slopes * 1.00001)
    assert decay_rates(4, 1, 3) == pytest.approx(slopes * 0.5000125, rel=1e-6)
    assert decay_rates(4, 2, 3) == pytest.approx(slopes * 1.5e-5, rel=1e-3)
