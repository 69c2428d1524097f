"""The figures options are compared by: hand integers, brute force over contexts, and sums of guesses."""

from dataclasses import replace
from itertools import pairwise, product

import pytest

from kvplan.plan.change import parse_changes
from kvplan.plan.comparison import (
    SHORTEST,
    Tried,
    accepted_tokens,
    outcome,
    overlapped_s,
    tokens_per_step,
    try_changes,
)
from kvplan.plan.deployment import Parallelism
from kvplan.plan.roofline import plan_roofline
from kvplan.plan.setup import Load, Setup, Speculation
from kvplan.plan.step_time import Limit

LLAMA = 131_072  # bytes a token: 32 layers x 2 x 8 heads x 128 x 2
TOKENS = 8192
# A decoder layer of Llama-3.1-8B: q and o 4096 x 4096, k and v 4096 x 1024, gate, up and down 4096 x 14336,
# and two norms; in bf16.
LLAMA_LAYER = 2 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096)
PCIE_GEN5 = 64e9


@pytest.fixture
def setup_of(plan):
    """A function from a model and what :func:`plan` takes to a setup of 16 requests of 8k, and changes."""

    def make(model="llama-3.1-8b", changes="", *, batch=16, context=TOKENS, parallelism=None, **options):
        capacity = plan(model, **options)
        deployment = capacity.deployment
        if parallelism is not None:
            deployment = replace(deployment, parallelism=parallelism)
        setup = Setup(capacity.model, deployment, Load(batch, context))
        for change in parse_changes(changes) if changes else ():
            setup = change.applied(setup)
        return setup

    return make


@pytest.fixture
def pool(plan):
    """A function from a model and what :func:`plan` takes to the bytes of one GPU's cache."""
    return lambda model="llama-3.1-8b", **options: plan(model, **options).stages[0].pool.number


# ------------------------------------------------------------------ bytes of a token


