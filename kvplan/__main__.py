"""``python -m kvplan`` and the ``kvplan`` command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys


def main() -> int:
    """Run the command line; ``--version`` is answered before anything heavy is imported."""
    if sys.argv[1:2] in (["--version"], ["-V"]):
        from kvplan import __version__

        with contextlib.suppress(OSError):  # the whole command line knows how to say it
            print(f"kvplan {__version__}", flush=True)
            return 0
    _start_fast()
    try:
        from kvplan.cli.app import main as run
    except KeyboardInterrupt:
        return 130
    status = run()
    gc.freeze()  # What is left goes with the process; to search it for cycles took a quarter of a short run.
    return status


def _start_fast() -> None:
    """Spare a short-lived process what only a long-lived one needs: frequent garbage collection and plugins.

    pydantic would look through every installed distribution for plugins; kvplan uses none.
    """
    gc.set_threshold(100_000, 50, 50)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


if __name__ == "__main__":
    sys.exit(main())
