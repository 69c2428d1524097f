"""Serving: closed loops by hand, and limits that hold for any model."""

from dataclasses import replace

import pytest

from kvplan.allocation import Paged
from kvplan.arch.work import decode_step, prefill_step
from kvplan.errors import UsageError
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.roofline import plan_roofline
from kvplan.plan.serving import (
    closed_loop_tokens_per_s,
    mean_context_tokens,
    prompts_per_pass,
    steady_state,
    time_to_first_token,
    usd_per_million_tokens,
)
from kvplan.storage import kv_format, state_layout, weight_format

# Llama-3.1-8B, bf16: matrices of a layer 4096 x (4096 + 2 x 1024 + 4096 + 3 x 14336), and the head.
LAYERS, MATRICES, HEAD = 32, 32 * 4096 * (4096 + 2 * 1024 + 4096 + 3 * 14336), 128_256 * 4096


@pytest.fixture
def roofline(bundled, gpu):
    def make(model="llama-3.1-8b", device="h100-sxm", chunk=8192, **cut):
        deployment = Deployment(
            gpu(device),
            Parallelism(**cut),
            weight_format("bf16"),
            kv_format("bf16"),
            state_layout("vllm"),
            Paged(16),
            max_tokens=131_072,
            chunk_tokens=chunk,
        )
        return plan_roofline(bundled(model), deployment)

    return make


def test_a_request_sees_the_prompts_of_the_others_only():
    assert prompts_per_pass(1, 1, 1, 100) == 0
    assert prompts_per_pass(5, 1, 1, 100) == pytest.approx(0.04)
    assert prompts_per_pass(10, 2, 1, 100) == pytest.approx(0.04)  # four others on its replica
    assert prompts_per_pass(5, 1, 2, 100) == pytest.approx(0.02)  # each stage passes twice a token
    assert prompts_per_pass(2, 4, 1, 100) == 0  # fewer requests than replicas


def test_half_of_the_output_is_cached_on_average():
    assert mean_context_tokens(1000, 200) == 1100


def test_tokens_per_second_of_a_loop_by_hand():
    assert closed_loop_tokens_per_s(4, 101, 1.0, 0.01) == pytest.approx(4 * 101 / 2)


def test_dollars_of_a_million_tokens_by_hand():
    # 2 GPUs x $3 / hour; 1,000,000 tokens at 500 / s take 2,000 s.
    assert usd_per_million_tokens(3.0, 2, 500) == pytest.approx(2 * 3 * 2000 / 3600)


def test_one_request_alone_makes_tokens_in_decode_steps(roofline):
    plan = roofline()
    state = steady_state(plan, 1, 1000, 200)
    alone = plan.times((decode_step(1, 1100), 1))
    assert state.each_token == alone
    assert state.first_token == plan.times((prefill_step(1, 1000), 1))
    assert state.tokens_per_s == pytest.approx(200 / (state.first_token.estimate_s + 199 * alone.estimate_s))


def test_the_bound_of_a_loop_under_load_by_hand(roofline):
    """Weights once a pass or all tokens' products, the longer one; then caches and prompts' attention."""
    concurrency, prompt, output = 65, 1024, 128
    state = steady_state(roofline(), concurrency, prompt, output)
    prompts = 64 / 128  # a pass
    tokens = concurrency + prompts * prompt
    bandwidth, peak = 3.35e12, 989.4e12
    layers = max(2 * MATRICES / bandwidth, 2 * MATRICES * tokens / peak)
    head = max(2 * HEAD / bandwidth, 2 * HEAD * (concurrency + prompts) / peak)
    caches = concurrency * (prompt + output / 2 + 1) * 131_072 / bandwidth
    pairs = prompts * prompt * (prompt + 1) / 2
    reading = max(prompts * prompt * 131_072 / bandwidth, 4 * 4096 * LAYERS * pairs / peak)
    # Norms, embedding rows and cache writes are what is left: little.
    assert state.each_token.bound_s == pytest.approx(layers + head + caches + reading, rel=0.005)


def test_a_mixed_pass_reads_weights_once(roofline):
    plan = roofline()
    decode, prefill = decode_step(8, 1000), prefill_step(1, 128)
    mixed = plan.mixed(decode, prefill)
    apart = plan.times((decode, 1)) + plan.times((prefill, 1))
    saved = apart.bound_s - mixed.bound_s
    # Both are bound by memory: the matrices of the layers and the head are read once less.
    assert saved == pytest.approx(2 * (MATRICES + HEAD) / 3.35e12, rel=0.01)
    assert mixed.estimate_s < apart.estimate_s


