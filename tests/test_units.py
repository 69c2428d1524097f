"""Sizes as people type them and read them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.units import GB, GIB, LARGEST_COUNT, ceil_div, gib, minimum, parse_bytes, parse_count, short_count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("8192", 8_192),
        ("0008", 8),
        ("4k", 4_096),
        ("4K", 4_096),
        ("32Ki", 32_768),
        ("1M", 1_048_576),
        ("1mi", 1_048_576),
        ("1.5k", 1_536),
        ("0.5M", 524_288),
        ("0.25k", 256),
        ("1048576M", LARGEST_COUNT),
        ("2.000000", 2),
    ],
)
def test_counts(text, expected):
    assert parse_count(text) == expected


NO_COUNT = [
    "",
    " ",
    "k",
    "4q",
    "4kk",
    "4 k",
    "-1",
    "+1",
    "1e3",
    "1,000",
    "1_000",
    "0x10",
    ".5k",
    "1.",
    "1..2",
    "٤",
    "nan",
]


@pytest.mark.parametrize("text", [*NO_COUNT, "9" * 16, "1.1234567k", "4k\n"])
def test_what_is_no_count(text):
    with pytest.raises(ValueError, match="is not a count such as 8192, 4k or 1M"):
        parse_count(text)


@pytest.mark.parametrize("text", ["1.5", "0.1k", "1.0001M"])
def test_counts_are_whole(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a whole number"):
        parse_count(text)


@pytest.mark.parametrize("text", ["0", "0k", "1048577M", "999999999999999"])
def test_counts_have_a_range(text):
    with pytest.raises(ValueError, match=f"'{text}' is out of range: expected 1 to 1,099,511,627,776"):
        parse_count(text)


def test_a_range_of_its_own():
    assert parse_count("64", 64) == 64
    with pytest.raises(ValueError, match="'65' is out of range: expected 1 to 64"):
        parse_count("65", 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("7B", 7),
        ("2GB", 2 * GB),
        ("2gb", 2 * GB),
        ("1.5GiB", 3 * GIB // 2),
        ("512MiB", 512 << 20),
        ("0.5kB", 500),
        ("1KiB", 1_024),
        ("2MB", 2_000_000),
    ],
)
def test_bytes(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", [*NO_COUNT[3:], "5XB", "1TB", "GiB", "1.5 GiB", "1GiBs"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"is not a size such as 1\.5GiB, 512MiB or 2GB"):
        parse_bytes(text)


def test_bytes_are_whole():
    with pytest.raises(ValueError, match=r"'1\.5' is not a whole number of bytes"):
        parse_bytes("1.5")


@pytest.mark.parametrize("parse", [parse_count, parse_bytes])
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_short_line(parse, text):
    try:
        read = parse(text)
    except ValueError as error:
        complaint = str(error)
    else:
        complaint = ""
        assert read >= 0
    assert len(complaint) < 400
    assert complaint.isprintable()


@given(st.integers(1, LARGEST_COUNT))
def test_what_is_read_reads_back(count):
    assert parse_count(short_count(count).replace(",", "")) == count


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "1"),
        (1_000, "1,000"),
        (1_024, "1k"),
        (4_096, "4k"),
        (131_072, "128k"),
        (1 << 20, "1M"),
        (1_025, "1,025"),
    ],
)
def test_short_count(count, expected):
    assert short_count(count) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0.00"),
        (GIB, "1.00"),
        (GIB // 100, "0.01"),
        (1 << 20, "0.00098"),
        (1, "9.3e-10"),
        (1500 * GIB, "1,500.00"),
    ],
)
def test_gib_never_shows_nothing_for_something(size, expected):
    assert gib(size) == expected


@given(st.integers(0, 10**30), st.integers(1, 10**9))
def test_ceil_div(count, divisor):
    assert (ceil_div(count, divisor) - 1) * divisor < count <= ceil_div(count, divisor) * divisor


def test_minimum_of_numbers_and_arrays():
    assert minimum(3, 2) == 2
    assert minimum(np.array([1, 5]), 3).tolist() == [1, 3]
    assert minimum(3, np.array([1, 5])).tolist() == [1, 3]
