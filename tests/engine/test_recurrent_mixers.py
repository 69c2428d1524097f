"""Mixers that keep a state, against their equations in float64: one token, one head, one channel at a time.

The gated delta net has its own file: its weights come in an order of their own.
"""

from math import erf

import numpy as np
import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.layer import Layer
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mamba import Mamba, StateNorm
from kvplan.arch.mamba2 import GateNorm, Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.short_convolution import ShortConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.kimi_delta_mixer import KimiDeltaMixer
from kvplan.engine.lightning_mixer import LightningMixer, decay_rates
from kvplan.engine.rg_lru_mixer import RgLruMixer
from kvplan.engine.short_convolution_mixer import ShortConvolutionMixer
from kvplan.engine.state_space_mixer import StateSpaceMixer
from kvplan.engine.state_store import StateStore
from kvplan.engine.step import Step
from kvplan.storage import kv_format

HIDDEN, EPS, SLOTS, INDEX, DEPTH = 24, 1e-3, 6, 2, 5


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log1p(np.exp(x))


def unit(x, eps=EPS):
    return x / np.sqrt((x**2).mean() + eps)


# ------------------------------------------------------------------ the equations


class Sequence:
    """One sequence: the inputs its convolution keeps, (channels, columns), its state, and tokens so far.

    Its weights are float64, by their names without the mixer's.
    """

    def __init__(self, arch, weights, conv, recurrent, tokens):
        self.arch, self.tokens = arch, tokens
        self.w = {name.partition(".")[2]: array.astype(float) for name, array in weights.items()}
        self.conv, self.state = conv.astype(float), recurrent.astype(float)

    def plus(self, name):
        return self.w.get(f"{name}.bias", 0)

    def convolve(self, new, filters):
        """Return each channel's sum of the last inputs, the new one the last; keep as many as are kept."""
        seen = np.concatenate((self.conv, new[:, None]), axis=1)
        self.conv = seen[:, seen.shape[1] - self.conv.shape[1] :]
        return np.array([kept[-filters.shape[2] :] @ own[0] for kept, own in zip(seen, filters, strict=True)])


class First(Sequence):
    """Mamba: algorithm 2 of arXiv 2312.00752."""

    def token(self, x):
        w, arch = self.w, self.arch
        mixed, gate = np.split(w["in_proj.weight"] @ x + self.plus("in_proj"), 2)
        mixed = silu(self.convolve(mixed, w["conv1d.weight"]) + self.plus("conv1d"))
        made = w["x_proj.weight"] @ mixed
        rank, size = arch.time_step_rank, arch.state_size
        dt, b, c = made[:rank], made[rank : rank + size], made[rank + size :]
        if arch.state_norm is not None:
            eps = arch.state_norm_eps or EPS
            scale = {n: w.get(f"{n}_layernorm.weight", 1) for n in ("dt", "b", "c")}
            dt, b, c = (unit(part, eps) * scale[n] for n, part in (("dt", dt), ("b", b), ("c", c)))
        steps = softplus(w["dt_proj.weight"] @ dt + w["dt_proj.bias"])
        states, out = self.state.reshape(arch.intermediate_size, size), np.empty(arch.intermediate_size)
        for channel in range(arch.intermediate_size):
            decay = np.exp(-np.exp(w["A_log"][channel]) * steps[channel])
            states[channel] = decay * states[channel] + steps[channel] * b * mixed[channel]
            out[channel] = states[channel] @ c + w["D"][channel] * mixed[channel]
        return w["out_proj.weight"] @ (out * silu(gate)) + self.plus("out_proj")


class Second(Sequence):
    """Mamba-2: section 2 of arXiv 2405.21060, each head with one rate and a group it shares b and c with."""

    def token(self, x):
        w, arch = self.w, self.arch
        heads, dim, size = arch.num_heads, arch.head_dim, arch.state_size
        made = w["in_proj.weight"] @ x + self.plus("in_proj")
        shared = w["in_proj_groups.weight"] @ x + self.plus("in_proj_groups")
        gate, passing, steps = np.split(made, [heads * dim, 2 * heads * dim])
        written, read = np.split(shared, 2)
        factors = arch.ssm_multipliers or (1, 1, 1, 1, 1)
        gate, passing = gate * factors[0], passing * factors[1]
        written, read, steps = written * factors[2], read * factors[3], steps * factors[4]
        filters = np.concatenate((w["conv1d.weight"], w["conv1d_groups.weight"]))
        plus = np.concatenate((w["conv1d.bias"], w["conv1d_groups.bias"])) if arch.use_conv_bias else 0
        mixed = silu(self.convolve(np.concatenate((passing, written, read)), filters) + plus)
        inputs = mixed[: heads * dim].reshape(heads, dim)
        b, c = mixed[heads * dim :].reshape(2, arch.n_groups, size)
        states, out = self.state.reshape(heads, dim, size), np.empty((heads, dim))
        for head in range(heads):
            group = head // (heads // arch.n_groups)
            step = softplus(steps[head] + w["dt_bias"][head])
            states[head] *= np.exp(-np.exp(w["A_log"][head]) * step)
            states[head] += np.outer(step * inputs[head], b[group])
            out[head] = states[head] @ c[group] + w["D"][head] * inputs[head]
        return w["out_proj.weight"] @ self.gated(out.ravel(), silu(gate)) + self.plus("out_proj")

    def gated(self, out, gate):
        if self.arch.gate_norm is GateNorm.AFTER_GATE:
            return self.normed(out * gate)
        return (out if self.arch.gate_norm is None else self.normed(out)) * gate

    def normed(self, out):
        groups = np.split(out, self.arch.n_groups)
        return np.concatenate([unit(group) for group in groups]) * self.w["norm.weight"]


