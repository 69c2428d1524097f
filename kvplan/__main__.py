"""``python -m kvplan`` and the ``kvplan`` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; ``--version`` is answered before anything heavy is imported."""
    if sys.argv[1:2] in (["--version"], ["-V"]):
        from kvplan import __version__

        print(f"kvplan {__version__}")
        return 0
    from kvplan.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
