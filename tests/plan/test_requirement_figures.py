"""Requirements judged: against figures counted by hand, and against what the other reports say."""

import json
from dataclasses import replace

import pytest

import kvplan
from kvplan.plan.requirement_figures import Subject, judge
from kvplan.plan.roofline import plan_roofline
from kvplan.requirement import parse_requirement

GIB = 1024**3


def judged(plan, *sentences, batch=(), context=(), price=None, output=None):
    asked = [parse_requirement(s).at(batch, context, priced=price is not None) for s in sentences]
    roofline = plan_roofline(plan.model, plan.deployment)
    return list(judge(asked, Subject(plan, roofline, price, output)))


# ------------------------------------------------------------------ by hand

# Llama 3.1 8B: 8,030,261,248 parameters in 2 bytes, and 2 x 8 x 128 x 2 bytes x 32 layers for a token.
WEIGHTS = 2 * 8_030_261_248
TOKEN = 2 * 8 * 128 * 2 * 32


def test_weights_are_counted_by_hand(plan):
    (one,) = judged(plan("llama-3.1-8b"), "weights <= 15 GiB")
    assert (one.got.value, one.required.value) == (WEIGHTS, 15 * GIB)
    assert (one.margin.value, one.met) == (15 * GIB - WEIGHTS, True)
    assert one.margin_share.value == pytest.approx((15 * GIB - WEIGHTS) / (15 * GIB))
    (one,) = judged(plan("llama-3.1-8b"), "weights <= 14 GiB")
    assert (one.margin.value, one.met) == (14 * GIB - WEIGHTS, False)


def test_the_pool_decides_requests_and_context(plan):
    held = plan("llama-3.1-8b")
    pool, found = judged(held, "kv_pool >= 40 GiB", "max_batch >= 1 at context 8k")
    assert found.got.value == pool.got.value // (8192 * TOKEN)
    assert pool.margin.value == pool.got.value - 40 * GIB
    (longest,) = judged(held, "max_context >= 1 at batch 16")
    assert longest.got.value == pool.got.value // (16 * 16 * TOKEN) * 16  # whole blocks of 16 tokens


def test_a_requirement_holds_up_to_the_very_value(plan):
    held = plan("llama-3.1-8b")
    most = held.max_batch(8192)
    exact, more = judged(held, f"max_batch >= {most} at context 8k", f"max_batch >= {most + 1} at context 8k")
    assert (exact.margin.value, exact.met) == (0, True)
    assert (more.margin.value, more.met) == (-1, False)


def test_fits_is_yes_or_no(plan):
    held = plan("llama-3.1-8b")
    most = held.max_batch(8192)
    yes, no = judged(held, f"fits at batch {most} context 8k", f"fits at batch {most + 1} context 8k")
    assert (yes.got.value, yes.met, yes.reason) == (True, True, "")
    assert (no.got.value, no.met) == (False, False)
    assert no.reason.startswith(f"Does not fit: {most + 1} requests of 8k need ")
    assert yes.margin.value is None


def test_tokens_that_are_made_have_to_fit_too(plan):
    held = plan("llama-3.1-8b")
    most = held.max_batch(8192)
    assert held.max_batch(8192 + 4096) < most
    sentence = f"fits at batch {most} context 8k"
    assert judged(held, sentence)[0].met
    assert not judged(held, sentence, output=4096)[0].met


def test_a_longer_context_than_allowed_does_not_fit(plan):
    (one,) = judged(plan("llama-3.1-8b"), "fits at batch 1 context 256k")
    assert not one.met
    assert "131,072" in one.reason


def test_the_fullest_replica_decides(plan):
    two = plan("llama-3.1-8b", data=2)
    one = plan("llama-3.1-8b")
    assert judged(two, "max_batch >= 1 at context 8k")[0].got.value == 2 * one.max_batch(8192)


# ------------------------------------------------------------------ times


