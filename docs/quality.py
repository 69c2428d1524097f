"""Write the tables of docs/quality.md from the results file that comes with kvplan.

    python docs/quality.py [--check]

With ``--check`` nothing is written, and the exit status is 1 where the page is not what would be written.
The results themselves are made by the command they hold, which takes minutes and a released model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import code, keep, table

PAGE = Path(__file__).parent / "quality.md"
RESULTS = PAGE.parents[1] / "kvplan" / "check" / "measured" / "smollm2-135m-instruct.json"
# A part of the page that is written here: its name, and what is between its marks.
PART = re.compile(
    r"(?P<begin><!-- (?P<name>\w+): written by docs/quality\.py -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
HEADINGS = (
    "format",
    "KV B per token",
    "fewer than bf16",
    "perplexity",
    "more than float32, 95% interval",
    "KL (nats)",
    "same top-1",
    "greedy tokens alike",
    "requests of 8k",
)


def prices(found: dict[str, Any]) -> str:
    """Return the table of formats."""
    greedy = found["inputs"]["greedy"]
    lines = (_cells(row, greedy) for row in found["formats"])
    return table(HEADINGS, lines, frozenset(range(1, len(HEADINGS))))


def command(found: dict[str, Any]) -> str:
    """Return the command that made the results, and of what."""
    inputs = found["inputs"]
    of = f"{inputs['tokens']:,} tokens scored in {inputs['windows']} windows"
    made = f"kvplan {inputs['version']}, Python {inputs['python']}, NumPy {inputs['numpy']}"
    model, text = (code(inputs[f"{what}_sha256"][:12]) for what in ("model", "text"))
    said = f"{of}, {inputs['date']}, {made}. The model's SHA-256 begins {model}, the text's {text}."
    return f"```sh\n{inputs['command']}\n```\n\n{said}"


def fresh(page: str) -> str:
    """Return the page with its written parts made anew."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    parts = {"prices": prices(found), "command": command(found)}
    return PART.sub(lambda part: f"{part['begin']}{parts[part['name']]}\n{part['end']}", page)


def _cells(row: dict[str, Any], greedy: int) -> Iterator[str]:
    yield code(row["name"])
    yield f"{row['kv_bytes_per_token']:,.0f}"
    yield f"x{row['saved']:.2f}"
    yield f"{row['perplexity']:,.3f}"
    yield from ("-",) * 4 if row["name"] == "fp32" else _price(row, greedy)
    yield f"{row['max_batch']:,}"


def _price(row: dict[str, Any], greedy: int) -> tuple[str, str, str, str]:
    change, low, high = (_percent(row[f"perplexity_change{end}"]) for end in ("", "_low", "_high"))
    alike = "all" if row["greedy_tokens"] is None else f"{row['greedy_tokens']:,.0f}"
    top1 = f"{row['same_top1']:.1%}"
    return f"{change} ({low} to {high})", f"{row['kl_divergence']:.2g}", top1, f"{alike} of {greedy}"


def _percent(share: float) -> str:
    return f"{share:+z.2%}" if abs(share) < 0.1 else f"{share:+,.0%}"


if __name__ == "__main__":
    sys.exit(keep(PAGE, fresh, __doc__ or ""))