class KimiDelta(Sequence):
    def token(self, x):
        w, heads, dim = self.w, self.arch.linear_num_heads, self.arch.linear_head_dim
        new = np.concatenate([w[f"{name}_proj.weight"] @ x for name in "qkv"])
        q, k, v = silu(self.convolve(new, w["conv1d.weight"])).reshape(3, heads, dim)
        decay = w["f_b_proj.weight"] @ (w["f_a_proj.weight"] @ x)
        steps = softplus(decay + w["dt_bias"]).reshape(heads, dim)
        strengths = sigmoid(w["b_proj.weight"] @ x)
        gates = w["g_b_proj.weight"] @ (w["g_a_proj.weight"] @ x)
        states, out = self.state.reshape(heads, dim, dim), []
        for h in range(heads):
            query = q[h] / np.sqrt((q[h] ** 2).sum() + 1e-6) / np.sqrt(dim)
            key = k[h] / np.sqrt((k[h] ** 2).sum() + 1e-6)
            states[h] = np.diag(np.exp(-np.exp(w["A_log"][h]) * steps[h])) @ states[h]
            states[h] += np.outer(key, strengths[h] * (v[h] - key @ states[h]))
            out.append(unit(query @ states[h]) * w["o_norm.weight"])
        return w["o_proj.weight"] @ (np.concatenate(out) * sigmoid(gates))


class Lightning(Sequence):
    def token(self, x):
        heads, dim = self.arch.num_attention_heads, self.arch.head_dim
        mixed = silu(self.w["qkv_proj.weight"] @ x).reshape(heads, 3, dim)
        states, out = self.state.reshape(heads, dim, dim), []
        for h in range(heads):
            slope = 2 ** (-8 * (h + 1) / heads) * (1 - INDEX / (DEPTH - 1 + 1e-5) + 1e-5)
            query, key, value = mixed[h]
            states[h] = np.exp(-slope) * states[h] + np.outer(key, value)
            out.append(query @ states[h])
        # Its own, whatever the model's norms have.
        normed = unit(np.concatenate(out), 1e-6) * self.w["norm.weight"]
        gate = sigmoid(self.w["output_gate.weight"] @ x)
        return self.w["out_proj.weight"] @ (gate * normed)


class RealGated(Sequence):
    def gate(self, name, x):
        blocks, matrices = x.reshape(self.arch.num_attention_heads, -1), self.w[f"rg_lru.{name}_weight"]
        made = [block @ matrix for block, matrix in zip(blocks, matrices, strict=True)]
        return sigmoid(np.concatenate(made) + self.w[f"rg_lru.{name}_bias"])

    def token(self, x):
        w = self.w
        y = w["linear_y.weight"] @ x + w["linear_y.bias"]
        y = np.array([value * (1 + erf(value / 2**0.5)) / 2 for value in y])
        new = w["linear_x.weight"] @ x + w["linear_x.bias"]
        mixed = self.convolve(new, w["conv_1d.weight"]) + w["conv_1d.bias"]
        rates = softplus(w["rg_lru.recurrent_param"])
        kept = np.exp(-8 * rates * self.gate("recurrent_gate", mixed))
        size = np.sqrt(1 - kept**2) if self.tokens else 1
        self.state = kept * self.state + size * mixed * self.gate("input_gate", mixed)
        self.tokens += 1
        return w["linear_out.weight"] @ (self.state * y) + w["linear_out.bias"]


class Short(Sequence):
    def token(self, x):
        before, after, value = np.split(self.w["in_proj.weight"] @ x + self.plus("in_proj"), 3)
        mixed = self.convolve(before * value, self.w["conv.weight"]) + self.plus("conv")
        return self.w["out_proj.weight"] @ (after * mixed) + self.plus("out_proj")


# ------------------------------------------------------------------ mixers, and ways to run them

