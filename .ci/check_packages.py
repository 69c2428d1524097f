"""Check that every way of installing kvplan carries all its data: each lists the specs and quotes prices."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What reads a model, an accelerator and the measured prices.
QUESTION = ["compare", "llama-3.1-8b", "--gpu", "h100-sxm", "--only", "--with", "kv=fp8"]


def run(*command: str | Path) -> str:
    """Return what a command prints, and stop where it fails."""
    # Outside the tree, so that nothing is imported from it by accident.
    return subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, cwd=tempfile.gettempdir()
    ).stdout


def build(target: str, source: Path, folder: Path) -> Path:
    """Build one package and return its file."""
    run(sys.executable, "-m", "build", f"--{target}", "--outdir", folder, source)
    (found,) = folder.iterdir()
    return found


def unpacked(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist and return its folder."""
    run(sys.executable, "-c", "import shutil, sys; shutil.unpack_archive(*sys.argv[1:])", sdist, folder)
    (found,) = folder.iterdir()
    return found


def check(name: str, *install: str | Path) -> str:
    """Install into a fresh environment, check what it lists, and return its answer."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", *install)
        for kind in ("models", "gpus"):
            listed = json.loads(run(python, "-m", "kvplan", kind, "list", "--json"))[kind]
            expected = sorted(path.stem for path in (ROOT / kind).glob("*.yaml"))
            assert [row["name"] for row in listed] == expected, f"{name}: {kind} are not all there"
        answer = run(python, "-m", "kvplan", *QUESTION)
    print(f"{name}: every spec is there, and it answers")
    return answer


def main() -> None:
    """Check the three ways of installing; all must give the same answer."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for part in ("wheel", "sdist", "unpacked", "again"):
            (top / part).mkdir()
        wheel = build("wheel", ROOT, top / "wheel")
        source = unpacked(build("sdist", ROOT, top / "sdist"), top / "unpacked")
        again = build("wheel", source, top / "again")
        answers = {
            check("wheel from the tree", wheel),
            check("wheel from the sdist", again),
            check("editable", "-e", ROOT),
        }
    assert len(answers) == 1, "the three installs answer differently"


if __name__ == "__main__":
    main()
