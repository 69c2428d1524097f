"""docs/formulas.md is what its script writes now, and holds every formula of the source."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import kvplan
from kvplan.formula import Formula

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "formulas.md").read_text(encoding="utf-8")


def entry(name):
    """Return what is said of a formula."""
    (found,) = re.findall(rf"^#### `{name}`\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found


def names():
    return re.findall(r"^#### `(\w+)`$", PAGE, re.MULTILINE)


def test_the_page_is_fresh():
    """After a change of a formula: python docs/formulas.py."""
    script = [sys.executable, ROOT / "docs" / "formulas.py", "--check"]
    assert subprocess.run(script, check=False, timeout=100).returncode == 0


def test_every_formula_of_the_source_text_is_listed():
    decorated = [
        node.name
        for path in (ROOT / "kvplan").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "formula"
    ]
    assert len(decorated) > 150
    assert Counter(names()) == Counter(decorated)


def test_every_formula_object_of_the_modules_is_listed_and_counted():
    found = {
        id(one)
        for module in pkgutil.walk_packages(kvplan.__path__, "kvplan.")
        if not module.name.endswith("__main__")
        for one in vars(importlib.import_module(module.name)).values()
        if isinstance(one, Formula)
    }
    assert len(names()) == len(found)
    assert f"Every formula of the planner: {len(found)} of them." in PAGE


def test_a_formula_by_hand():
    said = entry("attention_entry_bytes")
    assert "Bytes one token leaves in one attention layer. In `B/token`." in said
    assert (
        "Source: a key and a value per KV head, with their scales: [arXiv 2305.13245](https://arxiv" in said
    )
    code = "kv_heads * (ceil_div(k_dim * bits, 8) + ceil_div(v_dim * bits, 8) + 2 * scale_bytes)"
    assert f"attention_entry_bytes = {code}" in " ".join(said.split())


def test_a_broken_line_is_the_expression_that_explain_prints():
    from kvplan.plan.visibility import selected_block_pairs

    shown = entry("selected_block_pairs").split("```")[1].removeprefix("python").split()
    assert " ".join(shown) == f"selected_block_pairs = {selected_block_pairs.expression()}"


def test_papers_and_addresses_are_linked():
    sources = "\n".join(re.findall(r"^Source: .*$", PAGE, re.MULTILINE))
    assert not re.search(r"(?<!\[)arXiv \d", sources)
    assert "[pytorch.org/blog/flash-decoding](https://pytorch.org/blog/flash-decoding)" in sources


def test_code_fits_the_page():
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 100


def test_headings_are_unique_and_links_lead_to_them():
    found = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = Counter(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found)
    assert set(anchors.values()) == {1}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= set(anchors)
