"""What GPUs exchange in a step, by hand."""

from dataclasses import replace

import pytest

from kvplan.arch.norm import Block
from kvplan.plan.operator import Collective


def exchanges(roofline, *steps):
    """Every exchange of steps: its bytes, calls and ranks."""
    return {
        (timed.name, part.operator.label): (
            part.work.collective_bytes,
            part.operator.calls,
            part.operator.ranks,
        )
        for timed in roofline.timed(*steps)
        for part in timed.parts
        if isinstance(part.operator.runs_as, Collective)
    }


def test_one_gpu_sends_nothing(representative, roofline_of):
    roofline = roofline_of(representative, "h200-sxm")
    assert not exchanges(roofline, roofline.decode(8, 100))
    assert roofline.work(roofline.decode(8, 100)).collective_bytes == 0


def test_llama_70b_on_eight_gpus(roofline_of):
    """80 layers of 8,192 numbers of 2 bytes, summed behind attention and MLP, and behind the embedding."""
    roofline = roofline_of("llama-3.3-70b", tensor=8)
    for batch in (1, 32):
        assert exchanges(roofline, roofline.decode(batch, 4_096)) == {
            ("all_reduce", "all-reduce, tensor parallel"): (160 * batch * 16_384, 160, 8),
            ("all_reduce", "all-reduce, embedding"): (batch * 16_384, 1, 8),
            # seven other ranks' 16,032 logits of 2 bytes
            ("all_gather", "all-gather, logits"): (7 * batch * 16_032 * 2, 1, 8),
        }
    (total,) = {roofline.work(roofline.decode(1, 4_096)).collective_bytes}
    assert total == 161 * 16_384 + 7 * 16_032 * 2 == 2_862_272


def test_a_prompt_sends_every_token_but_the_logits_of_one(roofline_of):
    roofline = roofline_of("llama-3.3-70b", tensor=8)
    found = exchanges(roofline, *roofline.prefill(1, 5_000))
    assert found["all_reduce", "all-reduce, tensor parallel"][0] == 160 * 5_000 * 16_384
    assert found["all_gather", "all-gather, logits"][0] == 7 * 16_032 * 2


@pytest.mark.parametrize(("model", "layers", "hidden"), [("falcon-40b", 60, 8_192), ("phi-2", 32, 2_560)])
def test_mixer_and_mlp_side_by_side_are_summed_at_once(model, layers, hidden, roofline_of, bundled):
    assert {layer.block for layer in bundled(model).layers} <= {Block.PARALLEL, Block.PARALLEL_TWO_NORMS}
    roofline = roofline_of(model, tensor=4)
    found = exchanges(roofline, roofline.decode(3, 9))
    assert found["all_reduce", "all-reduce, tensor parallel"] == (layers * 3 * hidden * 2, layers, 4)


