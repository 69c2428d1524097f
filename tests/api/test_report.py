"""The report of a call is that of the command: the same figures, the same text, and its plots."""

import json

import pytest

import kvplan
from kvplan.charts import Chart
from kvplan.errors import UsageError

COMMANDS = {
    "capacity": (
        ("capacity", "llama-3.1-8b", "--gpu", "h100-sxm", "--gpus", "2", "--kv", "fp8"),
        lambda: kvplan.capacity("llama-3.1-8b", gpu="h100-sxm", gpus=2, kv="fp8"),
    ),
    "roofline": (
        ("roofline", "mixtral-8x7b", "--gpu", "h100-sxm", "--tp", "4", "--batch", "1,8", "--price", "2.5"),
        lambda: kvplan.roofline("mixtral-8x7b", gpu="h100-sxm", tp=4, batches=(1, 8), price=2.5),
    ),
    "kernel": (
        ("roofline", "llama-3.1-8b", "--gpu", "h100-sxm", "--context", "32k", "--kernel"),
        lambda: kvplan.roofline("llama-3.1-8b", gpu="h100-sxm", context=32_768, kernel=True),
    ),
    "prefill": (
        ("roofline", "llama-3.1-8b", "--gpu", "h100-sxm", "--phase", "prefill", "--cached", "1k"),
        lambda: kvplan.roofline("llama-3.1-8b", gpu="h100-sxm", phase="prefill", cached=1_024),
    ),
    "compare": (
        ("compare", "llama-3.1-8b", "--gpu", "h100-sxm", "--with", "kv=fp8", "--only", "--no-measure"),
        lambda: kvplan.compare("llama-3.1-8b", gpu="h100-sxm", changes=["kv=fp8"], only=True, measure=False),
    ),
}
asked = pytest.mark.parametrize("name", COMMANDS)


@asked
def test_text_is_what_the_command_writes(name, command):
    arguments, call = COMMANDS[name]
    report = call()
    for form, text in (
        ("json", report.to_json()),
        ("csv", report.to_csv()),
        ("md", report.to_markdown()),
        ("table", str(report)),
    ):
        status, out, _ = command(*arguments, "--format", form)
        assert (status, out) == (0, text)
    assert json.loads(report.to_json()) == report.to_dict()


def test_a_simulation_is_what_the_command_counts(command):
    report = kvplan.simulate("gpt2", prompt_tokens=40, tokens=4, layers=2, hidden=64, kv="int8")
    arguments = ("--prompt-tokens", "40", "--tokens", "4", "--layers", "2", "--hidden", "64", "--kv", "int8")
    status, out, _ = command("simulate", "gpt2", *arguments, "--json")
    told, data = json.loads(out), report.to_dict()
    assert status == 0
    assert data["verdict"] == told["verdict"]
    assert data["verdict"]["agree"] is True
    for same in ("inputs", "scaled_model", "checks", "layers", "kv_cost"):
        assert data[same] == told[same]


def test_steps_are_told_to_who_asks():
    said = []
    kvplan.simulate("gpt2", prompt_tokens=8, tokens=2, layers=1, hidden=32, on_step=said.append)
    assert said
    assert all(isinstance(line, str) and line for line in said)


def test_a_report_is_short_where_python_shows_it():
    report = kvplan.capacity("llama-3.1-405b", gpu="t4")
    assert repr(report).startswith("<capacity report: Does not fit")
    assert len(repr(report).splitlines()) == 1


KINDS = {
    "capacity": ["frontier", "growth", "memory"],
    "roofline": ["roofline", "step-time", "heat-map"],
    "compare": ["compare"],
}


@pytest.mark.parametrize(("name", "kinds"), KINDS.items())
def test_charts_are_of_their_kind_and_the_best_is_first(name, kinds):
    report = COMMANDS[name][1]()
    assert list(report.charts) == kinds
    for kind, make in report.charts.items():
        chart = make()
        assert isinstance(chart, Chart)
        assert chart.kind == kind
        assert chart == report.chart(kind)
    assert report.chart().kind == kinds[0]


