"""What formats save: by hand, and as the planner says."""

import pytest

from kvplan.check.quality_formats import parse_formats
from kvplan.check.quality_savings import savings
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.deploy import deploy

NAMES = "fp32,bf16,int8,int4-kivi,window-256,int8/window-252+4"


@pytest.fixture
def saved(bundled, gpu):
    """What each of the names saves of Llama 3.1 8B: 32 layers of 8 KV heads of 128."""
    formats = parse_formats(NAMES)
    found = savings(bundled("llama-3.1-8b"), gpu("h100-sxm"), formats, 1024)
    return dict(zip(NAMES.split(","), found, strict=True))


def test_bytes_of_a_token_by_hand(saved):
    vectors = 32 * 8 * 2  # keys and values of a token
    by_hand = {
        "fp32": vectors * 128 * 4,
        "bf16": vectors * 128 * 2,
        "int8": vectors * (128 + 2),
        # Values with a scale and a minimum each; keys with those of a channel for every 64 tokens.
        "int4-kivi": 32 * 8 * (64 + 4) + 32 * 8 * (64 * 64 + 128 * 4) // 64,
        "window-256": vectors * 128 * 2 * 256 // 1024,
        "int8/window-252+4": vectors * (128 + 2) * 256 // 1024,
    }
    assert {name: one.kv_bytes_per_token.number for name, one in saved.items()} == by_hand


def test_times_fewer_than_bf16_by_hand(saved):
    assert saved["fp32"].saved.amount == 0.5
    assert saved["bf16"].saved.amount == 1
    assert saved["int8"].saved.amount == pytest.approx(256 / 130)
    assert saved["window-256"].saved.amount == 4
    assert saved["int8/window-252+4"].saved.amount == pytest.approx(4 * 256 / 130)


def test_requests_are_those_of_a_plan(saved, bundled, gpu):
    llama = bundled("llama-3.1-8b")
    for name, one in zip(NAMES.split(","), parse_formats(NAMES), strict=True):
        plan = plan_capacity(one.of(llama), deploy(llama, gpu("h100-sxm"), kv=one.kv, block_size=64))
        assert saved[name].max_batch.number == plan.max_batch(131_072)
        assert plan.fits(saved[name].max_batch.number, 131_072)
    assert saved["window-256"].max_batch.number > 100 * saved["bf16"].max_batch.number