def test_less_time_is_better_and_more_tokens_are(plan):
    held = plan("llama-3.1-8b")
    load = {"batch": (8,), "context": (4096,), "price": 2.0}
    for sentence in ("tpot <= 100 s", "ttft <= 100 s", "tokens_per_s >= 1", "cost <= 1000 USD/Mtok"):
        (one,) = judged(held, sentence, **load)
        assert one.met
        assert one.margin.value > 0
    for sentence in ("tpot <= 1 us", "ttft <= 1 us", "tokens_per_s >= 10000000", "cost <= 0.001 USD/Mtok"):
        (one,) = judged(held, sentence, **load)
        assert not one.met
        assert one.margin.value < 0


def test_time_cost_and_rate_go_together(plan):
    """Of decode steps alone: rate = batch / time, cost = GPUs' price / rate."""
    time, rate, cost = judged(
        plan("llama-3.1-70b", tensor=4),
        "tpot <= 1 s", "tokens_per_s >= 1", "cost <= 100 USD/Mtok",
        batch=(8,), context=(4096,), price=3.0,
    )  # fmt: skip
    assert rate.got.value == pytest.approx(8 / time.got.value)
    assert cost.got.value == pytest.approx(4 * 3.0 / 3600 / rate.got.value * 1e6)


def test_what_does_not_fit_has_no_time(plan):
    held = plan("llama-3.1-8b")
    most = held.max_batch(8192 + 1)
    load = {"context": (8192,), "price": 2.0}
    for sentence in ("tpot <= 100 s", "tokens_per_s >= 1", "cost <= 1000 USD/Mtok"):
        assert judged(held, sentence, batch=(most,), **load)[0].met
        (one,) = judged(held, sentence, batch=(most + 1,), **load)
        assert (one.got.value, one.margin.value, one.met) == (None, None, False)
        assert one.reason.startswith("Does not fit: ")


def test_a_prompt_that_does_not_fit_has_no_first_token(plan):
    held = plan("llama-3.1-8b", gpu="rtx4090")
    longest = held.max_context(1)
    assert longest < 131_072
    assert judged(held, f"ttft <= 1000 s at context {longest}")[0].met
    (one,) = judged(held, f"ttft <= 1000 s at context {longest + 16}")
    assert (one.got.value, one.met) == (None, False)


def test_a_model_that_is_too_large_fails_everything_but_its_weights(plan):
    held = plan("llama-3.1-70b", gpu="l4")
    sentences = (
        "fits",
        "max_context >= 1",
        "max_batch >= 1",
        "kv_pool >= 1 B",
        "ttft <= 1000 s",
        "tpot <= 1000 s",
    )
    found = judged(held, *sentences, "weights <= 1000 GiB", batch=(1,), context=(1024,))
    assert [one.met for one in found] == [False] * 6 + [True]


# ------------------------------------------------------------------ what the other reports say

