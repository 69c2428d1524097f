"""Results files of ``kvplan quality``: what is read, what is refused, and what the shipped one says."""

import json
from itertools import pairwise

import pytest

from kvplan.check.measured_price import SHIPPED, MeasuredPrice, read_prices, results_file
from kvplan.errors import FileError, SpecError

WHOLE = {
    "schema_version": 1,
    "kvplan_version": "9.9.9",
    "command": "quality",
    "inputs": {
        "model": "Tiny-1B",
        "text": "book.txt",
        "tokens": 5110,
        "when": "append",
        "date": "2026-01-02",
        "command": "kvplan quality tiny --text book.txt",
        "partial": False,
        "context": 512,
    },
    "formats": [
        {
            "name": "fp8",
            "saved": 2.0,
            "perplexity_change": 0.25,
            "perplexity_change_low": -0.5,
            "perplexity_change_high": 1,
            "kl_divergence": 0.125,
            "same_top1": 0.75,
        }
    ],
    "verdict": {"text": "whatever"},
    "notes": [],
}


@pytest.fixture
def written(tmp_path):
    """A function from data, or text, to its file."""

    def write(data):
        file = tmp_path / "mine.json"
        file.write_text(data if isinstance(data, str) else json.dumps(data, indent=2))
        return file

    return write


def changed(path, value):
    """The whole file with another value at a path; without what is there, where that is ``...``."""
    data = json.loads(json.dumps(WHOLE))
    *above, last = path
    inner = data
    for step in above:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return data


def test_all_of_it_is_read(written):
    found = read_prices(written(WHOLE))
    assert (found.model, found.text, found.when) == ("Tiny-1B", "book.txt", "append")
    assert (found.tokens, found.context) == (5110, 512)
    assert (found.date, found.command) == ("2026-01-02", "kvplan quality tiny --text book.txt")
    assert found.formats == (MeasuredPrice("fp8", "Tiny-1B", 0.25, -0.5, 1.0, 0.125, 0.75),)
    assert found.of("fp8") is found.formats[0]
    assert found.of("int8") is None


