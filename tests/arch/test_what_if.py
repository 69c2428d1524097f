"""What-if models: the change by hand, what may not grow, and why a question does not apply."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.scale_down import scaled_down
from kvplan.arch.what_if import default_kv_heads_steps, with_kv_heads, with_latent_attention, with_window
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import simulate
from kvplan.errors import UsageError
from kvplan.specs.catalog import Found, load_model
from kvplan.specs.model_yaml import model_yaml
from kvplan.storage import kv_format

NET = GatedDeltaNet(2, 4, 16, 16, 4)
LATENT = LatentAttention(8, 32, 16, 8, 16)


def bytes_per_token(model, plan, **options):
    return plan(model, **options).whole_cache.growth("bytes_per_token", "").number


def cache_bytes(model, context, plan):
    return plan(model).whole_cache.live_bytes(context)


def parameters(model):
    return sum(weight.elements * count for weight, count in model.weights())


def of(*mixers, longest=8_192):
    """A small model with these mixers."""
    return Model("tiny", "a test", "bf16", 64, 100, longest, tuple(Layer(mixer, MLP(32)) for mixer in mixers))


def attention(queries=8, kv_heads=4, head_dim=16, **options):
    return Attention(queries, kv_heads, head_dim, rope_parameters=RopeParameters(1e4), **options)


def refusal(change, *arguments, **options):
    with pytest.raises(UsageError) as caught:
        change(*arguments, **options)
    assert len(caught.value.lines()) == 1
    return caught.value.lines()[0]


def reread(model, folder):
    path = folder / f"{model.name}.yaml"
    path.write_text(model_yaml(model), encoding="utf-8")
    return load_model(Found(path.name, path))


def only_mixers_changed(before, after):
    """Whether nothing but the source and the layers' mixers differs."""
    same = all(
        getattr(before, field.name) == getattr(after, field.name)
        for field in fields(before)
        if field.name not in ("source", "layers")
    )
    pairs = zip(before.layers, after.layers, strict=True)
    return same and all(replace(new, mixer=old.mixer) == old for old, new in pairs)


# ------------------------------------------------------------------ fewer KV heads


@pytest.mark.parametrize(
    ("name", "kv_heads", "expected"),
    [
        ("llama-2-7b", 8, 131_072),  # 32 layers x 2 x 8 heads x 128 x 2 bytes, as Llama 3.1 8B has
        ("llama-2-7b", 1, 16_384),  # 32 x 2 x 1 x 128 x 2
        ("llama-3.1-8b", 4, 65_536),
        ("llama-3.3-70b", 1, 40_960),  # 80 x 2 x 128 x 2
        ("gemma-3-27b", 4, 126_976),  # 62 x 2 x 4 x 128 x 2, windowed layers too
        ("qwen3-next-80b-a3b", 1, 12_288),  # the 12 softmax layers of 48: 12 x 2 x 256 x 2
        ("gpt2", 3, 9_216),  # 12 x 2 x 3 x 64 x 2
    ],
)
def test_bytes_per_token_with_fewer_kv_heads(name, kv_heads, expected, bundled, plan):
    fewer = with_kv_heads(bundled(name), kv_heads)
    assert bytes_per_token(fewer, plan) == expected
    assert fewer.name == name


def test_parameters_lost_with_kv_heads(bundled):
    """Llama 2 7B, 32 to 8: keys and values of 24 heads x 128, from 4,096, in 32 layers: 805,306,368."""
    llama = bundled("llama-2-7b")
    assert parameters(llama) - parameters(with_kv_heads(llama, 8)) == 2 * 24 * 128 * 4_096 * 32
    # Qwen2.5 has a bias beside each, gone too: 28 layers x 2 x 3 heads x 128 x (3,584 + 1).
    qwen = bundled("qwen2.5-7b")
    assert parameters(qwen) - parameters(with_kv_heads(qwen, 1)) == 28 * 2 * 3 * 128 * 3_585


def test_layers_with_as_few_kv_heads_stay():
    mixed = of(attention(8, 8), attention(8, 2), attention(6, 2), NET)
    assert [layer.mixer for layer in with_kv_heads(mixed, 4).layers] == [
        attention(8, 4),
        attention(8, 2),
        attention(6, 2),
        NET,
    ]


