"""Parameters and cache entries of dozens of models against what transformers allocates for them, to the unit.

The numbers are in data/model_truth.yaml; none of them was computed by kvplan.
"""

import pytest

from kvplan.allocation import Paged
from kvplan.arch.model import Run
from kvplan.arch.retention import Full, PerRequest, Sliding
from kvplan.plan.cache import request_cache
from kvplan.plan.weights import parameter_count
from kvplan.storage import kv_format, state_layout

# Checkpoints count DeepSeek's e_score_correction_bias, one number per routed expert and layer with experts.
# It is a buffer, no parameter: 58 layers x 256 experts, and 60 layers x 384.
ROUTER_BIAS_BUFFERS = {"deepseek-ai/DeepSeek-V3": 14_848, "moonshotai/Kimi-K2-Instruct": 23_040}

# transformers repeats Falcon's 8 KV heads for its 128 and 232 query heads before it caches them; engines
# do not.
REPEATED_HEADS = {"tiiuae/falcon-40b": 128 // 8, "tiiuae/falcon-180B": 232 // 8}

# Checkpoint listings that count a tied head a second time: the embedding, 65,024 x 4,544 and 65,024 x 14,848.
DOUBLY_COUNTED_HEADS = {
    "falcon-7b": (7_217_189_760, 295_469_056),
    "falcon-180b": (179_522_565_120, 965_476_352),
}


@pytest.fixture
def repeated(truth):
    """How often transformers keeps each KV head of this model."""
    return REPEATED_HEADS.get(truth["model"], 1)


def indices(text):
    """Return the indices that ``"0-2,5"`` means."""
    found = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def cache_of(runs, dtype):
    return request_cache(runs, 1, kv_format("bf16"), state_layout("transformers"), dtype, Paged(16), "")


def test_parameters(truth, imported):
    model = imported(truth["config"])
    assert parameter_count(model).number == truth["params_total"]
    assert parameter_count(model, active=True).number == truth["params_active"]


def test_published_total(published, imported):
    buffers = ROUTER_BIAS_BUFFERS.get(published["model"], 0)
    assert parameter_count(imported(published["config"])).number + buffers == published["published_total"]


@pytest.mark.parametrize(("name", "elements"), [("deepseek-v3", 14_848), ("kimi-k2", 23_040)])
def test_router_bias_is_held_but_is_no_parameter(name, elements, bundled):
    buffers = [w.elements * count for w, count in bundled(name).weights() if not w.trained]
    assert sum(buffers) == elements


@pytest.mark.parametrize("name", DOUBLY_COUNTED_HEADS)
def test_a_tied_head_counts_once(name, bundled):
    published, head = DOUBLY_COUNTED_HEADS[name]
    model = bundled(name)
    assert model.tie_word_embeddings
    assert model.vocab_size * model.hidden_size == head
    assert parameter_count(model).number == published - head


def test_depth_and_which_layers_slide(truth, imported):
    expected = {}
    for run in truth["layers"]:
        keeps = Sliding(run["window"]) if "window" in run else Full()
        kind = PerRequest() if run["state_bytes"] else keeps
        expected.update(dict.fromkeys(indices(run["at"]), kind))
    layers = imported(truth["config"]).layers
    assert {index: layer.slot().retention for index, layer in enumerate(layers)} == expected


def test_entry_of_every_layer(truth, repeated, imported):
    model = imported(truth["config"])
    for run in truth["layers"]:
        for index in indices(run["at"]):
            cache = cache_of((Run(model.layers[index], 1),), model.dtype)
            assert cache.growth("g", "").number * repeated == run["bytes_per_token"], index
            assert cache.state("s", "").number == run["state_bytes"], index


def test_growth_before_and_after_the_windows(truth, repeated, imported):
    model = imported(truth["config"])
    cache = cache_of(model.runs(), model.dtype)
    windows = [run["window"] for run in truth["layers"] if "window" in run]
    first, past = truth["bytes_per_token"] // repeated, truth["bytes_per_token_past_window"] // repeated
    assert cache.growth("g", "").number == first
    if windows:
        # The token that fills the window is the last that every layer keeps; the next one pushes one out.
        assert cache.live_bytes(min(windows)) - cache.live_bytes(min(windows) - 1) == first
        assert cache.live_bytes(max(windows) + 1) - cache.live_bytes(max(windows)) == past
    assert cache.live_bytes(10**9 + 1) - cache.live_bytes(10**9) == past


def test_state_bytes(truth, repeated, imported):
    model = imported(truth["config"])
    cache = cache_of(model.runs(), model.dtype)
    assert cache.state("s", "").number == truth["state_bytes_constant"]
    assert cache.live_bytes(1) == truth["state_bytes_constant"] + truth["bytes_per_token"] // repeated


def test_every_bundled_model_is_measured_or_counted_by_hand(model_name, bundled, imported):
    """A bundled file is a measured row, or Llama-3.1-405B, whose published total is a hand oracle."""
    if model_name == "llama-3.1-405b":
        assert parameter_count(bundled(model_name)).number == 405_853_388_800
        return
    assert bundled(model_name).layers == imported(f"hf_configs/{model_name}.json").layers
