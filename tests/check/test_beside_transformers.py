"""Logits of another implementation: how it is asked, and what is told where it is not there or fails."""

import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvplan.check import beside_transformers as module
from kvplan.check.beside_transformers import BesideTransformers, beside_transformers

TOKENS = np.array([3, 1, 2])
LOGITS = np.arange(12, dtype=np.float32).reshape(3, 4)


class Tensor:
    """As much of a tensor as is used."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, index):
        return Tensor(self.array[index])

    def float(self):
        return self

    def numpy(self):
        return self.array


class Library:
    """What stands for torch and transformers: notes how a model is loaded, and returns these logits."""

    def __init__(self, logits, error=None):
        self.logits, self.error = logits, error
        self.loaded, self.read, self.environment, self.verbosity = [], [], {}, [30]

    def import_module(self, name):
        self.environment = dict(os.environ)
        if name == "torch":
            return SimpleNamespace(float32="float32", from_numpy=Tensor, inference_mode=self.inference_mode)
        logging = SimpleNamespace(
            CRITICAL=50, get_verbosity=lambda: self.verbosity[-1], set_verbosity=self.verbosity.append
        )
        return SimpleNamespace(
            __version__="9.9",
            utils=SimpleNamespace(logging=logging),
            AutoModelForCausalLM=SimpleNamespace(from_pretrained=self.from_pretrained),
        )

    def inference_mode(self):
        return warnings.catch_warnings()

    def from_pretrained(self, folder, **options):
        self.loaded.append((folder, options))
        if self.error is not None:
            raise self.error
        return self

    def eval(self):
        return self

    def __call__(self, tokens, use_cache):
        assert not use_cache
        self.read.append(tokens.array)
        return SimpleNamespace(logits=Tensor(self.logits[None]))


@pytest.fixture
def library(monkeypatch):
    """A function that installs a library with these logits, or this error."""

    def install(logits=LOGITS, error=None):
        made = Library(logits, error)
        monkeypatch.setattr(module, "import_module", made.import_module)
        return made

    return install


def test_the_largest_difference_of_any_logit(library):
    theirs = LOGITS.copy()
    theirs[0, 3] += 0.25
    theirs[2, 1] -= 0.5
    used = library(theirs)
    assert beside_transformers(Path("m.gguf"), TOKENS, LOGITS) == BesideTransformers(0.5, "transformers 9.9")
    assert [read.tolist() for read in used.read] == [[[3, 1, 2]]]


def test_a_folder_is_loaded_from_the_disk_alone_in_float32(library, tmp_path):
    used = library()
    assert beside_transformers(tmp_path, TOKENS, LOGITS).difference == 0
    safe = {"dtype": "float32", "local_files_only": True, "trust_remote_code": False}
    assert used.loaded == [(tmp_path, safe)]
    assert used.verbosity == [30, 50, 30]


@pytest.mark.parametrize(("name", "more"), [("a.gguf", {"gguf_file": "a.gguf"}), ("model.safetensors", {})])
def test_a_file_is_loaded_from_its_folder(name, more, library, tmp_path):
    used = library()
    beside_transformers(tmp_path / name, TOKENS, LOGITS)
    ((folder, options),) = used.loaded
    assert folder == tmp_path
    assert {key: value for key, value in options.items() if key == "gguf_file"} == more


def test_it_is_kept_from_the_network_and_the_environment_is_then_as_before(library, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    used = library()
    beside_transformers(Path("m.gguf"), TOKENS, LOGITS)
    assert (used.environment["HF_HUB_OFFLINE"], used.environment["TQDM_DISABLE"]) == ("1", "1")
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert "TQDM_DISABLE" not in os.environ


def test_where_it_is_not_installed(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(module, "import_module", missing)
    found = beside_transformers(Path("m.gguf"), TOKENS, LOGITS)
    assert found == BesideTransformers(None, "torch is not installed")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no family\n  named\x1b 'new'"), "it says: no family named\\x1b 'new'"),
        (KeyError(), "it says: KeyError"),
        (RuntimeError("x" * 900), f"it says: {'x' * 200}"),
    ],
)
def test_what_it_cannot_load_is_a_reason_in_one_line(error, told, library):
    library(error=error)
    assert beside_transformers(Path("m.gguf"), TOKENS, LOGITS) == BesideTransformers(None, told)


def test_another_vocabulary_is_a_difference(library):
    library(LOGITS[:, :3])
    found = beside_transformers(Path("m.gguf"), TOKENS, LOGITS)
    assert found == BesideTransformers(float("inf"), "transformers 9.9 has logits of 3 tokens")


def test_no_other_file_of_the_package_imports_them():
    package = Path(module.__file__).parents[1]
    importing = [
        path.name
        for path in package.rglob("*.py")
        if any(
            word in path.read_text(encoding="utf-8")
            for word in ('"torch"', "import torch", "import transformers")
        )
    ]
    assert importing == ["beside_transformers.py"]
