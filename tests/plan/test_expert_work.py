"""Routed experts: how many a step reads, and how ranks share them."""

from itertools import combinations, product

import numpy as np
import pytest

from kvplan.plan.operator_formulas import dispatched_bytes, distinct_experts, ranks_share, routed_tokens

# One expert of Mixtral-8x7B, of DeepSeek-V3, of Qwen3-30B-A3B: three matrices.
MIXTRAL, DEEPSEEK, QWEN = 3 * 4_096 * 14_336, 3 * 7_168 * 2_048, 3 * 2_048 * 768


# ------------------------------------------------------------------ how many are picked


@pytest.mark.parametrize(
    ("experts", "chosen", "tokens"), [(3, 1, 2), (4, 2, 2), (5, 2, 3), (4, 3, 3), (6, 1, 4)]
)
def test_distinct_experts_are_those_of_every_routing_there_is(experts, chosen, tokens):
    """Every way in which tokens can pick, each as likely as the others."""
    ways = list(product(combinations(range(experts), chosen), repeat=tokens))
    mean = sum(len(set().union(*way)) for way in ways) / len(ways)
    assert distinct_experts(experts, experts, chosen, tokens, 0) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize(
    ("experts", "chosen", "tokens"), [(8, 2, 5), (128, 8, 16), (256, 8, 64), (512, 10, 40)]
)
def test_distinct_experts_of_tokens_drawn_at_random(experts, chosen, tokens):
    random, found = np.random.default_rng(7), []
    for _ in range(400):
        scores = random.random((tokens, experts))
        picks = np.argpartition(scores, chosen, axis=1)[:, :chosen]
        found.append(len(np.unique(picks)))
    error = np.std(found) / np.sqrt(len(found))
    expected = distinct_experts(experts, experts, chosen, tokens, 0)
    assert abs(np.mean(found) - expected) < 4 * error


def test_one_token_reads_just_its_experts_and_many_read_all():
    for experts, chosen in ((8, 2), (256, 8), (128, 4), (64, 64)):
        assert distinct_experts(experts, experts, chosen, 1, chosen) == pytest.approx(chosen, rel=1e-12)
        assert distinct_experts(experts, experts, chosen, 10**6, chosen) == experts


def test_the_busiest_rank_reads_an_expert_even_for_one_token():
    assert distinct_experts(2, 8, 2, 1, 1) == 1
    assert distinct_experts(2, 8, 2, 100, 1) == pytest.approx(2)


def test_tokens_of_all_replicas_pass_and_ranks_share_them():
    assert routed_tokens(4, 1.0, 6, 5) == 120
    assert routed_tokens(8, 1 / 8, 1, 5) == 5, "one request, on one of eight replicas"
    assert ranks_share(1_000, 8) == 125


# ------------------------------------------------------------------ models, by hand


def test_a_token_of_mixtral_reads_two_experts_and_a_crowd_all_eight(roofline_of, works):
    roofline = roofline_of("mixtral-8x7b")
    one, crowd = (works(roofline, roofline.decode(batch, 1))["experts"] for batch in (1, 4_096))
    assert one.weight_bytes == 32 * 2 * MIXTRAL * 2
    assert crowd.weight_bytes == pytest.approx(32 * 8 * MIXTRAL * 2, rel=1e-12)
    assert one.matmul_flops == 2 * 32 * 2 * MIXTRAL
    assert crowd.matmul_flops == 4_096 * one.matmul_flops
    # a token in and out of two experts, and gate, up and their product there
    assert one.activation_bytes == 32 * 2 * (2 * 4_096 + 3 * 14_336) * 2


def test_two_tokens_of_mixtral(roofline_of, works):
    """8 (1 - (3/4)^2) = 3.5 experts."""
    roofline = roofline_of("mixtral-8x7b")
    assert works(roofline, roofline.decode(2, 1))["experts"].weight_bytes == 32 * 3.5 * MIXTRAL * 2


def test_the_bound_takes_all_tokens_to_pick_alike(roofline_of, gpu):
    roofline = roofline_of("mixtral-8x7b")
    (one,) = (t for t in roofline.timed(roofline.decode(64, 1)) if t.name == "experts")
    bandwidth = gpu("h100-sxm").memory.bandwidth_gb_per_s * 1e9
    assert one.times.bound_s == pytest.approx(32 * 2 * MIXTRAL * 2 / bandwidth, rel=1e-12)


