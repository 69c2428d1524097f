"""Changes as they are typed, what each does to a setup, and where it does not go with one."""

from dataclasses import replace

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.errors import UsageError
from kvplan.plan.change import KINDS, parse_changes, usual_changes
from kvplan.plan.deployment import Parallelism
from kvplan.plan.setup import Load, Setup, Speculation
from kvplan.storage import kv_format, weight_format


@pytest.fixture
def setup_of(plan):
    """A function from a model and what :func:`plan` takes to a setup of 16 requests of 8k."""

    def make(model="llama-3.1-8b", *, parallelism=None, **options):
        capacity = plan(model, **options)
        deployment = capacity.deployment
        if parallelism is not None:
            deployment = replace(deployment, parallelism=parallelism)
        return Setup(capacity.model, deployment, Load(16, min(8192, deployment.max_tokens)))

    return make


def applied(text, setup):
    for change in parse_changes(text):
        setup = change.applied(setup)
    return setup


def refusal(call, *arguments):
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert len(caught.value.lines()) == 1
    return caught.value.lines()[0]


# ------------------------------------------------------------------ as typed


def test_changes_are_read_in_order_and_named_as_typed():
    changes = parse_changes("weights=fp8, kv=int4 ,tp=8")
    assert [change.name for change in changes] == ["weights=fp8", "kv=int4", "tp=8"]
    assert [change.value for change in changes] == [weight_format("fp8"), kv_format("int4"), 8]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("kv=fp8", "KV fp8"),
        ("weights=int4", "weights int4"),
        ("alloc=contiguous", "contiguous cache"),
        ("chunk=2048", "prefill chunks of 2k"),
        ("tp=8", "TP 8"),
        ("prefix=80", "prefix caching, 80% shared"),
        ("prefix=80%", "prefix caching, 80% shared"),
        ("spec=4@70%", "speculation, 4 guesses at 70%"),
        ("spec=1@70", "speculation, 1 guess at 70%"),
        ("offload=50%", "50% of KV in host memory"),
        ("kv_heads=1", "1 KV head"),
        ("kv_heads=4", "4 KV heads"),
        ("mla", "latent attention of rank 512"),
        ("mla=256", "latent attention of rank 256"),
        ("window=4k", "sliding window 4k"),
        ("window=1000", "sliding window 1,000"),
    ],
)
def test_labels(text, label):
    (change,) = parse_changes(text)
    assert change.label == label
    assert change.name == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kv=fp9", "no KV format named 'fp9'. Did you mean fp8?"),
        ("kv", "no KV format named ''; expected one of bf16, fp16, fp32, fp8, int8, int4"),
        ("weights=fp7", "no weight format named 'fp7'. Did you mean fp8"),
        ("alloc=pages", "alloc: 'pages' is no allocation   (alloc=paged|contiguous)"),
        ("chunk=0", "chunk: '0' is out of range"),
        ("tp=0", "tp: '0' is out of range: expected 1 to 4,096   (tp=N)"),
        ("tp=4097", "tp: '4097' is out of range: expected 1 to 4,096   (tp=N)"),
        ("tp=two", "tp: 'two' is not a count such as 8192, 4k or 1M   (tp=N)"),
        ("prefix=0", "prefix: '0' is not a share from 1% to 99%   (prefix=SHARE)"),
        ("prefix=100%", "prefix: '100%' is not a share from 1% to 99%   (prefix=SHARE)"),
        ("prefix=-5%", "prefix: '-5%' is not a share from 1% to 99%   (prefix=SHARE)"),
        ("prefix=5%%", "prefix: '5%%' is not a share from 1% to 99%   (prefix=SHARE)"),
        ("offload=0", "offload: '0' is not a share from 1% to 99%   (offload=SHARE)"),
        ("offload=120%", "offload: '120%' is not a share from 1% to 99%   (offload=SHARE)"),
        ("spec=4", "spec: '4' is not tokens@acceptance   (spec=N@SHARE)"),
        ("spec=0@70%", "spec: '0' is out of range: expected 1 to 64   (spec=N@SHARE)"),
        ("spec=65@70%", "spec: '65' is out of range: expected 1 to 64   (spec=N@SHARE)"),
        ("spec=4@100%", "spec: '100%' is not a share from 1% to 99%   (spec=N@SHARE)"),
        ("kv_heads=0", "kv_heads: '0' is out of range"),
        ("mla=0", "mla: '0' is out of range"),
        ("window=0", "window: '0' is out of range"),
        ("batch=4", "no change named 'batch'; expected one of kv, weights, alloc"),
        ("ofload=5", "no change named 'ofload'. Did you mean offload?"),
        ("kv=fp8,", "no change named ''; expected one of kv, weights, alloc"),
        ("kv=fp8,kv=int8", "'kv=fp8,kv=int8' changes kv twice"),
        ("kv=fp8,tp=2,kv=fp8", "'kv=fp8,tp=2,kv=fp8' changes kv twice"),
    ],
)
def test_what_cannot_be_read_is_refused(text, line):
    assert refusal(parse_changes, text).startswith(line)


