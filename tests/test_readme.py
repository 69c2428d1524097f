"""What the README says beside what its commands print (test_documents.py does those): a table, and counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# model: bytes of one request of 8,192 tokens, by hand
EIGHT_THOUSAND_TOKENS = {
    "deepseek-v3": 61 * (512 + 64) * 2 * 8192,
    "gemma-2-9b": 21 * (4096 + 8192) * 2 * 8 * 256 * 2,
    "gpt-oss-20b": 12 * (128 + 8192) * 2 * 8 * 64 * 2,
    "qwen3-next-80b-a3b": 12 * 8192 * 2 * 2 * 256 * 2 + 36 * (8192 * 4 * 2 + 32 * 128 * 128 * 4),
}
TABLE = re.findall(r"^\| ([a-z][\w.-]+) \| (\d\.\d{3}) \|", README, re.MULTILINE)


def test_the_table_has_rows_worked_out_by_hand():
    assert len(TABLE) >= 6
    assert set(EIGHT_THOUSAND_TOKENS) <= {model for model, _ in TABLE}


@pytest.mark.parametrize(("model", "shown"), TABLE)
def test_the_table_of_eight_thousand_tokens(model, shown, command):
    asked = ("--gpu", "h200-sxm", "--gpus", "8", "--context", "8k", "--json")
    status, out, _ = command("capacity", model, *asked)
    live = json.loads(out)["growth"][0]["kv_live_bytes"]
    assert status == 0
    assert live == EIGHT_THOUSAND_TOKENS.get(model, live)
    assert f"{live / 2**30:.3f}" == shown


def test_the_test_command_is_the_one_ci_runs():
    assert re.search(r"^pip install -e '\.\[test\]' && pytest", README, re.MULTILINE)


def test_the_counts_in_the_readme_are_those_of_the_folders():
    models, gpus = (len(list((ROOT / kind).glob("*.yaml"))) for kind in ("models", "gpus"))
    assert f"{models} models and {gpus} accelerators are bundled" in README


def test_it_begins_with_two_commands_a_picture_a_table_and_a_proof():
    """In this order, for light and dark pages."""
    told = [
        "pip install . && kvplan capacity",
        "pip install -e '.[test]' && pytest",
        '<source media="(prefers-color-scheme: dark)" srcset="docs/images/frontier-dark.svg">',
        'src="docs/images/frontier-light.svg"',
        "| model | GiB |",
        "$ kvplan simulate ",
    ]
    places = [README.find(words) for words in told]
    assert -1 not in places
    assert places == sorted(places)
