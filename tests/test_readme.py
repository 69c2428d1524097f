"""The README shows what the commands print: each is run and compared, word for word."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from kvplan.cli.app import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ (kvplan [^\n]+)\n(.*?)```", README, re.DOTALL)

# Speeds and errors of a run; counts are never among them.
MEASURED = re.compile(r"tokens/s|GB/s|GFLOP/s| ms$|logit error|the logits of these random weights")
NUMBER = re.compile(r" *[\d.,]+(e-\d+)?%?")
# What options cost in accuracy: three columns of compare's table, and words of its advice.
PRICES = re.compile(r"(?<=[a-z])(?: +[<\d.]+){3}$|logits off by .* the same")


def test_there_are_commands_to_run() -> None:
    assert len(CONSOLE) >= 5


@pytest.mark.parametrize(("command", "shown"), CONSOLE, ids=[command for command, _ in CONSOLE])
def test_a_command_prints_what_the_readme_shows(command, shown, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    main(shlex.split(command)[1:])
    captured = capsys.readouterr()
    assert unmeasured(command, captured.out + captured.err) == unmeasured(command, shown)


def unmeasured(command: str, text: str) -> str:
    """Return what a command printed without the numbers that were measured where it ran."""
    lines = text.splitlines()
    if command.startswith("kvplan compare"):
        lines = [PRICES.sub("#", line) for line in lines]
    if command.startswith("kvplan simulate"):
        lines = [NUMBER.sub("#", line) if MEASURED.search(line) else line for line in lines]
    return "\n".join(lines)


# model: bytes of one request of 8,192 tokens, by hand
EIGHT_THOUSAND_TOKENS = {
    "deepseek-v3": 61 * (512 + 64) * 2 * 8192,
    "gemma-2-9b": 21 * (4096 + 8192) * 2 * 8 * 256 * 2,
    "gpt-oss-20b": 12 * (128 + 8192) * 2 * 8 * 64 * 2,
    "qwen3-next-80b-a3b": 12 * 8192 * 2 * 2 * 256 * 2 + 36 * (8192 * 4 * 2 + 32 * 128 * 128 * 4),
}


@pytest.mark.parametrize("model", EIGHT_THOUSAND_TOKENS)
def test_the_table_of_eight_thousand_tokens(model, capsys) -> None:
    main(["capacity", model, "--gpu", "h200-sxm", "--gpus", "8", "--context", "8k", "--json"])
    live = json.loads(capsys.readouterr().out)["growth"][0]["kv_live_bytes"]
    assert live == EIGHT_THOUSAND_TOKENS[model]
    assert f"| {model} | {live / 2**30:.3f} |" in README


def test_the_test_command_is_the_one_ci_runs() -> None:
    assert re.search(r"^pip install -e '\.\[test\]' && pytest", README, re.MULTILINE)


def test_the_counts_in_the_readme_are_those_of_the_folders() -> None:
    models, gpus = (len(list((ROOT / kind).glob("*.yaml"))) for kind in ("models", "gpus"))
    assert f"{models} models and {gpus} accelerators are bundled" in README