# ------------------------------------------------------------------ what each does


def test_storage(setup_of):
    setup = setup_of()
    assert applied("kv=int8", setup) == replace(
        setup, deployment=replace(setup.deployment, kv=kv_format("int8"))
    )
    assert applied("weights=int4", setup) == replace(
        setup, deployment=replace(setup.deployment, weights=weight_format("int4"))
    )


def test_grouped_keys_take_blocks_of_whole_groups(setup_of):
    assert applied("kv=int4-kivi", setup_of()).deployment.allocation == Paged(64)
    assert applied("kv=int4-kivi", setup_of(block=128)).deployment.allocation == Paged(128)
    assert applied("kv=int4-kivi", setup_of(block=96)).deployment.allocation == Paged(64)
    assert applied("kv=int8", setup_of(block=96)).deployment.allocation == Paged(96)
    longest = Contiguous(131_072)
    assert applied("kv=int4-kivi", setup_of(contiguous=True)).deployment.allocation == longest


def test_allocation(setup_of):
    assert applied("alloc=contiguous", setup_of()).deployment.allocation == Contiguous(131_072)
    assert applied("alloc=contiguous", setup_of(max_tokens=9000)).deployment.allocation == Contiguous(9000)
    assert applied("alloc=paged", setup_of(contiguous=True)).deployment.allocation == Paged(16)
    grouped = setup_of(contiguous=True, kv="int4-kivi")
    assert applied("alloc=paged", grouped).deployment.allocation == Paged(64)


def test_serving(setup_of):
    setup = setup_of()
    assert applied("chunk=2k", setup).deployment == replace(setup.deployment, chunk_tokens=2048)
    assert applied("prefix=80%", setup).load == Load(16, 8192, shared_percent=80)
    assert applied("offload=50", setup).load == Load(16, 8192, host_percent=50)
    assert applied("spec=3@60%", setup).load == Load(16, 8192, speculation=Speculation(3, 60))


def test_tensor_parallel_keeps_the_other_degrees(setup_of):
    setup = setup_of(pipeline=2, data=3)
    assert applied("tp=4", setup).deployment.parallelism == Parallelism(4, 2, 3)


def test_tensor_parallel_shares_experts_as_before_among_all_of_a_stage(setup_of):
    setup = setup_of("mixtral-8x7b", parallelism=Parallelism(2, data=2, expert=4))
    assert applied("tp=4", setup).deployment.parallelism == Parallelism(4, data=2, expert=8)


def test_another_model(setup_of):
    setup = setup_of()
    assert {layer.mixer.num_key_value_heads for layer in applied("kv_heads=2", setup).model.layers} == {2}
    assert {layer.mixer.kv_lora_rank for layer in applied("mla", setup).model.layers} == {512}
    assert {layer.mixer.kv_lora_rank for layer in applied("mla=256", setup).model.layers} == {256}
    assert {layer.mixer.sliding_window for layer in applied("window=4k", setup).model.layers} == {4096}


def test_only_what_makes_another_model_is_what_if():
    assert [kind.key for kind in KINDS if kind.what_if] == ["kv_heads", "mla", "window"]


# ------------------------------------------------------------------ where it does not go


