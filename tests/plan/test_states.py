"""What recurrent states take in each runtime, by hand: channels x columns, and the running state."""

import pytest

from kvplan.allocation import Paged
from kvplan.errors import UsageError
from kvplan.plan.cache import request_cache
from kvplan.storage import kv_format, state_layout

# Channels of the convolution, its kernel, elements of the running state, layers that have both.
SIZES = {
    "qwen3-next-80b-a3b": (2 * 16 * 128 + 32 * 128, 4, 32 * 128 * 128, 36),
    "qwen3.5-27b": (2 * 16 * 128 + 48 * 128, 4, 48 * 128 * 128, 48),
    "jamba-v0.1": (2 * 4096, 4, 8192 * 16, 28),
    "falcon-mamba-7b": (8192, 4, 8192 * 16, 64),
    # What 8 groups of 128 write and read is convolved too.
    "mamba-codestral-7b": (2 * 4096 + 2 * 8 * 128, 4, 128 * 64 * 128, 64),
    "nemotron-h-8b": (128 * 64 + 2 * 8 * 128, 4, 128 * 64 * 128, 24),
    "nemotron-3-nano-30b-a3b": (64 * 64 + 2 * 8 * 128, 4, 64 * 64 * 128, 23),
    "granite-4.0-h-tiny": (48 * 64 + 2 * 128, 4, 48 * 64 * 128, 36),
    "falcon-h1-7b": (24 * 128 + 2 * 256, 4, 24 * 128 * 256, 44),
    "kimi-linear-48b-a3b": (3 * 32 * 128, 4, 32 * 128 * 128, 20),
    "lfm2-1.2b": (2048, 3, 0, 10),
    "recurrentgemma-2b": (2560, 4, 2560, 18),
    "minimax-m1": (0, 1, 64 * 128 * 128, 70),
}
# No step reads the newest input again: transformers keeps it all the same, but in this family.
WITHOUT_NEWEST = ("recurrentgemma-2b",)
# Here a running state takes the model's dtype even in transformers.
IN_MODEL_DTYPE = ("minimax-m1",)
# What vLLM keeps in float32 unasked: the released files say so, or its own code.
IN_FLOAT32 = ("qwen3.5-27b", "nemotron-h-8b", "nemotron-3-nano-30b-a3b", "kimi-linear-48b-a3b")


@pytest.fixture
def state_of(imported):
    """A function that returns a model's state bytes per request."""

    def of(name, layout, *, guessed=0, ranks=1):
        model = imported(f"hf_configs/{name}.json")
        chosen = state_layout(layout).speculating(guessed)
        runs = model.slot_runs()
        cache = request_cache(runs, ranks, kv_format("fp8"), chosen, "bf16", Paged(16), "")
        return cache.state("state", "").number

    return of


@pytest.mark.parametrize("name", SIZES)
def test_as_transformers_keeps_it(name, state_of):
    channels, kernel, recurrent, layers = SIZES[name]
    columns = kernel - (name in WITHOUT_NEWEST)
    element = 2 if name in IN_MODEL_DTYPE else 4
    assert state_of(name, "transformers") == layers * (channels * columns * 2 + recurrent * element)


@pytest.mark.parametrize("name", SIZES)
def test_as_serving_engines_keep_it(name, state_of):
    channels, kernel, recurrent, layers = SIZES[name]
    inputs = channels * (kernel - 1) * 2
    element = 4 if name in IN_FLOAT32 else 2
    assert state_of(name, "vllm") == layers * (inputs + recurrent * element)
    assert state_of(name, "vllm-fp32") == layers * (inputs + recurrent * 4)
    assert state_of(name, "sglang") == layers * (inputs + recurrent * 4)


@pytest.mark.parametrize("guessed", [1, 3])
@pytest.mark.parametrize("name", SIZES)
def test_a_state_is_kept_behind_each_guessed_token(name, guessed, state_of):
    """And each has the inputs of all of them, so that a guess that is dropped can be taken back out."""
    channels, kernel, recurrent, layers = SIZES[name]
    one = channels * (kernel - 1 + guessed) * 2 + recurrent * 4
    assert state_of(name, "vllm-fp32", guessed=guessed) == layers * (1 + guessed) * one


def test_published_sizes(state_of):
    """Facts of transformers 5.23, measured on the meta device."""
    assert state_of("falcon-h1-7b", "transformers") == 139_673_600
    assert state_of("kimi-linear-48b-a3b", "transformers") == 43_909_120
    assert state_of("lfm2-1.2b", "transformers") == 122_880


def test_ranks_divide_heads_and_share_a_group(state_of):
    # Falcon-H1 on 4 ranks: 6 of 24 heads each, and the one group whole.
    of_rank = (6 * 128 + 2 * 256) * (3 + 2) * 2 + 6 * 128 * 256 * 2
    assert state_of("falcon-h1-7b", "vllm", guessed=2, ranks=4) == 44 * 3 * of_rank
    # Nemotron-H on 2: half of everything.
    whole = state_of("nemotron-h-8b", "vllm", guessed=2)
    assert state_of("nemotron-h-8b", "vllm", guessed=2, ranks=2) == whole // 2


@pytest.mark.parametrize("layout", ["transformers", "sglang"])
def test_layouts_that_keep_nothing_for_guesses(layout):
    assert state_layout(layout).speculating(0) == state_layout(layout)
    with pytest.raises(UsageError, match=f"what {layout} keeps for guessed tokens is not modelled"):
        state_layout(layout).speculating(1)


def test_less_than_no_guesses():
    with pytest.raises(UsageError, match="-1 guessed tokens are less than none"):
        state_layout("vllm").speculating(-1)
