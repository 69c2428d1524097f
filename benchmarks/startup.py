"""Time whole processes: what a person waits for after pressing return.

    python benchmarks/startup.py [--runs N]

The commands take turns, so that a slow moment of the machine meets all of them. ``python -c pass`` is
the floor no Python command can be under.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

KVPLAN = (sys.executable, "-m", "kvplan")
LLAMA = ("llama-3.1-8b", "--gpu", "h100-sxm")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "kvplan --version": (*KVPLAN, "--version"),
    "kvplan --help": (*KVPLAN, "--help"),
    "kvplan capacity llama-3.1-8b --gpu h100-sxm": (*KVPLAN, "capacity", *LLAMA),
    "kvplan roofline llama-3.1-8b --gpu h100-sxm": (*KVPLAN, "roofline", *LLAMA),
    "kvplan compare llama-3.1-8b --gpu h100-sxm": (*KVPLAN, "compare", *LLAMA),
    "the same with --no-measure": (*KVPLAN, "compare", *LLAMA, "--no-measure"),
}


def seconds(command: tuple[str, ...]) -> float:
    """Run a command to its end and return how long that took."""
    start = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - start


def main() -> None:
    """Print the median, the least and the most of each command's runs."""
    parser = argparse.ArgumentParser(description="time whole kvplan processes")
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    for command in COMMANDS.values():
        seconds(command)  # compiles what is not compiled yet
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            found[name].append(seconds(command))
    print(f"whole processes, {runs} runs in turns    median       least .. most")
    for name, times in found.items():
        line = f"{median(times) * 1e3:>7.0f} ms {min(times) * 1e3:>7.0f} .. {max(times) * 1e3:.0f} ms"
        print(f"{name:<44} {line}")


if __name__ == "__main__":
    main()
