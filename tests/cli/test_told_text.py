"""A text and a line of progress share a terminal: one of them at a time."""

import pytest

from kvplan.cli import told_text as module
from kvplan.cli.told_text import ToldText


class Screen:
    """A terminal on which both are noted in their order."""

    def __init__(self):
        self.seen = []

    def stop(self):
        self.seen.append("line gone")

    def __call__(self, doing):
        self.seen.append(f"line: {doing}")

    def put(self, text, output):
        assert output is None
        self.seen.append(text)


@pytest.fixture
def screen(monkeypatch):
    made = Screen()
    monkeypatch.setattr(module, "put", made.put)
    return made


def test_the_line_goes_before_the_text_and_comes_back_below_it(screen):
    told = ToldText(screen)
    told.step("reading")
    told.add("some")
    told.add(" text")
    told.step("comparing")
    told.step("measuring")
    told.end()
    assert screen.seen == [
        "line: reading",
        *("line gone", "some", "line gone", " text"),
        "\n\n",
        *("line: comparing", "line: measuring"),
    ]


@pytest.mark.parametrize(("piece", "end"), [("text", "\n\n"), ("text\n", "\n")])
def test_one_line_is_left_free(piece, end, screen):
    told = ToldText(screen)
    told.add(piece)
    told.end()
    told.end()
    assert screen.seen == ["line gone", piece, end]


def test_no_text_leaves_nothing(screen):
    told = ToldText(screen)
    told.add("")
    told.end()
    assert screen.seen == []
