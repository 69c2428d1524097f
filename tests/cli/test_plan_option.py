"""``--plan FILE``: the same as typing what the file says, and what is typed comes first."""

import json

import pytest

FULL = """\
name: full
model: mixtral-8x7b
gpu: h100-sxm
deployment:
  gpus: 4
  tp: 2
  dp: 2
  weights: fp8
  kv: int8
  alloc: paged
  block_size: 32
  max_length: 16k
  chunk: 4k
  memory_utilization: 85%
  overhead: 2GiB
workload:
  batch: 8
  context: 4k
  output_tokens: 256
price: 2.95
compare: [kv=fp8, chunk=1k]
require: [fits]
"""
# The same, as one would type it.
DEPLOYMENT = (
    *("--gpus", "4", "--tp", "2", "--dp", "2", "--weights", "fp8", "--kv", "int8", "--alloc", "paged"),
    *("--block-size", "32", "--max-length", "16k", "--chunk", "4k", "--memory-utilization", "85%"),
    *("--overhead", "2GiB", "--batch", "8", "--context", "4k"),
)
TYPED = {
    "capacity": DEPLOYMENT,
    "roofline": (*DEPLOYMENT, "--output-tokens", "256", "--price", "2.95"),
    "compare": (*DEPLOYMENT, "--with", "kv=fp8", "--with", "chunk=1k"),
}
QUICK = {"compare": ("--no-measure", "--only")}
NAMES = ("mixtral-8x7b", "--gpu", "h100-sxm")
commands = pytest.mark.parametrize("name", TYPED)


@pytest.fixture
def plan(tmp_path):
    """A function that writes a plan, and returns its file."""

    def write(text=FULL):
        (tmp_path / "p.yaml").write_text(text)
        return str(tmp_path / "p.yaml")

    return write


@commands
def test_a_plan_is_the_same_as_typing_it(name, plan, command):
    planned = command(name, "--plan", plan(), *QUICK.get(name, ()), "--json")
    typed = command(name, *NAMES, *TYPED[name], *QUICK.get(name, ()), "--json")
    assert planned == typed
    assert planned[0] == 0


# Another value of each option; the degrees have to multiply to the GPUs, so they come together below.
OTHERS = {
    "--weights": "int4",
    "--kv": "fp8",
    "--alloc": "contiguous",
    "--block-size": "64",
    "--max-length": "8k",
    "--chunk": "2k",
    "--memory-utilization": "0.7",
    "--overhead": "3GiB",
    "--batch": "4",
    "--context": "2k",
    "--output-tokens": "64",
    "--price": "1.5",
}
ANY_COMMAND = [(name, option) for name, options in TYPED.items() for option in OTHERS if option in options]


@pytest.mark.parametrize(("name", "option"), ANY_COMMAND)
def test_what_is_typed_comes_first(name, option, plan, command):
    typed = list(TYPED[name])
    typed[typed.index(option) + 1] = OTHERS[option]
    beside = command(name, "--plan", plan(), option, OTHERS[option], *QUICK.get(name, ()), "--json")
    assert beside == command(name, *NAMES, *typed, *QUICK.get(name, ()), "--json")
    if option in ("--weights", "--kv", "--batch", "--context", "--price"):
        assert beside != command(name, "--plan", plan(), *QUICK.get(name, ()), "--json")


def test_what_is_typed_comes_first_even_where_it_is_the_usual_value(plan, command):
    """The plan has blocks of 32; typing 16, what it would be without a plan, is typing it."""
    data = json.loads(command("capacity", "--plan", plan(), "--block-size", "16", "--json")[1])
    assert data["kv"]["block_tokens"] == 16
    assert json.loads(command("capacity", "--plan", plan(), "--json")[1])["kv"]["block_tokens"] == 32


def test_other_degrees(plan, command):
    asked = ("--gpus", "8", "--tp", "4", "--dp", "2", "--json")
    data = json.loads(command("capacity", "--plan", plan(), *asked)[1])
    assert (data["deployment"]["tensor_parallel"], data["deployment"]["data_parallel"]) == (4, 2)


@commands
def test_another_model_or_accelerator(name, plan, command):
    quick = (*QUICK.get(name, ()), "--json")
    model = command(name, "llama-3.1-8b", "--plan", plan(), *quick)
    assert model == command(name, "llama-3.1-8b", "--gpu", "h100-sxm", *TYPED[name], *quick)
    gpu = command(name, "--plan", plan(), "--gpu", "h200-sxm", *quick)
    assert gpu == command(name, "mixtral-8x7b", "--gpu", "h200-sxm", *TYPED[name], *quick)


