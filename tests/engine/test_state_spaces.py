"""Mamba and Mamba-2 against their equations in float64: one token, one head, one channel at a time."""

import numpy as np
import pytest

from kvplan.arch.layer import Layer
from kvplan.arch.mamba import Mamba, StateNorm
from kvplan.arch.mamba2 import GateNorm, Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.engine.counter import Counter
from kvplan.engine.state_space_mixer import StateSpaceMixer
from kvplan.engine.state_store import StateStore
from kvplan.engine.step import Step
from kvplan.storage import kv_format

HIDDEN, EPS, SLOTS = 20, 1e-3, 6


def silu(x):
    return x / (1 + np.exp(-x))


def unit(x, eps=EPS):
    return x / np.sqrt((x**2).mean() + eps)


class Sequence:
    """One sequence: the inputs its convolution keeps, (channels, columns), and its state."""

    def __init__(self, arch, weights, conv, recurrent):
        self.arch = arch
        self.w = {name.removeprefix("mamba."): array.astype(float) for name, array in weights.items()}
        self.conv, self.state = conv.astype(float), recurrent.astype(float)

    def plus(self, name):
        return self.w.get(f"{name}.bias", 0)

    def convolve(self, new, filters, plus):
        """Return silu of each channel's sum of its last inputs, and keep them with the new one."""
        self.conv = np.concatenate((self.conv[:, 1:], new[:, None]), axis=1)
        sums = [kept @ filters[channel, 0] for channel, kept in enumerate(self.conv)]
        return silu(np.array(sums) + plus)


class First(Sequence):
    """Mamba: algorithm 2 of arXiv 2312.00752."""

    def token(self, x):
        w, arch = self.w, self.arch
        mixed, gate = np.split(w["in_proj.weight"] @ x + self.plus("in_proj"), 2)
        mixed = self.convolve(mixed, w["conv1d.weight"], self.plus("conv1d"))
        made = w["x_proj.weight"] @ mixed
        rank, size = arch.time_step_rank, arch.state_size
        dt, b, c = made[:rank], made[rank : rank + size], made[rank + size :]
        if arch.state_norm is not None:
            eps = arch.state_norm_eps or EPS
            scale = {n: w.get(f"{n}_layernorm.weight", 1) for n in ("dt", "b", "c")}
            dt, b, c = (unit(part, eps) * scale[n] for n, part in (("dt", dt), ("b", b), ("c", c)))
        steps = np.log1p(np.exp(w["dt_proj.weight"] @ dt + w["dt_proj.bias"]))
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
        plus = (
            np.concatenate((self.w["conv1d.bias"], self.w["conv1d_groups.bias"])) if arch.use_conv_bias else 0
        )
        mixed = self.convolve(np.concatenate((passing, written, read)), filters, plus)
        inputs = mixed[: heads * dim].reshape(heads, dim)
        b, c = mixed[heads * dim :].reshape(2, arch.n_groups, size)
        states, out = self.state.reshape(heads, dim, size), np.empty((heads, dim))
        for head in range(heads):
            group = head // (heads // arch.n_groups)
            step = np.log1p(np.exp(steps[head] + w["dt_bias"][head]))
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
}


@pytest.fixture(params=MIXERS)
def case(request):
    return MIXERS[request.param]


def random_weights(arch):
    random = np.random.default_rng(3)
    return {w.name: (0.7 * random.standard_normal(w.shape)).astype(np.float32) for w in arch.weights(HIDDEN)}


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


def mixer_of(arch, weights):
    model = Model("tiny", "", "fp32", HIDDEN, 8, 8, (Layer(arch, MLP(8)),), norm_eps=EPS)
    return StateSpaceMixer(arch, model, weights, 0)


def run(arch, weights, x, lengths, slots, store, counter=None):
    starts = [11] * len(lengths)
    step = Step(starts, lengths, np.array(slots), False, {}, [store], kv_format("fp32"))
    return mixer_of(arch, weights)(x, step, counter or Counter())


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max(initial=0) < 3e-5 * max(1, np.abs(expected).max(initial=0))


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    ("lengths", "slots"),
    [((1,), [4]), ((9,), [4]), ((1, 1, 1), [4, 0, 3]), ((1, 1, 1), [2, 3, 4]), ((2, 5, 1, 7), [4, 0, 3, 2])],
)
def test_sequences_follow_the_equations(case, lengths, slots, filled):
    arch, reference = case
    weights, store, x = random_weights(arch), store_of(arch, filled), normal(sum(lengths))
    conv, recurrent, given = store.conv.copy(), store.recurrent.copy(), x.copy()
    found = run(arch, weights, x, lengths, slots, store)
    done = 0
    for length, slot in zip(lengths, slots, strict=True):
        oracle = reference(arch, weights, conv[slot], recurrent[slot])
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
    whole = run(arch, weights, x, [10], [1], store_of(arch, filled=False))
    store, start, pieces = store_of(arch, filled=False), 0, []
    for length in (1, 4, 1, 2, 2):
        pieces.append(run(arch, weights, x[start : start + length], [length], [1], store))
        start += length
    assert_close(np.concatenate(pieces), whole)


# Operations a token: two for each input of a convolution, four for each number of a state.
FLOPS = {
    "mamba": 2 * 12 * 4 + 4 * 12 * 5,
    "mamba with biases": 2 * 12 * 3 + 4 * 12 * 5,
    "mamba of jamba": 2 * 12 * 4 + 4 * 12 * 5,
    "mamba of falcon": 2 * 12 * 2 + 4 * 12 * 5,
    # 6 heads of 4 channels, and what 2 groups write and read of 5 each.
    "mamba-2": 2 * (24 + 20) * 4 + 4 * 24 * 5,
    "mamba-2 with biases": 2 * (24 + 30) * 3 + 4 * 24 * 5,
    "mamba-2, gated last": 2 * (16 + 10) * 4 + 4 * 16 * 5,
    "mamba-2 without a norm": 2 * (16 + 40) * 2 + 4 * 16 * 5,
}
STATE_BYTES = {
    "mamba": 4 * (12 * 4 + 12 * 5),
    "mamba with biases": 4 * (12 * 3 + 12 * 5),
    "mamba of jamba": 4 * (12 * 4 + 12 * 5),
    "mamba of falcon": 4 * (12 * 2 + 12 * 5),
    "mamba-2": 4 * (44 * 4 + 24 * 5),
    "mamba-2 with biases": 4 * (54 * 3 + 24 * 5),
    "mamba-2, gated last": 4 * (26 * 4 + 16 * 5),
    "mamba-2 without a norm": 4 * (56 * 2 + 16 * 5),
}


@pytest.mark.parametrize("name", MIXERS)
def test_what_is_counted(name):
    arch, _ = MIXERS[name]
    weights, counter = random_weights(arch), Counter()
    run(arch, weights, normal(7), [2, 5], [5, 1], store_of(arch, filled=False), counter)
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


def test_weights_of_another_shape_are_refused():
    arch = MIXERS["mamba"][0]
    wrong = random_weights(arch) | {"mamba.D": np.zeros(11, np.float32)}
    with pytest.raises(ValueError, match=r"mamba\.D must be \(12,\), not \(11,\)"):
        mixer_of(arch, wrong)
