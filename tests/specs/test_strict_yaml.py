"""The strict YAML reader: what it reads, and each message about what it does not."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvplan.errors import SpecError
from kvplan.specs import strict_yaml
from kvplan.specs.document import MAX_BYTES
from kvplan.specs.strict_yaml import parse_yaml, read_yaml

needs_libyaml = pytest.mark.skipif(not yaml.__with_libyaml__, reason="the messages are libyaml's")


@pytest.fixture(params=["libyaml", "python"])
def either_parser(request, monkeypatch):
    """Run a test with libyaml, if there is one, and with the parser that stands in for it."""
    if request.param == "python":
        monkeypatch.setattr(strict_yaml, "_Loader", yaml.BaseLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("no libyaml here")


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, "m.yaml")
    lines = caught.value.lines()
    assert all(line.startswith("m.yaml:") and line.isprintable() for line in lines)
    return [line.removeprefix("m.yaml:") for line in lines]


VALUES = [
    # YAML 1.2, core schema, as far as YAML 1.1 agrees
    ("null", None),
    ("~", None),
    ("true", True),
    ("false", False),
    ("0", 0),
    ("-0", 0),
    ("+12", 12),
    ("-131072", -131072),
    ("9" * 30, 10**30 - 1),
    ("-" + "9" * 30, 1 - 10**30),
    ("1.5", 1.5),
    ("-.5", -0.5),
    ("1.", 1.0),
    ("01.5", 1.5),
    ("1e3", 1000.0),
    ("1e-05", 1e-05),
    ("+1.5E+2", 150.0),
    # text
    ("sliding", "sliding"),
    ("2024-01-01", "2024-01-01"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    ("1.2.3", "1.2.3"),
    ("3.1-8b", "3.1-8b"),
    ("0x", "0x"),
    ("0o8", "0o8"),
    ("1:90", "1:90"),
    ("12:30pm", "12:30pm"),
    ("_1000", "_1000"),
    ("1_000x", "1_000x"),
    ("1e", "1e"),
    ("e5", "e5"),
    (".", "."),
    ("...x", "...x"),
    ("-x", "-x"),
    ("+", "+"),
    ("yEs", "yEs"),
    ("y", "y"),
    ("yes please", "yes please"),
    ("nothing", "nothing"),
    ("nan", "nan"),
    ("inf", "inf"),
    ("<<", "<<"),
    ("=", "="),
    ("\u0661\u0662", "\u0661\u0662"),
    ("'yes'", "yes"),
    ('"010"', "010"),
    ("'0x10'", "0x10"),
    ("'it''s'", "it's"),
    (r'"\u00e9\n\U0001F600"', "é\n😀"),
    ("''", ""),
    ("|\n  12\n", "12\n"),
    (">-\n  yes\n", "yes"),
    ("[1, two, [], {}]", [1, "two", [], {}]),
    ("{b: 1, 'on': [x]}", {"b": 1, "on": ["x"]}),
    ("# a comment", None),
    ("1 # a comment", 1),
]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text[:30] for text, _ in VALUES])
def test_values(text, value):
    read = parse_yaml(f"a: {text}", "m.yaml").data
    assert read == {"a": value}
    assert type(read["a"]) is type(value)


REFUSED = [
    # limits
    ("[" * 65, ["1:65: nested deeper than 64 levels"]),
    ("{a: " * 65, ["1:257: nested deeper than 64 levels"]),
    ("- " * 65 + "a", ["1:129: nested deeper than 64 levels"]),
    ("a: " + "1" * 31, ["1:4: integer of 31 digits: at most 30 are allowed"]),
    ("a: -" + "1" * 4000, ["1:4: integer of 4,000 digits: at most 30 are allowed"]),
    ("a: 1e999", ["1:4: '1e999' is too large for a floating-point number"]),
    # what makes one thing stand for another
    ("a: &x 1", ["1:4: anchors (&name) are not allowed: remove it"]),
    ("a: &x {b: 1}", ["1:4: anchors (&name) are not allowed: remove it"]),
    ("&x a: 1", ["1:1: anchors (&name) are not allowed: remove it"]),
    ("a: *x", ["1:4: aliases (*name) are not allowed: write the value out again"]),
    ("*x : 1", ["1:1: aliases (*name) are not allowed: write the key out"]),
    ("a: !!int '1'", ["1:4: tags (!name) are not allowed: remove it"]),
    ("a: !!python/object/apply:os.system [x]", ["1:4: tags (!name) are not allowed: remove it"]),
    ("a: ! b", ["1:4: tags (!name) are not allowed: remove it"]),
    ("!mine\na: 1", ["1:1: tags (!name) are not allowed: remove it"]),
    ("!!str", ["1:1: tags (!name) are not allowed: remove it"]),
    ("%YAML 1.1\n---\na: 1", ["1:1: directives (%) are not allowed: remove the line"]),
    ("a: 1\n...\r%TAG ! x\n---\n", ["3:1: directives (%) are not allowed: remove the line"]),
    # keys
    ("a: 1\nb: 2\na: 3", ["3:1: duplicate key 'a' (first at line 1)"]),
    ("{a: 1, 'a': 2}", ["1:8: duplicate key 'a' (first at column 2)"]),
    ('x:\n- b: 1\n  "b": 2', ["3:3: duplicate key 'b' (first at line 2)"]),
    ("1: a", ["1:1: the unquoted key '1' is not text: put it in quotes"]),
    ("{8: a}", ["1:2: the unquoted key '8' is not text: put it in quotes"]),
    ("-1.5e3: a", ["1:1: the unquoted key '-1.5e3' is not text: put it in quotes"]),
    ("true: a", ["1:1: the unquoted key 'true' is not text: put it in quotes"]),
    ("null: a", ["1:1: the unquoted key 'null' is not text: put it in quotes"]),
    ("~: a", ["1:1: the unquoted key '~' is not text: put it in quotes"]),
    ("on: a", ["1:1: the unquoted key 'on' is not text: put it in quotes"]),
    ("010: a", ["1:1: the unquoted key '010' is not text: put it in quotes"]),
    ("<<: {a: 1}", ["1:1: merge keys (<<) are not allowed: write the keys out"]),
    ("? [a]\n: b", ["1:3: a key must be text, not a list or a mapping"]),
    ("a: {{ b }}", ["1:5: a key must be text, not a list or a mapping"]),
    # documents
    ("a: 1\n---\nb: 2", ["2:1: a second document starts here: one file holds one"]),
    ("---\n---\n", ["2:1: a second document starts here: one file holds one"]),
    ("", ["1:1: the file is empty: expected a mapping such as 'name: value'"]),
    ("\n# only this\n", ["1:1: the file is empty: expected a mapping such as 'name: value'"]),
    ("---\n...\n", ["1:1: the file is empty: expected a mapping such as 'name: value'"]),
    # YAML 1.1
    ("a: yes", ["1:4: 'yes' could be read as true: write true, or put it in quotes"]),
    ("a: Off", ["1:4: 'Off' could be read as false: write false, or put it in quotes"]),
    ("a: NO", ["1:4: 'NO' could be read as false: write false, or put it in quotes"]),
    ("- on", ["1:3: 'on' could be read as true: write true, or put it in quotes"]),
    ("a: True", ["1:4: 'True' could be read as true: write true, or put it in quotes"]),
    ("a: FALSE", ["1:4: 'FALSE' could be read as false: write false, or put it in quotes"]),
    ("a: Null", ["1:4: 'Null' could be read as null: write null, or put it in quotes"]),
    ("a: 010", ["1:4: '010' could be read as octal: write it without the leading zero, or put it in quotes"]),
    ("a: -09", ["1:4: '-09' could be read as octal: write it without the leading zero, or put it in quotes"]),
    ("a: 0o10", ["1:4: '0o10' is not a decimal number: write it in decimal, or put it in quotes"]),
    ("a: 0x1F", ["1:4: '0x1F' is not a decimal number: write it in decimal, or put it in quotes"]),
    ("a: 0b101", ["1:4: '0b101' is not a decimal number: write it in decimal, or put it in quotes"]),
    ("a: 1:30", ["1:4: '1:30' could be read as a number in base 60: put it in quotes"]),
    ("a: 12:30:45.5", ["1:4: '12:30:45.5' could be read as a number in base 60: put it in quotes"]),
    ("a: 1_000", ["1:4: '1_000' is a number with underscores: write it without them, or put it in quotes"]),
    ("a: 1_0.5", ["1:4: '1_0.5' is a number with underscores: write it without them, or put it in quotes"]),
    ("a: .inf", ["1:4: '.inf' is not a finite number"]),
    ("a: -.INF", ["1:4: '-.INF' is not a finite number"]),
    ("a: .NaN", ["1:4: '.NaN' is not a finite number"]),
    # characters
    ("a: \x00", ["1:4: NUL byte: this is not a text file"]),
    ("a: é\nb: \x1b[0m", ["2:4: unprintable character U+001B: remove it"]),
    ("a: \ud800", ["1:4: unprintable character U+D800: remove it"]),
    ("\ufeffa: 1", ["1:1: unprintable character U+FEFF: remove it"]),
]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[repr(text[:30]) for text, _ in REFUSED])
def test_refused(text, expected):
    assert mistakes(text) == expected


UNEXPECTED_COLON = "unexpected ':': put a text that holds ': ' in quotes, and check the indentation"
SYNTAX_ERRORS = [
    ("a: b: c", f"1:5: {UNEXPECTED_COLON}"),
    ("a: 1\n  b: 2", f"2:4: {UNEXPECTED_COLON}"),
    ("a:\n\tb: 1", "2:1: a tab cannot indent: use spaces"),
    ("a: 1\n\tb: 2", "2:1: a tab cannot indent: use spaces"),
    ("a: >\n\tx", "2:1: a tab cannot indent: use spaces"),
    ("a: @x", "1:4: '@' cannot begin a value: put the text in quotes"),
    ("a: %x", "1:4: '%' cannot begin a value: put the text in quotes"),
    ('b: 1\na: "x\n\n', "2:4: this quote is never closed"),
    ("a: 'x\n---\n'", "2:1: '---' or '...' inside quotes: indent the line"),
    ("a: 1\nb: [1,\n  2", "3:4: expected ',' or ']' ('[' opened at line 2)"),
    ("a: {x: 1\nb: 2", "2:2: expected ',' or '}' ('{' opened at line 1)"),
    ("a: [b]]", "1:7: expected a 'key: value' here: check the indentation and the brackets"),
    ("a:\n  - b\n c: 1", "3:2: expected a 'key: value' here: check the indentation and the brackets"),
    ("- a\nb: 1", "2:1: expected a '- item' here: check the indentation"),
    ("a: - b", "1:4: unexpected '-': begin a list on its own line"),
    ("a: 1\nb\n", "2:1: expected ': ' after a key"),
    (": a", "1:1: expected a 'key: value' here: check the indentation and the brackets"),
    ("{? , b: 1}", "1:4: a key is missing here"),
    ("]", "1:1: expected a value here"),
    ("{a: 1}}", "1:7: unexpected text after the end of the document"),
    (r'a: "\q"', r"1:5: unknown escape: write \\ for a backslash, or use single quotes"),
    (r'a: "\ud800"', "1:7: unknown escape: there is no such character"),
    (r'a: "\UFFFFFFFF"', "1:7: unknown escape: there is no such character"),
    ("a: !e!x 1", "1:4: tags (!name) are not allowed: remove it"),
    ("a: *", "1:5: not valid YAML: did not find expected alphabetic or numeric character"),
]


@needs_libyaml
@pytest.mark.parametrize(
    ("text", "expected"), SYNTAX_ERRORS, ids=[repr(text[:30]) for text, _ in SYNTAX_ERRORS]
)
def test_syntax_errors(text, expected):
    assert mistakes(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", f"1:5: {UNEXPECTED_COLON}"),
        ("a:\n\tb: 1", "2:1: a tab cannot indent: use spaces"),
        ("a: [1", "1:6: not valid YAML: expected ',' or ']', but got '<stream end>' ('[' opened at line 1)"),
        (r'a: "\ud800"', r"1:4: text '\ud800' holds half of a surrogate pair"),
        (r'"\ud800": 1', r"1:1: key '\ud800' holds half of a surrogate pair"),
        (r'a: "\UFFFFFFFF"', "1:1: an escape in double quotes is no Unicode character"),
        ("a: !" + "e" * 99 + "!x 1", "1:4: not valid YAML: found undefined tag handle '!" + "e" * 39),
    ],
)
def test_syntax_errors_without_libyaml(monkeypatch, text, expected):
    monkeypatch.setattr(strict_yaml, "_Loader", yaml.BaseLoader)
    assert mistakes(text) == [expected]


def test_all_mistakes_are_reported_in_the_order_of_the_file():
    text = """\
