"""What cache formats cost: against plain NumPy in float64, and against decoding token by token."""

from collections import Counter as Count
from dataclasses import replace

import numpy as np
import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.check import quality
from kvplan.check.quality import (
    Protocol,
    When,
    chunks,
    divergence,
    log_probabilities,
    measure_quality,
)
from kvplan.check.quality_formats import ALLOCATION, parse_format, parse_formats
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.engine.generation import Request, generate
from kvplan.engine.random_weights import random_weights
from kvplan.engine.round_trip import round_trip
from kvplan.engine.sampling import Sampler
from kvplan.storage import KV_FORMATS, kv_format

HEADS, KV_HEADS, HEAD_DIM, VOCAB = 4, 2, 16, 97
STORAGE = [kv.name for kv in KV_FORMATS]
WINDOWED = ["window-20", "fp32/window-20+3", "int8/window-33+4", "int2/window-50"]


def tiny(layers):
    attention = Attention(HEADS, KV_HEADS, HEAD_DIM, rope_parameters=RopeParameters(10_000.0))
    return Model("tiny", "a test", "fp32", 40, VOCAB, 512, (Layer(attention, MLP(48)),) * layers)


TEXT = np.random.default_rng(7).integers(0, VOCAB, 400)


def silent(_):
    pass


def measured(model, names, protocol, windows=1, on_step=silent, text=TEXT):
    weights = random_weights(model, 3)
    return measure_quality(model, weights, text, parse_formats(names), protocol, windows, on_step)


# ------------------------------------------------------------------ plain NumPy, in float64


def rms(x):
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)


def rotated(heads):
    half = HEAD_DIM // 2
    angles = np.arange(len(heads))[:, None, None] * 10_000.0 ** (-np.arange(half) / half)
    first, second = heads[..., :half], heads[..., half:]
    turned = (
        first * np.cos(angles) - second * np.sin(angles),
        second * np.cos(angles) + first * np.sin(angles),
    )
    return np.concatenate(turned, axis=-1)


