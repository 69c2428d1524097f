"""docs/architectures.md is what its script writes now, and says what is known of a few models."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def cells(name):
    (line,) = (
        line
        for line in (DOCS / "architectures.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {name} |")
    )
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_fresh():
    """After a change of models, families or oracles: python docs/architectures.py."""
    done = subprocess.run([sys.executable, DOCS / "architectures.py", "--check"], check=False, timeout=100)
    assert done.returncode == 0


def test_llama():
    """32 layers x 2 x 8 heads x 128 x 2 bytes; 32,768 of them are 4 GiB."""
    found = cells("llama-3.1-8b")
    assert found[1:6] == ["8,030,261,248", "8,030,261,248", "32/8 x 128", "", "32 full"]
    assert found[6:] == ["131,072", "", "", "4,096", "TPHL"]


def test_windows():
    """Gemma-3-1B: 26 layers x 2 x 256 x 2 bytes, 4 of them past the windows."""
    assert cells("gemma-3-1b")[5:8] == ["22 sliding 512 + 4 full", "26,624", "4,096"]


def test_chunks_do_not_grow():
    """Llama-4-Scout: 48 layers x 2 x 8 x 128 x 2 bytes; 12 see past their chunk of 8,192."""
    assert cells("llama-4-scout")[5:8] == ["36 chunks of 8,192 + 12 full", "196,608", "49,152"]


def test_states():
    """Qwen3-Next: 36 x (8,192 channels x 4 inputs, or 3, x 2 bytes + 32 heads x 128 x 128 x 4 bytes)."""
    assert cells("qwen3-next-80b-a3b")[8] == "77,856,768 / 77,266,944"