name: yes
layers:
- heads: 010
  heads: 8
- &one
  1: *two
name: [.nan, !!str x,
  {on: 1_0, on: 2}]
end: "x
"""
    assert mistakes(text) == [
        "1:7: 'yes' could be read as true: write true, or put it in quotes",
        "3:10: '010' could be read as octal: write it without the leading zero, or put it in quotes",
        "4:3: duplicate key 'heads' (first at line 3)",
        "5:3: anchors (&name) are not allowed: remove it",
        "6:3: the unquoted key '1' is not text: put it in quotes",
        "6:6: aliases (*name) are not allowed: write the value out again",
        "7:1: duplicate key 'name' (first at line 1)",
        "7:8: '.nan' is not a finite number",
        "7:14: tags (!name) are not allowed: remove it",
        "8:4: the unquoted key 'on' is not text: put it in quotes",
        "8:8: '1_0' is a number with underscores: write it without them, or put it in quotes",
        "8:13: the unquoted key 'on' is not text: put it in quotes",
        "9:6: this quote is never closed",
    ]


def test_keys_below_a_duplicate_key_are_not_duplicates_themselves():
    assert mistakes("a: {x: 1}\na: {x: 2}") == ["2:1: duplicate key 'a' (first at line 1)"]
    assert mistakes("1: {x: 1}\n2: {x: 2, x: 3}")[2:] == ["2:11: duplicate key 'x' (first at column 5)"]


def test_no_more_than_forty_characters_of_the_file_are_repeated():
    cut = "'" + "k" * 37 + "...'"
    assert mistakes(f"{'k' * 500}: 1\n" * 2) == [f"2:1: duplicate key {cut} (first at line 1)"]
    assert mistakes("a: " + "0" * 500) == [
        f"1:4: '{'0' * 37}...' could be read as octal: write it without the leading zero, or put it in quotes"
    ]


def test_messages_hold_no_control_characters():
    assert mistakes(r'{"\e[31m\n": 1, "\e[31m\n": 2}') == [
        r"1:17: duplicate key '\x1b[31m\n' (first at column 2)"
    ]


def test_the_pass_stops_after_a_hundred_mistakes():
    lines = mistakes("a: 1\n" * 5000)
    assert len(lines) == 101
    assert lines[0] == "2:1: duplicate key 'a' (first at line 1)"
    assert lines[-1] == "101:1: stopped here, after 100 mistakes"


def test_64_levels_and_50_000_values_are_read():
    data = parse_yaml("[" * 64 + "]" * 64, "m.yaml").data
    assert str(data) == "[" * 64 + "]" * 64
    assert parse_yaml("- 1\n" * 49_999, "m.yaml").data == [1] * 49_999
    assert mistakes("- 1\n" * 50_000) == ["50000:3: more than 50,000 values in one file"]


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
TAGS = "".join(f"%TAG !t{i}! x\n" for i in range(60_000))
HOSTILE = {
    "brackets": ("[" * 50_000, "1:65: nested deeper than 64 levels"),
    "closed brackets": ("[" * 50_000 + "]" * 50_000, "1:65: nested deeper than 64 levels"),
    "braces": ("{a: " * 50_000, "1:257: nested deeper than 64 levels"),
    "dashes": ("- " * 50_000, "1:129: nested deeper than 64 levels"),
    "question marks": ("? " * 50_000, "1:3: a key must be text, not a list or a mapping"),
    "alias bomb": (BOMB, "1:5: anchors (&name) are not allowed: remove it"),
    "aliases": ("[" + "*a, " * 250_000, "1:2: aliases (*name) are not allowed: write the value out again"),
    "%TAG": (TAGS, "1:1: directives (%) are not allowed: remove the line"),
    "late %TAG": ("a: 1\n...\n" + TAGS, "3:1: directives (%) are not allowed: remove the line"),
    "digits": ("a: " + "1" * 1_000_000, "1:4: integer of 1,000,000 digits: at most 30 are allowed"),
    "base 60": (
        "a: 1" + ":1" * 500_000,
        f"1:4: '{('1' + ':1' * 18)}...' could be read as a number in base 60: put it in quotes",
    ),
    "items": ("[" * 63 + "1," * 500_000, "1:99938: more than 50,000 values in one file"),
    "documents": ("---\n" * 250_000, "2:1: a second document starts here: one file holds one"),
}


@needs_libyaml
@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.timeout(20)
def test_hostile_texts_are_refused_at_once(text, expected):
    assert mistakes(text)[0] == expected


def test_read_yaml(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\nheads: 8\r\n")
    document = read_yaml(path)
    assert document.path == str(path)
    assert document.data == {"name": "x", "heads": 8}
    assert document.place(("heads",)) == (2, 8)


@pytest.mark.timeout(20)
def test_read_yaml_refuses_a_file_over_1_mib(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_bytes(b"a: 1\n#" + b"x" * (MAX_BYTES - 5))
    with pytest.raises(SpecError) as caught:
        read_yaml(path)
    assert caught.value.lines() == (f"{path}:1:1: the file is larger than 1 MiB (1,048,576 bytes)",)


@pytest.mark.usefixtures("either_parser")
def test_places():
    text = """\