def read_by_hand(model, tokens, seen, kept):
    """Logits of every token of a text read at once.

    ``seen(query, key)`` says whether a position sees another; ``kept(vectors)`` is what the cache gives back
    of keys or values ``(tokens, heads, dim)``.
    """
    tensors = {name: array.astype(np.float64) for name, array in random_weights(model, 3).items()}
    x, at = tensors["embed_tokens.weight"][tokens], np.arange(len(tokens))
    for index in range(len(model.layers)):

        def tensor(name, index=index):
            return tensors[f"layers.{index}.{name}.weight"]

        normed = rms(x) * tensor("input_layernorm")

        def heads(name, n, normed=normed, tensor=tensor):
            return (normed @ tensor(f"self_attn.{name}").T).reshape(len(normed), n, HEAD_DIM)

        queries = rotated(heads("q_proj", HEADS))
        keys, values = kept(rotated(heads("k_proj", KV_HEADS))), kept(heads("v_proj", KV_HEADS))
        mixed = np.empty((len(x), HEADS, HEAD_DIM))
        for head in range(HEADS):
            of = head * KV_HEADS // HEADS
            scores = queries[:, head] @ keys[:, of].T / np.sqrt(HEAD_DIM)
            scores = np.where((at <= at[:, None]) & seen(at[:, None], at), scores, -np.inf)
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, head] = shares / shares.sum(axis=1, keepdims=True) @ values[:, of]
        x = x + mixed.reshape(len(x), -1) @ tensor("self_attn.o_proj").T
        normed = rms(x) * tensor("post_attention_layernorm")
        gate = normed @ tensor("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ tensor("mlp.up_proj").T)) @ tensor("mlp.down_proj").T
    return (rms(x) * tensors["norm.weight"]) @ tensors["lm_head.weight"].T


def whole(vectors):
    return vectors


def rounded(vectors):
    """In bfloat16: the upper half of a float32, to the nearest, an even one if between two."""
    bits = vectors.astype(np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return upper.astype(np.uint32).view(np.float32).astype(np.float64)


def everything(query, key):
    return True


def window(tokens, sinks=0):
    return lambda query, key: (key > query - tokens) | (key < sinks)


BY_HAND = {
    "bf16": (everything, rounded),
    "fp32/window-20": (window(20), whole),
    "fp32/window-20+3": (window(20, 3), whole),
    "window-37+1": (window(37, 1), rounded),
}


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_are_those_of_plain_numpy(name):
    """Two windows of 70 + 50 tokens: the second begins 50 tokens on, at position 0."""
    model, protocol = tiny(2), Protocol(70, 50)
    found = measured(model, name, protocol, windows=2)
    seen, kept = BY_HAND[name]
    assert (found.windows, found.partial) == (2, False)
    for index in range(2):
        tokens = TEXT[50 * index : 50 * index + 120]
        expected = softmax(read_by_hand(model, tokens, everything, whole)[70:119])
        by_format = softmax(read_by_hand(model, tokens, seen, kept)[70:119])
        following, rows = tokens[71:], np.arange(49)
        scores = found.scores[0][index]
        np.testing.assert_allclose(found.reference[index], -np.log(expected[rows, following]), atol=2e-5)
        np.testing.assert_allclose(scores.losses, -np.log(by_format[rows, following]), atol=1e-4)
        parted = (expected * np.log(expected / by_format)).sum(axis=1)
        np.testing.assert_allclose(scores.divergences, parted, atol=2e-6, rtol=0.05)
        assert np.abs(scores.losses - found.reference[index]).max() > 1e-3
        assert scores.same_top.tolist() == (expected.argmax(axis=1) == by_format.argmax(axis=1)).tolist()


def test_a_cache_quantised_after_the_prefill_by_hand():
    """What is stored behind the context stays float32, and so does what the context itself has read."""
    model, context = tiny(1), 70
    found = measured(model, "int4", Protocol(context, 50, When.PREFILL)).scores[0][0]

    def kept(vectors):
        given_back = round_trip(*(vectors[:context].astype(np.float32),) * 2, kv_format("int4"))[0]
        return np.concatenate([given_back, vectors[context:]])

    expected = softmax(read_by_hand(model, TEXT[:120], everything, kept)[context:119])
    np.testing.assert_allclose(
        found.losses, -np.log(expected[np.arange(49), TEXT[context + 1 : 120]]), atol=2e-5
    )


def test_float32_costs_nothing():
    (scores,) = measured(tiny(2), "fp32", Protocol(40, 30, greedy=8)).scores[0]
    assert scores.same_top.all()
    assert scores.greedy is None
    assert np.abs(scores.divergences).max() < 1e-6


def test_tokens_that_begin_every_window():
    """Each window reads them first: the context has so many fewer tokens of the text."""
    protocol = Protocol(40, 30, begin=(5, 6))
    assert protocol.windows(38 + 2 * 30) == 2
    assert protocol.windows(38 + 2 * 30 - 1) == 1
    assert protocol.window(TEXT, 1).tolist() == [5, 6, *TEXT[30 : 30 + 68]]
    (losses,) = measured(tiny(1), "fp32", protocol).reference
    expected = softmax(read_by_hand(tiny(1), protocol.window(TEXT, 0), everything, whole)[40:69])
    np.testing.assert_allclose(losses, -np.log(expected[np.arange(29), TEXT[39:68]]), atol=2e-5)


# ------------------------------------------------------------------ as a server appends


def decode_one_by_one(model, decoder, kv, tokens):
    """Log-probabilities of every token, each read by a decode step of its own."""
    cache = Cache(model, kv, ALLOCATION, len(tokens), 1)
    sequence = cache.add()
    rows = [decoder.forward(cache, [(sequence, tokens[:1])], Counter())]
    for token in tokens[1:]:
        rows.append(decoder.forward(cache, [(sequence, np.array([token]))], Counter(), decode=True))
    return log_probabilities(np.concatenate(rows))


def exact_weights(model):
    """Weights whose first keys and values are exact in float32, in whatever order sums are taken.

    Elements of embeddings are 1 or -1, and those of projections multiples of 1/256: nothing is rounded to
    another code because of what it was multiplied beside.
    """
    found = random_weights(model, 3)
    found["embed_tokens.weight"] = np.where(found["embed_tokens.weight"] < 0, -1, 1).astype(np.float32)
    found["layers.0.input_layernorm.weight"][:] = 1
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = found[f"layers.0.self_attn.{name}.weight"]
        weight[:] = np.rint(256 * weight) / 256
    return found


@pytest.mark.parametrize("name", [*STORAGE, *WINDOWED])
def test_a_chunk_gives_what_decoding_token_by_token_gives(name):
    """Groups of 64 keys are filled in the context, and twice behind it."""
    model, one, protocol = replace(tiny(1), norm_eps=1e-30), parse_format(name), Protocol(100, 140)
    tokens = TEXT[:240]
    found = measure_quality(model, exact_weights(model), tokens, [one], protocol, 1, silent)
    kept = one.of(model)
    expected = decode_one_by_one(kept, Decoder(kept, exact_weights(model), 240), one.kv, tokens)
    (scores,) = found.scores[0]
    losses = -expected[np.arange(100, 239), tokens[101:]]
    off = np.abs(scores.losses - losses)
    assert (np.median(off) < 1e-5, off.max() < 1e-4) == (True, True)
    assert name == "fp32" or np.abs(scores.losses - found.reference[0]).max() > 1e-4


@pytest.mark.parametrize(
    "name", ["bf16", "fp8", "int8", "int8-kivi", "int4", "int4-kivi", "int8/window-33+4"]
)
def test_so_it_does_behind_further_layers(name):
    """There a rounding may go the other way now and then: what differs is little of what the format costs."""
    model, one, protocol = tiny(3), parse_format(name), Protocol(100, 140)
    found = measured(model, name, protocol, text=TEXT[:240])
    kept = one.of(model)
    expected = decode_one_by_one(kept, Decoder(kept, random_weights(model, 3), 240), one.kv, TEXT[:240])
    losses = -expected[np.arange(100, 239), TEXT[101:240]]
    off, cost = found.scores[0][0].losses - losses, losses - found.reference[0]
    assert np.sqrt(np.square(off).mean()) < 0.1 * np.sqrt(np.square(cost).mean())


@pytest.mark.parametrize("start", [0, 1, 62, 63, 64, 65, 127, 128])
def test_a_token_that_ends_a_group_is_read_alone(start):
    cut = list(chunks(start, 300, 64))
    assert [first for first, _ in cut[1:]] == [end for _, end in cut[:-1]]
    assert (cut[0][0], cut[-1][1]) == (start, 300)
    for first, end in cut:
        assert first < end
        last_of_group = [at for at in range(first, end) if at % 64 == 63]
        assert last_of_group in ([], [first])
        assert not last_of_group or end == first + 1


def test_other_formats_are_read_in_chunks_of_some_size(monkeypatch):
    monkeypatch.setattr(quality, "CHUNK_TOKENS", 100)
    assert list(chunks(30, 290, 0)) == [(30, 130), (130, 230), (230, 290)]
    assert list(chunks(5, 5, 0)) == []
    assert list(chunks(5, 5, 64)) == []


def test_the_size_of_chunks_changes_nothing(monkeypatch):
    plain = measured(tiny(2), "int8", Protocol(100, 140))
    monkeypatch.setattr(quality, "CHUNK_TOKENS", 17)
    monkeypatch.setattr(quality, "ROWS_AT_ONCE", 5)
    again = measured(tiny(2), "int8", Protocol(100, 140))
    np.testing.assert_allclose(plain.reference[0], again.reference[0], atol=1e-5)
    np.testing.assert_allclose(plain.scores[0][0].losses, again.scores[0][0].losses, atol=1e-3)


# ------------------------------------------------------------------ greedy texts


def written(model, one, context, tokens):
    """What a format writes greedily behind a context, by the engine's own generation."""
    kept = one.of(model)
    decoder = Decoder(kept, random_weights(model, 3), 300)
    cache = Cache(kept, one.kv, ALLOCATION, 300, 1)
    return generate(decoder, cache, [Request(context, tokens)], Sampler(), 63).tokens[0]


def test_greedy_texts_agree_until_they_differ():
    """Texts agree for different times, some to the end."""
    model, protocol = tiny(2), Protocol(70, 20, greedy=16)
    names = "bf16,int4,int2-kivi,fp32/window-20"
    found = measured(model, names, protocol, windows=4)
    seen = Count()
    for one, scores in zip(found.formats, found.scores, strict=True):
        for index, score in enumerate(scores):
            context = protocol.window(TEXT, index)[:70]
            plain = written(model, parse_format("fp32"), context, 16)
            other = written(model, one, context, 16)
            differs = [at for at in range(16) if plain[at] != other[at]]
            assert score.greedy == (differs[0] if differs else None), (one.name, index)
            seen[score.greedy] += 1
    assert seen[None] > 2
    assert len(seen) > 3


def test_no_greedy_text_where_none_is_asked_for():
    (scores,) = measured(tiny(1), "int2", Protocol(70, 20)).scores[0]
    assert scores.greedy is None


def test_a_greedy_text_of_one_token():
    (scores,) = measured(tiny(1), "fp32/window-2", Protocol(70, 20, greedy=1)).scores[0]
    context = TEXT[:70]
    one = parse_format("fp32/window-2")
    same = written(tiny(1), parse_format("fp32"), context, 1) == written(tiny(1), one, context, 1)
    assert scores.greedy == (None if same else 0)


# ------------------------------------------------------------------ interrupts, and what is told


def interrupt_at(words):
    def on_step(doing):
        if words in doing:
            raise KeyboardInterrupt

    return on_step


def test_an_interrupt_leaves_the_windows_that_were_read():
    full = measured(tiny(1), "int8,bf16", Protocol(40, 30), windows=3)
    part = measured(
        tiny(1), "int8,bf16", Protocol(40, 30), windows=3, on_step=interrupt_at("window 3 of 3: bf16")
    )
    assert (full.partial, part.partial) == (False, True)
    assert (part.windows, part.asked) == (2, 3)
    assert [len(scores) for scores in part.scores] == [2, 2]
    for index in range(2):
        assert part.reference[index].tolist() == full.reference[index].tolist()
        assert part.scores[1][index].losses.tolist() == full.scores[1][index].losses.tolist()


def test_an_interrupt_before_any_window_is_one():
    with pytest.raises(KeyboardInterrupt):
        measured(tiny(1), "int8", Protocol(40, 30), windows=3, on_step=interrupt_at("window 1 of 3: int8"))


def test_every_reading_is_told_with_the_time_that_is_left(monkeypatch):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr(quality, "monotonic", lambda: next(clock))
    told = []
    measured(tiny(1), "int8,window-9", Protocol(40, 30), windows=2, on_step=told.append)
    assert told == [
        "window 1 of 2: fp32",
        "window 1 of 2: int8, about 2:30 left",
        "window 1 of 2: window-9, about 2:00 left",
        "window 2 of 2: fp32, about 1:30 left",
        "window 2 of 2: int8, about 1:00 left",
        "window 2 of 2: window-9, about 0:30 left",
    ]


def test_weights_are_held_once(monkeypatch):
    """Windows run on the weights of the model without them."""
    made = []
    monkeypatch.setattr(quality, "Decoder", lambda *given: made.append(Decoder(*given)) or made[-1])
    model, weights = tiny(2), random_weights(tiny(2), 3)
    measure_quality(model, weights, TEXT, parse_formats("window-9,window-9+2"), Protocol(40, 30), 1, silent)
    assert len(made) == 1
    assert weights == {}


# ------------------------------------------------------------------ arithmetic


def test_log_probabilities_of_large_logits():
    logits = np.array([[1e4, 1e4, -1e4], [0, 0, 0]], np.float32)
    expected = [[-np.log(2), -np.log(2), -2e4 - np.log(2)], [-np.log(3)] * 3]
    np.testing.assert_allclose(log_probabilities(logits), expected, rtol=1e-6)


def test_divergence_by_hand():
    expected, found = np.log(np.array([[0.5, 0.5]], np.float32)), np.log(np.array([[0.9, 0.1]], np.float32))
    assert divergence(expected, found) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))


def test_a_viewing_decoder_refuses_another_model():
    decoder = Decoder(tiny(2), random_weights(tiny(2), 3), 64)
    with pytest.raises(ValueError, match="kept elsewhere"):
        decoder.viewing(tiny(1))


def test_a_decoder_is_as_it_was_behind_one_that_views_less():
    model = tiny(2)
    decoder = Decoder(model, random_weights(model, 3), 64)

    def logits(of, kept):
        cache = Cache(kept, kv_format("fp32"), ALLOCATION, 64, 1)
        return of.forward(cache, [(cache.add(), TEXT[:60])], Counter(), logits=Logits.EVERY)

    before = logits(decoder, model)
    less = parse_format("fp32/window-9").of(model)
    assert np.abs(logits(decoder.viewing(less), less) - before).max() > 0.01
    assert logits(decoder, model).tolist() == before.tolist()