def test_the_source_says_what_is_asked(bundled):
    llama = bundled("llama-3.1-8b")
    assert with_kv_heads(llama, 2).source == f"{llama.source}, with 2 KV heads"
    assert with_kv_heads(llama, 1).source == f"{llama.source}, with 1 KV head"
    assert with_window(llama, 4_096, 4).source.endswith(", with a window of 4,096 tokens and 4 sink tokens")
    assert with_latent_attention(llama).source.endswith(", with latents of 512 + 64 elements")


def test_every_fewer_kv_heads_model(representative, bundled, plan, tmp_path):
    """The steps offered are all taken; each caches and weighs less than the one before, and validates."""
    model = bundled(representative)
    sizes = [(parameters(model), bytes_per_token(model, plan))]
    for step in default_kv_heads_steps(model):
        fewer = with_kv_heads(model, step)
        assert only_mixers_changed(model, fewer)
        assert reread(fewer, tmp_path) == fewer
        sizes.append((parameters(fewer), bytes_per_token(fewer, plan)))
    for (more, wider), (fewer_parameters, narrower) in pairwise(sizes):
        assert fewer_parameters < more
        assert narrower < wider


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("llama-2-7b", (16, 8, 1)),
        ("llama-3.1-8b", (4, 2, 1)),
        ("gpt2", (6, 3, 1)),
        ("phi-4", (5, 1)),  # a quarter of 10 is no number of heads
        ("smollm2-135m", (1,)),  # neither is half of 3
        ("qwen3-next-80b-a3b", (1,)),
        ("falcon-7b", ()),
        ("gemma-3-1b", ()),
        ("deepseek-v3", ()),
    ],
)
def test_steps_offered(name, steps, bundled):
    assert default_kv_heads_steps(bundled(name)) == steps


def test_steps_that_some_layer_cannot_take_are_left_out():
    """Half of 8 does not divide 6 query heads of 6; a quarter does."""
    assert default_kv_heads_steps(of(attention(8, 8), attention(6, 6))) == (2, 1)
    assert default_kv_heads_steps(of(attention(8, 8), attention(6, 3))) == (4, 2, 1)
    assert default_kv_heads_steps(of(NET)) == ()
    assert default_kv_heads_steps(of(attention(8, 8), LATENT)) == ()


def test_no_kv_heads_to_remove(bundled):
    assert refusal(with_kv_heads, bundled("deepseek-v3"), 1) == (
        "deepseek-v3 caches one latent for all heads: it has no KV heads to remove"
    )
    assert refusal(with_kv_heads, of(attention(), LATENT), 1).startswith("tiny caches one latent")
    assert refusal(with_kv_heads, of(NET), 1) == ("tiny has recurrent layers only: they cache no KV heads")
    assert refusal(with_kv_heads, bundled("falcon-7b"), 1) == (
        "falcon-7b has 1 KV head already: 1 would not be fewer"
    )
    llama = bundled("llama-3.1-8b")
    assert refusal(with_kv_heads, llama, 8) == "llama-3.1-8b has 8 KV heads already: 8 would not be fewer"
    assert refusal(with_kv_heads, llama, 16) == "llama-3.1-8b has 8 KV heads already: 16 would not be fewer"
    assert refusal(with_kv_heads, llama, 0) == "attention needs at least 1 KV head, not 0"
    assert refusal(with_kv_heads, llama, 3) == (
        "3 KV heads cannot share llama-3.1-8b's 32 query heads evenly   (numbers that do: 1, 2, 4)"
    )


@st.composite
def softmax_models(draw):
    """Models of attention layers of every kind, recurrent ones among them."""
    mixers = []
    for _ in range(draw(st.integers(1, 4))):
        kv_heads = draw(st.integers(1, 12))
        options = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    **{name: st.booleans() for name in ("qkv_bias", "out_bias", "sinks")},
                    "qk_norm": st.sampled_from((QkNorm.HEAD, QkNorm.UNIT, None)),
                },
            )
        )
        retention = draw(
            st.sampled_from(
                [
                    {},
                    {"sliding_window": 100},
                    {"sliding_window": 60, "sink_tokens": 4},
                    {"attention_chunk_size": 96},
                ]
            )
        )
        mixers.append(attention(kv_heads * draw(st.integers(1, 4)), kv_heads, 16, **options, **retention))
    return of(*mixers, *draw(st.lists(st.just(NET), max_size=2)))