# a model
name: "ä"  # quoted
layers:
- cache: sliding
  window: 4096
- [1, {é: x, y: z}]
empty:
block: |
  text
"""
    document = parse_yaml(text, "m.yaml")
    assert document.key_places == {
        ("name",): (2, 1),
        ("layers",): (3, 1),
        ("layers", 0, "cache"): (4, 3),
        ("layers", 0, "window"): (5, 3),
        ("layers", 1, 1, "é"): (6, 8),
        ("layers", 1, 1, "y"): (6, 14),
        ("empty",): (7, 1),
        ("block",): (8, 1),
    }
    assert document.value_places == {
        (): (2, 1),
        ("name",): (2, 7),
        ("layers",): (4, 1),
        ("layers", 0): (4, 3),
        ("layers", 0, "cache"): (4, 10),
        ("layers", 0, "window"): (5, 11),
        ("layers", 1): (6, 3),
        ("layers", 1, 0): (6, 4),
        ("layers", 1, 1): (6, 7),
        ("layers", 1, 1, "é"): (6, 11),
        ("layers", 1, 1, "y"): (6, 17),
        ("empty",): (7, 7),
        ("block",): (8, 8),
    }


def only_spec_errors_escape(text: str) -> None:
    try:
        parse_yaml(text, "m.yaml")
    except SpecError as error:
        for line in error.lines():
            assert line.isprintable()
            assert len(line) < 200


@given(st.text())
def test_any_text_is_read_or_refused(text):
    only_spec_errors_escape(text)


YAML_PIECES = ["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "'", '"', "\\", "u12", "&x", "*x"]
YAML_PIECES += [
    "!",
    "!!str ",
    "? ",
    "|",
    ">",
    "---\n",
    "...\n",
    "%TAG",
    "#",
    "<<",
    "1",
    "0",
    "_",
    ".",
    "\t",
    "~",
]


@given(st.lists(st.sampled_from(YAML_PIECES), max_size=30).map("".join))
def test_anything_that_looks_like_yaml_is_read_or_refused(text):
    only_spec_errors_escape(text)


@given(st.lists(st.sampled_from(YAML_PIECES), max_size=30).map("".join))
def test_without_libyaml_too(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_yaml, "_Loader", yaml.BaseLoader)
        only_spec_errors_escape(text)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz", max_size=12)
TREES = st.recursive(
    WORDS | st.integers(-(10**30) + 1, 10**30 - 1),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(WORDS, children, max_size=4),
    max_leaves=20,
)


class NoAliases(yaml.SafeDumper):
    """Hypothesis may use one list twice, which PyYAML would write as an alias."""

    def ignore_aliases(self, data):
        return True


@given(TREES, st.booleans())
def test_what_pyyaml_writes_reads_back_equal(tree, flow):
    text = yaml.dump(tree, Dumper=NoAliases, default_flow_style=flow)
    assert parse_yaml(text, "m.yaml").data == tree