def test_deepseek_v3_with_attention_in_parallel(roofline_of):
    """8 replicas: no sums; 58 layers send each token to 8 experts, 7 in 8 elsewhere, and back."""
    roofline = roofline_of("deepseek-v3", "h200-sxm", data=8, expert=8)
    (found,) = exchanges(roofline, roofline.decode(256, 999)).items()
    assert found == (
        ("all_to_all", "all-to-all, experts"),
        (2 * 58 * 32 * 8 * 7_168 * 2 * 7 // 8, 116, 8),
    )


def test_ranks_that_share_experts_of_one_replica_sum_what_they_made(roofline_of):
    roofline = roofline_of("deepseek-v3", "h200-sxm", tensor=8, expert=8)
    found = exchanges(roofline, roofline.decode(1, 999))
    assert {name for name, _ in found} == {"all_reduce", "all_gather"}
    sums = [
        part.operator.calls
        for timed in roofline.timed(roofline.decode(1, 999))
        for part in timed.parts
        if timed.name == "all_reduce"
    ]
    assert sorted(sums) == [1, 6, 116], "two a layer, of 3 and of 58, and the embedding's"


def test_a_stage_hands_its_micro_batch_to_the_next(roofline_of):
    """Llama-3.1-8B in 4 stages: 3 borders; 10 requests are 3 in the fullest of 4 micro-batches."""
    roofline = roofline_of("llama-3.1-8b", pipeline=4)
    work = {t.name: t for t in roofline.timed(roofline.decode(10, 99))}["send"]
    assert len(work.parts) == 3
    assert work.work.collective_bytes == 3 * 3 * 4_096 * 2


def test_a_mamba_sums_what_its_steps_are_made_of(roofline_of):
    """FalconMamba: 64 layers, each a step of rank 256, and what writes and reads 16 numbers of a state."""
    roofline = roofline_of("falcon-mamba-7b", tensor=2)
    found = exchanges(roofline, roofline.decode(3, 9))
    assert found["inner_all_reduce", "all-reduce, inside the mixer"] == (64 * 3 * (256 + 32) * 2, 64, 2)
    assert found["all_reduce", "all-reduce, tensor parallel"] == (64 * 3 * 4_096 * 2, 64, 2)


@pytest.mark.parametrize(("model", "layers"), [("granite-4.0-h-tiny", 36), ("mamba-codestral-7b", 0)])
def test_the_norm_of_one_group_is_over_what_every_rank_has_a_part_of(model, layers, roofline_of):
    """Granite 4 has one group of heads, and one number a token to sum; Codestral Mamba has eight groups."""
    roofline = roofline_of(model, tensor=2)
    parts = [part for timed in roofline.timed(roofline.decode(3, 9)) for part in timed.parts]
    inner = [part for part in parts if part.operator.label == "all-reduce, inside the mixer"]
    assert sum(part.operator.calls for part in inner) == layers
    assert sum(part.work.collective_bytes for part in inner) == layers * 3 * 2


def test_attention_beside_mamba_sums_both_and_the_mlp(roofline_of):
    roofline = roofline_of("falcon-h1-7b", tensor=2)
    found = exchanges(roofline, roofline.decode(1, 9))
    assert found["all_reduce", "all-reduce, tensor parallel"] == (44 * 3 * 3_072 * 2, 132, 2)
    assert ("inner_all_reduce", "all-reduce, inside the mixer") not in found


def test_context_parallel_ranks_sum_partial_attention(roofline_of):
    """Llama-3.1-8B: 32 heads of 128 numbers and the sum of their weights, 2 bytes each, in 32 layers."""
    roofline = roofline_of("llama-3.1-8b", context=2)
    found = exchanges(roofline, roofline.decode(5, 99))
    assert found == {("context_all_reduce", "all-reduce, context parallel"): (32 * 5 * 32 * 129 * 2, 32, 2)}


def test_only_layers_whose_tokens_are_shared_exchange_partial_attention(roofline_of):
    """Gemma-3-27B: 10 of 62 layers see everything; 32 heads of 128."""
    roofline = roofline_of("gemma-3-27b", context=2)
    ((_, (sent, calls, _)),) = exchanges(roofline, roofline.decode(1, 99)).items()
    assert (sent, calls) == (10 * 32 * 129 * 2, 10)


def test_a_sum_around_a_ring(roofline_of, gpu):
    """Each rank sends 2 x 7/8 of its bytes, at the measured share of the link, and waits for each call."""
    device = gpu("h100-sxm")
    (fit,) = (fit for fit in device.all_reduce if fit.ranks == 8)
    roofline = roofline_of("llama-3.3-70b", tensor=8)
    (sums,) = (t for t in roofline.timed(roofline.decode(64, 1)) if t.name == "all_reduce")
    link = device.interconnect.link_gb_per_s_per_direction * 1e9
    assert link == 450e9
    sent = 161 * 64 * 16_384
    assert sums.times.network_s == pytest.approx(sent * 1.75 / (fit.link_share * link), rel=1e-12)
    assert sums.times.launch_s == pytest.approx(161 * fit.launch_us * 1e-6, rel=1e-12)
    assert sums.times.bound_s == pytest.approx(sent / link, rel=1e-12)
    assert sums.times.limit.value == ("network" if sums.times.network_s > sums.times.launch_s else "latency")


def test_what_is_not_summed_goes_over_the_link_once(roofline_of, gpu):
    device = replace(gpu("h100-sxm"), all_reduce=())
    roofline = roofline_of("deepseek-v3", device, data=8, expert=8)
    (sent,) = (t for t in roofline.timed(roofline.decode(256, 999)) if t.name == "all_to_all")
    expected = 2 * 58 * 32 * 8 * 7_168 * 2 * 7 / 8 / (0.72 * 450e9)
    assert sent.times.network_s == pytest.approx(expected, rel=1e-12)
    assert sent.times.launch_s == pytest.approx(116 * 4.8e-6, rel=1e-12)
