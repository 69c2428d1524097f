"""``kvplan compare`` as others build on it: its JSON, what applies to which model, its refusals and exits."""

import json
import subprocess
import sys

import pytest

from kvplan.check import price
from kvplan.check.measured_price import SHIPPED
from kvplan.check.price import EngineError
from kvplan.errors import ExitStatus, UsageError

LLAMA = ("compare", "llama-3.1-8b", "--gpu", "h100-sxm")
ONE = ("--only", "--with", "kv=fp8", "--no-measure")


def refuse_constant(name):
    raise AssertionError(f"{name} in the JSON")


@pytest.fixture
def compared(command):
    """A function that returns the JSON of a comparison; nothing is measured."""

    def run(model, *arguments):
        status, out, lines = command("compare", model, *arguments, "--no-measure", "--json")
        assert (status, lines) == (0, [])
        return json.loads(out, parse_constant=refuse_constant)

    return run


def reasons(data):
    return {row["name"]: row["reason"] for row in data["options"] if not row["applies"]}


# ------------------------------------------------------------------ JSON


def test_json(compared):
    data = compared(
        "llama-3.1-8b", "--gpu", "h100-sxm", "--only", "--with", "kv=fp8", "--with", "tp=2,kv=int4"
    )
    assert data["command"] == "compare"
    assert data["inputs"]["model_file"] == "bundled:models/llama-3.1-8b.yaml"
    assert (data["inputs"]["batch"], data["inputs"]["context_tokens"]) == (16, 8192)
    assert data["baseline"]["kv_bytes_per_token"] == 131_072
    assert [row["name"] for row in data["options"]] == ["kv=fp8", "tp=2,kv=int4"]
    assert [row["kv_bytes_per_token"] for row in data["options"]] == [65_536, 34_816]
    assert set(data["baseline"]["random_error"]) == {"attention_error", "logit_error", "same_greedy", "note"}


def test_the_price_of_kv_is_quoted_from_what_comes_with_kvplan(compared):
    only = ("--gpu", "h100-sxm", "--only", "--with", "kv=fp8")
    data, shipped = compared("llama-3.1-8b", *only), json.loads(SHIPPED.read_text())
    rows = {row["name"]: row for row in shipped["formats"]}
    assert data["baseline"]["kv_price"]["perplexity_change"] == rows["bf16"]["perplexity_change"]
    assert data["options"][0]["kv_price"] == {
        **{key: rows["fp8"][key] for key in data["options"][0]["kv_price"] if key != "note"},
        "note": None,
    }
    keys = ("model", "text", "tokens", "context", "when", "date", "command")
    assert data["quality"] == {key: shipped["inputs"][key] for key in keys}
    assert data["inputs"]["quality_file"] == "bundled:measured/smollm2-135m-instruct.json"


def test_ones_own_results_are_quoted_instead(compared, tmp_path):
    data = json.loads(SHIPPED.read_text())
    data["inputs"]["model"] = "My-7B"
    (row,) = (row for row in data["formats"] if row["name"] == "fp8")
    row |= {"perplexity_change": 0.5, "perplexity_change_low": 0.4, "perplexity_change_high": 0.6}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(data))
    only = ("--gpu", "h100-sxm", "--only", "--with", "kv=fp8", "--quality", str(file))
    found = compared("llama-3.1-8b", *only)
    assert found["options"][0]["kv_price"]["perplexity_change"] == 0.5
    assert (found["quality"]["model"], found["inputs"]["quality_file"]) == ("My-7B", str(file))
    assert found["advice"] == {}, "half of perplexity is too much"


def test_what_was_run_is_one_object(command, monkeypatch):
    class Bench:
        def __init__(self, model):
            if model.name != "llama-3.1-8b":
                raise UsageError("another model")

        def price(self, weights, model):
            return EngineError(0.25, 0.125, 0.75, 128, weights.name)

    monkeypatch.setattr(price, "PriceBench", Bench)
    status, out, _ = command(*LLAMA, "--only", "--with", "weights=fp8", "--json")
    data = json.loads(out)
    assert status == 0
    assert data["options"][0]["random_error"] == {
        "attention_error": 0.25,
        "logit_error": 0.125,
        "same_greedy": 0.75,
        "note": "fp8",
    }
    assert set(data["baseline"]["random_error"].values()) == {None}