def test_changes_that_are_typed_stand_instead_of_the_plans(plan, command):
    asked = ("--no-measure", "--only", "--json")
    data = json.loads(command("compare", "--plan", plan(), "--with", "weights=int4", *asked)[1])
    assert [row["name"] for row in data["options"]] == ["weights=int4"]
    data = json.loads(command("compare", "--plan", plan(), *asked)[1])
    assert [row["name"] for row in data["options"]] == ["kv=fp8", "chunk=1k"]


def test_lists_of_a_plan_are_lists_where_the_command_takes_them(plan, command, refused):
    text = FULL.replace("batch: 8", "batch: [1, 8]").replace("context: 4k", "context: [2k, 4k]")
    path = plan(text.replace("require: [fits]", "require: [fits at batch 8 context 4k]"))
    data = json.loads(command("capacity", "--plan", path, "--json")[1])
    assert data["inputs"]["context_tokens"] == [2048, 4096]
    assert data["inputs"]["batch"] == [1, 8]
    several = ["the plan has several: 2048, 4096   (--context says which)"]
    assert refused("roofline", "--plan", path) == several
    assert refused("compare", "--plan", path, "--batch", "8") == several
    data = json.loads(command("roofline", "--plan", path, "--context", "2k", "--json")[1])
    assert (data["inputs"]["batch"], data["inputs"]["context_tokens"]) == ([1, 8], 2048)


def test_one_of_several_accelerators_has_to_be_named(plan, command, refused):
    path = plan(FULL.replace("gpu: h100-sxm", "gpu: [h100-sxm, h200-sxm]"))
    assert refused("capacity", "--plan", path) == [
        "the plan has several: h100-sxm, h200-sxm   (--gpu says which)"
    ]
    assert command("capacity", "--plan", path, "--gpu", "h200-sxm")[0] == 0


def test_prompts_alone_have_no_closed_loop(plan, command):
    """What a plan says of one phase is no mistake in another."""
    status, out, lines = command("roofline", "--plan", plan(), "--phase", "prefill", "--json")
    assert (status, lines) == (0, [])
    assert json.loads(out)["inputs"]["output_tokens"] is None


def test_a_plan_says_what_a_simulation_runs_not_how_long(plan, command):
    text = "name: small\nmodel: llama-3.1-8b\ngpu: t4\ndeployment: {kv: int8, chunk: 8k}\n"
    quick = ("--prompt-tokens", "48", "--tokens", "4", "--explain", "cache_allocated", "--json")
    path = plan(text + "workload: {batch: 500, context: 64k}\n")
    planned = command("simulate", "--plan", path, *quick)
    assert planned == command("simulate", "llama-3.1-8b", "--kv", "int8", *quick)
    assert planned[0] == 0
    assert planned != command("simulate", "llama-3.1-8b", *quick)


def test_models_and_accelerators_stand_beside_the_plan(tmp_path, command):
    from kvplan.specs.catalog import bundled_folder

    (tmp_path / "mine.yaml").write_text((bundled_folder() / "gpus" / "t4.yaml").read_text(encoding="utf-8"))
    (tmp_path / "p.yaml").write_text("name: p\nmodel: gpt2\ngpu: ./mine.yaml\n")
    data = json.loads(command("capacity", "--plan", str(tmp_path / "p.yaml"), "--json")[1])
    assert data["inputs"]["gpu_file"] == str(tmp_path / "mine.yaml")


def test_mistakes_in_a_plan_are_told_in_the_plan(plan, refused):
    path = plan(FULL.replace("kv: int8", "kv: int9"))
    assert refused("capacity", "--plan", path) == [
        f"{path}:9:7: deployment.kv: no KV format named 'int9'. Did you mean int8, int4, int2?"
    ]


def test_without_a_plan_a_model_and_an_accelerator_are_needed(refused):
    for name in TYPED:
        assert refused(name) == ["missing argument 'MODEL'   (kvplan --help)"]
        assert refused(name, "gpt2") == ["missing option '--gpu'   (kvplan --help)"]
    assert refused("simulate") == ["name a model, or say --all   (kvplan simulate llama-3.1-8b)"]


def test_verbose_says_that_the_plan_was_read(plan, command):
    path = plan()
    lines = command("capacity", "--plan", path, "--verbose")[2]
    assert [line.split(" (sha256 ")[0] for line in lines] == [
        *(f"read {path}", "read bundled:models/mixtral-8x7b.yaml", "read bundled:gpus/h100-sxm.yaml"),
    ]
