"""A small checkpoint in every form, made once, and copies of it to break."""

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def make():
    """The script that writes the small checkpoint, as a module."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_checkpoint.py"))))


@pytest.fixture(scope="session")
def checkpoints(make, tmp_path_factory):
    """Return the folder of the small checkpoint in a form; it is written when it is first asked for."""
    root, written = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(*, dtype="BF16", shards=1, tied=False):
        form = (dtype, shards, tied)
        if form not in written:
            written[form] = root / f"{dtype.lower()}-{shards}{'-tied' * tied}"
            make.write_checkpoint(written[form], dtype=dtype, shards=shards, tied=tied)
        return written[form]

    return folder


@pytest.fixture(scope="session")
def gguf_files(make, tmp_path_factory):
    """Return the small checkpoint as a GGUF file with matrices of a type."""
    root = tmp_path_factory.mktemp("gguf")

    def path(*, type="F32", tied=False):
        found = root / f"{type.lower()}{'-tied' * tied}.gguf"
        if not found.exists():
            make.write_gguf(found, type=type, tied=tied)
        return found

    return path


@pytest.fixture
def broken(checkpoints, tmp_path):
    """Return a copy of the small checkpoint that a test may change."""

    def folder(**form):
        return Path(shutil.copytree(checkpoints(**form), tmp_path / "broken"))

    return folder