@pytest.mark.parametrize(
    ("model", "options", "changes", "whole", "on_gpu"),
    [
        ("llama-3.1-8b", {}, "", LLAMA, LLAMA),
        ("llama-3.1-8b", {}, "kv=fp8", LLAMA // 2, LLAMA // 2),
        ("llama-3.1-8b", {}, "kv=int8", 32 * 2 * 8 * (128 + 2), 66_560),
        ("llama-3.1-8b", {}, "kv=int4", 32 * 2 * 8 * (64 + 4), 34_816),
        # Values as int4; keys in groups of 64 tokens: 64 nibbles and 4 bytes a channel.
        ("llama-3.1-8b", {}, "kv=int4-kivi", 32 * 8 * (68 + 128 * 36 // 64), 35_840),
        ("llama-3.1-8b", {}, "kv_heads=4", LLAMA // 2, LLAMA // 2),
        ("llama-3.1-8b", {}, "kv_heads=1", LLAMA // 8, LLAMA // 8),
        ("llama-3.1-8b", {}, "mla", 32 * (512 + 64) * 2, 36_864),
        ("llama-3.1-8b", {}, "mla=256", 32 * (256 + 64) * 2, 20_480),
        ("llama-3.1-8b", {}, "window=4k", LLAMA, LLAMA),
        ("llama-3.1-8b", {}, "tp=2", LLAMA, LLAMA // 2),
        ("llama-3.1-8b", {}, "tp=16", LLAMA, LLAMA // 8),  # 8 KV heads: two ranks keep each
        ("llama-3.1-8b", {}, "weights=int4,kv=fp8,tp=4", LLAMA // 2, LLAMA // 8),
        ("llama-3.1-8b", {}, "spec=4@70%", 33 * 4096, 33 * 4096),
        ("llama-3.1-8b", {"pipeline": 2}, "", LLAMA, LLAMA // 2),
        ("llama-3.1-8b", {"pipeline": 3}, "", LLAMA, 11 * 4096),
        ("llama-3.3-70b", {"tensor": 4}, "", 80 * 2 * 8 * 128 * 2, 80 * 2 * 2 * 128 * 2),
        ("llama-3.3-70b", {"tensor": 4}, "mla", 80 * 576 * 2, 80 * 576 * 2),
        ("llama-3.3-70b", {"tensor": 8}, "kv_heads=1", 80 * 2 * 128 * 2, 80 * 2 * 128 * 2),
        ("mixtral-8x7b", {"tensor": 2}, "kv=fp8", 32 * 2 * 8 * 128, 32 * 2 * 4 * 128),
        ("gemma-3-27b", {}, "", 62 * 2 * 16 * 128 * 2, 507_904),
        ("deepseek-v3", {"tensor": 8}, "", 61 * 576 * 2, 70_272),
        ("deepseek-v3", {"tensor": 8}, "kv=fp8", 61 * 576, 35_136),
        ("gpt2", {}, "kv=int8", 12 * 2 * 12 * (64 + 2), 19_008),
        ("qwen3-next-80b-a3b", {"tensor": 4}, "", 12 * 2 * 2 * 256 * 2, 12 * 2 * 256 * 2),
        ("qwen3-next-80b-a3b", {"tensor": 4}, "kv_heads=1", 12 * 2 * 256 * 2, 12 * 2 * 256 * 2),
        ("falcon-7b", {}, "", 32 * 2 * 64 * 2, 8_192),
        ("gpt-oss-120b", {}, "kv=int4", 36 * 2 * 8 * (32 + 4), 20_736),
        ("phi-3.5-mini", {}, "", 32 * 2 * 32 * 96 * 2, 393_216),
    ],
)
def test_kv_bytes_per_token(setup_of, model, options, changes, whole, on_gpu):
    found = outcome(setup_of(model, changes, context=1024, **options))
    assert (found.kv_bytes_per_token, found.gpu_kv_bytes_per_token) == (whole, on_gpu)


# ------------------------------------------------------------------ requests and contexts


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ("", TOKENS * LLAMA),
        ("kv=fp8", TOKENS * LLAMA // 2),
        ("kv=int4", TOKENS * 34_816),
        # Room for one group of float16 keys with each request.
        ("kv=int4-kivi", TOKENS * 35_840 + 64 * 32 * 8 * 128 * 2),
        ("alloc=contiguous", 131_072 * LLAMA),
        ("mla", TOKENS * 36_864),
        ("kv_heads=1", TOKENS * LLAMA // 8),
    ],
)
def test_max_batch_is_the_pool_over_what_a_request_takes(setup_of, plan, changes, each):
    setup = setup_of(changes=changes)
    room = plan(setup.model).stages[0].pool.number  # a KV format takes nothing from it
    assert outcome(setup).max_batch == room // each


def test_weights_in_fewer_bits_leave_room(setup_of, pool):
    assert outcome(setup_of(changes="weights=fp8")).max_batch == pool(weights="fp8") // (TOKENS * LLAMA)
    smaller = outcome(setup_of(changes="chunk=2k"))
    assert smaller.activation_bytes < outcome(setup_of()).activation_bytes
    assert smaller.max_context == pool(chunk=2048) // (16 * LLAMA) // 16 * 16


def test_tensor_parallel_halves_a_request_on_each_gpu(setup_of, pool):
    found = outcome(setup_of(changes="tp=2"))
    assert found.max_batch == pool(tensor=2) // (TOKENS * LLAMA // 2)


def test_replicas_hold_as_many_each(setup_of):
    one, three = outcome(setup_of()), outcome(setup_of(parallelism=Parallelism(data=3)))
    assert three.max_batch == 3 * one.max_batch
    shared = outcome(setup_of(changes="prefix=50%")).max_batch
    assert outcome(setup_of(changes="prefix=50%", parallelism=Parallelism(data=3))).max_batch == 3 * shared


def test_a_layer_that_guesses_is_in_memory_and_caches(setup_of, pool):
    room = pool() - LLAMA_LAYER
    assert outcome(setup_of(changes="spec=4@70%")).max_batch == room // (TOKENS * 33 * 4096)


def test_requests_that_share_a_prefix_store_it_once(setup_of, pool):
    token, half = LLAMA, TOKENS // 2
    expected = (pool() - half * token) // (half * token)
    assert outcome(setup_of(changes="prefix=50%")).max_batch == expected
    # 80% of 512 blocks: 409 of them.
    common = 409 * 16
    expected = (pool() - common * token) // ((TOKENS - common) * token)
    assert outcome(setup_of(changes="prefix=80%")).max_batch == expected


def test_keys_that_wait_for_their_group_are_not_shared(setup_of, pool):
    waiting, half = 64 * 32 * 8 * 128 * 2, TOKENS // 2
    expected = (pool() - half * 35_840) // (half * 35_840 + waiting)
    assert outcome(setup_of(changes="kv=int4-kivi,prefix=50%")).max_batch == expected


def test_layers_with_a_window_share_no_prefix_and_stay_on_the_gpu(setup_of, plan):
    (stage,) = plan("gemma-3-27b").stages
    full = 10 * 2 * 16 * 128 * 2 * TOKENS
    windows = stage.cache.allocated_bytes(TOKENS) - full
    assert windows > 0
    room = stage.pool.number
    shared = (room - full // 2) // (full // 2 + windows)
    assert outcome(setup_of("gemma-3-27b", "prefix=50%")).max_batch == shared
    assert outcome(setup_of("gemma-3-27b", "offload=50%")).max_batch == room // (full // 2 + windows)


def test_a_sliding_model_shares_nothing_unless_its_window_never_slides(setup_of, pool):
    alone, shared = (outcome(setup_of("mistral-7b-v0.1", text)) for text in ("", "prefix=50%"))
    assert alone.max_batch == shared.max_batch
    token = 393_216
    expected = (pool("phi-3.5-mini") - TOKENS // 2 * token) // (TOKENS // 2 * token)
    assert outcome(setup_of("phi-3.5-mini", "prefix=50%")).max_batch == expected


def test_the_host_keeps_its_share(setup_of, pool):
    assert outcome(setup_of(changes="offload=50%")).max_batch == pool() * 2 // (TOKENS * LLAMA)
    found = outcome(setup_of(changes="offload=75%,prefix=50%")).max_batch
    half = TOKENS // 2 * LLAMA
    assert found == (pool() * 4 - half) // half


@pytest.mark.parametrize(("short_bytes", "requests"), [(0, 40), (1, 39)])
@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ("", 40 * TOKENS * LLAMA),
        ("offload=50%", 40 * TOKENS * LLAMA // 2),
        ("prefix=50%", 41 * TOKENS // 2 * LLAMA),
        ("prefix=50%,offload=75%", 41 * TOKENS // 2 * LLAMA // 4),
    ],
)
def test_requests_fit_to_the_byte(setup_of, plan, changes, needed, short_bytes, requests):
    (stage,) = plan("llama-3.1-8b").stages
    overhead = stage.overhead.number + stage.pool.number - needed + short_bytes
    assert plan("llama-3.1-8b", overhead=overhead).stages[0].pool.number == needed - short_bytes
    assert outcome(setup_of(changes=changes, overhead=overhead)).max_batch == requests


def brute_force_context(pool_bytes, batch, percent, limit, token, host=0):
    """The longest context whose blocks fit, from one block that is counted to the next."""
    best = 0
    for context in range(1, limit + 1):
        blocks = -(-context // 16)
        common = blocks * percent // 100
        stored = (common + batch * (blocks - common)) * 16 * token
        if stored * (100 - host) <= pool_bytes * 100:
            best = context
    return best


@pytest.mark.parametrize(
    ("changes", "percent", "host"),
    [("", 0, 0), ("prefix=50%", 50, 0), ("prefix=37%", 37, 0), ("prefix=95%", 95, 0), ("offload=30%", 0, 30)],
)
@pytest.mark.parametrize("batch", [1, 25, 700])
def test_max_context_against_every_context(setup_of, pool, changes, percent, host, batch):
    scarce = {"gpu": "l4", "utilization_bp": 1_000}
    token = 30 * 2 * 3 * 64 * 2
    found = outcome(setup_of("smollm2-135m", changes, batch=batch, context=512, **scarce))
    room = pool("smollm2-135m", **scarce)
    assert found.max_context == brute_force_context(room, batch, percent, 8192, token, host)


def test_max_context_ends_at_the_longest_allowed(setup_of):
    assert outcome(setup_of(max_tokens=9000, batch=1)).max_context == 9000
    assert outcome(setup_of(changes="prefix=50%", max_tokens=9000, batch=1)).max_context == 9000


def test_a_context_past_the_longest_allowed_fits_no_request(setup_of):
    for changes in ("prefix=50%", "offload=50%"):
        assert outcome(setup_of(changes=changes, context=9001, max_tokens=9000)).max_batch == 0
        assert outcome(setup_of(changes=changes, context=9000, max_tokens=9000)).max_batch > 0


def test_where_weights_alone_do_not_fit_there_is_no_request(setup_of):
    for changes in ("", "prefix=50%", "offload=99%", "spec=4@70%"):
        found = outcome(setup_of("llama-3.1-70b", changes))
        assert (found.max_batch, found.max_context, found.batch) == (0, 0, 0)
        assert (found.tokens_per_s, found.full_tokens_per_s) == (0, 0)
        assert found.mixed_requests in (0, None)


def middles(low, high, count=64):
    return [int(low * ((high + 1) / low) ** ((k + 0.5) / count)) for k in range(count)]


def test_mixed_lengths(setup_of, pool):
    lengths = middles(TOKENS // SHORTEST, TOKENS)
    assert SHORTEST == 16
    blocks = sum(-(-length // 16) for length in lengths)
    paged, whole = (outcome(setup_of(changes=text)) for text in ("", "alloc=contiguous"))
    assert paged.mixed_requests == pool() * 64 // (blocks * 16 * LLAMA)
    assert paged.live_share == pytest.approx(sum(lengths) / (blocks * 16), rel=1e-12)
    assert whole.mixed_requests == pool() // (131_072 * LLAMA)
    assert whole.live_share == pytest.approx(sum(lengths) / (64 * 131_072), rel=1e-12)


def test_mixed_requests_are_not_told_of_what_is_shared_or_left_to_the_host(setup_of):
    for changes in ("prefix=50%", "offload=50%"):
        assert outcome(setup_of(changes=changes)).mixed_requests is None


# ------------------------------------------------------------------ speculation


@pytest.mark.parametrize(("drafted", "percent"), [*product([1, 2, 4, 9], [1, 50, 70, 99])])
def test_expected_tokens_are_the_sum_over_every_outcome(drafted, percent):
    right = percent / 100
    expected = right**drafted * (drafted + 1)  # all guesses right, and one more token
    for wrong in range(drafted):
        expected += right**wrong * (1 - right) * (wrong + 1)
    assert tokens_per_step(Speculation(drafted, percent)) == pytest.approx(expected, rel=1e-9)
    assert accepted_tokens(drafted, right) == pytest.approx(expected, rel=1e-9)


def test_a_step_without_guesses_adds_a_token():
    assert tokens_per_step(None) == 1


def times_of(setup, batch, new_tokens=1, layers=None):
    model = setup.model if layers is None else replace(setup.model, layers=layers)
    roofline = plan_roofline(model, setup.deployment)
    return roofline.times(roofline.decode(batch, TOKENS, new_tokens))


def test_a_step_guesses_and_verifies(setup_of):
    setup = setup_of(changes="spec=3@60%")
    verify = times_of(setup, 16, 4)
    guess = times_of(setup, 16, layers=setup.model.layers[-1:])
    found = outcome(setup)
    assert found.step.bound_s == pytest.approx(verify.bound_s + 3 * guess.bound_s, rel=1e-12)
    expected = verify.estimate_s + 3 * guess.estimate_s
    assert found.step.estimate_s == pytest.approx(expected, rel=1e-12)
    assert found.tokens_per_step == pytest.approx(1 + 0.6 + 0.36 + 0.216)
    assert found.tokens_per_s == pytest.approx(16 * found.tokens_per_step / expected, rel=1e-12)


# ------------------------------------------------------------------ time


def test_rates_are_of_the_batch_and_of_as_many_as_fit(setup_of):
    setup = setup_of()
    found = outcome(setup)
    assert (found.batch, found.max_batch) == (16, 55)
    assert found.tokens_per_s == pytest.approx(16 / times_of(setup, 16).estimate_s, rel=1e-12)
    assert found.full_tokens_per_s == pytest.approx(55 / times_of(setup, 55).estimate_s, rel=1e-12)
    assert found.step == times_of(setup, 16)


def test_a_rate_is_of_fewer_requests_where_fewer_fit(setup_of):
    setup = setup_of(changes="alloc=contiguous")
    found = outcome(setup)
    assert (found.batch, found.max_batch) == (3, 3)
    assert found.tokens_per_s == found.full_tokens_per_s
    assert found.tokens_per_s == pytest.approx(3 / times_of(setup, 3).estimate_s, rel=1e-12)
    assert found.step == times_of(setup, 16)


def test_the_first_token_waits_for_what_is_not_shared(setup_of):
    setup = setup_of(changes="prefix=50%")
    roofline = plan_roofline(setup.model, setup.deployment)
    found = outcome(setup).first_token
    assert found == roofline.prefill_times(1, TOKENS, 4096)
    assert found.estimate_s < roofline.prefill_times(1, TOKENS).estimate_s
    assert outcome(setup_of()).first_token == roofline.prefill_times(1, TOKENS)


@pytest.mark.parametrize(
    ("options", "gpu_bytes"),
    [
        ({}, 16 * TOKENS * LLAMA),
        ({"tensor": 2}, 16 * TOKENS * LLAMA // 2),
        ({"pipeline": 2}, 16 * TOKENS * LLAMA // 2),
        ({"pipeline": 3}, 16 * TOKENS * LLAMA * 11 // 32),  # 11, 11 and 10 layers
        ({"data": 2}, 8 * TOKENS * LLAMA),
    ],
)
def test_the_host_is_read_over_a_bus_of_each_gpu(setup_of, options, gpu_bytes):
    found = outcome(setup_of(changes="offload=25%", **options))
    assert found.step.bound_s == pytest.approx(gpu_bytes / 4 / PCIE_GEN5, rel=1e-12)
    assert found.step.estimate_s == pytest.approx(gpu_bytes / 4 / PCIE_GEN5, rel=1e-12)
    assert found.limit is Limit.NETWORK


def test_of_a_hybrid_model_only_layers_that_grow_are_read_from_the_host(setup_of):
    found = outcome(setup_of("gemma-3-27b", "offload=50%"))
    assert found.step.bound_s == pytest.approx(16 * TOKENS * 10 * 8192 / 2 / PCIE_GEN5, rel=1e-12)


def test_a_host_that_keeps_up_costs_nothing(setup_of):
    alone, found = (
        outcome(setup_of(batch=1, context=64)),
        outcome(setup_of(changes="offload=1%", batch=1, context=64)),
    )
    assert found.step == alone.step


def test_what_overlaps_takes_as_long_as_the_longer():
    assert overlapped_s(0.25, 64e9, 64e9) == 1
    assert overlapped_s(2.0, 64e9, 64e9) == 2


def test_shares_and_intensity_by_hand(setup_of):
    found = outcome(setup_of())
    embedding = 128_256 * 4096
    read = 2 * (32 * LLAMA_LAYER // 2 + 4096 + embedding) + 16 * 4096 * 2  # the head, and a row for each
    cached = 16 * (TOKENS + 1) * LLAMA
    assert found.kv_share == pytest.approx(cached / (cached + read), rel=1e-12)
    matrices = 32 * (LLAMA_LAYER // 2 - 2 * 4096) + embedding
    flops = 16 * (2 * matrices + 4 * 32 * 32 * 128 * (TOKENS + 1))
    assert found.arithmetic_intensity == pytest.approx(flops / (read + cached + 16 * LLAMA), rel=1e-4)


# ------------------------------------------------------------------ options


def tried(setup, text, *, what_if=False):
    return try_changes(setup, parse_changes(text), what_if=what_if)


def test_the_baseline_is_no_change(setup_of):
    setup = setup_of()
    found = try_changes(setup, (), what_if=False)
    assert (found.name, found.label, found.reason) == ("baseline", "baseline", "")
    assert found.setup == setup
    assert found.outcome == outcome(setup)


def test_changes_add_up(setup_of):
    found = tried(setup_of(), "weights=fp8,kv=fp8,tp=2")
    assert (found.name, found.label) == ("weights=fp8,kv=fp8,tp=2", "weights fp8, KV fp8, TP 2")
    assert found.setup == setup_of(changes="weights=fp8,kv=fp8,tp=2")
    assert found.outcome == outcome(found.setup)


@pytest.mark.parametrize(
    ("model", "text", "reason"),
    [
        ("falcon-7b", "tp=2", "tensor parallel 2 does not divide the model's 71 query heads"),
        (
            "llama-3.1-8b",
            "weights=mxfp4",
            "mxfp4 stores expert matrix weights only, and llama-3.1-8b has none",
        ),
        ("llama-3.1-8b", "kv=bf16", "keys and values are bf16 already"),
        ("llama-3.1-8b", "kv=fp8,tp=1", "tensor parallel is 1 already"),
        (
            "deepseek-v3",
            "kv=int4-kivi",
            "int4-kivi groups keys per channel, and latent attention caches none",
        ),
        ("llama-3.1-8b", "mla", "another model, that would have to be trained (--what-if)"),
        ("llama-3.1-8b", "kv=fp8,window=4k", "another model, that would have to be trained (--what-if)"),
        ("deepseek-v3", "mla", "deepseek-v3 has latent attention already"),
    ],
)
def test_what_does_not_apply_says_why(setup_of, model, text, reason):
    setup = setup_of(model, context=512)
    assert tried(setup, text) == Tried(parse_changes(text), None, None, reason)


def test_what_if_is_asked_for(setup_of):
    assert tried(setup_of(), "window=4k", what_if=True).outcome is not None


def test_more_bits_never_hold_more(setup_of):
    held = [outcome(setup_of(changes=text)).max_batch for text in ("", "kv=int8", "kv=fp8", "kv=int4")]
    assert all(less < more for less, more in pairwise(held))
