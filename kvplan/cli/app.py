"""The command line as a whole: commands, errors, exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from kvplan import __version__
from kvplan.cli import (
    capacity,
    check,
    compare,
    gpus,
    models,
    plot,
    plot_all,
    quality,
    roofline,
    schema,
    simulate,
)
from kvplan.cli.commands import Commands
from kvplan.cli.streams import say, say_error
from kvplan.errors import ExitStatus, KvplanError, UsageError

app = typer.Typer(
    name="kvplan",
    cls=Commands,
    help="Memory and roofline planner for LLM inference.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(capacity.capacity)
app.command()(roofline.roofline)
app.command()(compare.compare)
app.command()(simulate.simulate)
app.command()(quality.quality)
app.command()(plot.plot)
app.command("plot all")(plot_all.plot_all)
app.command()(check.check)
app.add_typer(models.app, name="models")
app.add_typer(gpus.app, name="gpus")
app.command()(schema.schema)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"kvplan {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", callback=_show_version)
    ] = False,
) -> None:
    """Plan memory for LLM inference: what fits on which GPU, how long a context, how many requests."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; nothing but a bug leaves a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        refuse_empty(given)
        status = _run(with_bare_explain(given))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        say("interrupted")
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return ExitStatus.BROKEN_PIPE
    except KvplanError as error:
        _debug(given)
        say_error(error)
        _drop_unwritten()
        return error.exit_status
    except OSError as error:
        _debug(given)
        what = f"use {error.filename!r}" if error.filename else "write to standard output"
        say(f"error: cannot {what}: {(error.strerror or 'refused').lower()}")
        _drop_unwritten()
        return ExitStatus.FILE
    except Exception as error:  # noqa: BLE001 - a bug: nothing a person typed may end in a traceback
        _debug(given)
        what = f"{type(error).__name__}: {str(error)[:200]}"
        say(f"error: internal error: {what}   (--debug shows where; please report it)")
        return ExitStatus.INTERNAL


def _run(arguments: list[str]) -> int:
    try:
        status = app(arguments, standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as stop:  # typer's own answer to a reader that went away
        if stop.code == 1:
            raise BrokenPipeError from None
        return stop.code if isinstance(stop.code, int) else ExitStatus.SUCCESS
    except typer.TyperException as error:
        message = error.format_message().removesuffix(".")
        if message.startswith("Usage: "):  # a command group without a command: its help is the answer
            for line in message.splitlines():
                say(line)
            return ExitStatus.USAGE
        say(f"error: {message[:1].lower()}{message[1:]}   (kvplan --help)")
        return ExitStatus.USAGE
    if status == ExitStatus.INTERRUPTED:  # what typer makes of an interrupt
        raise KeyboardInterrupt
    return status if isinstance(status, int) else ExitStatus.SUCCESS


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument: a shell variable that is not set must not read as an option left out.

    Raises:
        UsageError: there is one.
    """
    for index, argument in enumerate(arguments):
        if argument == "":
            before = arguments[index - 1] if index else ""
            what = f"the value of {before[:40]}" if before.startswith("-") else f"argument {index + 1}"
        elif argument.startswith("--") and argument.endswith("="):
            what = f"the value of {argument[:-1][:40]}"
        else:
            continue
        raise UsageError(f"{what} is empty", hint="is a shell variable not set?")


def with_bare_explain(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--explain`` without a figure written as ``--explain all``."""
    completed = []
    for index, argument in enumerate(arguments):
        completed.append(argument)
        following = arguments[index + 1] if index + 1 < len(arguments) else "-"
        if argument == "--explain" and following.startswith("-"):
            completed.append("all")
    return completed


def _debug(arguments: Sequence[str]) -> None:
    if "--debug" in arguments:
        traceback.print_exc()


def _drop_unwritten() -> None:
    """Give up what standard output still holds if it cannot be written: the error has been told."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _silence_stdout()


def _silence_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