def test_the_engine_is_not_loaded_where_only_kv_differs():
    """Quoting takes no run."""
    said = (
        "import sys; from kvplan.__main__ import main; sys.argv = ['kvplan', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print([name for name in sys.modules if name.startswith('kvplan.engine')], file=sys.stderr)"
    )
    asked = (*LLAMA, "--only", "--with", "kv=fp8", "--with", "tp=2")
    done = subprocess.run([sys.executable, "-c", said, *asked], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_nothing_fits_and_json_stays_finite(compared):
    data = compared(
        "llama-3.1-70b", "--gpu", "h100-sxm", "--only", "--with", "weights=int4", "--with", "kv=fp8"
    )
    assert data["verdict"]["fits"] is False
    assert [row["max_batch"] for row in data["options"]] == [12, 0]
    assert [row["gain"] for row in data["options"]] == [None, None]
    assert list(data["advice"]) == ["weights=int4"]


def test_batch_and_context_as_asked(compared):
    data = compared("gpt2", "--gpu", "l4", "--batch", "3", "--context", "100", "--only", "--with", "kv=fp8")
    assert (data["inputs"]["batch"], data["inputs"]["context_tokens"]) == (3, 100)
    assert data["baseline"]["rated_batch"] == 3


def test_the_usual_context_ends_at_the_models_limit(compared):
    only = ("--gpu", "l4", "--only", "--with", "kv=fp8")
    assert compared("gpt2", *only)["inputs"]["context_tokens"] == 1024
    assert compared("llama-3.2-1b", *only)["inputs"]["context_tokens"] == 8192
    assert compared("llama-3.2-1b", *only, "--max-length", "3k")["inputs"]["context_tokens"] == 3072


# ------------------------------------------------------------------ what applies to which model

H100, L40S = ("--gpu", "h100-sxm"), ("--gpu", "l40s")
WHAT_IF = "--what-if"
KIVI_WINDOW = "int4-kivi quantises the keys of 64 tokens together: a window lets go of them one by one"
ONE_HEAD = "tensor parallel 2 does not divide the model's 71 query heads"


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ("llama-3.1-8b", H100, {}),
        ("llama-3.3-70b", (*H100, "--tp", "4"), {}),
        ("mixtral-8x7b", (*H100, "--tp", "2"), {}),
        (
            "gemma-3-27b",
            H100,
            {
                "kv=int4-kivi": KIVI_WINDOW,
                "mla": "latent attention cannot keep gemma-3-27b's sliding windows",
            },
        ),
        (
            "deepseek-v3",
            ("--gpu", "h200-sxm", "--gpus", "8"),
            {
                "kv=int4-kivi": "int4-kivi groups keys per channel, and latent attention caches none",
                "weights=fp8": "weights are fp8-block already, as many bits",
                "kv_heads=1": "deepseek-v3 caches one latent for all heads: it has no KV heads to remove",
                "mla": "deepseek-v3 has latent attention already",
                "window=4k": "deepseek-v3 has latent-attention layers only: there is no window to set",
            },
        ),
        (
            "gpt2",
            L40S,
            {
                "mla": "gpt2 rotates no positions: a rotary key would carry nothing",
                "window=4k": "gpt2 is made for 1,024 tokens: a window of 4,096 tokens never slides",
            },
        ),
        (
            "qwen3-next-80b-a3b",
            (*H100, "--gpus", "4"),
            {
                "prefix=50%": "qwen3-next-80b-a3b's states would have to be kept for a prefix: not modelled",
                "mla": "latent attention cannot keep qwen3-next-80b-a3b's output gates",
            },
        ),
        (
            "falcon-7b",
            H100,
            {
                "tp=2": ONE_HEAD,
                "kv_heads=1": "falcon-7b has 1 KV head already: 1 would not be fewer",
                "mla": "a latent of 576 elements saves nothing: falcon-7b's keys and values are 128 a token "
                "and layer",
                "window=4k": "falcon-7b is made for 2,048 tokens: a window of 4,096 tokens never slides",
                "weights=fp8,kv=fp8,tp=2": ONE_HEAD,
            },
        ),
        (
            "mistral-7b-v0.1",
            H100,
            {
                "kv=int4-kivi": KIVI_WINDOW,
                "offload=50%": "no layer of mistral-7b-v0.1 keeps every token",
                "mla": "latent attention cannot keep mistral-7b-v0.1's sliding windows",
                "window=4k": "mistral-7b-v0.1's attention keeps at most 4,096 tokens already",
            },
        ),
        (
            "gpt-oss-120b",
            H100,
            {
                "kv=int4-kivi": KIVI_WINDOW,
                "mla": "latent attention cannot keep gpt-oss-120b's sliding windows and sink logits",
            },
        ),
    ],
)
def test_what_applies_and_why_not(compared, model, arguments, expected):
    assert reasons(compared(model, *arguments, WHAT_IF)) == expected


