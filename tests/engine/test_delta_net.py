"""The gated delta net against its equations in float64: one token, one head, one channel at a time."""

import numpy as np
import pytest

from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.engine.counter import Counter
from kvplan.engine.delta_net import DeltaNetBlock

HIDDEN, EPS, SLOTS = 24, 1e-5, 6
GROUPED = GatedDeltaNet(2, 6, 8, 12, 4)
ONE_TO_ONE = GatedDeltaNet(3, 3, 16, 8, 3)
# A norm of its own, and corrections written up to twice over.
TURNING = GatedDeltaNet(2, 4, 8, 12, 4, negative_eigenvalues=True, norm_eps=0.1)
NETS = {"grouped": GROUPED, "one to one": ONE_TO_ONE, "turning": TURNING}


@pytest.fixture(params=NETS)
def net(request):
    return NETS[request.param]


def random_weights(arch):
    random = np.random.default_rng(3)
    return {w.name: random.standard_normal(w.shape).astype(np.float32) for w in arch.weights(HIDDEN)}


def normal(rows, seed=0):
    return np.random.default_rng((seed, rows)).standard_normal((rows, HIDDEN), dtype=np.float32)


def states(arch, filled=False):
    """Return convolution inputs and states for all slots: zero, or something to begin from."""
    (slot,) = arch.slots()
    entry = slot.entry
    shapes = (
        (SLOTS, entry.conv_channels, entry.conv_kernel),
        (SLOTS, arch.linear_num_value_heads, arch.linear_key_head_dim, arch.linear_value_head_dim),
    )
    random = np.random.default_rng(4)
    return [(random.standard_normal(s) if filled else np.zeros(s)).astype(np.float32) for s in shapes]


