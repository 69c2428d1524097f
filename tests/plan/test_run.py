"""A predicted run against a loop over every layer, token and key, and what its figures say of themselves."""

from collections import Counter
from math import gcd

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention, OutputGate, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.errors import UsageError
from kvplan.plan.cache import request_cache
from kvplan.plan.requests import Request
from kvplan.plan.run import predict_run
from kvplan.report.explain import render_explained
from kvplan.results import Facts, Report
from kvplan.storage import kv_format, state_layout

HIDDEN, VOCABULARY = 24, 50
REQUESTS = [Request(13, 6), Request(1, 1), Request(30, 9), Request(13, 6), Request(1, 20)]

FULL = Attention(4, 2, 6, qkv_bias=True, qk_norm=QkNorm.HEAD)
WINDOW = Attention(4, 2, 6, sliding_window=5)
SINKS = Attention(4, 4, 6, sliding_window=5, sink_tokens=3)
CHUNKED = Attention(4, 1, 6, attention_chunk_size=8, output_gate=OutputGate.QUERY)
LATENT = LatentAttention(4, 10, 6, 4, 8, q_lora_rank=12)
DIRECT = LatentAttention(4, 10, 6, 4, 8)
DELTA = GatedDeltaNet(2, 4, 6, 5, 4)
DENSE, PLAIN = MLP(40), MLP(40, gated=False, mlp_bias=True)
ROUTED = Experts(8, 3, 10, shared_expert_intermediate_size=7, shared_expert_gate=True, expert_bias=True)

MIXES = {
    "dense": [Layer(FULL, DENSE)] * 3,
    "windows": [Layer(WINDOW, DENSE), Layer(FULL, PLAIN), Layer(WINDOW, DENSE), Layer(SINKS, PLAIN)],
    "chunks": [Layer(CHUNKED, ROUTED), Layer(FULL, ROUTED), Layer(CHUNKED, DENSE)],
    "latents": [Layer(LATENT, DENSE), Layer(LATENT, ROUTED), Layer(DIRECT, ROUTED)],
    "states": [Layer(DELTA, ROUTED), Layer(DELTA, ROUTED), Layer(FULL, DENSE)],
    "states alone": [Layer(DELTA, PLAIN)] * 2,
}
BYTES = {
    "fp32": (4, 0),
    "bf16": (2, 0),
    "int8": (1, 2),
    "int4": (0.5, 4),
}  # of an element, of a vector's scales


def tiny(mix, tied=False):
    return Model(
        "tiny", "a test", "fp32", HIDDEN, VOCABULARY, 64, tuple(MIXES[mix]), tie_word_embeddings=tied
    )


# ------------------------------------------------------------------ a run, one token and one key at a time


def visible(mixer, query):
    """The keys that the query at this position sees."""
    keys = range(query + 1)
    if isinstance(mixer, LatentAttention):
        return set(keys)
    if mixer.attention_chunk_size:
        return {
            key for key in keys if key // mixer.attention_chunk_size == query // mixer.attention_chunk_size
        }
    if mixer.sliding_window:
        return {key for key in keys if query - key < mixer.sliding_window or key < mixer.sink_tokens}
    return set(keys)


def entry_bytes(mixer, kv):
    element, scales = BYTES[kv]
    if isinstance(mixer, LatentAttention):
        return int((10 + 4) * element + 2 * scales)
    return int(mixer.num_key_value_heads * 2 * (6 * element + scales))


STATE_BYTES = ((2 * 2 * 6 + 4 * 5) * 4 + 4 * 6 * 5) * 4