def test_operators_of_experts(roofline_of, works):
    """DeepSeek-V3: 3 dense layers, 58 of 256 experts and a shared one, routers of 256 x 7,168."""
    roofline = roofline_of("deepseek-v3", "h200-sxm")
    found = works(roofline, roofline.decode(1, 1))
    assert found["experts"].matmul_flops == 2 * 58 * 8 * DEEPSEEK
    assert found["experts"].weight_bytes == pytest.approx(58 * 8 * DEEPSEEK * 2, rel=1e-12)
    shared = found["shared_gate_up_proj"].matmul_flops + found["shared_down_proj"].matmul_flops
    assert shared == 2 * 58 * DEEPSEEK
    assert found["router"].matmul_flops == 2 * 58 * 256 * 7_168
    assert found["gate_up_proj"].weight_bytes == 2 * 3 * 2 * 7_168 * 18_432


# ------------------------------------------------------------------ over GPUs


@pytest.mark.parametrize(("tensor", "data"), [(1, 8), (8, 1), (2, 4)])
def test_ranks_that_share_experts_do_and_read_the_whole_together(tensor, data, roofline_of, works):
    """Whatever the ranks are cut for beside experts: 8 of them hold 32 each, and take all tokens."""
    alone = roofline_of("deepseek-v3", "h200-sxm")
    cut = roofline_of("deepseek-v3", "h200-sxm", tensor=tensor, data=data, expert=8)
    for batch in (64, 8_000):
        whole = works(alone, alone.decode(batch, 99))["experts"]
        piece = works(cut, cut.decode(batch, 99))["experts"]
        assert piece.matmul_flops * 8 == pytest.approx(whole.matmul_flops, rel=1e-12)
        assert piece.weight_bytes * 8 == pytest.approx(whole.weight_bytes, rel=1e-12)
        assert piece.activation_bytes * 8 == pytest.approx(whole.activation_bytes, rel=1e-12)


def test_a_rank_reads_whole_experts(roofline_of, works):
    """Qwen3-30B-A3B, 128 experts over 4 ranks: 32 (1 - (1 - 8/128)^16) of 48 layers for 16 tokens."""
    cut = roofline_of("qwen3-30b-a3b", tensor=4, expert=4)
    read = works(cut, cut.decode(16, 1))["experts"].weight_bytes
    assert read == pytest.approx(48 * 32 * (1 - (15 / 16) ** 16) * QWEN * 2, rel=1e-12)


def test_a_token_alone_keeps_some_rank_busy_with_one_expert(roofline_of, works):
    """Mixtral over 4 ranks: a token's two experts are on two of them, so half of all ranks wait."""
    cut = roofline_of("mixtral-8x7b", tensor=4, expert=4)
    (experts,) = (t for t in cut.timed(cut.decode(1, 1)) if t.name == "experts")
    assert experts.work.weight_bytes == 32 * MIXTRAL * 2
    assert experts.times.bound_s < experts.times.estimate_s


def test_context_parallel_ranks_bring_all_their_tokens_to_the_experts(roofline_of, works):
    alone = roofline_of("mixtral-8x7b")
    cut = roofline_of("mixtral-8x7b", context=4, expert=4)
    whole, piece = (works(one, *one.prefill(1, 4_000))["experts"] for one in (alone, cut))
    assert piece.matmul_flops * 4 == whole.matmul_flops
    assert piece.activation_bytes * 4 == whole.activation_bytes


def test_experts_cut_by_tensor_parallelism_are_slices_of_all(roofline_of, works):
    alone, cut = roofline_of("mixtral-8x7b"), roofline_of("mixtral-8x7b", tensor=4)
    whole, piece = (works(one, one.decode(9, 1))["experts"] for one in (alone, cut))
    assert piece.matmul_flops * 4 == whole.matmul_flops
    assert piece.weight_bytes * 4 == whole.weight_bytes


def test_what_is_sent_to_experts_elsewhere():
    """58 layers, 100 tokens, 8 copies of 7,168 numbers of 2 bytes, seven in eight elsewhere, both ways."""
    sent = 2 * 58 * 100 * 8 * 7_168 * 2 * 7 // 8
    assert dispatched_bytes(58, 100, 8, 7_168, 2, 8) == sent
    assert dispatched_bytes(58, 100, 8, 7_168, 2, 1) == 0
