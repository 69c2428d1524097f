"""The strict JSON reader: what it reads, and each message about what it does not."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.errors import SpecError
from kvplan.specs.document import MAX_JSON_BYTES
from kvplan.specs.strict_json import parse_json, read_json


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_json(text, "config.json")
    lines = caught.value.lines()
    assert all(line.startswith("config.json:") and line.isprintable() for line in lines)
    return [line.removeprefix("config.json:") for line in lines]


VALUES = [
    ("null", None),
    ("true", True),
    ("false", False),
    ("0", 0),
    ("-0", 0),
    ("-131072", -131072),
    ("9" * 30, 10**30 - 1),
    ("-" + "9" * 30, 1 - 10**30),
    ("1.0", 1.0),
    ("-0.5", -0.5),
    ("1e-05", 1e-05),
    ("1E+2", 100.0),
    ("1e300", 1e300),
    ("Infinity", math.inf),
    ('""', ""),
    (r'"\"\\\/\b\f\n\r\t\u00e9"', '"\\/\b\f\n\r\té'),
    (r'"\ud83d\ude00"', "😀"),
    ('"NaN // é😀"', "NaN // é😀"),
    ("[]", []),
    ("{}", {}),
    (" \t\r\n[ 1 ,\n2 ]\n", [1, 2]),
    ('{"a": {"b": [{}, []]}, "": null}', {"a": {"b": [{}, []]}, "": None}),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text[:30] for text, _ in VALUES])
def test_values(text, value):
    read = parse_json(text, "config.json").data
    assert read == value
    assert type(read) is type(value)


EMPTY = '1:1: the file is empty: expected an object such as {"name": 1}'
REFUSED = [
    # limits
    ("[" * 65, ["1:65: nested deeper than 64 levels"]),
    ('{"a":' * 65, ["1:321: nested deeper than 64 levels"]),
    ("[" + "1" * 31 + "]", ["1:2: integer of 31 digits: at most 30 are allowed"]),
    ("-" + "1" * 4999, ["1:1: integer of 4,999 digits: at most 30 are allowed"]),
    # numbers
    ("NaN", ["1:1: 'NaN' is not a finite number"]),
    ("[-Infinity, Infinity]", ["1:2: '-Infinity' is not a finite number"]),
    ("[1e400]", ["1:2: '1e400' is too large for a floating-point number"]),
    ("[01]", ["1:2: '01' is not a number in JSON"]),
    ("[+1]", ["1:2: '+1' is not a number in JSON"]),
    ("[.5]", ["1:2: '.5' is not a number in JSON"]),
    ("[1.]", ["1:2: '1.' is not a number in JSON"]),
    ("[0x1F]", ["1:2: '0x1F' is not a number in JSON"]),
    ("[1_000]", ["1:2: '1_000' is not a number in JSON"]),
    ("[\u0661]", ["1:2: '\u0661' is not JSON: put text in double quotes"]),
    # words
    ("[None, True]", ["1:2: 'None' is not JSON: write null", "1:8: 'True' is not JSON: write true"]),
    ('{"a": bfloat16}', ["1:7: 'bfloat16' is not JSON: put text in double quotes"]),
    ("name: x", ["1:1: 'name' is not JSON: put text in double quotes"]),
    ("<html>", ["1:1: expected a value, found '<'"]),
    # keys
    ('{"a": 1,\n "a": 2}', ["2:2: duplicate key 'a' (first at line 1)"]),
    (r'{"a": 1, "\u0061": 2}', ["1:10: duplicate key 'a' (first at column 2)"]),
    ("{a: 1}", ["1:2: expected a key in double quotes, found 'a'"]),
    ("{1: 2}", ["1:2: expected a key in double quotes, found '1'"]),
    ("{'a': 1}", ["1:2: JSON takes double quotes only"]),
    ('{"a" 1}', ["1:6: expected ':' after the key, found '1'"]),
    ('{"a"', ["1:5: expected ':' after the key, found the end of the file"]),
    ('{"a":}', ["1:6: expected a value, found '}'"]),
    # commas, brackets, the end
    ("[1,]", ["1:3: trailing comma before ']': remove it"]),
    ('{"a": 1,\n}', ["1:8: trailing comma before '}': remove it"]),
    ("[\u00a01]", [r"1:2: expected a value, found '\xa0'"]),
    ("[,]", ["1:2: expected a value, found ','"]),
    ("[1 2]", ["1:4: expected ',' or ']', found '2'"]),
    ('{"a": 1 "b": 2}', ["1:9: expected ',' or '}', found '\"'"]),
    ("[1}", ["1:3: expected ',' or ']', found '}'"]),
    ('{"a": [1', ["1:9: expected ',' or ']', found the end of the file"]),
    ("{", ["1:2: expected a key in double quotes, found the end of the file"]),
    ("[", ["1:2: expected a value, found the end of the file"]),
    ("{} {}", ["1:4: expected the end of the file, found '{'"]),
    ('{}\n"x"', ["2:1: expected the end of the file, found '\"'"]),
    ("1]", ["1:2: expected the end of the file, found ']'"]),
    ("", [EMPTY]),
    (" \r\n\t", [EMPTY]),
    # comments
    ('{\n// one\n"a": 1}', ["2:1: JSON has no comments: remove it"]),
    ("[1 /* one */]", ["1:4: JSON has no comments: remove it"]),
    ("# one\n{}", ["1:1: JSON has no comments: remove it"]),
    # strings
    ('["a', ["1:2: this quote is never closed"]),
    ('["a\nb"]', [r"1:4: line break or tab inside a string: close the quote, or write \n or \t"]),
    (r'["\x41"]', [r"1:3: unknown escape: write \\ for a backslash"]),
    (r'["\u12"]', [r"1:4: unknown escape: \u takes four hexadecimal digits"]),
    ("['a']", ["1:2: JSON takes double quotes only"]),
    (r'["\ud800"]', [r"1:2: text '\ud800' holds half of a surrogate pair"]),
    (r'["\ude00\ud83d"]', [r"1:2: text '\ude00\ud83d' holds half of a surrogate pair"]),
    (r'{"\udfff": 1}', [r"1:2: key '\udfff' holds half of a surrogate pair"]),
    # characters
    ('["\x00"]', ["1:3: NUL byte: this is not a text file"]),
    ('["\x1b"]', ["1:3: unprintable character U+001B: remove it"]),
    ("\ufeff{}", ["1:1: unprintable character U+FEFF: remove it"]),
    ('"\ud800"', ["1:2: unprintable character U+D800: remove it"]),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[repr(text[:30]) for text, _ in REFUSED])
def test_refused(text, expected):
    assert mistakes(text) == expected


def test_all_mistakes_are_reported_in_the_order_of_the_file():
    text = r"""{
  "rope": {"theta": NaN, "theta": 1},
  "size": 1000000000000000000000000000000,
  "eps": 1e999, "\ud800": True,
  "rope": {"theta": "\udc00"},
}"""
    assert mistakes(text) == [
        "2:21: 'NaN' is not a finite number",
        "2:26: duplicate key 'theta' (first at column 12)",
        "3:11: integer of 31 digits: at most 30 are allowed",
        "4:10: '1e999' is too large for a floating-point number",
        r"4:17: key '\ud800' holds half of a surrogate pair",
        "4:27: 'True' is not JSON: write true",
        "5:3: duplicate key 'rope' (first at line 2)",
        r"5:21: text '\udc00' holds half of a surrogate pair",
        "5:30: trailing comma before '}': remove it",
    ]


def test_no_more_than_forty_characters_of_the_file_are_repeated():
    key, cut = json.dumps("k" * 500), "'" + "k" * 37 + "...'"
    assert mistakes(f"{{{key}: 1,\n{key}: 2}}") == [f"2:1: duplicate key {cut} (first at line 1)"]
    assert mistakes("[" + "k" * 500) == [
        f"1:2: {cut} is not JSON: put text in double quotes",
        "1:502: expected ',' or ']', found the end of the file",
    ]
    assert mistakes("{" + "k" * 500) == [f"1:2: expected a key in double quotes, found {cut}"]


def test_messages_hold_no_control_characters():
    assert mistakes(r'{"\u001b[31m\n": 1, "\u001b[31m\n": 2}') == [
        r"1:21: duplicate key '\x1b[31m\n' (first at column 2)"
    ]


def test_the_pass_stops_after_a_hundred_mistakes():
    lines = mistakes("[" + "NaN,\n" * 5000)
    assert len(lines) == 101
    assert lines[0] == "1:2: 'NaN' is not a finite number"
    assert lines[-1] == "100:1: stopped here, after 100 mistakes"


def test_64_levels_and_200_000_values_are_read():
    assert str(parse_json("[" * 64 + "]" * 64, "config.json").data) == "[" * 64 + "]" * 64
    assert parse_json(json.dumps([1] * 199_999), "config.json").data == [1] * 199_999
    assert mistakes("[1" + ",\n1" * 199_999 + "]") == ["200000:1: more than 200,000 values in one file"]


def test_50_000_values_are_read_however_deep_they_are():
    # The lists themselves are 63 of the values.
    deep = "[" * 63 + "1" + ",1" * 49_936 + "]" * 63
    assert parse_json(deep, "config.json").data
    line = mistakes(deep.replace("1]", "1,\n1]", 1))
    assert line == ["2:1: more than 50,000 values in one file, nested this deep"]


HOSTILE = {
    "brackets": ("[" * 100_000, "1:65: nested deeper than 64 levels"),
    "closed brackets": ("[" * 100_000 + "]" * 100_000, "1:65: nested deeper than 64 levels"),
    "objects": ('{"a":' * 50_000, "1:321: nested deeper than 64 levels"),
    "digits": ("[" + "1" * 1_000_000 + "]", "1:2: integer of 1,000,000 digits: at most 30 are allowed"),
    "exponent": (
        "1" + "0" * 1_000_000 + "e1",
        f"1:1: '1{'0' * 36}...' is too large for a floating-point number",
    ),
    "items": ("[" * 63 + "1," * 500_000, "1:99938: more than 50,000 values in one file, nested this deep"),
    "keys": (
        "{" + ",".join(f'"{i}":0' for i in range(300_000)),
        "1:2088890: more than 200,000 values in one file",
    ),
    "duplicates": ("{" + '"":0,' * 200_000, "1:7: duplicate key '' (first at column 2)"),
    "line breaks": ("\n" * 1_000_000, EMPTY),
    "backslashes": ('"' + "\\" * 1_000_000, "1:1: this quote is never closed"),
}


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.timeout(20)
def test_hostile_texts_are_refused_at_once(text, expected):
    assert mistakes(text)[0] == expected


def test_read_json(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a":\r\n 8}\r\n')
    document = read_json(path)
    assert document.path == str(path)
    assert document.data == {"a": 8}
    assert document.place(("a",)) == (2, 2)


@pytest.mark.timeout(20)
def test_read_json_refuses_a_file_over_8_mib(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"[" + b" " * (MAX_JSON_BYTES - 1) + b"]")
    with pytest.raises(SpecError) as caught:
        read_json(path)
    assert caught.value.lines() == (f"{path}:1:1: the file is larger than 8 MiB (8,388,608 bytes)",)


def test_places():
    text = '{\n  "é" : "ü", "b": [1,\r\n -2.5,\r{"c":null}] }'
    document = parse_json(text, "config.json")
    assert document.key_places == {("é",): (2, 3), ("b",): (2, 14), ("b", 2, "c"): (4, 2)}
    assert document.value_places == {
        (): (1, 1),
        ("é",): (2, 9),
        ("b",): (2, 19),
        ("b", 0): (2, 20),
        ("b", 1): (3, 2),
        ("b", 2): (4, 1),
        ("b", 2, "c"): (4, 6),
    }


JSON_PIECES = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"',
    "\\",
    "u",
    "d800",
    "a",
    '"a"',
    "1",
    "-",
    ".",
    "e",
    " ",
    "\n",
]
JSON_PIECES += ["null", "true", "NaN", "-Infinity", "//", "'", "\t"]


@given(st.text() | st.lists(st.sampled_from(JSON_PIECES), max_size=30).map("".join))
def test_any_text_is_read_or_refused(text):
    try:
        document = parse_json(text, "config.json")
    except SpecError as error:
        for line in error.lines():
            assert line.isprintable()
            assert len(line) < 200
    else:
        assert document.data == json.loads(text)


@given(st.lists(st.sampled_from(JSON_PIECES), max_size=12).map("".join))
def test_what_the_standard_library_refuses_is_refused(text):
    try:
        json.loads(text)
    except ValueError:
        assert mistakes(text)


# Lone surrogates are refused; Hypothesis draws none unless asked to.
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30) + 1, 10**30 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(TREES, st.sampled_from([None, 0, 3]))
def test_what_the_standard_library_writes_reads_back_equal(tree, indent):
    assert parse_json(json.dumps(tree, indent=indent), "config.json").data == tree


def walk(tree, path=()):
    yield path, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in items:
        yield from walk(child, (*path, key))


@given(TREES, st.sampled_from([None, 0, 3]))
def test_places_point_at_the_values_and_keys(tree, indent):
    text = json.dumps(tree, indent=indent)
    lines = text.split("\n")
    document = parse_json(text, "config.json")

    def rest_from(place):
        return "\n".join([lines[place[0] - 1][place[1] - 1 :], *lines[place[0] :]])

    nodes = dict(walk(tree))
    assert document.value_places.keys() == nodes.keys()
    assert document.key_places.keys() == {path for path in nodes if path and isinstance(path[-1], str)}
    for path, place in document.value_places.items():
        assert json.JSONDecoder().raw_decode(rest_from(place))[0] == nodes[path]
    for path, place in document.key_places.items():
        assert json.JSONDecoder().raw_decode(rest_from(place))[0] == path[-1]
    # No two nodes may share a place: equal values elsewhere would pass for the right ones.
    assert len(set(document.value_places.values())) == len(nodes)