FACTORS = (0.5, 1.5, 0.75, 2.0, 0.25)
MIXERS = {
    "mamba": (Mamba(12, 5, 4, 3), First),
    "mamba with biases": (Mamba(12, 5, 3, 3, use_bias=True, use_conv_bias=False), First),
    "mamba of jamba": (Mamba(12, 5, 4, 3, state_norm=StateNorm.RMS), First),
    "mamba of falcon": (Mamba(12, 5, 2, 3, state_norm=StateNorm.UNIT, state_norm_eps=0.1), First),
    "mamba-2": (Mamba2(6, 4, 5, 2, 4), Second),
    "mamba-2 with biases": (Mamba2(6, 4, 5, 3, 3, use_bias=True, out_bias=True), Second),
    "mamba-2, gated last": (Mamba2(4, 4, 5, 1, 4, gate_norm=GateNorm.BEFORE_GATE), Second),
    "mamba-2 without a norm": (
        Mamba2(4, 4, 5, 4, 2, use_conv_bias=False, gate_norm=None, ssm_multipliers=FACTORS),
        Second,
    ),
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
    return {w.name: (0.7 * random.standard_normal(w.shape)).astype(np.float32) for w in arch.weights(HIDDEN)}


def mixer_of(arch, weights):
    model = Model("tiny", "", "fp32", HIDDEN, 8, 8, (Layer(arch, MLP(8)),), norm_eps=EPS)
    match arch:
        case Mamba() | Mamba2():
            return StateSpaceMixer(arch, model, weights, 0)
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


def normal(rows):
    return np.random.default_rng(rows).standard_normal((rows, HIDDEN), dtype=np.float32)


def run(arch, weights, x, starts, lengths, slots, store, counter=None):
    step = Step(starts, lengths, np.array(slots), False, {}, [store], kv_format("fp32"))
    return mixer_of(arch, weights)(x, step, counter or Counter())


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max(initial=0) < 3e-5 * max(1, np.abs(expected).max(initial=0))


# ------------------------------------------------------------------ what all of them do


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    ("lengths", "slots"),
    [((1,), [4]), ((9,), [4]), ((1, 1, 1), [4, 0, 3]), ((1, 1, 1), [2, 3, 4]), ((2, 5, 1, 7), [4, 0, 3, 2])],
)
def test_sequences_follow_the_equations(case, lengths, slots, filled):
    arch, reference = case
    weights, store, x = random_weights(arch), store_of(arch, filled), normal(sum(lengths))
    start = 11 if filled else 0
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


# Operations a token as the equations multiply, two for each product.
FLOPS = {
    # Two for each input of a convolution, four for each number of a state.
    "mamba": 2 * 12 * 4 + 4 * 12 * 5,
    "mamba with biases": 2 * 12 * 3 + 4 * 12 * 5,
    "mamba of jamba": 2 * 12 * 4 + 4 * 12 * 5,
    "mamba of falcon": 2 * 12 * 2 + 4 * 12 * 5,
    # 6 heads of 4 channels, and what 2 groups write and read of 5 each.
    "mamba-2": 2 * (24 + 20) * 4 + 4 * 24 * 5,
    "mamba-2 with biases": 2 * (24 + 30) * 3 + 4 * 24 * 5,
    "mamba-2, gated last": 2 * (16 + 10) * 4 + 4 * 16 * 5,
    "mamba-2 without a norm": 2 * (16 + 40) * 2 + 4 * 16 * 5,
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
    "mamba": 4 * (12 * 4 + 12 * 5),
    "mamba with biases": 4 * (12 * 3 + 12 * 5),
    "mamba of jamba": 4 * (12 * 4 + 12 * 5),
    "mamba of falcon": 4 * (12 * 2 + 12 * 5),
    "mamba-2": 4 * (44 * 4 + 24 * 5),
    "mamba-2 with biases": 4 * (54 * 3 + 24 * 5),
    "mamba-2, gated last": 4 * (26 * 4 + 16 * 5),
    "mamba-2 without a norm": 4 * (56 * 2 + 16 * 5),
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
    matrices = sum(w.size for n, w in weights.items() if w.ndim == 2 and not n.endswith("A_log"))
    assert counter.matmul_flops == 7 * 2 * matrices
    assert counter.attention_flops == 7 * FLOPS[name]
    assert counter.cache_read_bytes == counter.cache_written_bytes == 2 * STATE_BYTES[name]
    assert counter.weights_read_bytes == 4 * sum(w.size for w in weights.values())
    assert mixer_of(arch, weights).nbytes == 4 * sum(w.size for w in weights.values())


@pytest.mark.parametrize("name", MIXERS)
def test_the_plan_counts_the_same_operations(name):
    core = MIXERS[name][0].recurrence()
    assert core.flops(2, 7, *(size.value for size in core.sizes)) == 2 * 7 * FLOPS[name]


# ------------------------------------------------------------------ what some of them do


@pytest.mark.parametrize(("name", "wrong"), [("mamba", "mamba.D"), ("mamba-2", "mamba.dt_bias")])
def test_weights_of_another_shape_are_refused(name, wrong):
    arch = MIXERS[name][0]
    weights = random_weights(arch)
    weights[wrong] = weights[wrong][:-1]
    size = len(weights[wrong])
    with pytest.raises(ValueError, match=rf"{wrong} must be \({size + 1},\), not \({size},\)"):
        mixer_of(arch, weights)


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
