"""What weights and windows cost on random weights: against plain NumPy, and whatever the model."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.layer import Layer
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.scale_down import scaled_down
from kvplan.check.price import NEW_TOKENS, PROMPT_TOKENS, PriceBench, prompts
from kvplan.engine import stored_weights
from kvplan.engine.random_weights import random_weights
from kvplan.errors import UsageError
from kvplan.storage import TensorRole, weight_format

COMPARED = len(PROMPT_TOKENS) * NEW_TOKENS
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
ATTENTION = Attention(HEADS, KV_HEADS, HEAD_DIM, rope_parameters=RopeParameters(10_000.0))
_BENCHES = {}

WINDOW = Limits(1, 1).window


@pytest.fixture
def bench_of(bundled):
    """A function from a bundled model's name, or a model, to its bench."""

    def find(model):
        key = model if isinstance(model, str) else model.name
        if key not in _BENCHES:
            _BENCHES[key] = PriceBench(bundled(model) if isinstance(model, str) else model)
        return _BENCHES[key]

    return find


def tiny(*layers, name="tiny"):
    return Model(name, "a test", "fp32", 40, 97, 512, layers or (Layer(ATTENTION, MLP(48)),) * 2)


def with_window(model, window, sink_tokens=0):
    """The model with softmax layers that slide."""
    layers = [
        replace(layer, mixer=replace(layer.mixer, sliding_window=window, sink_tokens=sink_tokens))
        if isinstance(layer.mixer, Attention)
        else layer
        for layer in model.layers
    ]
    return replace(model, layers=tuple(layers))


# ------------------------------------------------------------------ plain NumPy, in float64


def rms(x):
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)


def rotated(heads):
    """Heads (tokens, heads, dim) turned by their positions, the first half of a head with the second."""
    half = HEAD_DIM // 2
    angles = np.arange(len(heads))[:, None, None] * 10_000.0 ** (-np.arange(half) / half)
    first, second = heads[..., :half], heads[..., half:]
    return np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=-1,
    )


def int8_rows(matrix):
    """Each output row as whole multiples of its largest element / 127."""
    scales = (np.abs(matrix).max(axis=1, keepdims=True).astype(np.float32) / np.float32(127)).astype(
        np.float64
    )
    return np.rint(matrix / scales) * scales