@pytest.mark.parametrize(
    ("model", "options", "text", "why"),
    [
        ("llama-3.1-8b", {"kv": "fp8"}, "kv=fp8", "keys and values are fp8 already"),
        ("llama-3.1-8b", {}, "weights=bf16", "weights are bf16 already"),
        ("deepseek-v3", {}, "weights=fp8", "weights are fp8-block already, as many bits"),
        ("llama-3.1-8b", {}, "alloc=paged", "the cache is paged already"),
        ("llama-3.1-8b", {"contiguous": True}, "alloc=contiguous", "the cache is contiguous already"),
        ("llama-3.1-8b", {}, "chunk=8k", "prompts are read 8,192 tokens at a time already"),
        ("llama-3.1-8b", {"chunk": 512}, "chunk=2k", "prompts are read 512 tokens at a time already"),
        ("llama-3.1-8b", {"tensor": 2}, "tp=2", "tensor parallel is 2 already"),
        (
            "qwen3-next-80b-a3b",
            {},
            "prefix=50%",
            "qwen3-next-80b-a3b's states would have to be kept for a prefix: not modelled",
        ),
        ("mistral-7b-v0.1", {}, "offload=50%", "no layer of mistral-7b-v0.1 keeps every token"),
        (
            "llama-3.1-8b",
            {"gpu": "gb200"},
            "offload=50%",
            "how fast gb200 reads its host's memory is not known",
        ),
        ("llama-3.1-8b", {"contiguous": True}, "prefix=50%", "a contiguous cache shares no prefix"),
        ("llama-3.1-8b", {}, "prefix=50%,alloc=contiguous", "a contiguous cache shares no prefix"),
        ("deepseek-v3", {}, "kv_heads=1", "deepseek-v3 caches one latent for all heads"),
        ("deepseek-v3", {}, "mla", "deepseek-v3 has latent attention already"),
        ("gemma-3-27b", {}, "mla", "latent attention cannot keep gemma-3-27b's sliding windows"),
        ("gpt2", {}, "mla", "gpt2 rotates no positions"),
        ("falcon-7b", {}, "kv_heads=1", "falcon-7b has 1 KV head already"),
    ],
)
def test_what_does_not_go_with_a_setup_says_why(setup_of, model, options, text, why):
    assert refusal(applied, text, setup_of(model, **options)).startswith(why)


@pytest.mark.parametrize(
    ("now", "other"), [("fp8", "int8"), ("int4", "nvfp4"), ("q8_0", "q4_k"), ("bf16", "fp8")]
)
def test_formats_that_differ_in_more_than_scales_are_compared(setup_of, now, other):
    changed = applied(f"weights={other}", setup_of(weights=now))
    assert changed.deployment.weights == weight_format(other)


def test_a_window_that_never_slides_goes_to_the_host(setup_of):
    assert applied("offload=50%", setup_of("phi-3.5-mini")).load.host_percent == 50


# ------------------------------------------------------------------ the usual ones

ALONE = (
    "kv=fp8 kv=int8 kv=int4 kv=int4-kivi weights=fp8 weights=int4 alloc=contiguous chunk=2k tp=2 prefix=50% "
    "spec=4@70% offload=50%"
).split()


def names(options):
    return [",".join(change.name for change in option) for option in options]


def test_usual_changes(setup_of):
    assert names(usual_changes(setup_of())) == [
        *ALONE,
        "kv_heads=4",
        "kv_heads=1",
        "mla",
        "window=4k",
        "weights=fp8,kv=fp8",
        "weights=int4,kv=fp8",
        "weights=fp8,kv=fp8,tp=2",
    ]


def test_usual_changes_start_from_the_baseline(setup_of):
    found = names(usual_changes(setup_of(tensor=4, contiguous=True)))
    assert "alloc=paged" in found
    assert "alloc=contiguous" not in found
    assert "tp=8" in found
    assert found[-1] == "weights=fp8,kv=fp8,tp=8"


def test_what_has_no_effect_alone_is_left_out_of_stacks(setup_of):
    found = names(usual_changes(setup_of("deepseek-v3", tensor=8)))
    assert found[-2:] == ["weights=int4,kv=fp8", "kv=fp8,tp=16"]
    assert len(found) == len(set(found))
    assert found.count("kv=fp8") == 1


def test_a_model_of_one_kv_head_is_asked_for_it_once(setup_of):
    assert names(usual_changes(setup_of("falcon-7b"))).count("kv_heads=1") == 1