class ByHand:
    """One sequence of the net in float64, projections in the order a checkpoint has them."""

    def __init__(self, arch, weights, conv, recurrent):
        self.arch = arch
        self.weights = {name.removeprefix("linear_attn."): w.astype(float) for name, w in weights.items()}
        self.conv, self.recurrent = conv.astype(float), recurrent.astype(float)

    def split(self, x):
        """Return a token's queries, keys (per key head), values, gates, strengths, steps (per value head)."""
        key_heads, group = self.arch.linear_num_key_heads, self.group
        key, value = self.arch.linear_key_head_dim, self.arch.linear_value_head_dim
        qkvz = (self.weights["in_proj_qkvz.weight"] @ x).reshape(key_heads, -1)
        ba = (self.weights["in_proj_ba.weight"] @ x).reshape(key_heads, 2 * group)
        q, k, v, z = np.split(qkvz, [key, 2 * key, 2 * key + group * value], axis=1)
        heads = self.arch.linear_num_value_heads
        v, z = v.reshape(heads, value), z.reshape(heads, value)
        return q, k, v, z, ba[:, :group].ravel(), ba[:, group:].ravel()

    @property
    def group(self):
        return self.arch.linear_num_value_heads // self.arch.linear_num_key_heads

    def convolve(self, channels):
        """Keep the last inputs of every channel, and return silu of their sum by its filter."""
        self.conv = np.concatenate((self.conv[:, 1:], channels[:, np.newaxis]), axis=1)
        sums = (self.conv * self.weights["conv1d.weight"][:, 0]).sum(axis=1)
        return sums / (1 + np.exp(-sums))

    def token(self, x):
        q, k, v, z, b, a = self.split(x)
        mixed = self.convolve(np.concatenate((q.ravel(), k.ravel(), v.ravel())))
        q, k, v = (
            part.reshape(of.shape)
            for part, of in zip(np.split(mixed, [q.size, 2 * q.size]), (q, k, v), strict=True)
        )
        out = [self.head(h, q[h // self.group], k[h // self.group], v[h], b[h], a[h]) for h in range(len(v))]
        eps = self.arch.norm_eps or EPS
        normed = [o / np.sqrt((o**2).mean() + eps) * self.weights["norm.weight"] for o in out]
        gated = np.array(normed) * z / (1 + np.exp(-z))
        return self.weights["out_proj.weight"] @ gated.ravel()

    def head(self, h, query, key, value, strength, step):
        """The delta rule: decay, then write what the state does not yet say of the key."""
        query = query / np.sqrt((query**2).sum() + 1e-6) / np.sqrt(len(query))
        key = key / np.sqrt((key**2).sum() + 1e-6)
        softplus = np.log1p(np.exp(step + self.weights["dt_bias"][h]))
        state = self.recurrent[h] * np.exp(-np.exp(self.weights["A_log"][h]) * softplus)
        most = 2 if self.arch.negative_eigenvalues else 1
        state += np.outer(key, (value - key @ state) * most / (1 + np.exp(-strength)))
        self.recurrent[h] = state
        return query @ state


def assert_close(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (9,), (1, 1, 1), (2, 5, 1, 7)])
def test_sequences_follow_the_equations(net, lengths, filled):
    weights, (conv, recurrent) = random_weights(net), states(net, filled)
    before = conv.copy(), recurrent.copy()
    x, slots = normal(sum(lengths)), np.array([4, 0, 3, 2][: len(lengths)])
    given = x.copy()
    found = DeltaNetBlock(net, weights, HIDDEN, EPS)(x, lengths, conv, recurrent, slots, Counter())
    start = 0
    for length, slot in zip(lengths, slots, strict=True):
        oracle = ByHand(net, weights, before[0][slot], before[1][slot])
        expected = np.array([oracle.token(token) for token in x[start : start + length].astype(float)])
        assert_close(found[start : start + length], expected)
        assert_close(conv[slot], oracle.conv)
        assert_close(recurrent[slot], oracle.recurrent)
        start += length
    others = np.setdiff1d(np.arange(SLOTS), slots)
    assert np.array_equal(conv[others], before[0][others])
    assert np.array_equal(recurrent[others], before[1][others])
    assert np.array_equal(x, given)


@pytest.mark.parametrize("slots", [[0, 1, 2], [3, 4, 5], [5, 1, 3]])
def test_a_batch_of_single_tokens_is_its_sequences_alone(net, slots):
    block, (conv, recurrent) = DeltaNetBlock(net, random_weights(net), HIDDEN, EPS), states(net, filled=True)
    alone_conv, alone_recurrent, x = conv.copy(), recurrent.copy(), normal(3)
    found = block(x, (1, 1, 1), conv, recurrent, np.array(slots), Counter())
    for row, slot in enumerate(slots):
        one = block(x[row : row + 1], (1,), alone_conv, alone_recurrent, np.array([slot]), Counter())
        assert_close(found[row : row + 1], one)
    assert_close(conv, alone_conv)
    assert_close(recurrent, alone_recurrent)


@pytest.mark.parametrize("cuts", [[1], [2, 3], [5, 6, 7], list(range(1, 12))])
def test_a_prompt_in_pieces_is_the_whole_prompt(net, cuts):
    block, x = DeltaNetBlock(net, random_weights(net), HIDDEN, EPS), normal(12)
    whole_states, states_in_pieces, slot = states(net), states(net), np.array([1])
    whole = block(x, (12,), *whole_states, slot, Counter())
    pieces = [block(part, (len(part),), *states_in_pieces, slot, Counter()) for part in np.split(x, cuts)]
    assert_close(np.concatenate(pieces), whole)
    for one, other in zip(states_in_pieces, whole_states, strict=True):
        assert_close(one, other)


def test_counts_are_those_of_the_arrays():
    block, counter = DeltaNetBlock(GROUPED, random_weights(GROUPED), HIDDEN, EPS), Counter()
    block(normal(9), (2, 7), *states(GROUPED), np.array([1, 4]), counter)
    # 2 key heads of 8, 6 value heads of 12: 104 channels, 176 projected, a state of 6 x 8 x 12.
    projections = 176 * 24 + 12 * 24 + 24 * 72
    small = 104 * 4 + 6 + 6 + 12
    assert block.nbytes == 4 * (projections + small)
    assert counter == Counter(
        matmul_flops=9 * 2 * projections,
        attention_flops=9 * (2 * 4 * 104 + 6 * 6 * 8 * 12),
        weights_read_bytes=4 * (projections + small),
        cache_read_bytes=2 * 4 * (104 * 4 + 6 * 8 * 12),
        cache_written_bytes=2 * 4 * (104 * 4 + 6 * 8 * 12),
    )


def test_a_weight_of_another_shape_is_refused():
    weights = random_weights(GROUPED)
    weights["linear_attn.A_log"] = weights["linear_attn.A_log"][:3]
    with pytest.raises(ValueError, match=r"linear_attn.A_log must be \(6,\), not \(3,\)"):
        DeltaNetBlock(GROUPED, weights, HIDDEN, EPS)


def test_states_that_would_be_copied_are_refused():
    block, (conv, recurrent) = DeltaNetBlock(GROUPED, random_weights(GROUPED), HIDDEN, EPS), states(GROUPED)
    with pytest.raises(ValueError, match="C-contiguous"):
        block(normal(1), (1,), conv, recurrent[:, ::2], np.array([0]), Counter())