def products(layer, decoding):
    """(inputs, outputs) of every matrix one token is multiplied with, those that expand latents aside."""
    match layer.mixer:
        case Attention() as a:
            queries, cached = a.num_attention_heads * 6, a.num_key_value_heads * 6
            gate = [(HIDDEN, queries)] if a.output_gate else []
            found = [(HIDDEN, queries), (HIDDEN, cached), (HIDDEN, cached), (queries, HIDDEN), *gate]
        case LatentAttention() as a:
            query = [(HIDDEN, 12), (12, 4 * 10)] if a.q_lora_rank else [(HIDDEN, 4 * 10)]
            absorbed = [(10, 4 * (6 + 8))] if decoding else []
            found = [*query, (HIDDEN, 14), (4 * 8, HIDDEN), *absorbed]
        case GatedDeltaNet():
            # Queries, keys, values and gate; decay and strength; and back.
            found = [(HIDDEN, 2 * 12 + 2 * 20), (HIDDEN, 2 * 4), (20, HIDDEN)]
    match layer.mlp:
        case MLP(gated=gated):
            found += [(HIDDEN, 40)] * (2 if gated else 1) + [(40, HIDDEN)]
        case Experts():
            shared = [(HIDDEN, 7), (HIDDEN, 7), (7, HIDDEN), (HIDDEN, 1)]
            found += [(HIDDEN, 8), *shared] + 3 * [(HIDDEN, 10), (HIDDEN, 10), (10, HIDDEN)]
    return found


def run_layer(layer, queries, kv, decoding, counted):
    """Count one layer's step over consecutive queries of one request."""
    mixer = layer.mixer
    for _ in queries:
        counted["matmul"] += sum(2 * inputs * outputs for inputs, outputs in products(layer, decoding))
    if isinstance(mixer, GatedDeltaNet):
        counted["read"] += STATE_BYTES
        counted["written"] += STATE_BYTES
        for _ in queries:
            counted["attention"] += 2 * 4 * (2 * 12 + 20) + 4 * 6 * (6 * 5)
        return
    seen = set()
    for query in queries:
        keys = visible(mixer, query)
        seen |= keys
        latent = isinstance(mixer, LatentAttention)
        width = (10 + 4) + 10 if latent and decoding else (6 + 4) + 8 if latent else 6 + 6
        counted["attention"] += 4 * len(keys) * 2 * width
    counted["read"] += len(seen) * entry_bytes(mixer, kv)
    counted["written"] += len(queries) * entry_bytes(mixer, kv)
    if isinstance(mixer, LatentAttention) and not decoding:
        counted["matmul"] += len(seen) * 2 * 10 * 4 * (6 + 8)


def count_run(model, requests, kv, chunk):
    phases = {"prefill": Counter(), "decode": Counter()}
    for request in requests:
        positions = list(range(request.prompt_tokens + request.output_tokens - 1))
        prompt, rest = positions[: request.prompt_tokens], positions[request.prompt_tokens :]
        for first in range(0, len(prompt), chunk):
            for layer in model.layers:
                run_layer(layer, prompt[first : first + chunk], kv, False, phases["prefill"])
        phases["prefill"]["matmul"] += 2 * HIDDEN * VOCABULARY
        for position in rest:
            for layer in model.layers:
                run_layer(layer, [position], kv, True, phases["decode"])
            phases["decode"]["matmul"] += 2 * HIDDEN * VOCABULARY
    return phases


