"""Progress of long runs: who sees it, when, and what is left of it."""

import io
import re
import sys

import pytest

from kvplan.cli import progress as module
from kvplan.cli.progress import progress


class Screen(io.StringIO):
    """What stands for standard error."""

    def __init__(self, terminal, encoding="utf-8"):
        super().__init__()
        self.terminal = terminal
        self.named = encoding

    def isatty(self):
        return self.terminal

    @property
    def encoding(self):
        return self.named


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return now


def told(monkeypatch, clock, *, terminal=True, quiet=False, waits=(0.5, 0.6, 0.1)):
    """What standard error receives of a run whose steps take so long each."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(quiet=quiet) as steps:
        for number, wait in enumerate(waits):
            clock[0] += wait
            steps(f"[bold]step {number}")
    return screen.getvalue()


def test_a_long_run_is_told_on_a_terminal(monkeypatch, clock):
    text = told(monkeypatch, clock)
    assert "[bold]step 1, step 2" in text, "counted from the first, and no markup"
    assert "[bold]step 2, step 3" in text
    assert "step 0," not in text, "before a second has passed"


def test_the_time_is_that_of_the_whole_run(monkeypatch, clock):
    assert "0:01:02" in told(monkeypatch, clock, waits=(62.0,))


def test_nothing_is_left_of_it(monkeypatch, clock):
    text = told(monkeypatch, clock)
    assert re.search(r"\x1b\[2K[^ ]*$", text), "the line is not taken away"
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def test_the_line_comes_back_after_it_was_taken_away(monkeypatch, clock):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(quiet=False) as steps:
        clock[0] += 2
        steps("reading")
        steps.stop()
        between = screen.getvalue()
        assert re.search(r"\x1b\[2K[^ ]*$", between)
        steps("comparing")
        assert "comparing, step 2" in screen.getvalue()[len(between) :]
    assert re.search(r"\x1b\[2K[^ ]*$", screen.getvalue())


@pytest.mark.parametrize(
    "options",
    [{"waits": (0.3, 0.3, 0.3)}, {"quiet": True}, {"terminal": False}, {"waits": ()}],
    ids=["short", "quiet", "no terminal", "no steps"],
)
def test_nobody_else_sees_anything(options, monkeypatch, clock):
    assert told(monkeypatch, clock, **options) == ""


def test_no_standard_error_at_all(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", None)
    with progress(quiet=False) as steps:
        clock[0] += 2
        steps("running")


def test_a_terminal_that_shows_ascii_alone(monkeypatch, clock):
    screen = Screen(terminal=True, encoding="ascii")
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(quiet=False) as steps:
        clock[0] += 2
        steps("modèle: running")
    assert "mod?le: running, step 1" in screen.getvalue()
    assert screen.getvalue().isascii()


def test_an_error_takes_it_away_too(monkeypatch, clock):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)

    def fail():
        with progress(quiet=False) as steps:
            clock[0] += 2
            steps("running")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert re.search(r"\x1b\[2K[^ ]*$", screen.getvalue())


def test_a_simulation_tells_its_steps(monkeypatch, clock, command):
    """Every step takes three seconds here; standard output has the answer alone."""
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)

    def slow():
        clock[0] += 3
        return clock[0]

    monkeypatch.setattr(module, "monotonic", slow)
    tiny = ("--layers", "1", "--hidden", "32", "--prompt-tokens", "8", "--tokens", "2", "--batch", "1")
    status, out, _ = command("simulate", "gpt2", *tiny)
    assert status == 0
    assert out.startswith("gpt2 scaled down to ")
    assert "\x1b[?25l" not in out
    assert "running, step 1" in screen.getvalue()
    assert "measuring this machine, " in screen.getvalue()