def read(tensors, tokens, seen):
    """Attention's outputs of both layers, and the logits, of every token of one sequence read at once."""
    x, outputs, count = tensors["embed_tokens.weight"][tokens], [], len(tokens)
    for index in range(2):

        def tensor(name, index=index):
            return tensors[f"layers.{index}.{name}.weight"]

        def heads(name, n, x=x, tensor=tensor):
            normed = rms(x) * tensor("input_layernorm")
            return (normed @ tensor(f"self_attn.{name}").T).reshape(count, n, HEAD_DIM)

        queries = rotated(heads("q_proj", HEADS))
        keys, values = rotated(heads("k_proj", KV_HEADS)), heads("v_proj", KV_HEADS)
        mixed = np.empty((count, HEADS, HEAD_DIM))
        for head in range(HEADS):
            of = head * KV_HEADS // HEADS
            scores = queries[:, head] @ keys[:, of].T / np.sqrt(HEAD_DIM)
            scores = np.where(seen(np.arange(count)[:, None], np.arange(count)), scores, -np.inf)
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, head] = shares / shares.sum(axis=1, keepdims=True) @ values[:, of]
        outputs.append(mixed.reshape(count, -1) @ tensor("self_attn.o_proj").T)
        x = x + outputs[-1]
        normed = rms(x) * tensor("post_attention_layernorm")
        gate = normed @ tensor("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ tensor("mlp.up_proj").T)) @ tensor("mlp.down_proj").T
    return outputs, (rms(x) * tensors["norm.weight"]) @ tensors["lm_head.weight"].T


def everything(query, key):
    return key <= query


def by_hand(model, seed, stored, seen):
    """The error of attention, of the logits, and the share of equal greedy tokens.

    ``stored`` gives what is left of a matrix of a layer, ``seen`` whether a query sees a key.
    """
    tensors = {name: array.astype(np.float64) for name, array in random_weights(model, seed).items()}
    changed = {name: stored(t) if "proj" in name else t for name, t in tensors.items()}
    pairs, logit_pairs = [], []
    for prompt in prompts(model, seed):
        tokens = prompt
        for _ in range(NEW_TOKENS - 1):
            tokens = np.append(tokens, read(tensors, tokens, everything)[1][-1].argmax())
        expected, found = read(tensors, tokens, everything), read(changed, tokens, seen)
        decoded = slice(len(prompt), None)
        pairs += [(f[decoded], e[decoded]) for f, e in zip(found[0], expected[0], strict=True)]
        logit_pairs.append((found[1][len(prompt) - 1 :], expected[1][len(prompt) - 1 :]))

    def share(pairs):
        found, expected = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return np.sqrt(np.square(found - expected).sum() / np.square(expected).sum())

    same = [f.argmax(axis=1) == e.argmax(axis=1) for f, e in logit_pairs]
    return share(pairs), share(logit_pairs), np.concatenate(same).mean()


def slides(query, key):
    return (key <= query) & ((key > query - WINDOW) | (key < 3))


INT8, SLIDING = weight_format("int8"), with_window(tiny(), 400, 3)


@pytest.mark.parametrize(
    ("weights", "model", "stored", "seen"),
    [
        (INT8, None, int8_rows, everything),
        (None, SLIDING, lambda matrix: matrix, slides),
        (INT8, SLIDING, int8_rows, slides),
    ],
    ids=["int8 weights", "window and sinks", "int8 weights in a window"],
)
def test_the_price_is_that_of_plain_numpy(weights, model, stored, seen, bench_of):
    attention, logits, same = by_hand(scaled_down(tiny()), 0, stored, seen)
    found = bench_of(tiny()).price(weights, model)
    assert found.attention_error == pytest.approx(attention, rel=0.01)
    assert found.logit_error == pytest.approx(logits, rel=0.01)
    assert found.same_greedy == pytest.approx(same, abs=1.1 / COMPARED)
    assert found.tokens == COMPARED == 128


def test_a_weight_quantiser_that_does_nothing_is_seen(bench_of, monkeypatch):
    assert bench_of(tiny()).price(weight_format("int4")).logit_error > 0.05
    monkeypatch.setattr(stored_weights, "quantiser", lambda _: lambda tiles: tiles)
    assert bench_of(tiny()).price(weight_format("int4")).logit_error == 0


def test_weights_with_a_known_error_have_its_price(bench_of, monkeypatch):
    """The head alone is changed, to 1.25 times itself: logits are a quarter off, attention is not."""
    monkeypatch.setattr(stored_weights, "quantiser", lambda _: lambda tiles: tiles * np.float32(1.25))
    head_only = replace(weight_format("int8"), applies_to=frozenset({TensorRole.HEAD}))
    found = bench_of(tiny()).price(head_only)
    assert found.attention_error == 0
    assert found.logit_error == pytest.approx(0.25, rel=1e-5)
    assert found.same_greedy == 1


# ------------------------------------------------------------------ whatever the model


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v3"])
def test_what_changes_nothing_costs_nothing(name, bench_of, bundled):
    bench, model = bench_of(name), bundled(name)
    released = weight_format(model.weight_format or model.dtype)
    for changed in ((), (released,), (None, model)):
        found = bench.price(*changed)
        assert (found.attention_error, found.logit_error, found.same_greedy) == (0, 0, 1)


def test_wider_plain_dtypes_hold_what_was_released(bench_of):
    """Weights released in bf16 are the same numbers in fp32; those released in fp8 blocks are not in bf16."""
    assert bench_of("llama-3.1-8b").price(weight_format("fp32")).logit_error == 0
    assert bench_of("deepseek-v3").price(weight_format("bf16")).logit_error > 0


def test_the_reference_has_the_weights_as_released():
    """Numbers of bf16 are numbers of fp16 too, but for tiny ones; what was drawn in float32 is not."""
    for dtype, least, most in [("bf16", 0, 2e-5), ("fp32", 1e-4, 1e-3)]:
        found = PriceBench(replace(tiny(), dtype=dtype)).price(weight_format("fp16"))
        assert least <= found.logit_error < most


def test_a_released_format_is_not_rounded_again():
    found = PriceBench(replace(tiny(), weight_format="int4")).price(weight_format("int4"))
    assert (found.attention_error, found.logit_error, found.same_greedy) == (0, 0, 1)


def test_fewer_bits_cost_more(bench_of):
    bench = bench_of("llama-3.1-8b")
    for names in ("int8 fp8 int4", "q8_0 q5_0 q4_0"):
        prices = [bench.price(weight_format(name)) for name in names.split()]
        for error in ("attention_error", "logit_error"):
            found = [getattr(price, error) for price in prices]
            assert found[0] > 0
            assert found == sorted(found), (names, error)
            assert found[-1] > 4 * found[0], (names, error)
        assert prices[0].same_greedy > prices[-1].same_greedy


def test_weights_and_a_window_together_cost_more_than_each_alone(bench_of, bundled):
    bench, sliding = bench_of("llama-3.1-8b"), with_window(bundled("llama-3.1-8b"), 4096)
    int4 = weight_format("int4")
    both = bench.price(int4, sliding)
    alone = [bench.price(int4), bench.price(None, sliding)]
    assert both.attention_error > max(price.attention_error for price in alone)
    assert both.logit_error > max(price.logit_error for price in alone)


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others():
    first, again, other = (PriceBench(tiny(), seed).price(weight_format("int4")) for seed in (0, 0, 1))
    assert first == again
    assert first.logit_error != other.logit_error
    assert first.logit_error == pytest.approx(other.logit_error, rel=0.5)


def test_the_order_of_variants_does_not_matter():
    bench = PriceBench(tiny())
    changes = [(weight_format("int4"),), (weight_format("fp8"),), (None, with_window(tiny(), 400))]
    assert [bench.price(*one) for one in changes] == [bench.price(*one) for one in reversed(changes)][::-1]


def test_a_model_that_keeps_states_only_has_no_attention_error():
    found = PriceBench(tiny(Layer(GatedDeltaNet(2, 4, 16, 16, 4), MLP(48)))).price(weight_format("int4"))
    assert found.attention_error is None
    assert found.logit_error > 0


@pytest.mark.parametrize(
    "name",
    "gpt2 falcon-7b phi-2 gemma-3-27b mixtral-8x7b gpt-oss-20b deepseek-v2-lite qwen3-next-80b-a3b".split(),
)
def test_every_kind_of_model_has_a_price(name, bundled):
    found = PriceBench(bundled(name)).price(weight_format("int8"))
    assert 0.002 < found.attention_error < 0.5
    assert 0.002 < found.logit_error < 0.5
    assert 0.4 < found.same_greedy <= 1


# ------------------------------------------------------------------ what is said, and what is refused


def test_notes_say_what_the_figures_do_not(bench_of):
    dense, experts = bench_of("llama-3.1-8b"), bench_of("deepseek-v3")
    assert "outlier channels" in dense.price(weight_format("bf16")).note
    assert "the cache is float32" in dense.price(weight_format("bf16")).note
    assert "calibration" not in dense.price(weight_format("bf16")).note
    assert "calibration" in dense.price(weight_format("int4")).note
    assert "experts" not in dense.price(weight_format("int4")).note
    assert "experts" in experts.price(weight_format("int4")).note
    assert "window costs more" in bench_of(tiny()).price(model=with_window(tiny(), 400)).note


def test_a_format_that_cannot_be_measured_is_refused(bench_of):
    with pytest.raises(UsageError, match="what q4_k does to weights is not measured"):
        bench_of("llama-3.1-8b").price(weight_format("q4_k"))


def test_a_model_that_needs_other_weights_is_refused(bench_of, bundled):
    llama = bundled("llama-3.1-8b")
    fewer = [replace(layer, mixer=replace(layer.mixer, num_key_value_heads=1)) for layer in llama.layers]
    for changed in (replace(llama, layers=tuple(fewer)), replace(llama, layers=llama.layers[:2])):
        with pytest.raises(UsageError, match="needs other weights"):
            bench_of("llama-3.1-8b").price(model=changed)


def test_a_window_that_scales_down_to_the_one_there_was_is_refused(bench_of, bundled):
    mistral = bundled("mistral-7b-v0.1")
    with pytest.raises(UsageError, match="same tokens in view"):
        bench_of("mistral-7b-v0.1").price(model=with_window(mistral, 1024))


def test_a_window_over_layers_of_both_kinds_is_measured_on_those_it_changes(bench_of, bundled):
    gemma = bundled("gemma-3-1b")
    found = bench_of("gemma-3-1b").price(model=with_window(gemma, 512))
    assert found.attention_error > 0.05


def test_a_changed_model_is_cut_as_deep_as_the_reference():
    """The last of six layers is the first full one; with a window for all, four would hold every kind."""
    sliding = replace(ATTENTION, sliding_window=400)
    model = tiny(*[Layer(sliding, MLP(48))] * 5, Layer(ATTENTION, MLP(48)))
    found = PriceBench(model).price(model=with_window(model, 400))
    assert found.attention_error > 0.05
