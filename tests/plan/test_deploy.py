"""A deployment from what people say of one."""

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.errors import UsageError
from kvplan.plan.deploy import deploy
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.storage import kv_format, state_layout, weight_format


def test_everything_has_a_usual_value(bundled, gpu):
    model = bundled("llama-3.1-8b")
    assert deploy(model, gpu("h100-sxm")) == Deployment(
        device=gpu("h100-sxm"),
        parallelism=Parallelism(),
        weights=model.as_released(),
        kv=kv_format("bf16"),
        state=state_layout("transformers"),
        allocation=Paged(16),
        max_tokens=131_072,
        utilization_bp=9_000,
        chunk_tokens=8_192,
        overhead_bytes=None,
    )


def test_everything_can_be_said(bundled, gpu):
    found = deploy(
        bundled("llama-3.1-8b"),
        gpu("h100-sxm"),
        tp=2,
        pp=3,
        dp=5,
        ep=1,
        cp=7,
        weights="int4",
        kv="int8-kivi",
        state="vllm",
        allocation="contiguous",
        max_length=200_000,
        chunk=512,
        memory_utilization=0.8765,
        overhead_bytes=0,
        speculative_tokens=3,
    )
    assert found == Deployment(
        device=gpu("h100-sxm"),
        parallelism=Parallelism(tensor=2, pipeline=3, data=5, expert=1, context=7),
        weights=weight_format("int4"),
        kv=kv_format("int8-kivi"),
        state=state_layout("vllm").speculating(3),
        allocation=Contiguous(200_000),
        max_tokens=200_000,
        utilization_bp=8_765,
        chunk_tokens=512,
        overhead_bytes=0,
    )


def test_guesses_that_a_layout_has_already_stay(bundled, gpu):
    layout = state_layout("vllm").speculating(2)
    assert deploy(bundled("gpt2"), gpu("t4"), state=layout).state.speculative_tokens == 2


def test_what_gpus_leave_is_tensor_parallel(bundled, gpu):
    cut = deploy(bundled("llama-3.1-8b"), gpu("h100-sxm"), gpus=8, pp=2).parallelism
    assert (cut.tensor, cut.pipeline, cut.gpus) == (4, 2, 8)


def test_learned_positions_are_not_stretched(bundled, gpu):
    assert deploy(bundled("gpt2"), gpu("t4"), max_length=1_024).max_tokens == 1_024
    with pytest.raises(UsageError, match="1,025 is more than the 1,024 positions gpt2 has learned"):
        deploy(bundled("gpt2"), gpu("t4"), max_length=1_025)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"gpus": 0}, "gpus: 0 is out of range: expected 1 to 65,536"),
        ({"tp": -1}, "tp: -1 is out of range"),
        ({"dp": 1 << 17}, "dp: 131,072 is out of range"),
        ({"pp": "2"}, "pp: '2' is no whole number"),
        ({"cp": 2.0}, "cp: '2.0' is no whole number"),
        ({"ep": True}, "ep: 'True' is no whole number"),
        ({"block_size": 0}, "block_size: 0 is out of range"),
        ({"chunk": 0}, "chunk: 0 is out of range"),
        ({"max_length": 0}, "max_length: 0 is out of range"),
        ({"overhead_bytes": -1}, "overhead_bytes: -1 is out of range"),
        ({"speculative_tokens": -1}, "speculative_tokens: -1 is out of range"),
        ({"speculative_tokens": 1}, "what transformers keeps for guessed tokens is not modelled"),
        ({"memory_utilization": 0}, "memory_utilization: '0' is no share"),
        ({"memory_utilization": 90}, "memory_utilization: '90' is no share"),
        ({"memory_utilization": 0.00001}, "memory_utilization: '1e-05' is no share"),
        ({"memory_utilization": 0.12345}, "memory_utilization: '0.12345' is no share"),
        ({"memory_utilization": float("nan")}, "memory_utilization: 'nan' is no share"),
        ({"memory_utilization": "0.9"}, "memory_utilization: '0.9' is no share"),
        ({"allocation": "ring"}, "no allocation named 'ring'"),
        ({"kv": "bf17"}, "no KV format named 'bf17'"),
        ({"weights": ""}, "no weight format named ''"),
        ({"state": "tgi"}, "no state layout named 'tgi'"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_by_name(said, message, bundled, gpu):
    with pytest.raises(UsageError) as caught:
        deploy(bundled("llama-3.1-8b"), gpu("h100-sxm"), **said)
    assert caught.value.message.startswith(message)


def test_every_share_of_four_decimals_is_taken_exactly(bundled, gpu):
    model, device = bundled("gpt2"), gpu("t4")
    shares = range(1, 10_001)
    assert [deploy(model, device, memory_utilization=n / 10_000).utilization_bp for n in shares] == [*shares]
