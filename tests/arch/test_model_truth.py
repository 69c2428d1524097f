"""Parameters and cache entries of dozens of models against what transformers allocates for them, to the unit.

The numbers are in data/model_truth.yaml; none of them was computed by kvplan.
"""

import pytest

from kvplan.allocation import Paged
from kvplan.arch.model import Run, slot_runs
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Sliding, Unfinished
from kvplan.plan.cache import request_cache
from kvplan.plan.weights import parameter_count
from kvplan.storage import kv_format, state_layout

# Checkpoints count DeepSeek's e_score_correction_bias, one number per routed expert and layer with experts.
# It is a buffer, no parameter: 58 layers x 256 experts, 60 x 384, 62 x 256 and 26 x 256.
ROUTER_BIAS_BUFFERS = {
    "deepseek-ai/DeepSeek-V3": 14_848,
    "moonshotai/Kimi-K2-Instruct": 23_040,
    "MiniMaxAI/MiniMax-M2.5": 15_872,
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": 6_656,
}

# A context past which every window is full, and a whole number of chunks.
FAR = 1 << 27

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


def cache_of(runs):
    """Return the cache as it was measured: in bf16, whatever the file says."""
    return request_cache(
        slot_runs(runs), 1, kv_format("bf16"), state_layout("transformers"), "bf16", Paged(16), ""
    )


# DeepSeek-V4's rows say what its cache grows by at 41 tokens: tokens that wait to be compressed count as
# growth, and the entries of runs that have ended as state.
RUNS_ENDED_AT = 41


def compresses(cache):
    return any(run.waits for run in cache.runs)


def growth_of(cache):
    if not compresses(cache):
        return cache.growth("g", "").number
    tokens = (run for run in cache.runs if run.live is not None and run.ratio is None)
    return sum(run.layers.number * run.entry_bytes.number for run in tokens)


def entries_of(cache):
    """The bytes of the entries of runs of tokens that had ended when it was measured."""
    return sum(run.live_bytes(RUNS_ENDED_AT) for run in cache.runs if run.ratio is not None)


def state_of(cache):
    if not compresses(cache):
        return cache.state("s", "").number
    return entries_of(cache) + sum(run.live_bytes(1) for run in cache.runs if run.live is None)


def test_parameters(truth, imported):
    model = imported(truth["config"])
    assert parameter_count(model).number == truth["params_total"]
    assert parameter_count(model, active=True).number == truth["params_active"]
    assert model.tie_word_embeddings == truth["tied"]
    towers = sum(w.elements for tower in model.towers for w in tower.weights() if w.trained)
    assert towers == truth.get("params_towers", 0)


def test_parameters_of_every_layer(truth, imported):
    model = imported(truth["config"])
    for run in truth["layers"]:
        for index in indices(run["at"]):
            weights = model.layer_weights(model.layers[index])
            assert sum(w.elements for w in weights if w.trained) == run["params"], index


def test_what_is_stored_beside_parameters(truth, imported):
    buffers = [w.elements * count for w, count in imported(truth["config"]).weights() if not w.trained]
    assert sum(buffers) == truth.get("buffers", 0)


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
        keeps = {Sliding(run["window"]), Chunked(run["window"])} if "window" in run else {Full()}
        kinds = (keeps if run["bytes_per_token"] else set()) | (
            {PerRequest()} if run["state_bytes"] else set()
        )
        expected.update(dict.fromkeys(indices(run["at"]), kinds))
    layers = imported(truth["config"]).layers
    found = {
        index: {
            slot.retention
            for slot in layer.slots()
            if slot.owned and not isinstance(slot.retention, Compressed | Unfinished)
        }
        for index, layer in enumerate(layers)
    }
    assert found.keys() == expected.keys()
    for index, kinds in found.items():
        assert kinds <= expected[index], index
        assert bool(kinds) == bool(expected[index]), index


def test_entry_of_every_layer(truth, repeated, imported):
    model = imported(truth["config"])
    for run in truth["layers"]:
        for index in indices(run["at"]):
            cache = cache_of((Run(model.layers[index], 1),))
            assert growth_of(cache) * repeated == run["bytes_per_token"], index
            assert state_of(cache) == run["state_bytes"], index


def test_growth_before_and_after_the_windows(truth, repeated, imported):
    model = imported(truth["config"])
    cache = cache_of(model.runs())
    windows = [run["window"] for run in truth["layers"] if "window" in run]
    slots = [slot for layer in model.layers for slot in layer.slots()]
    first, past = truth["bytes_per_token"] // repeated, truth["bytes_per_token_past_window"] // repeated
    assert growth_of(cache) == first
    if compresses(cache):
        # Past the windows only those tokens are left of what comes with each.
        waiting = (run for run in cache.runs if run.waits)
        assert sum(run.layers.number * run.entry_bytes.number for run in waiting) == past
        return
    if windows and not any(isinstance(slot.retention, Chunked) for slot in slots):
        # The token that fills the window is the last that every layer keeps; the next one pushes one out.
        assert cache.live_bytes(min(windows)) - cache.live_bytes(min(windows) - 1) == first
        assert cache.live_bytes(max(windows) + 1) - cache.live_bytes(max(windows)) == past
    # Over whole chunks: within one, what is kept still grows.
    assert cache.live_bytes(2 * FAR) - cache.live_bytes(FAR) == past * FAR


def test_state_bytes(truth, repeated, imported):
    model = imported(truth["config"])
    cache = cache_of(model.runs())
    assert state_of(cache) == truth["state_bytes_constant"]
    at_first = truth["state_bytes_constant"] - entries_of(cache)
    assert cache.live_bytes(1) == at_first + truth["bytes_per_token"] // repeated


def test_every_bundled_model_is_measured_or_counted_by_hand(model_name, bundled, imported):
    """A bundled file is a measured row, or Llama-3.1-405B, whose published total is a hand oracle."""
    if model_name == "llama-3.1-405b":
        assert parameter_count(bundled(model_name)).number == 405_853_388_800
        return
    assert bundled(model_name).layers == imported(f"hf_configs/{model_name}.json").layers