def test_a_mixed_pass_without_prompts_is_a_decode_step(roofline):
    plan = roofline()
    decode = decode_step(8, 1000)
    assert plan.mixed(decode, prefill_step(0, 128)).bound_s == pytest.approx(plan.times((decode, 1)).bound_s)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite", "gemma-3-4b"])
def test_estimates_are_above_bounds_and_grow_with_load(roofline, model):
    states = [steady_state(roofline(model), requests, 1024, 256) for requests in (1, 8, 64, 256)]
    assert all(state.each_token.estimate_s > state.each_token.bound_s for state in states)
    assert all(state.first_token.estimate_s > state.first_token.bound_s for state in states)
    times = [state.each_token.estimate_s for state in states]
    assert times == sorted(times)
    rates = [state.tokens_per_s for state in states]
    assert rates == sorted(rates)
    assert all(state.tokens_per_s < state.most_tokens_per_s for state in states)


def test_a_longer_prompt_takes_longer_to_its_first_token_and_a_cached_one_less(roofline):
    plan = roofline()
    short, long = time_to_first_token(plan, 1000), time_to_first_token(plan, 20_000)
    assert long.bound_s > 20 * short.bound_s * 0.9
    cached = time_to_first_token(plan, 20_000, 19_000)
    assert short.estimate_s < cached.estimate_s < long.estimate_s / 5


def test_a_prompt_in_chunks_takes_longer_alone_and_stalls_the_others_less(roofline):
    """Chunks read weights and earlier keys again; beside decode steps, weights are read anyway."""
    whole, chunks = roofline(chunk=8192), roofline(chunk=1024)
    assert time_to_first_token(chunks, 8192).estimate_s > time_to_first_token(whole, 8192).estimate_s
    loops = [steady_state(plan, 16, 8192, 128).each_token for plan in (whole, chunks)]
    assert loops[1].estimate_s < loops[0].estimate_s
    assert loops[1].bound_s == pytest.approx(loops[0].bound_s)


def test_replicas_share_the_requests(roofline):
    one, two = roofline(), roofline(data=2)
    assert steady_state(two, 32, 1024, 128).each_token == steady_state(one, 16, 1024, 128).each_token
    both = steady_state(two, 32, 1024, 128)
    assert both.gpus == 2
    assert both.tokens_per_s_and_gpu == pytest.approx(steady_state(one, 16, 1024, 128).tokens_per_s)
    assert both.tokens_per_s_and_request == pytest.approx(1 / both.each_token.estimate_s)


def test_replicas_share_prompts_that_come_several_in_a_pass(roofline):
    """64 requests of 64 tokens that make 8: eight prompts in a pass of each replica."""
    one, two = roofline(), roofline(data=2)
    assert steady_state(two, 128, 64, 8).each_token == steady_state(one, 64, 64, 8).each_token


@pytest.mark.parametrize(
    ("model", "apart"),
    [
        ("llama-3.1-8b", {"attention", "kv_write"}),
        ("deepseek-v2-lite", {"attention", "kv_write", "kv_b_proj"}),
        ("qwen3-next-80b-a3b", {"attention", "kv_write", "recurrence"}),
    ],
)
def test_what_tells_requests_apart_touches_a_cache(roofline, model, apart):
    """Latents are expanded for prompts only, so their product is another one in decode."""
    assert {op.name for op, _ in roofline(model).operators if op.tells_requests_apart} == apart


def test_experts_that_some_router_may_spare_are_not_in_the_bound(roofline):
    """Qwen3-30B-A3B: 8 of 128 experts, three matrices of 2048 x 768, 48 layers."""
    plan = roofline("qwen3-30b-a3b")
    (experts,) = (part for part in plan.timed((decode_step(16, 100), 1)) if part.name == "experts")
    assert experts.times.bound_s == pytest.approx(48 * 8 * 3 * 2048 * 768 * 2 / 3.35e12)
    expected = 128 * (1 - (1 - 8 / 128) ** 16)
    assert experts.work.weight_bytes == pytest.approx(48 * expected * 3 * 2048 * 768 * 2)


@pytest.mark.parametrize("lengths", [(0, 100, 100), (1, 0, 100), (1, 100, 0), (1, 100, 1)])
def test_empty_loops_are_refused(roofline, lengths):
    with pytest.raises(UsageError, match=r"must be at least [12]"):
        steady_state(roofline(), *lengths)


def test_a_step_with_prompts_of_replicas_is_one_replicas(roofline):
    decode, prefill = decode_step(8, 1000), prefill_step(1, 512)
    doubled = roofline(data=2).mixed(replace(decode, batch=16), replace(prefill, batch=2))
    assert doubled == roofline().mixed(decode, prefill)
