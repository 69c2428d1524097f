"""``kvplan simulate CHECKPOINT --prompt TEXT``: what is shown, when, of what, and what is refused."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

import kvplan
from kvplan.check import text_run
from kvplan.check.beside_transformers import BesideTransformers
from kvplan.checkpoint.tokenizer import Tokenizer
from kvplan.engine.decoder import Decoder
from kvplan.engine.machine import Machine
from kvplan.errors import ExitStatus, UsageError
from kvplan.plan import step_work

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "checkpoint" / "make_checkpoint.py"))
PROMPT = "the and of his"
# What it is continued with, before its stop token.
ADDED_TOKENS = 7
ABSENT = BesideTransformers(None, "torch is not installed")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine whose speed is known, and where transformers is not installed."""
    known = Machine(read_bytes_per_s=2e10, read_bytes=1 << 20, sgemm_flops_per_s=1e11)
    monkeypatch.setattr("kvplan.check.speed.measure_machine", lambda _: known)
    monkeypatch.setattr(text_run, "beside_transformers", lambda *_: ABSENT)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a 2-layer checkpoint, and the same as a GGUF file in it."""
    folder = tmp_path_factory.mktemp("released") / "tiny"
    MAKE["write_checkpoint"](folder)
    MAKE["write_gguf"](folder / "tiny.gguf")
    return str(folder)


@pytest.fixture
def told(command, tiny):
    """A function that continues a prompt, and returns the JSON."""

    def run(*options, prompt=("--prompt", PROMPT), path=tiny):
        status, out, lines = command("simulate", path, *prompt, *options, "--json")
        assert (status, lines) == (0, [])
        return json.loads(out)

    return run


def checks_of(data):
    return {row["name"]: row["measured"] for row in data["checks"]}


def encoded(tiny, text):
    return tokenizers.Tokenizer.from_file(str(Path(tiny, "tokenizer.json"))).encode(text).ids


# The text


def test_the_text_is_streamed_before_the_table_and_is_that_of_the_json(command, told, tiny):
    added = told()["text"]["added"]
    status, out, lines = command("simulate", tiny, "--prompt", PROMPT)
    assert (status, lines) == (0, [])
    assert added
    assert out.startswith(f"{added}\n\ntiny, 2 layers x 64 hidden, with its own weights\n")
    assert out.count(added) == 1, "once is enough"


def test_a_text_that_ends_its_line_is_followed_by_one_free_line(command, tiny, monkeypatch):
    monkeypatch.setattr(text_run, "shown_text", lambda text: "" if not text.strip() else "word\n")
    _, out, _ = command("simulate", tiny, "--prompt", PROMPT, "--tokens", "1")
    assert out.startswith("word\n\ntiny, ")


@pytest.mark.parametrize("form", ["table", "md", "json", "csv", "plain"])
def test_in_a_file_the_text_is_in_the_report(form, command, told, tiny, tmp_path):
    path = tmp_path / "answer"
    assert command("simulate", tiny, "--prompt", PROMPT, "--format", form, "-o", str(path)) == (0, "", [])
    first = told()["text"]["added"].split()[0]
    assert (first if form != "json" else json.dumps(first)[1:-1]) in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["md", "csv", "plain", "json"])
def test_other_formats_begin_as_ever(form, command, tiny):
    _, out, _ = command("simulate", tiny, "--prompt", PROMPT, "--format", form)
    begins = {
        "md": "### tiny, ",
        "csv": "figure,value,unit\n",
        "plain": "text.read the and of his\n",
        "json": "{\n",
    }
    assert out.startswith(begins[form])


def test_derivations_are_of_this_run_and_nothing_is_streamed(command, tiny):
    _, out, _ = command("simulate", tiny, "--prompt", PROMPT, "--explain", "checks.cache_live_bytes")
    assert out.startswith(
        "checks.cache_live_bytes.predicted = layers * tokens * entry_bytes\n  = 2 * 13 * 128\n"
    )


def test_every_piece_is_shown_when_its_token_is_there_and_no_character_twice(tiny, told):
    """Pieces between steps of the decoder: the text so far is always a beginning of the whole."""
    pieces, steps = [], []
    kvplan.simulate(
        tiny, prompt=PROMPT, on_text=pieces.append, on_step=lambda doing: steps.append((doing, len(pieces)))
    )
    assert "".join(pieces) == told()["text"]["added"]
    assert len(pieces) > 3
    # Prompts are told as steps, tokens as text; all of it comes before the next thing that goes on.
    assert steps[:2] == [("reading the weights", 0), ("running", 0)]
    assert {count for _, count in steps[2:]} == {len(pieces)}


def test_what_a_terminal_would_obey_is_shown_as_an_escape(told, tiny, monkeypatch):
    """A model whose every piece of text is an escape sequence."""
    monkeypatch.setattr("kvplan.checkpoint.tokenizer.TextStream.add", lambda *_: "\x1b[2J\x07é\n")
    monkeypatch.setattr("kvplan.checkpoint.tokenizer.TextStream.rest", lambda _: "")
    assert told("--tokens", "1")["text"]["added"] == "\\x1b[2J\\x07é\n"
    pieces = []
    kvplan.simulate(tiny, prompt=PROMPT, tokens=1, on_text=pieces.append)
    assert pieces == ["\\x1b[2J\\x07é\n"]


def test_what_is_left_of_the_text_is_told_before_anything_else_goes_on(told, tiny, monkeypatch):
    """A stream that gives nothing out until it is asked for the rest: the text ends inside a character."""
    monkeypatch.setattr("kvplan.checkpoint.tokenizer.TextStream.add", lambda *_: "")
    monkeypatch.setattr("kvplan.checkpoint.tokenizer.TextStream.rest", lambda _: "rest")
    assert told("--tokens", "2")["text"]["added"] == "rest"
    said = []
    kvplan.simulate(tiny, prompt=PROMPT, tokens=2, on_text=said.append, on_step=said.append)
    assert said[:3] == ["reading the weights", "running", "rest"]
    assert said.count("rest") == 1


def test_the_text_goes_on_behind_the_prompt(told, tiny, monkeypatch):
    """Some tokenizers write a space in front of a first token, and of no other."""
    stream, behind = Tokenizer.stream, []

    def seen(tokenizer, after=()):
        behind.append(list(after))
        return stream(tokenizer, after)

    monkeypatch.setattr(Tokenizer, "stream", seen)
    kvplan.simulate(tiny, prompt=PROMPT, on_text=lambda _: None)
    assert behind == [encoded(tiny, PROMPT)] * 2, "as it is told, and in the report"


def test_an_interrupt_ends_the_line_and_says_no_more(command, tiny, monkeypatch):
    forward, called = Decoder.forward, 0

    def interrupted(*args, **options):
        nonlocal called
        called += 1
        if called == 5:
            raise KeyboardInterrupt
        return forward(*args, **options)

    monkeypatch.setattr(Decoder, "forward", interrupted)
    status, out, lines = command("simulate", tiny, "--prompt", PROMPT)
    assert (status, lines) == (ExitStatus.INTERRUPTED, ["interrupted"])
    assert out.endswith("\n\n")
    assert "tiny," not in out
    called = 0
    assert command("simulate", tiny, "--prompt", PROMPT, "--json")[:2] == (ExitStatus.INTERRUPTED, "")


def test_a_reader_that_goes_away_ends_the_run(command, tiny, monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr("kvplan.cli.told_text.put", gone)
    monkeypatch.setattr("kvplan.cli.app._silence_stdout", lambda: None)
    assert command("simulate", tiny, "--prompt", PROMPT)[0] == ExitStatus.BROKEN_PIPE


# What is read


def test_the_first_tokens_of_a_file_are_read(told, tiny, tmp_path):
    text = "in the on and of it is " * 30
    (tmp_path / "text.txt").write_text(text)
    data = told("--prompt-tokens", "40", prompt=("--text", str(tmp_path / "text.txt")))
    assert len(encoded(tiny, text)) > 200
    assert data["inputs"]["prompt_tokens"] == [40]
    assert data["inputs"]["text_file"].endswith("text.txt")
    assert len(data["inputs"]["text_sha256"]) == 64
    assert text.startswith(data["text"]["read"])
    assert len(encoded(tiny, data["text"]["read"])) == 40


def test_a_heading_says_how_much_of_the_text_was_read(command, tiny, tmp_path):
    (tmp_path / "text.txt").write_text("the and of his" * 9)
    count = len(encoded(tiny, "the and of his" * 9))
    _, out, _ = command(
        "simulate", tiny, "--text", str(tmp_path / "text.txt"), "--prompt-tokens", "9", "--tokens", "1"
    )
    assert f"\n9 tokens of text, the first of {count}; 1 token added\n" in out
    _, out, _ = command("simulate", tiny, "--prompt", PROMPT)
    assert "\n7 tokens of text; 7 tokens added; the last one ends the text\n" in out


def test_a_file_and_a_prompt_of_the_same_text_are_the_same(told, tmp_path):
    (tmp_path / "text.txt").write_text(PROMPT)
    given, file = told(), told(prompt=("--text", str(tmp_path / "text.txt")))
    assert given["text"] == file["text"]
    assert given["checks"][:-1] == file["checks"][:-1]


def test_a_gguf_file_is_continued_likewise(told, tiny):
    """Its weights are those of the folder, and all in float32."""
    folder, file = told("--kv", "fp32"), told("--kv", "fp32", path=f"{tiny}/tiny.gguf")
    assert folder["text"] == file["text"]
    assert checks_of(folder) == checks_of(file)


# The plan


def test_figures_that_can_be_counted_by_hand(told, tiny):
    """2 layers of 2 KV heads of 16, keys and values, in 2 bytes: 256 bytes a token; float32 weights."""
    data, read = told("--block-size", "16"), len(encoded(tiny, PROMPT))
    assert (read, data["text"]["added_tokens"], data["text"]["stopped"]) == (7, ADDED_TOKENS, True)
    cached = read + ADDED_TOKENS - 1
    checks = checks_of(data)
    assert checks["cache_live_bytes"] == 256 * cached
    assert checks["cache_blocks"] == 1
    assert checks["cache_allocated_bytes"] == 256 * 16
    assert checks["prefill_cache_written_bytes"] == 256 * read
    assert checks["decode_cache_written_bytes"] == 256 * (ADDED_TOKENS - 1)
    assert checks["decode_cache_read_bytes"] == 256 * sum(range(read + 1, cached + 1))
    assert checks["weights_bytes"] == sum(4 * array.size for array in MAKE["weights"]().values())
    assert [step["phase"] for step in data["steps"]] == ["prefill"] + ["decode"] * (ADDED_TOKENS - 1)
    assert data["speed"]["first_token_s"] == data["steps"][0]["seconds"]
    assert data["model"]["layers"] == 2
    assert "scaled_model" not in data


def test_a_stop_token_ends_the_plan_too(told):
    """Asked for 300 tokens or for the 7 there are: the same run."""
    most, least = told("--tokens", "300"), told("--tokens", str(ADDED_TOKENS))
    assert most["inputs"].pop("new_tokens") == 300
    assert least["inputs"].pop("new_tokens") == ADDED_TOKENS
    assert checks_of(most) == checks_of(least) | {"cached_logit_error": checks_of(most)["cached_logit_error"]}
    assert not told("--tokens", str(ADDED_TOKENS - 1))["text"]["stopped"]


@pytest.mark.parametrize("kv", ["bf16", "int8", "int4", "fp8"])
@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_every_format_agrees_in_both_caches(kv, cache, told):
    data = told("--kv", kv, "--cache", cache, "--chunk", "3")
    assert data["agree"]
    assert len([step for step in data["steps"] if step["phase"] == "prefill"]) == 3
    assert any(f"with {kv} KV the logits are off by" in note for note in data["notes"])


def test_a_contiguous_cache_has_room_for_this_text(told):
    assert told("--cache", "contiguous")["inputs"]["max_tokens"] == 64


def test_a_plot_says_what_ran(tiny):
    chart = kvplan.simulate(tiny, prompt=PROMPT).chart()
    size = "tiny, 2 layers x 64 hidden · bf16 KV"
    assert chart.subject == f"{size} · 7 tokens of text; 7 tokens added; the last one ends the text"
    assert chart.title == "The plan holds: 22 of 22 figures agree, to the byte and the FLOP"


def test_a_broken_formula_exits_1(command, tiny, monkeypatch):
    right = step_work.head_flops
    wrong = type(right)(lambda *args: right.function(*args) + 1, right.unit, right.source)
    monkeypatch.setattr(step_work, "head_flops", wrong)
    status, out, lines = command("simulate", tiny, "--prompt", PROMPT)
    assert (status, lines) == (ExitStatus.ANSWER_IS_NO, [])
    assert "\nThe plan does not hold: 2 of 22 figures differ: prefill_matmul_flops (" in out


def test_without_a_text_it_is_scaled_down_as_any_model(command, tiny):
    status, out, _ = command(
        "simulate", tiny, "--prompt-tokens", "9", "--tokens", "2", "--layers", "1", "--batch", "1"
    )
    assert status == 0
    assert out.startswith("tiny scaled down to 1 layer x 64 hidden, with random weights\n")


# transformers


def test_logits_are_compared_where_transformers_is_installed(command, told, tiny, monkeypatch):
    """Of every token read and added but the last, as they are made by reading all of them at once."""
    asked = []

    def beside(path, tokens, logits):
        asked.append((str(path), tokens.tolist(), logits.shape))
        return BesideTransformers(5e-4, "transformers 9.9")

    monkeypatch.setattr(text_run, "beside_transformers", beside)
    data = told()
    ((path, tokens, shape),) = asked
    assert path == tiny
    assert tokens[:7] == encoded(tiny, PROMPT)
    assert len(tokens) == 7 + ADDED_TOKENS - 1
    assert shape == (len(tokens), len(MAKE["vocabulary"]()))
    assert data["checks"][-1] == {
        "name": "transformers_logit_difference",
        "predicted": 0.001,
        "measured": 0.0005,
        "unit": "",
        "agree": True,
    }
    assert any("transformers 9.9" in note for note in data["notes"])


@pytest.mark.parametrize("difference", [0.002, float("inf"), float("nan")])
def test_logits_that_differ_too_much_exit_1(difference, command, tiny, monkeypatch):
    other = BesideTransformers(difference, "transformers 9.9")
    monkeypatch.setattr(text_run, "beside_transformers", lambda *_: other)
    status, out, _ = command("simulate", tiny, "--prompt", PROMPT, "--json")
    assert status == ExitStatus.ANSWER_IS_NO
    data = json.loads(out)
    assert (data["agree"], data["checks"][-1]["agree"]) == (False, False)


def test_where_it_is_not_installed_a_note_says_so(told):
    data = told()
    assert "logits are not compared with transformers': torch is not installed" in data["notes"]
    assert "transformers_logit_difference" not in checks_of(data)


def test_it_is_left_out_where_memory_does_not_hold_both(told, monkeypatch):
    """The run takes about 454,000 bytes, transformers as much again."""
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 1_500_000}.__getitem__)
    notes = told("--tokens", "7")["notes"]
    assert "logits are not compared with transformers': both models do not fit this machine's memory" in notes


# What is refused

CHECKPOINT = "a folder with safetensors and config.json, or a .gguf file"
REFUSED = [
    (
        "smollm2-135m --prompt hi",
        f"smollm2-135m has no weights: --prompt needs a checkpoint   ({CHECKPOINT})",
    ),
    (
        "smollm2-135m --text text.txt",
        f"smollm2-135m has no weights: --text needs a checkpoint   ({CHECKPOINT})",
    ),
    ("./config.json --prompt hi", f"bare has no weights: --prompt needs a checkpoint   ({CHECKPOINT})"),
    (
        "smollm2-135m --prompt 512",
        "smollm2-135m has no weights: --prompt needs a checkpoint   "
        "(--prompt-tokens 512 is the length of random prompts)",
    ),
    ("TINY --prompt hi --text text.txt", "--prompt and --text: one of them"),
    ("--all --prompt hi", "--prompt: a text is read by one model   (kvplan simulate MODEL)"),
    ("TINY --prompt hi --batch 2", "--batch and --prompt: a text is one request"),
    (
        "TINY --text text.txt --seed 0",
        "--seed and --text: nothing is drawn, every token added is the best one",
    ),
    ("TINY --prompt hi --layers 1", "--layers and --prompt: a model that reads a text is not scaled down"),
    ("TINY --prompt hi --hidden 8", "--hidden and --prompt: a model that reads a text is not scaled down"),
    (
        "TINY --prompt hi --tokens 600",
        "602 tokens are more than the 512 positions of tiny   (a smaller --prompt-tokens or --tokens)",
    ),
    ("TINY --text empty.txt", "--text: there is no text to read"),
    ("TINY --text latin.txt", "latin.txt:1:4: byte 0xe9 is not UTF-8: save the file as UTF-8"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with texts of all kinds, as the current one."""
    here = tmp_path / "bare"
    here.mkdir()
    (here / "text.txt").write_text("some text")
    (here / "empty.txt").write_text("")
    (here / "latin.txt").write_bytes(b"caf\xe9")
    (here / "config.json").write_text(json.dumps(MAKE["config"]()))
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize(("line", "expected"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_does_not_go_with_a_text(line, expected, folder, tiny, refused):
    assert refused("simulate", *line.replace("TINY", tiny).split()) == [expected]


def test_a_text_that_is_not_there(folder, tiny, refused):
    (line,) = refused("simulate", tiny, "--text", "nowhere.txt", status=ExitStatus.FILE)
    assert line.startswith("cannot read 'nowhere.txt': there is no such file")
    (line,) = refused("simulate", tiny, "--text", ".", status=ExitStatus.FILE)
    assert line.startswith("cannot read '.': it is a folder")


def test_a_text_that_is_too_large(folder, tiny, refused, monkeypatch):
    monkeypatch.setattr("kvplan.api.given_text.LARGEST_TEXT_BYTES", 4)
    (line,) = refused("simulate", tiny, "--text", "text.txt")
    assert line.startswith("text.txt:1:1: the file is larger than ")


@pytest.mark.parametrize("option", ["--prompt", "--text"])
def test_an_empty_value(option, tiny, refused):
    (line,) = refused("simulate", tiny, option, "")
    assert line == f"the value of {option} is empty   (is a shell variable not set?)"


def test_an_empty_prompt_in_python(tiny, monkeypatch):
    """Also where the tokenizer would put a token in front of it."""
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: np.array([0]))
    with pytest.raises(UsageError, match="--prompt: there is no text to read"):
        kvplan.simulate(tiny, prompt="")


def test_a_prompt_without_a_token(tiny, monkeypatch):
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: np.empty(0, np.int64))
    with pytest.raises(UsageError, match="--prompt: there is no text to read"):
        kvplan.simulate(tiny, prompt="x")


def test_weights_that_no_memory_holds(tiny, refused, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 500_000}.__getitem__)
    (line,) = refused("simulate", tiny, "--prompt", PROMPT)
    assert line.startswith(
        "tiny with its own weights takes 0.00053 GiB, more than half of this machine's memory"
    )
    assert line.endswith("(without --prompt it runs scaled down)")


def test_transformers_is_no_module_of_a_run_on_a_drawn_model(command):
    command("simulate", "gpt2", "--layers", "1", "--hidden", "32", "--prompt-tokens", "8", "--tokens", "2")
    assert "transformers" not in sys.modules
