"""``kvplan quality`` on a small checkpoint: its JSON, its refusals, and what an interrupt leaves."""

import hashlib
import json
import runpy
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import kvplan
from kvplan.check import quality as measuring
from kvplan.check.quality_formats import ALLOCATION
from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.storage import kv_format

MAKE = Path(__file__).parents[1] / "checkpoint" / "make_checkpoint.py"
CUT = ("--context", "64", "--stride", "65", "--greedy", "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of the small checkpoint: 2 layers, 512 positions."""
    folder = tmp_path_factory.mktemp("quality") / "tiny"
    runpy.run_path(str(MAKE))["write_checkpoint"](folder)
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text of some thousand tokens, no two lines alike."""
    path = tmp_path_factory.mktemp("text") / "book.txt"
    lines = (f"{n}: the end of {n * n * 7 % 101} is in the air, and {n % 7} of it" for n in range(200))
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def measured(command, model, text):
    """A function that returns the JSON of a measurement."""

    def run(*arguments):
        status, out, lines = command("quality", model, "--text", text, *CUT, *arguments, "--json")
        assert (status, lines) == (0, [])
        return json.loads(out)

    return run


def read_by_itself(model, ids, context, stride, windows):
    """Mean loss of a float32 cache, each window read at once by the engine."""
    checkpoint = open_checkpoint(model)
    decoder = Decoder(checkpoint.model, checkpoint.weights(), context + stride)
    losses = []
    for index in range(windows):
        window = ids[index * stride :][: context + stride]
        cache = Cache(checkpoint.model, kv_format("fp32"), ALLOCATION, context + stride, 1)
        logits = decoder.forward(cache, [(cache.add(), window)], Counter(), logits=Logits.EVERY)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        shares /= shares.sum(axis=1, keepdims=True)
        scored = np.arange(context, context + stride - 1)
        losses.append(-np.log(shares[scored, window[scored + 1]]))
    return np.concatenate(losses).mean()


COLUMNS = [
    "name",
    "kv_bytes_per_token",
    "saved",
    "perplexity",
    "perplexity_low",
    "perplexity_high",
    "perplexity_change",
    "perplexity_change_low",
    "perplexity_change_high",
    "kl_divergence",
    "kl_divergence_p99",
    "same_top1",
    "greedy_tokens",
    "max_batch",
]


def test_json_has_what_is_promised(measured, model, text):
    data = measured("--kv", "int8,int4-kivi,window-32+4", "--tokens", "600")
    assert data["command"] == "quality"
    assert [row["name"] for row in data["formats"]] == ["fp32", "int8", "int4-kivi", "window-32+4"]
    assert all(list(row) == COLUMNS for row in data["formats"])
    inputs = data["inputs"]
    assert {"tokens": 576, "windows": 9, "context": 64, "stride": 65, "greedy": 4}.items() <= inputs.items()
    assert {"model": "tiny", "text": "book.txt", "when": "append", "partial": False}.items() <= inputs.items()
    assert {"gpu": "h100-sxm", "gpu_file": "bundled:gpus/h100-sxm.yaml"}.items() <= inputs.items()
    assert inputs["text_sha256"] == hashlib.sha256(Path(text).read_bytes()).hexdigest()
    held = ("config.json", "model.safetensors", "tokenizer.json")
    whole = b"".join((Path(model) / name).read_bytes() for name in held)
    assert inputs["model_sha256"] == hashlib.sha256(whole).hexdigest()
    assert inputs["date"] in (datetime.now(UTC).date().isoformat(), str(datetime.now(UTC).date()))
    assert inputs["version"] == kvplan.__version__
    ids = open_checkpoint(model).tokenizer().encode(Path(text).read_text(encoding="utf-8"))
    loss = read_by_itself(model, ids, 64, 65, 9)
    assert data["formats"][0]["perplexity"] == pytest.approx(np.exp(loss), rel=1e-5)


def test_the_command_in_the_json_makes_it_again(measured, command, model, text):
    data = measured(
        "--kv", "int8,window-32", "--tokens", "128", "--when", "prefill", "--gpu", "a100-sxm-80gb"
    )
    typed = data["inputs"]["command"].split()
    assert typed[:5] == ["kvplan", "quality", "tiny", "--text", "book.txt"]
    status, out, _ = command("quality", model, "--text", text, *typed[5:], "--json")
    again = json.loads(out)
    assert (status, again["formats"], again["inputs"]) == (0, data["formats"], data["inputs"])


def test_the_usual_formats_are_measured(measured):
    names = [row["name"] for row in measured("--tokens", "64")["formats"]]
    storage = ["fp32", "bf16", "fp8", "int8", "int8-kivi", "int4", "int4-kivi", "int2", "int2-kivi"]
    assert names == [*storage, "window-32", "window-32+4"]


def test_a_cheaper_cache_costs_more(measured):
    rows = {row["name"]: row for row in measured("--tokens", "320", "--kv", "bf16,int8,int4,int2")["formats"]}
    assert rows["int2"]["kl_divergence"] > 10 * rows["int4"]["kl_divergence"]
    assert rows["int4"]["kl_divergence"] > 10 * rows["int8"]["kl_divergence"]
    assert rows["int8"]["kl_divergence"] > rows["bf16"]["kl_divergence"] > 0
    assert rows["int2"]["same_top1"] < rows["int4"]["same_top1"] <= 1


@pytest.mark.parametrize("shown", ["table", "plain", "csv", "md"])
def test_every_form_has_every_format(shown, command, model, text):
    asked = ("--kv", "int8,window-32", "--tokens", "64", "--format", shown)
    status, out, lines = command("quality", model, "--text", text, *CUT, *asked)
    assert (status, lines) == (0, [])
    assert all(name in out for name in ("fp32", "int8", "window-32"))


def test_a_picture_is_drawn(command, model, text, tmp_path):
    asked = ("--tokens", "64", "--plot", str(tmp_path / "a.svg"), "-o", str(tmp_path / "a.json"), "--json")
    assert command("quality", model, "--text", text, *CUT, *asked)[0] == 0
    assert "window-32+4" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["formats"]


def test_python_gives_the_same(measured, model, text):
    data = measured("--kv", "int8,window-32", "--tokens", "128")
    report = kvplan.quality(
        model, text, kv=["int8", "window-32"], tokens=128, context=64, stride=65, greedy=4
    )
    assert report.to_dict()["formats"] == data["formats"]
    assert report.chart().kind == "quality"


# ------------------------------------------------------------------ an interrupt


@pytest.fixture
def interrupted(monkeypatch):
    """A function that interrupts the run when something is told."""

    def at(words):
        def told(clock):
            plain(clock)
            if clock._done == words:
                raise KeyboardInterrupt

        plain = measuring._Clock.__call__
        monkeypatch.setattr(measuring._Clock, "__call__", told)

    return at


def test_an_interrupt_leaves_a_whole_answer_of_what_was_read(
    interrupted, command, model, text, measured, tmp_path
):
    full = measured("--kv", "int8,bf16", "--tokens", "128")
    interrupted(8)  # three readings a window: in the middle of the third
    asked = ("--kv", "int8,bf16", "--tokens", "256", "--json", "-o", str(tmp_path / "a.json"))
    status, out, lines = command("quality", model, "--text", text, *CUT, *asked)
    assert (status, out) == (130, "")
    assert lines == ["note: the answer is partial: windows read before the interrupt: 2", "interrupted"]
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert data["formats"] == full["formats"]
    assert {"partial": True, "windows": 2, "tokens": 128}.items() <= data["inputs"].items()
    assert data["notes"][0] == "partial: interrupted after 2 of 4 windows"


def test_an_interrupt_before_a_window_was_read_leaves_nothing(interrupted, command, model, text, tmp_path):
    interrupted(2)
    asked = ("--kv", "int8", "-o", str(tmp_path / "a.txt"))
    status, out, lines = command("quality", model, "--text", text, *CUT, *asked)
    assert (status, out, lines) == (130, "", ["interrupted"])
    assert list(tmp_path.iterdir()) == []


def test_control_c_leaves_a_partial_answer(model, tmp_path):
    """In a process of its own, of a run that would take minutes; it may not have begun when first stopped."""
    text = tmp_path / "long.txt"
    text.write_text("\n".join(f"the {n} of it" for n in range(20_000)), encoding="utf-8")
    code = "import sys; from kvplan.cli.app import main; sys.exit(main(sys.argv[1:]))"
    asked = ["quality", model, "--text", str(text), *CUT, "--kv", "int8", "--json"]
    for patience in (3, 12, 48):
        with subprocess.Popen(
            [sys.executable, "-c", code, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            time.sleep(patience)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate()
        assert process.returncode == 130
        if out:
            break
    data = json.loads(out)
    assert data["inputs"]["partial"] is True
    assert data["inputs"]["windows"] >= 1
    assert error.endswith(b"\ninterrupted\n")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kv", "int9"], "no cache format named 'int9'. Did you mean int8"),
        (["--kv", "int8,"], "empty entry"),
        (["--kv", "window-0"], "is no window"),
        (["--kv", "window-200"], "window-200: a window that keeps 200 tokens never slides within 129"),
        (["--kv", "int4-kivi/window-32"], "int4-kivi quantises the keys of 64 tokens together"),
        (["--when", "append-time"], "no time to quantise named 'append-time'. Did you mean append"),
        (["--stride", "1"], "stride: 1 is out of range: expected 2 to"),
        (["--context", "0"], "--context"),
        (["--context", "448"], "--context and --stride: 513 tokens are more than the 512 positions tiny"),
        (["--greedy", "449"], "--context and --greedy: 513 tokens are more than the 512 positions tiny"),
        (["--tokens", "63"], "--tokens: 63 are fewer than the 64 one window scores"),
        (["--gpu", "h1000"], "no accelerator named 'h1000'"),
        (["--format", "xml"], "no output format named 'xml'"),
        (["--plot", "a.pdf"], "a.pdf"),
        (["--theme", "dark"], "--theme is of a picture"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, words, refused, model, text):
    (line,) = refused("quality", model, "--text", text, *CUT, *arguments)
    assert words in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is no text"),
        (b"the end", "the text is too short: it has 5 tokens, and a window is of 64 + 65"),
        (b"the end \xff of it", "UTF-8"),
        (b"\xef\xbb\xbf", "there is no text"),
    ],
    ids=["empty", "short", "latin-1", "byte order mark"],
)
def test_a_text_that_cannot_be_read_is_refused_in_one_line(content, words, refused, model, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    (line,) = refused("quality", model, "--text", str(path), *CUT)
    assert words in line


def test_a_run_that_is_too_large_is_refused_before_the_weights_are_read(refused, model, text, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1024, "SC_PHYS_PAGES": 1024}[name])
    (line,) = refused("quality", model, "--text", text, *CUT)
    assert "tiny in float32 takes" in line
    assert "more than half of this machine's memory" in line


def test_files_that_are_not_there(refused, model, text, tmp_path):
    (line,) = refused("quality", model, "--text", str(tmp_path / "no.txt"), *CUT, status=3)
    assert "there is no such file" in line
    (line,) = refused("quality", str(tmp_path / "no.gguf"), "--text", text, status=3)
    assert "there is no such file" in line


def test_a_folder_that_is_not_there(refused, text):
    (line,) = refused("quality", "llama-3.1-8b", "--text", text, status=3)
    assert "cannot read 'llama-3.1-8b': there is no such file or folder   (a folder with safetensors" in line


def test_an_answer_that_cannot_be_written(refused, model, text, tmp_path):
    away = tmp_path / "no" / "a.json"
    asked = ("--kv", "int8", "--tokens", "64", "-o", str(away))
    (line,) = refused("quality", model, "--text", text, *CUT, *asked, status=3)
    assert "there is no such folder" in line


def test_help_says_what_formats_there_are(command):
    status, out, _ = command("quality", "--help")
    assert status == 0
    assert "window-256+4" in out
    assert "partial" not in out
