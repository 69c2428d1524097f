"""``kvplan simulate`` as others build on it: the keys of its JSON, its options, its derivations, its exit."""

import json
import shutil
from math import gcd

import pytest

from kvplan.check.measurement import LogitErrors
from kvplan.engine.machine import Machine
from kvplan.errors import ExitStatus
from kvplan.plan import requests, step_work, visibility
from kvplan.specs.catalog import bundled_folder

TINY = ("--layers", "1", "--hidden", "32", "--prompt-tokens", "24", "--tokens", "4", "--batch", "2")
LLAMA = ("simulate", "llama-3.1-8b", *TINY)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine whose speed is known, which takes no time to measure."""
    known = Machine(read_bytes_per_s=2e10, read_bytes=1 << 20, sgemm_flops_per_s=1e11)
    monkeypatch.setattr("kvplan.check.speed.measure_machine", lambda _: known)


def refuse_constant(name):
    raise AssertionError(f"{name} in the JSON")


@pytest.fixture
def simulated(command):
    """A function that returns the JSON of a simulation that must agree."""

    def run(*arguments):
        status, out, lines = command("simulate", *arguments, "--json")
        assert (status, lines) == (0, [])
        return json.loads(out, parse_constant=refuse_constant)

    return run


def checks_of(data):
    return {row["name"]: row["predicted"] for row in data["checks"]}


# JSON

CHECKS = [
    "weights_bytes",
    "cache_live_bytes",
    "cache_allocated_bytes",
    "cache_blocks",
    "prefill_matmul_flops",
    "prefill_attention_flops",
    "prefill_cache_read_bytes",
    "prefill_cache_written_bytes",
    "decode_matmul_flops",
    "decode_attention_flops",
    "decode_cache_read_bytes",
    "decode_cache_written_bytes",
    "decode_intensity_flops_per_byte",
    "cached_logit_error",
]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-3-4b", "deepseek-v3", "qwen3-next-80b-a3b"])
def test_json_has_what_is_promised(name, simulated):
    data = simulated(name, *TINY)
    assert (data["agree"], data["verdict"]["agree"]) == (True, True)
    assert data["step_time_fraction_of_bound"] > 0
    assert data["tokens_per_s"] > 0
    assert {"name": name, "layers": 1, "hidden_size": 32}.items() <= data["scaled_model"].items()
    assert {*CHECKS} - {row["name"] for row in data["checks"]} <= {"cache_blocks"}
    for row in data["checks"]:
        assert list(row) == ["name", "predicted", "measured", "unit", "agree"]
        assert row["agree"] is True
        assert row["predicted"] == row["measured"] or row["name"] == "cached_logit_error"
    (layer,) = data["layers"]
    for kind in ("live", "allocated"):
        assert layer[f"{kind}_bytes_predicted"] == layer[f"{kind}_bytes_measured"] > 0
    phases = [step["phase"] for step in data["steps"]]
    assert phases == ["prefill"] * 2 + ["decode"] * 3
    assert all(step["seconds"] > 0 and step["bound_seconds"] > 0 for step in data["steps"])
    assert sum(step["new_tokens"] for step in data["steps"]) == sum(data["inputs"]["prompt_tokens"]) + 6


def test_inputs_are_echoed(simulated):
    inputs = simulated("gpt2", *TINY, "--seed", "7", "--chunk", "8", "--kv", "fp8", "--block-size", "32")[
        "inputs"
    ]
    assert inputs.pop("model_sha256")
    (shorter, longest) = inputs.pop("prompt_tokens")
    assert shorter <= longest == 24
    assert inputs == {
        "model_file": "bundled:models/gpt2.yaml",
        "new_tokens": 4,
        "chunk_tokens": 8,
        "seed": 7,
        "cache": "paged",
        "block_tokens": 32,
        "kv": "fp8",
    }


def test_the_same_question_has_the_same_answer_but_for_time(simulated):
    first, second = simulated("llama-3.1-8b", *TINY), simulated("llama-3.1-8b", *TINY)
    timed = {"steps", "speed", "tokens_per_s", "step_time_fraction_of_bound"}
    assert {k: v for k, v in first.items() if k not in timed} == {
        k: v for k, v in second.items() if k not in timed
    }


# What each option changes


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (("--layers", "2"), "weights_bytes"),
        (("--hidden", "64"), "weights_bytes"),
        (("--seed", "1"), "prefill_attention_flops"),
        (("--batch", "3"), "cache_live_bytes"),
        (("--prompt-tokens", "25"), "cache_live_bytes"),
        (("--tokens", "5"), "cache_live_bytes"),
        (("--chunk", "8"), "prefill_cache_read_bytes"),
        (("--cache", "contiguous"), "cache_allocated_bytes"),
        (("--kv", "int8"), "cache_live_bytes"),
        (("--block-size", "16"), "cache_allocated_bytes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_every_option_changes_what_it_should(options, changed, simulated):
    more = ("--batch", "8", "--prompt-tokens", "100") if options[0] in ("--seed", "--cache") else ()
    usual = ("llama-3.1-8b", *TINY, *more)
    before, after = checks_of(simulated(*usual)), checks_of(simulated(*usual, *options))
    assert before[changed] != after[changed]
    if options[0] in ("--chunk", "--cache", "--kv", "--block-size"):
        same = ["weights_bytes", "prefill_matmul_flops", "decode_matmul_flops", "decode_attention_flops"]
        assert [before[name] for name in same] == [after[name] for name in same]


def test_figures_that_can_be_counted_by_hand(simulated):
    """Llama's 2 scaled KV heads of 128 elements, keys and values, in 2 bytes: 1,024 bytes a token."""
    data = simulated("llama-3.1-8b", *TINY, "--layers", "3", "--block-size", "16")
    cached = [length + 3 for length in data["inputs"]["prompt_tokens"]]
    blocks = sum(-(-length // 16) for length in cached)
    checks = checks_of(data)
    assert checks["cache_live_bytes"] == 3 * 1024 * sum(cached)
    assert checks["cache_blocks"] == blocks
    assert checks["cache_allocated_bytes"] == 3 * 1024 * 16 * blocks
    assert checks["decode_cache_written_bytes"] == 3 * 1024 * 2 * 3
    quantised = checks_of(simulated("llama-3.1-8b", *TINY, "--kv", "int8"))
    assert 0.5 < quantised["cache_live_bytes"] / (1024 * sum(cached)) < 0.52


def test_a_contiguous_cache_has_no_blocks(simulated):
    data = simulated("llama-3.1-8b", *TINY, "--cache", "contiguous")
    assert "cache_blocks" not in checks_of(data)
    assert {"cache": "contiguous", "max_tokens": 64}.items() <= data["inputs"].items()


@pytest.mark.parametrize(
    "kv", ["fp32", "fp16", "fp8", "int8", "int4", "int2", "int8-kivi", "int4-kivi", "int2-kivi"]
)
def test_every_format_agrees_in_both_caches(kv, simulated):
    for cache in ("paged", "contiguous"):
        data = simulated("llama-3.1-8b", *TINY, "--prompt-tokens", "70", "--kv", kv, "--cache", cache)
        assert data["agree"]
        assert 0 <= data["kv_cost"]["logits_error_share"] < 0.5


# A plan that does not hold


def wrong(formula):
    """A formula that gives one too many, and is told like the right one."""
    return type(formula)(lambda *args: formula.function(*args) + 1, formula.unit, formula.source)


@pytest.mark.parametrize(
    ("module", "formula", "name", "label"),
    [
        (step_work, "head_flops", "decode_matmul_flops", "decode matmul"),
        (step_work, "attention_flops", "prefill_attention_flops", "prefill attention"),
        (visibility, "full_tokens_read", "decode_cache_read_bytes", "decode cache read"),
        (requests, "cached_tokens", "cache_live_bytes", "cache live"),
    ],
)
def test_a_broken_formula_exits_1_and_is_named(module, formula, name, label, command, monkeypatch):
    monkeypatch.setattr(module, formula, wrong(getattr(module, formula)))
    status, out, lines = command(*LLAMA)
    assert (status, lines) == (ExitStatus.ANSWER_IS_NO, [])
    assert any(line.startswith(f"  {label}  ") and line.endswith(" no") for line in out.splitlines())
    assert "\nThe plan does not hold: " in out
    assert name in out.partition("The plan does not hold: ")[2]
    status, out, lines = command(*LLAMA, "--json")
    assert (status, lines) == (ExitStatus.ANSWER_IS_NO, [])
    data = json.loads(out, parse_constant=refuse_constant)
    assert data["agree"] is data["verdict"]["agree"] is False
    (row,) = [row for row in data["checks"] if row["name"] == name]
    assert row["agree"] is False
    assert row["predicted"] != row["measured"]
    assert data["steps"]


def test_an_engine_that_loses_its_numbers_exits_1_with_whole_json(command, monkeypatch):
    nothing = LogitErrors(cached=float("nan"), stored=float("nan"), same_greedy=0.5)
    monkeypatch.setattr("kvplan.check.measurement._errors", lambda *_: nothing)
    status, out, lines = command(*LLAMA, "--json")
    assert (status, lines) == (ExitStatus.ANSWER_IS_NO, [])
    data = json.loads(out, parse_constant=refuse_constant)
    assert data["checks"][-1] == {
        "name": "cached_logit_error",
        "predicted": 0.0001,
        "measured": None,
        "unit": "",
        "agree": False,
    }
    assert command(*LLAMA)[0] == ExitStatus.ANSWER_IS_NO


def test_a_broken_formula_fails_all_models_and_one_is_named(command, specs, monkeypatch):
    monkeypatch.setattr(step_work, "head_flops", wrong(step_work.head_flops))
    status, out, _ = command("simulate", "--all", "--specs", str(specs), *TINY)
    assert status == ExitStatus.ANSWER_IS_NO
    assert (
        "The plan does not hold for 2 of 2 models. gpt2: 2 of 20 figures differ: prefill_matmul_flops" in out
    )


# Derivations


def evaluate(text):
    """Evaluate a formula's printed text with nothing but the functions a reader would expect."""
    names = {"ceil_div": lambda count, divisor: -(-count // divisor), "minimum": min, "maximum": max}
    names |= {"min": min, "max": max, "sum": sum, "range": range, "gcd": gcd}
    return eval(text, {"__builtins__": {}} | names)


def walk_data(figure):
    yield figure
    for below in (*figure.get("inputs", ()), *figure.get("parts", ())):
        yield from walk_data(below)


@pytest.mark.parametrize(
    ("name", "kv"),
    [
        ("llama-3.1-8b", "int4-kivi"),
        ("gemma-3-4b", "bf16"),
        ("deepseek-v3", "int8"),
        ("qwen3-next-80b-a3b", "fp8"),
    ],
)
def test_every_predicted_figure_is_derived_and_its_numbers_evaluate_to_it(name, kv, command):
    status, out, _ = command("simulate", name, *TINY, "--kv", kv, "--layers", "6", "--explain", "--json")
    assert status == 0
    figures = {figure["name"]: figure for figure in json.loads(out)}
    derived = 0
    for check in CHECKS[:-1]:
        figure = figures.get(f"checks.{check}.predicted")
        if figure is None:
            assert check == "cache_blocks"
            continue
        assert {"inputs", "parts"} & figure.keys(), check
        for below in walk_data(figure):
            if "formula" in below:
                assert evaluate(below["substituted"]) == below["value"], (check, below["formula"])
                derived += 1
            if "parts" in below:
                assert sum(part["value"] for part in below["parts"]) == below["value"], (check, below["name"])
    assert derived > 40


def test_what_is_printed_evaluates_to_the_value_below_it(command):
    """In the text too: "= 4 * 5" stands above "= 20 B", and so does a sum of many parts behind its name."""
    status, out, lines = command("simulate", "deepseek-v3", *TINY, "--layers", "4", "--explain")
    assert (status, lines) == (0, [])
    compared, before = 0, ""
    for line in out.splitlines():
        _, equals, behind = line.partition("= ")
        number = behind.split(" ")[0].replace(",", "")
        if (
            equals
            and line.lstrip().startswith("= ")
            and number.isdigit()
            and " + " not in behind
            and " * " not in behind
        ):
            try:
                value = evaluate(before)
            except (NameError, SyntaxError):
                continue
            assert value == int(number), line
            compared += 1
        before = behind
    assert compared > 60


@pytest.mark.parametrize("name", ["checks.cache_live_bytes.predicted", "cache_live_bytes", "cache_live"])
def test_one_figure_is_found_by_any_of_its_names(name, command):
    status, out, _ = command(*LLAMA, "--explain", name)
    assert status == 0
    assert out.startswith("checks.cache_live_bytes.predicted = layers * tokens * entry_bytes\n  = 1 * ")
    assert "checks.cache_blocks" not in out


def test_a_matmul_reads_line_by_line(command):
    status, out, _ = command(*LLAMA, "--explain", "checks.decode_matmul_flops")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "checks.decode_matmul_flops.predicted = full_layers + lm_head"
    assert "      self_attn.q_proj.weight = 32,768 parameters   (1,024 x 32)" in lines
    assert "checks.decode_matmul_flops.agree = yes   (equal to the last unit)" in lines
    assert not any("unit" in line.partition(" = ")[0] for line in lines)
    assert max(map(len, out.partition("\n[1]")[0].splitlines())) <= 110


def test_bare_explain_derives_every_figure_once_and_leaves_out_what_was_only_timed(command):
    status, out, _ = command(*LLAMA, "--layers", "3", "--explain")
    assert status == 0
    assert all(f"\nchecks.{name}.predicted = " in out for name in CHECKS)
    assert "\nsteps." not in out
    assert "layers.1.live_bytes_predicted = " in out
    assert "(as layers.0.live_bytes_predicted)" in out
    assert out.count("entry_bytes = kv_heads * ") < 12


@pytest.mark.parametrize(
    ("wrong_name", "meant"),
    [
        ("cache_liv_bytes", "cache_live_bytes"),
        ("checks.decode_matmul_flop", "checks.decode_matmul_flops.agree"),
        ("wieghts_bytes", "weights_bytes"),
    ],
)
def test_a_misspelt_figure_is_suggested(wrong_name, meant, refused):
    (line,) = refused(*LLAMA, "--explain", wrong_name)
    assert line.startswith(f"no figure named '{wrong_name}'. Did you mean ")
    assert meant in line
    assert line.endswith("   (--explain all shows every figure)")


@pytest.mark.parametrize("form", ["csv", "md", "plain"])
def test_derivations_have_no_other_form(form, refused):
    assert refused(*LLAMA, "--explain", "--format", form) == [
        f"--explain has no {form} form   (--format table or --format json)"
    ]


# All models


@pytest.fixture
def specs(tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("gpt2", "llama-3.2-1b"):
        shutil.copy(bundled_folder() / "models" / f"{name}.yaml", tmp_path / "models" / f"{name}.yaml")
    return tmp_path


def test_all_models_of_a_folder(command, specs):
    status, out, lines = command("simulate", "--all", "--specs", str(specs), *TINY, "--json", "--quiet")
    assert (status, lines) == (0, [])
    data = json.loads(out, parse_constant=refuse_constant)
    assert [(row["model"], row["agree"]) for row in data["models"]] == [
        ("gpt2", True),
        ("llama-3.2-1b", True),
    ]
    assert data["agree"] is True
    assert data["inputs"]["new_tokens"] == 4
    status, out, _ = command("simulate", "--all", "--specs", str(specs), *TINY, "--quiet")
    assert status == 0
    assert "The plan holds: all 40 figures of 2 models agree." in out


def test_without_a_folder_all_models_are_the_bundled_ones(command, monkeypatch):
    """Each is only counted here: running them is what the tests of simulations do."""
    ran, bundled = [], sorted(path.stem for path in (bundled_folder() / "models").glob("*.yaml"))

    def count(model, *_, **__):
        ran.append(model.name)
        if len(ran) == len(bundled):
            raise KeyboardInterrupt

    monkeypatch.setattr("kvplan.check.simulation.simulate", count)
    assert command("simulate", "--all")[0] == ExitStatus.INTERRUPTED
    assert sorted(ran) == bundled


# Formats and files


@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_every_format_goes_to_a_file_whole(form, command, tmp_path):
    path = tmp_path / "answer"
    assert command(*LLAMA, "--format", form, "-o", str(path)) == (0, "", [])
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert "The plan holds: 20 of 20 figures agree." in text
    assert [found.name for found in tmp_path.iterdir()] == ["answer"]


def test_an_answer_of_no_is_written_too(command, tmp_path, monkeypatch):
    monkeypatch.setattr(step_work, "head_flops", wrong(step_work.head_flops))
    path = tmp_path / "answer"
    assert command(*LLAMA, "--json", "-o", str(path)) == (ExitStatus.ANSWER_IS_NO, "", [])
    assert json.loads(path.read_text())["agree"] is False


def test_verbose_says_what_was_read(command):
    _, _, (line,) = command(*LLAMA, "--verbose")
    assert line.startswith("read bundled:models/llama-3.1-8b.yaml (sha256 ")
