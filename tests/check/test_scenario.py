"""What a simulation runs, and what its run counts."""

import math

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.experts import Experts
from kvplan.arch.scale_down import scaled_down
from kvplan.check.measurement import measure
from kvplan.check.scenario import Scenario, mixed_lengths, require_positions, room_for
from kvplan.check.simulation import drawn_requests, simulate
from kvplan.engine.generation import Phase
from kvplan.engine.random_weights import random_weights
from kvplan.errors import UsageError
from kvplan.storage import TensorRole, kv_format

FP32 = kv_format("fp32")


def nothing(_):
    pass


def test_the_longest_request_is_its_prompt_and_what_it_adds():
    assert Scenario((9, 197, 64), 6, 64, 2, FP32, Paged(64)).longest == 203


def test_every_doubling_of_the_length_is_as_likely():
    """Of 4,000 lengths up to 1,600, a quarter lies in each of four doublings from 100 on."""
    lengths = np.array(mixed_lengths(4_001, 1_600, 7)[:-1])
    assert lengths.min() >= 100
    shares = np.histogram(np.log2(lengths / 100), bins=4, range=(0, 4))[0] / len(lengths)
    # Four standard deviations of 4,000 draws of a quarter are 0.027.
    assert np.abs(shares - 0.25).max() < 0.03


@pytest.mark.parametrize("longest", [1, 2, 15, 16, 17])
def test_short_prompts_have_at_least_one_token(longest):
    for seed in range(5):
        lengths = mixed_lengths(50, longest, seed)
        assert min(lengths) >= 1
        assert max(lengths) == lengths[-1] == longest


def test_lengths_depend_on_the_seed_alone():
    assert mixed_lengths(9, 512, 3) == mixed_lengths(9, 512, 3)
    assert all(type(length) is int for length in mixed_lengths(9, 512, 3))


def test_contiguous_room_is_the_next_whole_tile():
    for longest in range(1, 300):
        assert room_for(longest) == 64 * math.ceil(longest / 64)


def test_more_tokens_than_positions_are_refused(bundled):
    gpt2 = bundled("gpt2")
    require_positions(gpt2, 1024)
    with pytest.raises(UsageError, match="1,025 tokens are more than the 1,024 positions of gpt2") as error:
        require_positions(gpt2, 1025)
    assert error.value.hint == "a smaller --prompt-tokens or --tokens"


def test_prompts_that_begin_alike_are_each_read(bundled):
    """A hundred prompts of a vocabulary of 512, in blocks of one token: some begin with the same."""
    drawn = np.random.default_rng([0, 1]).integers(0, 512, 300)
    assert len(set(drawn[::3].tolist())) < 100
    scenario = Scenario((3,) * 100, 2, 2, 0, FP32, Paged(1))
    simulation = simulate(bundled("smollm2-135m"), scenario, nothing, layers=1, hidden_size=32)
    assert [check.label for check in simulation.disagreeing] == []


@pytest.mark.parametrize(("layers", "hidden"), [(1, 8), (2, 24)])
@pytest.mark.parametrize("name", ["gemma-3-1b", "gpt-oss-20b", "deepseek-v3", "qwen3-next-80b-a3b", "gpt2"])
def test_odd_scales_agree_too(name, layers, hidden, bundled):
    scenario = Scenario((2, 9), 3, 4, 0, kv_format("int8"), Contiguous(64))
    simulation = simulate(bundled(name), scenario, nothing, layers=layers, hidden_size=hidden)
    assert [check.label for check in simulation.disagreeing] == []


def test_a_decode_step_reads_every_weight_once(representative, bundled):
    """Whatever the batch: all weights but looked-up embeddings, and of experts those that were chosen.

    Layers that attend to images are passed by.
    """
    model = scaled_down(bundled(representative), hidden_size=32)
    scenario = Scenario((2, 5, 3), 3, 16, 1, FP32, Paged(16))
    weights = random_weights(model, scenario.seed)
    measured = measure(model, weights, drawn_requests(model, scenario), scenario, nothing)
    looked_up = (TensorRole.EMBEDDING, TensorRole.POSITIONS)
    outer = [w for w in model.input_weights() if w.role not in looked_up] + [*model.output_weights()]
    always = sum(4 * weight.elements for weight in outer)
    always += 4 * model.head_weight().elements * model.tie_word_embeddings
    most, expert = 0, 1
    for layer in (layer for layer in model.layers if not layer.images_only):
        weights = model.layer_weights(layer)
        always += sum(4 * w.elements for w in weights if w.copies == 1 and w.role not in looked_up)
        # AltUp's router runs before a layer and behind it.
        always += sum(4 * w.elements for w in weights if w.name.startswith(("altup.modal", "altup.router")))
        if isinstance(layer.mlp, Experts):
            expert = sum(4 * w.elements // w.copies for w in weights if w.copies > 1)
            most += expert * min(layer.mlp.num_experts, 3 * layer.mlp.num_experts_per_tok)
    decode = [step for step in measured.steps if step.phase is Phase.DECODE]
    assert len(decode) == 2
    for step in decode:
        experts = step.counted.weights_read_bytes - always
        assert 0 <= experts <= most
        assert experts % expert == 0
        assert (experts > 0) == (most > 0)
    assert measured.weights_bytes == sum(4 * weight.elements * count for weight, count in model.weights())