def test_other_models_are_asked_for(compared):
    told = "another model, that would have to be trained (--what-if)"
    found = reasons(compared("llama-3.1-8b", *H100))
    assert found == dict.fromkeys(("kv_heads=4", "kv_heads=1", "mla", "window=4k"), told)
    assert reasons(compared("llama-3.1-8b", *H100, "--with", "kv_heads=2"))["kv_heads=2"] == told
    assert reasons(compared("llama-3.1-8b", *H100, "--only", "--with", "kv_heads=2")) == {}


def test_ones_own_options_stand_behind_the_usual_ones_and_nothing_twice(compared):
    data = compared("llama-3.1-8b", *H100, "--with", "prefix=80%", "--with", "kv=fp8")
    names = [row["name"] for row in data["options"]]
    assert names[-1] == "prefix=80%"
    assert names.count("kv=fp8") == 1


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--with", "kv=fp9"), "no KV format named 'fp9'. Did you mean fp8?"),
        (("--with", "speed=2"), "no change named 'speed'"),
        (("--with", "kv=fp8,kv=int8"), "'kv=fp8,kv=int8' changes kv twice"),
        (("--with", "tp=0"), "tp: '0' is out of range: expected 1 to 4,096   (tp=N)"),
        (("--with", "prefix=120%"), "prefix: '120%' is not a share from 1% to 99%   (prefix=SHARE)"),
        (("--with", "spec=4"), "spec: '4' is not tokens@acceptance   (spec=N@SHARE)"),
        (("--with", "offload=0"), "offload: '0' is not a share from 1% to 99%   (offload=SHARE)"),
        (("--only",), "--only needs a --with   (--with kv=fp8)"),
        (
            ("--context", "256k"),
            "--context: 262,144 tokens are more than the 131,072 allowed   (--max-length)",
        ),
        (("--batch", "0"), "--batch: '0' is out of range: expected 1 to 1,048,576"),
        (("--batch", "1,2"), "--batch: '1,2' is not a count such as 8192, 4k or 1M"),
        (("--tp", "3"), "tensor parallel 3 does not divide the model's 32 query heads"),
        (("--weights", "mxfp4"), "mxfp4 stores expert matrix weights only, and llama-3.1-8b has none"),
    ],
)
def test_refused(refused, arguments, line):
    (found,) = refused(*LLAMA, *arguments, "--no-measure")
    assert found.startswith(line)


def test_a_value_is_refused_before_anything_is_planned(refused):
    (found,) = refused("compare", "no-such-model", "--gpu", "h100-sxm", "--with", "tp=0")
    assert found.startswith("tp: '0'")


def test_results_of_something_else_are_refused(refused, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text('{\n  "schema_version": 1,\n  "command": "capacity"\n}\n')
    (found,) = refused(*LLAMA, "--quality", str(file))
    hint = "kvplan quality MODEL --text FILE --json -o FILE makes one"
    said = "command: this is an answer of kvplan capacity, not of kvplan quality"
    assert found == f"{file}:3:14: {said}   ({hint})"


# ------------------------------------------------------------------ shown


@pytest.mark.parametrize("shown", ["table", "plain", "json", "csv", "md"])
def test_every_format(command, shown):
    status, out, _ = command(*LLAMA, *ONE, "--format", shown)
    assert status == 0
    assert "65,536" in out or "65536" in out


def test_figures_have_names_of_their_own(command):
    _, out, _ = command(*LLAMA, *ONE, "--with", "tp=3", "--format", "csv")
    names = [line.split(",", 1)[0] for line in out.splitlines()]
    assert len(names) == len(set(names))
    assert "options.kv=fp8.max_batch,110,requests" in out.splitlines()
    assert not any(name.startswith("options.baseline") for name in names)


def test_the_exit_tells_whether_the_baseline_fits(command):
    assert command(*LLAMA, *ONE, "--check")[0] == ExitStatus.SUCCESS
    large = ("compare", "llama-3.1-70b", "--gpu", "h100-sxm", *ONE)
    assert command(*large, "--check")[0] == ExitStatus.ANSWER_IS_NO
    assert command(*large)[0] == ExitStatus.SUCCESS