@settings(max_examples=150)
@given(softmax_models(), st.integers(1, 12), st.integers(1, 300))
def test_fewer_kv_heads_never_cost_more(plan, model, kv_heads, context):
    """And every number of heads is either taken or refused, as plain division says."""
    layers = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    lowered = [layer for layer in layers if layer.num_key_value_heads > kv_heads]
    if not lowered or any(layer.num_attention_heads % kv_heads for layer in lowered):
        refusal(with_kv_heads, model, kv_heads)
        return
    fewer = with_kv_heads(model, kv_heads)
    lost = sum(layer.num_key_value_heads - kv_heads for layer in lowered)
    biases = sum(layer.num_key_value_heads - kv_heads for layer in lowered if layer.qkv_bias)
    assert parameters(model) - parameters(fewer) == 2 * 16 * (64 * lost + biases)
    assert cache_bytes(fewer, context, plan) < cache_bytes(model, context, plan)
    assert bytes_per_token(model, plan) - bytes_per_token(fewer, plan) == lost * 2 * 16 * 2


# ------------------------------------------------------------------ latent attention


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.1-8b", 36_864),  # 32 layers x (512 + 64) x 2 bytes
        ("llama-3.3-70b", 92_160),  # 80 x 576 x 2
        ("mixtral-8x7b", 36_864),
        ("llama-2-7b", 36_864),
        ("phi-2", 36_864),  # biases and a half-rotated head
        ("qwen3-235b-a22b", 108_288),  # 94 x 576 x 2, norms of queries and keys
    ],
)
def test_bytes_per_token_with_latents(name, expected, bundled, plan):
    latent = with_latent_attention(bundled(name))
    assert latent.name == name
    assert bytes_per_token(latent, plan) == expected
    assert bytes_per_token(latent, plan, kv="fp8") == expected // 2


def test_attention_parameters_with_latents(bundled):
    """Llama 3.1 8B, one layer, heads of 128 + 64 and 128, by DeepSeek-V2's shapes."""
    latent = with_latent_attention(bundled("llama-3.1-8b"))
    shapes = {w.name: w.shape for w in latent.layers[0].mixer.weights(4_096)}
    assert shapes == {
        "self_attn.q_proj.weight": (6_144, 4_096),  # 32 x 192
        "self_attn.kv_a_proj_with_mqa.weight": (576, 4_096),
        "self_attn.kv_a_layernorm.weight": (512,),
        "self_attn.kv_b_proj.weight": (8_192, 512),  # 32 x (128 + 128)
        "self_attn.o_proj.weight": (4_096, 4_096),
    }


def test_latents_of_a_chosen_size(bundled, plan):
    latent = with_latent_attention(bundled("llama-3.2-1b"), kv_lora_rank=256, qk_rope_head_dim=32)
    assert bytes_per_token(latent, plan) == 16 * (256 + 32) * 2


def test_the_whole_rotary_key_is_rotated(bundled):
    """Phi-2 rotates 32 of a head's 80 elements; the rotary key is all rotation, by the same base."""
    before, after = bundled("phi-2").layers[0].mixer, with_latent_attention(bundled("phi-2")).layers[0].mixer
    assert before.rope_parameters.rotated(before.head_dim) == 32
    assert after.rope_parameters == replace(before.rope_parameters, partial_rotary_factor=1.0)
    assert after.rope_parameters.rotated(after.qk_rope_head_dim) == 64


def test_a_hybrid_keeps_its_recurrent_layers():
    changed = with_latent_attention(of(NET, attention(8, 8)), 32, 16)
    assert [type(layer.mixer) for layer in changed.layers] == [GatedDeltaNet, LatentAttention]
    assert changed.layers[0].mixer == NET


def softmax_mixers(model):
    return [mixer for layer in model.layers for mixer in layer.mixers() if isinstance(mixer, Attention)]


# What attention may do that has no place beside latents.
NOT_WITH_LATENTS = (
    *("sliding_window", "attention_chunk_size", "visible_window", "indexer", "sinks"),
    *("attn_logit_softcapping", "output_gate", "alibi", "temperature", "shares_kv"),
)