def test_the_chart_of_a_simulation_is_of_it():
    report = kvplan.simulate("gpt2", prompt_tokens=8, tokens=2, layers=1, hidden=32)
    assert list(report.charts) == ["simulate"]
    assert report.chart().title.startswith("The plan holds: ")


def test_the_frontier_is_about_the_longest_context_asked_for():
    """501 requests of 4k and 62 of 32k: what the report's own table says."""
    report = kvplan.capacity("llama-3.1-8b", gpu="h100-sxm", gpus=2, kv="fp8", contexts=(4_096, 32_768))
    most = {row["context_tokens"]: row["batch"] for row in report.to_dict()["max_batch"]}
    assert most[32_768] == 62
    assert report.chart("frontier").title == "62 requests of 32k fit at once"


@pytest.mark.parametrize("batches", [(1, 64), (64, 1)])
def test_the_verdict_is_about_the_most_that_was_asked_for(batches):
    """A request of 128k takes 16 GiB: one fits beside the weights on 80 GB, 64 do not."""
    asked = {"gpu": "h100-sxm", "contexts": (4_096, 131_072)}
    assert kvplan.capacity("llama-3.1-8b", batches=(1,), **asked).verdict.yes
    assert not kvplan.capacity("llama-3.1-8b", batches=batches, **asked).verdict.yes


@pytest.mark.parametrize("batches", [(1, 8), (64, 8)])
def test_plots_of_times_are_about_the_last_batch(batches):
    report = kvplan.roofline("llama-3.1-8b", gpu="h100-sxm", batches=batches, context=8_192)
    assert report.chart("roofline").title.startswith("Decode of 8 requests of 8k ")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_plot_is_a_figure_that_can_be_saved(theme, tmp_path):
    from matplotlib.figure import Figure

    figure = COMMANDS["capacity"][1]().plot("memory", theme)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused():
    report = COMMANDS["capacity"][1]()
    with pytest.raises(UsageError, match="no plot named 'roofline'"):
        report.plot("roofline")
    with pytest.raises(UsageError, match="no theme named 'sepia'"):
        report.plot(theme="sepia")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kvplan.capacity("gpt2", gpu="t4", contexts=(0,)), "contexts: 0 is out of range"),
        (lambda: kvplan.capacity("gpt2", gpu="t4", batches=("16",)), "batches: '16' is no whole number"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", batches=()), "batches: none is given"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", batches=(0,)), "batches: 0 is out of range"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", context=0), "context: 0 is out of range"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", new_tokens=0), "new_tokens: 0 is out of range"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", phase="both"), "no phase named 'both'"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", cached=-1), "cached: -1 is out of range"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", output_tokens=0), "output_tokens: 0 is out of range"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", price=0.0), "price: 0.0 is not a price"),
        (lambda: kvplan.roofline("gpt2", gpu="t4", price=float("nan")), "price: nan is not a price"),
        (lambda: kvplan.compare("gpt2", gpu="t4", batch=0), "batch: 0 is out of range"),
        (lambda: kvplan.compare("gpt2", gpu="t4", context=2_000), "--context: 2,000 tokens are more than"),
        (lambda: kvplan.compare("gpt2", gpu="t4", changes=["kv"]), "no KV format named ''"),
        (lambda: kvplan.simulate("gpt2", prompt_tokens=0), "prompt_tokens: 0 is out of range"),
        (lambda: kvplan.simulate("gpt2", layers=0), "layers: 0 is out of range"),
        (lambda: kvplan.simulate("gpt2", cache="ring"), "no cache named 'ring'"),
        (lambda: kvplan.simulate("gpt2", latent_cache="expanded"), "gpt2 has no latent attention"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.message.startswith(message)
