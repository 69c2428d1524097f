"""A layer of attention, with every field of its description, against the rules written out in float64."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention, OutputGate, QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.temperature import TemperatureTuning
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.rotaries import Rotaries
from kvplan.storage import kv_format

EPS = 0.05
HIDDEN = 40
PLAIN = Attention(6, 2, 16, rope_parameters=RopeParameters(100.0))
UNROTATED = replace(PLAIN, rope_parameters=None)
SLIDING = replace(PLAIN, sliding_window=9)
LAYERS = {
    "plain": PLAIN,
    "narrow values": replace(PLAIN, v_head_dim=10, qkv_bias=True, out_bias=True),
    "narrow values in a window": replace(SLIDING, v_head_dim=10, sinks=True),
    "wide values": replace(PLAIN, v_head_dim=24, attention_chunk_size=8),
    "norm of a head": replace(PLAIN, qk_norm=QkNorm.HEAD),
    "norm of each head": replace(SLIDING, qk_norm=QkNorm.EACH_HEAD),
    "norm of the projection": replace(PLAIN, qk_norm=QkNorm.PROJECTION),
    "norm without weights": replace(PLAIN, qk_norm=QkNorm.UNIT, qk_norm_after_rope=True),
    "norm of a head after the rotation": replace(PLAIN, qk_norm=QkNorm.HEAD, qk_norm_after_rope=True),
    "norm of the projection after the rotation": replace(
        SLIDING, qk_norm=QkNorm.PROJECTION, qk_norm_after_rope=True
    ),
    "alibi": replace(UNROTATED, alibi=True),
    "alibi in a window": replace(UNROTATED, alibi=True, sliding_window=9),
    "alibi beside a rotation, in chunks": replace(PLAIN, alibi=True, attention_chunk_size=12),
    "scaled alibi": replace(UNROTATED, alibi=True, alibi_scaled=True),
    "scaled alibi with a multiplier": replace(
        UNROTATED, alibi=True, alibi_scaled=True, attention_multiplier=0.6
    ),
    "a multiplier": replace(PLAIN, attention_multiplier=0.6),
    "a scalar": replace(PLAIN, query_pre_attn_scalar=5.0),
    "clipped": replace(PLAIN, clip_qkv=0.7, qkv_bias=True),
    "clipped behind the norm": replace(PLAIN, clip_qkv=0.7, qk_norm=QkNorm.HEAD),
    "scaled values": replace(SLIDING, attention_value_scale=0.3, v_head_dim=10),
    "temperature": replace(UNROTATED, temperature=TemperatureTuning(0.5, 8)),
    "temperature from place 0": replace(PLAIN, temperature=TemperatureTuning(0.5, 8, 0)),
    "gate of the query": replace(PLAIN, output_gate=OutputGate.QUERY, qk_norm=QkNorm.HEAD),
    "gate of elements": replace(SLIDING, output_gate=OutputGate.ELEMENT, v_head_dim=10),
    "gate of heads": replace(PLAIN, output_gate=OutputGate.HEAD, v_head_dim=10, qkv_bias=True),
    "bent scores": replace(PLAIN, attn_logit_softcapping=0.8, attention_multiplier=0.6),
    "first tokens beside a window": replace(SLIDING, sink_tokens=3),
    "a window of what stays": replace(PLAIN, visible_window=9),
    "alibi in a window of what stays": replace(UNROTATED, visible_window=9, alibi=True),
    "normalised values": replace(PLAIN, v_norm=True, v_head_dim=10),
    "values made as keys are": replace(PLAIN, k_eq_v=True, v_norm=True, qk_norm=QkNorm.HEAD),
}


def drawn(arch):
    """Weights, with norms and sinks far from what they would be left out."""
    random = np.random.default_rng(5)
    found = {}
    for weight in arch.weights(HIDDEN):
        spread = 1 if len(weight.shape) == 1 or "norm" in weight.name else 1.5 / HIDDEN**0.5
        found[weight.name] = (spread * random.standard_normal(weight.shape)).astype(np.float32)
    return found


def normalised(arch, weight, x):
    """Queries or keys (tokens, heads, head_dim) behind their norm."""
    match arch.qk_norm:
        case None:
            return x
        case QkNorm.PROJECTION:
            flat = x.reshape(len(x), -1)
            return (flat / np.sqrt((flat**2).mean(axis=1, keepdims=True) + EPS) * weight).reshape(x.shape)
        case QkNorm.EACH_HEAD:
            x = x - x.mean(axis=2, keepdims=True)
    unit = x / np.sqrt((x**2).mean(axis=2, keepdims=True) + EPS)
    return unit if weight is None else unit * weight


def rotated(arch, x):
    """Heads whose halves are turned by their position."""
    if arch.rope_parameters is None:
        return x
    half = arch.head_dim // 2
    angles = np.arange(len(x))[:, None] * 100.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=2)


def clipped(arch, x):
    return x if arch.clip_qkv is None else np.clip(x, -arch.clip_qkv, arch.clip_qkv)


def in_order(arch, weight, x):
    if arch.qk_norm_after_rope:
        return normalised(arch, weight, rotated(arch, clipped(arch, x)))
    return rotated(arch, clipped(arch, normalised(arch, weight, x)))


def scale_of(arch):
    if arch.attention_multiplier is not None:
        return arch.attention_multiplier
    return 1 / np.sqrt(arch.query_pre_attn_scalar or arch.head_dim)


def slopes_of(arch):
    """Of six heads: those of four, then the first and the third of eight."""
    slopes = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])
    return slopes * (scale_of(arch) if arch.alibi_scaled else 1) * arch.alibi


def projected(weights, name, x, heads):
    """Heads (tokens, heads, dim) that a matrix and its bias make of x."""
    made = x.astype(np.float64) @ weights[f"self_attn.{name}.weight"].astype(np.float64).T
    return (made + weights.get(f"self_attn.{name}.bias", 0)).reshape(len(x), heads, -1)


def expected_keys_and_values(arch, weights, x):
    """What the layer stores for the tokens x (tokens, hidden), (tokens, kv heads, dim) each."""
    made = projected(weights, "k_proj", x, arch.num_key_value_heads)
    values = made if arch.k_eq_v else projected(weights, "v_proj", x, arch.num_key_value_heads)
    values = clipped(arch, values) * (arch.attention_value_scale or 1)
    if arch.v_norm:
        values = values / np.sqrt((values**2).mean(axis=2, keepdims=True) + EPS)
    return in_order(arch, weights.get("self_attn.k_norm.weight"), made), values


def expected_output(arch, weights, x, stored=None):
    """What the layer adds for a sequence x (tokens, hidden), by its own keys and values or by ``stored``."""
    tokens, heads = len(x), arch.num_attention_heads
    keys, values = stored or expected_keys_and_values(arch, weights, x)
    queries = projected(weights, "q_proj", x, heads)
    gate = np.full((tokens, heads, 1), np.inf)
    if arch.output_gate is OutputGate.QUERY:
        queries, gate = queries[..., :16], queries[..., 16:]
    elif arch.output_gate is not None:
        gate = projected(weights, "g_proj", x, heads)
    queries = in_order(arch, weights.get("self_attn.q_norm.weight"), queries)
    mixed = np.empty((tokens, heads, values.shape[2]))
    for token in range(tokens):
        for head in range(heads):
            growth = 1.0
            if arch.temperature is not None:
                place = token + arch.temperature.first_place
                growth += 0.5 * np.log(1 + place // 8)
            seen = [key for key in range(token + 1) if is_seen(arch, token, key)]
            scores = keys[seen, head // 3] @ queries[token, head] * growth * scale_of(arch)
            if arch.attn_logit_softcapping is not None:
                scores = np.tanh(scores / arch.attn_logit_softcapping) * arch.attn_logit_softcapping
            scores += slopes_of(arch)[head] * (np.array(seen) - token)
            weighed = np.exp(scores - scores.max())
            total = weighed.sum()
            if arch.sinks:
                total += np.exp(weights["self_attn.sinks"][head] - scores.max())
            mixed[token, head] = weighed / total @ values[seen, head // 3]
    mixed /= 1 + np.exp(-gate)
    return projected(weights, "o_proj", mixed.reshape(tokens, -1), 1)[:, 0]


def is_seen(arch, query, key):
    window = arch.sliding_window or arch.visible_window
    if window is not None:
        return query - key < window or key < arch.sink_tokens
    chunk = arch.attention_chunk_size
    return chunk is None or query // chunk == key // chunk


class Run:
    """Two sequences of different lengths through some mixers, side by side, which read the same tokens."""

    def __init__(self, *layers):
        self.archs = layers
        blocks = tuple(Layer(arch, MLP(8)) for arch in layers)
        model = Model("tiny", "a test", "fp32", HIDDEN, 90, 128, blocks, norm_eps=EPS)
        self.weights = [drawn(arch) for arch in layers]
        rotaries = Rotaries(model, 128)
        self.mixers = [
            AttentionMixer(arch, model, weights, places, rotaries)
            for arch, weights, places in zip(layers, self.weights, model.places(), strict=True)
        ]
        self.cache = Cache(model, kv_format("fp32"), Paged(4), max_tokens=128, sequences=2)
        self.ids = [self.cache.add(), self.cache.add()]
        self.x = np.random.default_rng(6).standard_normal((2, 60, HIDDEN), dtype=np.float32)
        self.found = [[[], []] for _ in layers]
        self.prompts_then_one_token_each_at_a_time()

    def prompts_then_one_token_each_at_a_time(self):
        self.step([(0, 0, 7), (1, 0, 30)])
        self.step([(0, 7, 21)])
        for token in range(25):
            self.step([(0, 21 + token, 22 + token), (1, 30 + token, 31 + token)], decode=True)

    def step(self, pieces, *, decode=False):
        batch = [(self.ids[i], np.zeros(stop - start, np.int64)) for i, start, stop in pieces]
        step = self.cache.begin(batch, decode=decode)
        into = np.concatenate([self.x[i, start:stop] for i, start, stop in pieces])
        for mixer, found in zip(self.mixers, self.found, strict=True):
            rows = np.split(mixer(into, step, Counter()), np.cumsum(step.counts)[:-1])
            for (i, _, _), of_sequence in zip(pieces, rows, strict=True):
                found[i].append(of_sequence)
        step.write_held(Counter())
        self.cache.finish(batch)

    def gives(self, layer, expected_of):
        """Whether a layer's outputs are those expected of each sequence's tokens."""
        for i, length in enumerate((46, 55)):
            expected = expected_of(self.x[i, :length])
            apart = np.abs(np.concatenate(self.found[layer][i]) - expected).max()
            assert apart < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", LAYERS)
def test_prefill_in_pieces_and_decode_of_a_batch(kind):
    arch = LAYERS[kind]
    run = Run(arch)
    run.gives(0, lambda x: expected_output(arch, run.weights[0], x))


@pytest.mark.parametrize("owner", [PLAIN, SLIDING, replace(PLAIN, qk_norm=QkNorm.HEAD, v_norm=True)])
def test_a_layer_reads_the_keys_and_values_of_the_nearest_like_it(owner):
    """Between them is one that slides otherwise; a window still shows what the step overwrites."""
    shares = replace(owner, shares_kv=True, attention_multiplier=0.6)
    run = Run(owner, replace(owner, sliding_window=5), shares)
    run.gives(0, lambda x: expected_output(owner, run.weights[0], x))
    run.gives(
        2,
        lambda x: expected_output(
            shares, run.weights[2], x, expected_keys_and_values(owner, run.weights[0], x)
        ),
    )
    assert "self_attn.k_proj.weight" not in run.weights[2]


FELT = (
    *("alibi", "alibi_scaled", "temperature", "clip_qkv", "attention_value_scale", "qk_norm_after_rope"),
    *("attn_logit_softcapping", "sink_tokens", "visible_window", "v_norm"),
)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_rules_feel_every_field(kind):
    """Without it they give something else; but a turn keeps what the norm without weights divides by."""
    arch, x = LAYERS[kind], np.random.default_rng(6).standard_normal((30, HIDDEN), dtype=np.float32)
    weights = drawn(arch)
    found = expected_output(arch, weights, x)
    for name in FELT:
        default = Attention.__dataclass_fields__[name].default
        unfelt = name == "qk_norm_after_rope" and arch.qk_norm is QkNorm.UNIT
        if getattr(arch, name) == default or unfelt:
            continue
        plain = replace(arch, alibi_scaled=False) if name == "alibi" else arch
        without = expected_output(replace(plain, **{name: default}), weights, x)
        assert np.abs(found - without).max() > 1e-3 * np.abs(found).max(), name