def takes_latents(model):
    """Whether 512 + 64 elements can stand for all softmax layers' keys and values, and are fewer."""
    mixers = softmax_mixers(model)
    return (
        len(mixers) > 0
        and not any(isinstance(layer.mixer, AttentionBesideMamba | LatentAttention) for layer in model.layers)
        and not any(getattr(mixer, name) for mixer in mixers for name in NOT_WITH_LATENTS)
        and all(mixer.rope_parameters is not None for mixer in mixers)
        and all(mixer.num_key_value_heads * (mixer.head_dim + mixer.value_dim) > 576 for mixer in mixers)
    )


def test_every_latent_model(representative, bundled, plan, tmp_path):
    """It is either refused in one line, or caches less, validates, scales down, and reads back."""
    model = bundled(representative)
    if not takes_latents(model):
        assert representative in refusal(with_latent_attention, model)
        return
    latent = with_latent_attention(model)
    assert only_mixers_changed(model, latent)
    assert bytes_per_token(latent, plan) == len(softmax_mixers(model)) * 576 * 2
    assert bytes_per_token(latent, plan) < bytes_per_token(model, plan)
    assert reread(latent, tmp_path) == latent
    assert not softmax_mixers(scaled_down(latent))


def test_some_models_take_latents_and_some_do_not(bundled):
    takes = ("llama-3.1-8b", "phi-2", "mixtral-8x7b", "qwen3-235b-a22b")
    not_these = ("deepseek-v3", "gpt2", "gemma-3-27b", "gpt-oss-20b", "qwen3-next-80b-a3b", "falcon-7b")
    assert all(takes_latents(bundled(name)) for name in takes)
    assert not any(takes_latents(bundled(name)) for name in not_these)


def test_latents_refused(bundled):
    said = {
        "deepseek-v3": "deepseek-v3 has latent attention already",
        "gemma-2-9b": "latent attention cannot keep gemma-2-9b's sliding windows and soft-capped scores",
        "gpt-oss-20b": "latent attention cannot keep gpt-oss-20b's sliding windows and sink logits",
        "mistral-7b-v0.1": "latent attention cannot keep mistral-7b-v0.1's sliding windows",
        "qwen3-next-80b-a3b": "latent attention cannot keep qwen3-next-80b-a3b's output gates",
        "gpt2": "gpt2 rotates no positions: a rotary key would carry nothing",
        "falcon-7b": (
            "a latent of 576 elements saves nothing: falcon-7b's keys and values are 128 a token and layer"
        ),
    }
    for name, line in said.items():
        assert refusal(with_latent_attention, bundled(name)) == line
    chunked = of(attention(attention_chunk_size=64))
    assert refusal(with_latent_attention, chunked, 8, 8).endswith("cannot keep tiny's attention chunks")
    looks_back = of(attention(visible_window=64))
    assert refusal(with_latent_attention, looks_back, 8, 8).endswith("cannot keep tiny's sliding windows")
    assert refusal(with_latent_attention, of(NET)) == (
        "tiny has recurrent layers only: no keys and values to compress"
    )
    assert refusal(with_latent_attention, of(NET, LATENT)) == "tiny has latent attention already"


def test_a_latent_must_be_smaller_than_every_layers_keys_and_values():
    """Four heads of 16 are 128 elements, two are 64."""
    assert with_latent_attention(of(attention(8, 4)), 119, 8)
    assert "saves nothing" in refusal(with_latent_attention, of(attention(8, 4)), 120, 8)
    assert "are 64 a token" in refusal(with_latent_attention, of(attention(8, 4), attention(8, 2)), 56, 8)


@pytest.mark.parametrize(("rank", "rope"), [(0, 8), (-1, 8), (8, 0), (8, -2), (8, 7)])
def test_latents_that_are_none(rank, rope):
    refusal(with_latent_attention, of(attention(8, 8)), rank, rope)


