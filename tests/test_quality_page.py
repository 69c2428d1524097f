"""docs/quality.md shows the results that come with kvplan, and what is said of them in prose holds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads(
    (ROOT / "kvplan" / "check" / "measured" / "smollm2-135m-instruct.json").read_text(encoding="utf-8")
)
ROWS = {row["name"]: row for row in RESULTS["formats"]}


def test_the_page_is_fresh():
    """After other results: python docs/quality.py."""
    script = [sys.executable, ROOT / "docs" / "quality.py", "--check"]
    assert subprocess.run(script, check=False, timeout=100).returncode == 0


def cells(name):
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", ["int4", "int8-kivi"])
def test_a_line_says_what_the_results_say(name):
    row, found = ROWS[name], cells(name)
    assert float(found[1].replace(",", "")) == row["kv_bytes_per_token"]
    assert float(found[3]) == pytest.approx(row["perplexity"], abs=5e-4)
    change, low, high = (float(number) / 100 for number in re.findall(r"([-+][\d.]+)%", found[4]))
    assert change == pytest.approx(row["perplexity_change"], abs=0.005)
    assert (low, high) == pytest.approx(
        (row["perplexity_change_low"], row["perplexity_change_high"]), abs=0.005
    )


def test_the_whole_text_was_read():
    assert RESULTS["inputs"]["partial"] is False
    assert RESULTS["inputs"]["when"] == "append"
    # 9,786 tokens: (9,786 - 512) // 512 windows, and the first token behind each context is given.
    assert (RESULTS["inputs"]["windows"], RESULTS["inputs"]["tokens"]) == (18, 18 * 511)


def test_the_sentence_in_the_readme_holds():
    (kivi,) = re.findall(r"no measurable perplexity \(([-+][\d.]+)% to ([-+][\d.]+)%\)", README)
    found = ROWS["int8-kivi"]
    ends = found["perplexity_change_low"], found["perplexity_change_high"]
    assert [float(end) / 100 for end in kivi] == pytest.approx(ends, abs=5e-5)
    assert found["saved"] == pytest.approx(2, abs=0.1)
    said = re.search(r"int4 per\s+token costs (\d+)% of it, keys per channel bring that to ([\d.]+)%", README)
    changes = (ROWS[name]["perplexity_change"] for name in ("int4", "int4-kivi"))
    assert [float(number) / 100 for number in said.groups()] == pytest.approx(list(changes), abs=5e-3)
    assert ROWS["window-256"]["perplexity_change"] == pytest.approx(1, abs=0.1)
