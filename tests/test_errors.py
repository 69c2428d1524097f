"""Errors as values: what each means to the shell, how it reads, and the names it suggests."""

import pytest

from kvplan.engine.block_pool import OutOfBlocks
from kvplan.errors import (
    ExitStatus,
    FileError,
    KvplanError,
    Problem,
    SpecError,
    UsageError,
    did_you_mean,
    unknown,
)


def every_error_class(base=KvplanError):
    return [base, *(found for below in base.__subclasses__() for found in every_error_class(below))]


def test_every_error_class_is_known_here():
    assert set(every_error_class()) == {KvplanError, UsageError, SpecError, FileError, OutOfBlocks}


def test_each_status_is_what_shells_and_sysexits_use():
    assert {status.name: int(status) for status in ExitStatus} == {
        "SUCCESS": 0,
        "ANSWER_IS_NO": 1,
        "USAGE": 2,
        "FILE": 3,
        "INTERNAL": 70,
        "INTERRUPTED": 130,
        "BROKEN_PIPE": 141,
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), ExitStatus.USAGE),
        (SpecError([Problem("f", 1, 1, "x")]), ExitStatus.USAGE),
        (FileError("x"), ExitStatus.FILE),
    ],
)
def test_status_of_each_class(error, status):
    assert error.exit_status is status


def test_a_hint_ends_the_line():
    assert UsageError("wrong").lines() == ("wrong",)
    assert UsageError("wrong", hint="try this").lines() == ("wrong   (try this)",)


def test_problems_are_told_in_the_order_of_the_file():
    problems = [
        Problem("f", 10, 1, "c"),
        Problem("f", 2, 9, "b"),
        Problem("f", 2, 1, "a"),
        Problem("e", 99, 1, "z"),
    ]
    error = SpecError(problems, hint="fix them")
    assert error.lines() == ("e:99:1: z", "f:2:1: a", "f:2:9: b", "f:10:1: c   (fix them)")
    assert str(error) == "e:99:1: z\nf:2:1: a\nf:2:9: b\nf:10:1: c"


@pytest.mark.parametrize(
    ("wrong", "known", "expected"),
    [
        ("slidng", ["full", "sliding"], "did you mean sliding?"),
        ("FULL", ["full", "sliding"], "did you mean full?"),
        ("full", ["Full"], "did you mean Full?"),
        ("abcd", ["abce", "abcf", "abcg", "abch"], "did you mean abch, abcg, abcf?"),
        ("zzz", ["full", "sliding"], ""),
        ("", ["full"], ""),
        ("full", [], ""),
        ("x" * 1_000_000, ["full"], ""),
        ("sliding" + "x" * 1_000_000, ["sliding"], ""),
    ],
    ids=lambda value: str(value)[:20],
)
def test_did_you_mean(wrong, known, expected):
    assert did_you_mean(wrong, known) == expected


def test_unknown_suggests_what_is_close():
    assert unknown("colour", "reed", ["red", "blue"]).message == "no colour named 'reed'. Did you mean red?"


def test_unknown_lists_a_few_words_where_none_is_close():
    assert (
        unknown("colour", "zzz", ["red", "blue"]).message
        == "no colour named 'zzz'; expected one of red, blue"
    )


def test_unknown_does_not_list_hundreds():
    error = unknown("name", "zzz", [f"word{number}" for number in range(500)], see="list them")
    assert error.lines() == ("no name named 'zzz'   (list them)",)


@pytest.mark.parametrize("wrong", ["x" * 10_000, "\x1b[31m", "a\nb", "\udcff", "é" * 100])
def test_unknown_is_one_short_line_whatever_was_typed(wrong):
    (line,) = unknown("name", wrong, ["word"] * 500).lines()
    assert len(line.replace("\\u", "").replace("\\x", "")) < 400
    assert line.isprintable()