def test_longrope_is_kept_where_it_fits():
    """Its divisors are one per pair of rotated elements: 8 of a head of 16."""
    rope = RopeParameters(
        1e4,
        RopeType.LONGROPE,
        original_max_position_embeddings=4_096,
        attention_factor=1.2,
        short_factor=(1.0,) * 8,
        long_factor=(2.0,) * 8,
    )
    model = of(Attention(8, 8, 16, rope_parameters=rope))
    assert refusal(with_latent_attention, model, 64, 8) == (
        "tiny's longrope is fitted to 16 rotated elements, not 8   (a rotary key of 16 elements keeps it)"
    )
    assert with_latent_attention(model, 64, 16).layers[0].mixer.rope_parameters == rope


# ------------------------------------------------------------------ a sliding window


def test_every_full_layer_slides(bundled, plan):
    llama = with_window(bundled("llama-3.1-8b"), 4_096)
    assert bytes_per_token(llama, plan) == 131_072  # while all still grow
    assert cache_bytes(llama, 4_096, plan) == 4_096 * 131_072
    assert cache_bytes(llama, 100_000, plan) == 4_096 * 131_072
    with_sinks = with_window(bundled("llama-3.1-8b"), 4_092, 4)
    assert cache_bytes(with_sinks, 100_000, plan) == 4_096 * 131_072
    assert with_sinks.layers[0].mixer.sink_tokens == 4
    assert parameters(llama) == parameters(bundled("llama-3.1-8b"))


def test_narrower_windows_stay(bundled, plan):
    """Gemma 3 27B: 52 layers see 1,024 tokens, the other 10 now 8,192; 8,192 bytes a token and layer."""
    gemma = with_window(bundled("gemma-3-27b"), 8_192)
    assert cache_bytes(gemma, 131_072, plan) == (52 * 1_024 + 10 * 8_192) * 8_192


def test_wider_windows_and_chunks_give_way():
    wide = of(
        attention(sliding_window=1_000),
        attention(sliding_window=90, sink_tokens=20),
        attention(sliding_window=100),
        attention(attention_chunk_size=1_000),
        attention(attention_chunk_size=104),
        NET,
        LATENT,
    )
    assert [layer.mixer for layer in with_window(wide, 100, 4).layers] == [
        attention(sliding_window=100, sink_tokens=4),
        attention(sliding_window=100, sink_tokens=4),
        attention(sliding_window=100),
        attention(sliding_window=100, sink_tokens=4),
        attention(attention_chunk_size=104),
        NET,
        LATENT,
    ]


def test_a_hybrids_attention_slides(bundled, plan):
    """Qwen3-Next: 12 layers of 2,048 bytes a token, and states that stay what they were."""
    before = bundled("qwen3-next-80b-a3b")
    after = with_window(before, 4_096)
    saved = cache_bytes(before, 100_000, plan) - cache_bytes(after, 100_000, plan)
    assert saved == 12 * 2_048 * (100_000 - 4_096)


def test_windows_refused(bundled):
    llama = bundled("llama-2-7b")
    assert refusal(with_window, llama, 4_096) == (
        "llama-2-7b is made for 4,096 tokens: a window of 4,096 tokens never slides"
    )
    assert refusal(with_window, llama, 4_094, 2) == (
        "llama-2-7b is made for 4,096 tokens: a window of 4,094 tokens and 2 sink tokens never slides"
    )
    assert with_window(llama, 4_093, 2)
    assert refusal(with_window, llama, 0) == "a window has at least 1 token, not 0"
    assert refusal(with_window, llama, 5, -1) == "a window has 0 or more sink tokens, not -1"
    assert refusal(with_window, bundled("deepseek-v3"), 4_096) == (
        "deepseek-v3 has latent-attention layers only: there is no window to set"
    )
    assert refusal(with_window, of(NET), 10) == "tiny has recurrent layers only: there is no window to set"
    assert refusal(with_window, of(NET, LATENT), 10) == (
        "tiny has latent-attention layers and recurrent layers only: there is no window to set"
    )
    assert refusal(with_window, bundled("mistral-7b-v0.1"), 4_096) == (
        "mistral-7b-v0.1's attention keeps at most 4,096 tokens already"
    )
    assert refusal(with_window, of(NET, attention(sliding_window=8)), 10) == (
        "tiny's attention keeps at most 10 tokens already, and its recurrent layers have no window"
    )


