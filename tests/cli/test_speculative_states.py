"""``kvplan capacity --speculative-tokens``: states that are kept behind guessed tokens."""

import json

import pytest

QWEN = ("capacity", "qwen3-next-80b-a3b", "--gpu", "h200-sxm", "--tp", "4")


def asked(command, *options):
    status, out, _ = command(*QWEN, *options, "--json")
    assert status == 0
    return json.loads(out)


def test_states_behind_each_guess(command):
    """36 layers x 3 states of 8,192 channels x 5 columns, and 32 heads x 128 x 128, in 2 bytes each."""
    kv = asked(command, "--state", "vllm", "--speculative-tokens", "2")["kv"]
    assert kv["state_bytes_per_sequence"] == 36 * 3 * (8_192 * 5 * 2 + 32 * 128 * 128 * 2)
    assert kv["bytes_per_token"] == 24_576


def test_fewer_requests_fit(command):
    plain = asked(command, "--state", "vllm", "--context", "8k")
    guessing = asked(command, "--state", "vllm", "--context", "8k", "--speculative-tokens", "4")
    assert guessing["max_batch"][0]["batch"] < plain["max_batch"][0]["batch"]


def test_none_by_default(command):
    assert (
        asked(command, "--state", "vllm")["kv"]
        == asked(command, "--state", "vllm", "--speculative-tokens", "0")["kv"]
    )


def test_it_is_said_and_explained(command):
    options = ("--state", "vllm", "--speculative-tokens", "2")
    _, out, _ = command(*QWEN, *options)
    assert "note: a state is kept behind each guessed token too: 3 in all" in out.splitlines()
    _, out, _ = command(*QWEN, *options, "--explain", "kv.state_bytes_per_sequence")
    assert "conv_columns = conv_kernel - 1 + speculative_tokens" in out
    assert "entry_bytes = state_bytes * (1 + speculative_tokens)" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "what transformers keeps for guessed tokens is not modelled"),
        (("--state", "sglang"), "what sglang keeps for guessed tokens is not modelled"),
    ],
)
def test_layouts_that_keep_none(options, said, refused):
    lines = refused(*QWEN, *options, "--speculative-tokens", "2")
    assert lines[0].startswith(said)
    assert "(choose a vLLM layout with --state)" in lines[0]


@pytest.mark.parametrize("number", ["-1", "1025", "two", "1.5"])
def test_numbers_that_are_none(number, refused):
    lines = refused(*QWEN, "--state", "vllm", "--speculative-tokens", number)
    assert lines[0].startswith("--speculative-tokens: ")