CASES = {
    "one GPU": ("llama-3.1-8b", "h100-sxm", {}, None),
    "a closed loop": ("llama-3.1-8b", "h100-sxm", {"kv": "fp8"}, 256),
    "pipeline stages": ("llama-3.1-70b", "h100-sxm", {"gpus": 8, "pp": 2, "weights": "fp8"}, None),
    "replicas": ("llama-3.1-8b", "a100-sxm-80gb", {"gpus": 4, "dp": 4}, 128),
    "experts": ("mixtral-8x7b", "h100-sxm", {"gpus": 4, "ep": 4}, 512),
    "states": ("qwen3-next-80b-a3b", "h200-sxm", {"gpus": 4, "state": "vllm"}, None),
    "latents": ("deepseek-v3", "h200-sxm", {"gpus": 8, "chunk": 2048}, 64),
    "contiguous": ("gpt2", "t4", {"alloc": "contiguous", "max_length": 1024}, None),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_figures_are_those_of_the_other_commands(case, command, tmp_path):
    """The options are typed here, and written there: the two go different ways to the same figures."""
    model, gpu, options, output = CASES[case]
    context = 512 if model == "gpt2" else 4096
    text = f"name: p\nmodel: {model}\ngpu: {gpu}\nprice: 2.5\ndeployment: {json.dumps(options)}\n"
    made = {} if output is None else {"output_tokens": output}
    text += f"workload: {json.dumps({'batch': 4, 'context': context, **made})}\nrequire:\n"
    text += "- max_context >= 1\n- max_batch >= 1\n- kv_pool >= 1 B\n- weights <= 9000 GiB\n"
    text += "- tpot <= 9000 s\n- ttft <= 9000 s\n- tokens_per_s >= 0.001\n- cost <= 9000 USD/Mtok\n- fits\n"
    (tmp_path / "p.yaml").write_text(text)
    status, out, lines = command("check", str(tmp_path / "p.yaml"), "--json")
    assert (status, lines) == (0, [])
    got = {row["metric"]: row["got"] for row in json.loads(out)["requirements"]}
    typed = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    asked = (model, "--gpu", gpu, *typed, "--json", "--batch", "4", "--context", str(context))
    held = json.loads(command("capacity", *asked)[1])
    loop = () if output is None else ("--output-tokens", str(output))
    timed = json.loads(command("roofline", *asked, "--price", "2.5", *loop)[1])
    one = timed["total"] if output is None else timed["closed_loop"]
    assert got == {
        "max_context": held["max_context"][0]["context_tokens"],
        "max_batch": held["max_batch"][0]["batch"],
        "kv_pool": held["memory"]["kv_pool_bytes"],
        "weights": held["memory"]["weights_bytes"],
        "tpot": one["estimate_s" if output is None else "tpot_estimate_s"],
        "ttft": timed["serving"]["ttft_estimate_s"],
        "tokens_per_s": one["tokens_per_s"],
        "cost": (timed["serving"] if output is None else one)["usd_per_million_tokens"],
        "fits": True,
    }


def test_what_cannot_be_known_is_no_pass(plan, refused, tmp_path):
    """A plan that drafts has no time here: an error, whatever the requirement."""
    text = "name: p\nmodel: deepseek-v3\ngpu: h200-sxm\ndeployment: {gpus: 8, mtp: true}\n"
    text += "workload: {batch: 1, context: 4k}\nrequire: [weights <= 9000 GiB%s]\n"
    (tmp_path / "p.yaml").write_text(text % "")
    assert kvplan.check_plan(tmp_path / "p.yaml").verdict.yes
    (tmp_path / "p.yaml").write_text(text % ", tpot <= 9000 s")
    (line,) = refused("check", str(tmp_path / "p.yaml"))
    assert "--mtp: how long drafting with prediction layers takes is not modelled" in line
    assert line.startswith(f"{tmp_path / 'p.yaml'}: ")


def test_a_rate_that_is_not_known_is_no_pass(plan, gpu, tmp_path):
    """A price of nothing, a link of no speed: what a requirement rests on is named."""
    bare = replace(gpu("t4"), peak_dense=replace(gpu("t4").peak_dense, bf16_tflops=None, fp16_tflops=None))
    held = plan("gpt2", gpu=bare)
    with pytest.raises(kvplan.errors.UsageError):
        judged(held, "tpot <= 1 s", batch=(1,), context=(512,))


def test_derivations_reach_down_to_facts(plan, walk):
    sentences = ("max_batch >= 1", "max_context >= 1", "weights <= 99 GiB", "tpot <= 9 s", "fits")
    found = judged(plan("llama-3.1-8b"), *sentences, batch=(2,), context=(4096,))
    for one in found:
        assert [q for q in walk(one.got) if q.source], one.requirement.text
    assert found[0].margin.formula is not None
    assert [q.name for q in found[0].margin.inputs] == ["got", "required"]