@settings(max_examples=150)
@given(softmax_models(), st.integers(1, 200), st.integers(0, 20), st.integers(1, 400))
def test_a_window_never_caches_more(plan, model, window, sinks, context):
    """No softmax layer keeps more than window and sinks afterwards, or it was refused for that reason."""

    def kept(mixer):
        if mixer.sliding_window is not None:
            return mixer.sliding_window + mixer.sink_tokens
        return mixer.attention_chunk_size or 10**9

    def most(of_model):
        return max(kept(layer.mixer) for layer in of_model.layers if isinstance(layer.mixer, Attention))

    if most(model) <= window + sinks:
        assert "already" in refusal(with_window, model, window, sinks)
        return
    changed = with_window(model, window, sinks)
    assert most(changed) <= window + sinks
    assert parameters(changed) == parameters(model)
    chunks = [
        layer.mixer.attention_chunk_size for layer in model.layers if isinstance(layer.mixer, Attention)
    ]
    if not any(chunks):  # a chunk that has just begun keeps fewer tokens than any window
        assert cache_bytes(changed, context, plan) <= cache_bytes(model, context, plan)


def test_every_windowed_model(representative, bundled, tmp_path):
    """All that have softmax attention; each has a layer that keeps more than 516 tokens."""
    model = bundled(representative)
    if not softmax_mixers(model):
        assert representative in refusal(with_window, model, 512, 4)
        return
    windowed = with_window(model, 512, 4)
    assert only_mixers_changed(model, windowed)
    assert reread(windowed, tmp_path) == windowed
    kept = [mixer.sliding_window or mixer.attention_chunk_size for mixer in softmax_mixers(windowed)]
    assert all(tokens is not None and tokens <= 516 for tokens in kept)


def test_a_layer_that_keeps_what_its_window_does_not_show_lets_go_of_it():
    narrow, wide = attention(visible_window=60), attention(visible_window=300)
    changed = with_window(of(narrow, wide, attention()), 100, 4)
    assert [layer.mixer for layer in changed.layers] == [
        attention(sliding_window=60),
        attention(sliding_window=100, sink_tokens=4),
        attention(sliding_window=100, sink_tokens=4),
    ]


# ------------------------------------------------------------------ changes on changes


def test_changes_stack(bundled, plan):
    """Llama 3.1 8B with one KV head and 1,024 tokens: 32 x 2 x 128 x 2 x 1,024 bytes, whichever first."""
    llama = bundled("llama-3.1-8b")
    one = with_window(with_kv_heads(llama, 1), 1_024)
    other = with_kv_heads(with_window(llama, 1_024), 1)
    assert one.layers == other.layers
    assert cache_bytes(one, 50_000, plan) == 32 * 2 * 128 * 2 * 1_024
    assert "no KV heads" in refusal(with_kv_heads, with_latent_attention(llama), 1)
    assert "sliding windows" in refusal(with_latent_attention, with_window(llama, 1_024))


def test_the_feed_forward_is_untouched(bundled):
    mixtral = bundled("mixtral-8x7b")
    for changed in (with_kv_heads(mixtral, 1), with_latent_attention(mixtral), with_window(mixtral, 512)):
        assert isinstance(changed.layers[0].mlp, Experts)
        assert only_mixers_changed(mixtral, changed)


RUN = {
    "one KV head": (with_kv_heads, "llama-2-7b", 1),
    "latents of biased, half-rotated heads": (with_latent_attention, "phi-2", 512, 64),
    "latents of normalised heads, with experts": (with_latent_attention, "qwen3-30b-a3b", 64, 32),
    "a window with sinks": (with_window, "gemma-2-9b", 60, 4),
    "a window beside states": (with_window, "qwen3-next-80b-a3b", 60, 0),
}


@pytest.mark.parametrize("asked", RUN)
def test_the_engine_runs_what_the_plan_says(asked, bundled):
    """Scaled down, every byte and operation it counts is the one predicted."""
    change, name, *sizes = RUN[asked]
    scenario = Scenario((5, 70, 150), 4, 64, 2, kv_format("fp32"), Paged(16))
    simulation = simulate(change(bundled(name), *sizes), scenario, lambda _: None)
    assert [(c.name, c.predicted.value, c.measured.value) for c in simulation.disagreeing] == []
    assert simulation.agree