FORMAT = ("formats", 0)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("command",), "capacity", "command: this is an answer of kvplan capacity, not of kvplan quality"),
        (("command",), ..., "'command' is required"),
        (("command",), 3, "command: expected text, not 3"),
        (("schema_version",), 2, "schema_version: layout 2 is not 1, which is read"),
        (("schema_version",), ..., "'schema_version' is required"),
        (("inputs",), [], "inputs: expected a mapping, not a list"),
        (
            ("inputs", "partial"),
            True,
            "inputs.partial: the run was stopped before its end: no price is final",
        ),
        (("inputs", "partial"), 0, "inputs.partial: expected true or false, not 0"),
        (("inputs", "partial"), ..., "inputs: 'partial' is required"),
        (("inputs", "model"), " ", "inputs.model: expected text, not ' '"),
        (("inputs", "model"), None, "inputs.model: expected text, not nothing"),
        (("inputs", "text"), ..., "inputs: 'text' is required"),
        (("inputs", "tokens"), 0, "inputs.tokens: expected a whole number from 1, not 0"),
        (("inputs", "tokens"), 1.5, "inputs.tokens: expected a whole number from 1, not 1.5"),
        (("inputs", "tokens"), True, "inputs.tokens: expected a whole number from 1, not true"),
        (("inputs", "context"), "512", "inputs.context: expected a whole number from 1, not '512'"),
        (("inputs", "when"), "later", "inputs.when: 'later' is neither append nor prefill"),
        (("formats",), [], "formats: expected a list of formats, not nothing"),
        (("formats",), {}, "formats: expected a list of formats, not nothing"),
        (("formats",), "fp8", "formats: expected a list of formats, not 'fp8'"),
        (FORMAT, 7, "formats[0]: expected a mapping, not 7"),
        ((*FORMAT, "name"), ..., "formats[0]: 'name' is required"),
        ((*FORMAT, "perplexity_change"), ..., "formats[0]: 'perplexity_change' is required"),
        ((*FORMAT, "perplexity_change"), "1", "formats[0].perplexity_change: expected a number, not '1'"),
        ((*FORMAT, "perplexity_change"), False, "formats[0].perplexity_change: expected a number, not false"),
        ((*FORMAT, "perplexity_change"), -1, "formats[0].perplexity_change: must be at least -1, not -1"),
        (
            (*FORMAT, "perplexity_change_low"),
            None,
            "formats[0].perplexity_change_low: too few tokens were scored to tell what a format costs",
        ),
        (
            (*FORMAT, "perplexity_change_low"),
            0.3,
            "formats[0].perplexity_change_low: must be at most 0.25, not 0.3",
        ),
        (
            (*FORMAT, "perplexity_change_high"),
            0.2,
            "formats[0].perplexity_change_high: must be at least 0.25, not 0.2",
        ),
        ((*FORMAT, "kl_divergence"), -0.1, "formats[0].kl_divergence: must be at least 0, not -0.1"),
        ((*FORMAT, "same_top1"), 1.1, "formats[0].same_top1: must be at most 1, not 1.1"),
        (("formats",), WHOLE["formats"] * 2, "formats[1].name: 'fp8' is there twice"),
    ],
)
def test_what_is_no_whole_result_is_refused_in_one_line(written, path, value, said):
    file = written(changed(path, value))
    with pytest.raises(SpecError) as caught:
        read_prices(file)
    (line,) = caught.value.lines()
    place, _, told = line.removeprefix(f"{file}:").partition(": ")
    assert told == f"{said}   (kvplan quality MODEL --text FILE --json -o FILE makes one)"
    assert all(number.isdecimal() for number in place.split(":"))
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "1:1: expected a mapping, not a list"),
        ("", "1:1: the file is empty"),
        ('{"command": "quality"', "expected ',' or '}'"),
        (json.dumps(changed(("formats", 0, "same_top1"), "#")).replace('"#"', "NaN"), "NaN"),
        (json.dumps(changed(("formats", 0, "kl_divergence"), "#")).replace('"#"', "Infinity"), "inf"),
    ],
)
def test_what_is_no_json_of_numbers_is_refused(written, text, said):
    with pytest.raises(SpecError) as caught:
        read_prices(written(text))
    assert len(caught.value.lines()) == 1
    assert said in caught.value.lines()[0]


def test_a_file_that_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        read_prices(tmp_path / "none.json")


def test_a_file_is_named_as_it_was_asked_for(tmp_path):
    assert results_file("a/b.json").label == "a/b.json"
    assert results_file(tmp_path).path == tmp_path
    assert results_file().label == "bundled:measured/smollm2-135m-instruct.json"


# ------------------------------------------------------------------ the file that comes with kvplan


def test_the_shipped_prices_agree_with_its_own_perplexities():
    found = read_prices(results_file().path)
    rows = {row["name"]: row for row in json.loads(SHIPPED.read_text())["formats"]}
    plain = rows["fp32"]["perplexity"]
    for price in found.formats:
        assert price.perplexity_change == pytest.approx(rows[price.name]["perplexity"] / plain - 1, abs=1e-9)


def test_the_shipped_prices_cover_what_compare_tries_and_fall_with_bits():
    """Bits cost: by divergence, which has no luck of the text in it, and a group of keys never costs more."""
    found = read_prices(results_file().path)
    assert "smollm2-135m-instruct" in found.model.lower()
    assert found.when == "append"
    divergences = {price.name: price.kl_divergence for price in found.formats}
    assert divergences["fp32"] == 0
    for less, more in pairwise(("fp32", "fp16", "bf16", "int8-kivi", "int8", "int4-kivi", "int4")):
        if less in divergences and more in divergences:
            assert divergences[less] < divergences[more]
    assert {"bf16", "fp8", "int8", "int4", "int4-kivi"} <= divergences.keys()


def test_random_weights_would_not_have_told_keys_with_outliers():
    """What quoting is for: per token and head, int4 costs a real model several times what grouped keys do."""
    found = read_prices(results_file().path)
    assert found.of("int4").kl_divergence > 3 * found.of("int4-kivi").kl_divergence