def held_blocks(mixer, context, block):
    """Blocks of one request: the most its tokens ever touched; a chunk's table is as long as any can be."""
    longest = 400 if mixer.attention_chunk_size else context
    most = max(len({key // block for key in visible(mixer, query)}) for query in range(longest))
    return min(-(-context // block), most)


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
@pytest.mark.parametrize("kv", BYTES)
@pytest.mark.parametrize("mix", MIXES)
def test_work_of_a_run(mix, kv, chunk):
    model = tiny(mix)
    run = predict_run(model, REQUESTS, kv_format(kv), Paged(16), chunk)
    for name, counted in count_run(model, REQUESTS, kv, chunk).items():
        work = getattr(run, name)
        assert work.matmul_flops.number == counted["matmul"]
        assert work.attention_flops.number == counted["attention"]
        assert work.cache_read_bytes.number == counted["read"]
        assert work.cache_written_bytes.number == counted["written"]


@pytest.mark.parametrize("kv", BYTES)
@pytest.mark.parametrize("mix", MIXES)
def test_bytes_at_the_end_of_a_run(mix, kv):
    model, block = tiny(mix), 4
    run = predict_run(model, REQUESTS, kv_format(kv), Paged(block), 8)
    assert len(run.layers) == len(model.layers)
    contexts = [r.prompt_tokens + r.output_tokens - 1 for r in REQUESTS]
    live, allocated, states, tables = 0, 0, 0, {}
    for index, layer in enumerate(model.layers):
        found_live, found_allocated = run.layers[index]
        if isinstance(layer.mixer, GatedDeltaNet):
            assert found_live.number == found_allocated.number == len(REQUESTS) * STATE_BYTES
            states += len(REQUESTS) * STATE_BYTES
            continue
        entry, mixer = entry_bytes(layer.mixer, kv), layer.mixer
        seen = sum(len(visible(mixer, context - 1)) for context in contexts)
        plain = mixer if isinstance(mixer, Attention) else FULL
        blocks = sum(held_blocks(plain, context, block) for context in contexts)
        assert found_live.number == seen * entry
        assert found_allocated.number == blocks * block * entry
        live, allocated = live + seen * entry, allocated + blocks * block * entry
        tables[layer.slots()[0].retention] = blocks
    assert run.cache_live_bytes.number == live + states
    assert run.cache_allocated_bytes.number == allocated + states
    assert run.state_bytes.number == states
    assert run.cache_blocks is None if not tables else run.cache_blocks.number == sum(tables.values())


def test_a_contiguous_run():
    run = predict_run(tiny("windows"), REQUESTS, kv_format("bf16"), Contiguous(40), 8)
    full, window, sinks = 40 * 48, 5 * 48, 8 * 96
    assert run.cache_allocated_bytes.number == len(REQUESTS) * (full + 2 * window + sinks)
    assert run.cache_blocks is None


@pytest.mark.parametrize("tied", [False, True])
def test_weights_and_parameters(tied):
    model = tiny("dense", tied)
    run = predict_run(model, REQUESTS, kv_format("bf16"), Paged(16), 8)
    attention = 2 * 24 * 24 + 2 * 12 * 24 + 24 + 2 * 12 + 2 * 6
    parameters = 3 * (attention + 3 * 24 * 40 + 2 * 24) + 24 + 50 * 24 * (1 if tied else 2)
    assert run.parameters.number == parameters
    assert run.weights_bytes.number == 4 * parameters


def test_the_order_of_requests_does_not_matter():
    def numbers(requests):
        run = predict_run(tiny("states"), requests, kv_format("int8"), Paged(4), 8)
        return [figure.value for figure in run.figures()]

    assert numbers(REQUESTS) == numbers(REQUESTS[::-1])


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(UsageError, match="not whole groups"):
        predict_run(tiny("dense"), REQUESTS, kv_format("int4-kivi"), Paged(16), 8)


# ------------------------------------------------------------------ every bundled model

MIX = [Request(100, 17), Request(333, 9), Request(5_000, 33), Request(100, 17)]


def run_of(model, kv="bf16", block=64):
    return predict_run(model, MIX, kv_format(kv), Paged(block), 128)


def report_of(run):
    layers = tuple(figure for some in run.alike_layers for figure in (some.live, some.allocated))
    sections = (Facts("run", "Run", run.figures()), Facts("layers", "Layers", layers), *run.details())
    return Report("simulate", "a test", sections)


def test_bytes_agree_with_the_capacity_planner(representative, bundled):
    model = bundled(representative)
    run = run_of(model)
    one = request_cache(
        model.slot_runs(), 1, kv_format("bf16"), state_layout("transformers"), "fp32", Paged(64), "a test"
    )
    contexts = [r.prompt_tokens + r.output_tokens - 1 for r in MIX]
    assert run.cache_live_bytes.number == sum(one.live_bytes(c) for c in contexts)
    assert run.cache_allocated_bytes.number == sum(one.allocated_bytes(c) for c in contexts)
    assert run.state_bytes.number == len(MIX) * one.state("state", "").number
    assert len(run.layers) == len(model.layers)
    assert sum(live.number for live, _ in run.layers) == run.cache_live_bytes.number
    assert sum(allocated.number for _, allocated in run.layers) == run.cache_allocated_bytes.number


def evaluate(text):
    """Evaluate a formula's printed text with nothing but the functions a reader would expect."""
    names = {"ceil_div": lambda count, divisor: -(-count // divisor), "minimum": min, "maximum": max}
    names |= {"min": min, "max": max, "sum": sum, "range": range, "gcd": gcd}
    return eval(text, {"__builtins__": {}} | names)


@pytest.mark.parametrize("mix", MIXES)
def test_small_figures_explain_themselves(mix, walk):
    check_explained(predict_run(tiny(mix), REQUESTS, kv_format("bf16"), Paged(16), 8), walk)


@pytest.mark.parametrize("kv", ["fp8", "int4"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-2-9b", "gpt-oss-20b", "qwen3-next-80b-a3b"])
def test_figures_explain_themselves(name, kv, bundled, walk):
    check_explained(run_of(bundled(name), kv), walk)


def check_explained(run, walk):
    """Every figure has a source, parts sum to it, and what is printed evaluates to it."""
    checked = set()
    for name, figure in report_of(run).figures():
        for below in walk(figure):
            assert below.formula or below.parts or below.note or below.source, (name, below.name)
            if below.parts:
                assert sum(part.number for part in below.parts) == below.number, (name, below.name)
            if below.formula is not None:
                inputs = dict(zip(below.formula.parameters, (q.number for q in below.inputs), strict=True))
                key = (below.formula.name, *inputs.values(), below.number)
                if key not in checked:
                    checked.add(key)
                    assert evaluate(below.formula.substituted(inputs)) == below.number
    assert len(checked) > 10


LISTING_EVERY_MATRIX = ("prefill_matmul_flops", "decode_matmul_flops", "decode_step_weights_bytes")
PAGE, MATRICES = 36, 80
# Models with more kinds of layer than a page has room for: lines of most figures, and of all matrices.
LONGER = {
    "deepseek-v4-flash": (132, 149),
    "gemma-3n-e2b": (42, 148),
    "glm-5.2": (53, MATRICES),
    "jamba-v0.1": (39, MATRICES),
    "kimi-linear-48b-a3b": (39, MATRICES),
}


def test_derivations_are_short(representative, bundled):
    """Beside the sums they are made from, figures are read on one page, but for what has many kinds."""
    run = run_of(bundled(representative))
    report, (page, matrices) = report_of(run), LONGER.get(representative, (PAGE, MATRICES))
    for figure in run.figures()[2:]:
        lines = render_explained(report, f"run.{figure.name}").split("\n\n[1]")[0].splitlines()
        assert len(lines) <= (matrices if figure.name in LISTING_EVERY_MATRIX else page), figure.name


def test_a_derivation_reads_well(bundled):
    text = render_explained(report_of(run_of(bundled("llama-3.1-8b"))), "run.decode_attention_flops")
    assert text.splitlines()[:5] == [
        "run.decode_attention_flops = 2 * layers * pairs * heads * (k_dim + v_dim)",
        "  = 2 * 32 * 166700 * 32 * (128 + 128)",
        "  = 87,398,809,600 FLOP   [1]",
        "  layers = 32 layers, heads = 32, k_dim = 128, v_dim = 128   [2]",
        "  decode_full_pairs = 166,700 pairs   (--explain sums.decode_full_pairs)",
    ]
