"""Where models and accelerators are found, which of several wins, and what a name may be."""

import os
import shutil
from pathlib import Path

import pytest

from kvplan.errors import FileError, SpecError, UsageError
from kvplan.plan.weights import parameter_count
from kvplan.specs.catalog import (
    Found,
    bundled_folder,
    digest,
    find,
    find_gpu,
    find_model,
    load_gpu,
    load_model,
    name_from,
    names,
)

CONFIG = Path(__file__).parent.parent / "data" / "hf_configs" / "llama-3.1-8b.json"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Keep the machine's own settings out, and start in an empty folder."""
    monkeypatch.delenv("KVPLAN_SPECS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def place(folder, name, kind="models", like="gpt2"):
    """Put a copy of a bundled file into a specs folder under another name."""
    path = folder / kind / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(bundled_folder() / kind / f"{like}.yaml", path)
    return path


# Which of several wins


def test_the_search_path_from_first_to_last(tmp_path, monkeypatch):
    bundled = find_model("gpt2")
    assert (bundled.label, bundled.shadows) == ("bundled:models/gpt2.yaml", False)

    user = place(tmp_path / "config" / "kvplan", "gpt2")
    assert find_model("gpt2") == Found(str(user), user, shadows=True)

    project = place(tmp_path / "project", "gpt2")
    Path("kvplan.toml").write_text(f'specs = "{tmp_path / "project"}"\n')
    assert find_model("gpt2").path == project

    variable = place(tmp_path / "variable", "gpt2")
    monkeypatch.setenv("KVPLAN_SPECS", str(tmp_path / "variable"))
    assert find_model("gpt2").path == variable

    asked = place(tmp_path / "asked", "gpt2")
    assert find_model("gpt2", tmp_path / "asked").path == asked
    assert names("models", tmp_path / "asked")["gpt2"] == Found(str(asked), asked, shadows=True)


def test_a_name_of_ones_own_is_listed_with_the_bundled_ones(tmp_path):
    mine = place(tmp_path, "mine")
    found = names("models", tmp_path)
    assert found["mine"] == Found(str(mine), mine)
    assert list(found) == sorted(found)
    assert len(found) == len(names("models")) + 1


def test_models_and_accelerators_are_apart(tmp_path):
    place(tmp_path, "mine")
    assert "mine" not in names("gpus", tmp_path)
    with pytest.raises(UsageError):
        find_gpu("mine", tmp_path)


def test_a_folder_of_models_in_the_current_folder_is_not_looked_into():
    place(Path("."), "mine")
    with pytest.raises(UsageError):
        find_model("mine")


def test_suggestions_come_from_the_whole_path(tmp_path):
    place(tmp_path, "my-own-model")
    with pytest.raises(UsageError, match=r"Did you mean my-own-model\?"):
        find_model("my-own-modl", tmp_path)
    with pytest.raises(FileError) as caught:
        find_model("./my-own-modl.yaml", tmp_path)
    assert caught.value.hint == "did you mean my-own-model?"


# What a name may be


@pytest.mark.parametrize("stem", ["Capital", "-dash", ".hidden", "a b", "é", "x" * 65])
def test_files_whose_names_are_none_are_left_out(stem, tmp_path):
    place(tmp_path, stem)
    assert stem not in names("models", tmp_path)
    with pytest.raises(UsageError):
        find("models", "model", stem, tmp_path)


@pytest.mark.parametrize("stem", ["a", "7b", "a.b_c-d", "x" * 64])
def test_files_whose_names_are_names_are_found(stem, tmp_path):
    place(tmp_path, stem)
    assert stem in names("models", tmp_path)
    assert find_model(stem, tmp_path).path.stem == stem


@pytest.mark.parametrize("name", ["..", ".", "a\0b", "*", "?", "[a]", "~root", "$HOME", "a\nb", ""])
def test_what_cannot_be_a_name_touches_no_disk_by_it(name, tmp_path, monkeypatch):
    touched = []
    monkeypatch.setattr("os.path.isfile", lambda path: touched.append(str(path)) or False)
    with pytest.raises(UsageError):
        find_model(name, tmp_path)
    assert [path for path in touched if not path.endswith("kvplan.toml")] == []


def test_every_bundled_file_is_named_as_it_is_called():
    assert all(load_model(found).name == name for name, found in names("models").items())
    assert all(load_gpu(found).name == name for name, found in names("gpus").items())


# Paths


@pytest.mark.parametrize("text", ["./mine.yaml", "mine.yaml", "mine.yml", "MINE.YAML"])
def test_a_value_that_ends_like_a_file_is_one(text, tmp_path):
    shutil.copy(bundled_folder() / "models" / "gpt2.yaml", text)
    assert load_model(find_model(text)).name == "gpt2"


def test_a_folder_with_a_config_json(tmp_path):
    folder = Path("Some-Org--Llama-3.1-8B")
    folder.mkdir()
    shutil.copy(CONFIG, folder / "config.json")
    found = find_model(f"./{folder}")
    assert found.path == folder / "config.json"
    assert load_model(found).name == "llama-3.1-8b"


def test_a_link_to_a_config_json_as_the_hugging_face_cache_has_them(tmp_path):
    blob = tmp_path / "blobs" / "0123abcd"
    snapshot = tmp_path / "my-model" / "config.json"
    blob.parent.mkdir()
    snapshot.parent.mkdir()
    shutil.copy(CONFIG, blob)
    snapshot.symlink_to(blob)
    assert parameter_count(load_model(find_model(str(snapshot.parent)))).number == 8_030_261_248


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/meta-llama--Llama-3.1-8B/config.json", "llama-3.1-8b"),
        ("/x/My Model (v2)/config.json", "my-model-v2"),
        ("/x/Qwen3.json", "qwen3"),
        ("/x/...json", "model"),
        ("/x/日本/config.json", "model"),
        ("/config.json", "model"),
        (f"/x/{'y' * 200}/config.json", "y" * 64),
    ],
)
def test_the_name_of_a_config_json_is_its_folders(path, name):
    assert name_from(Path(path)) == name


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.stat", denied)
    with pytest.raises(
        FileError, match=r"cannot read './?locked/model.yaml': permission denied|cannot read 'locked"
    ):
        load_model(find_model("locked/model.yaml"))


@pytest.mark.parametrize("value", ["/nowhere", "x" * 5_000, "a_file"])
def test_a_specs_variable_that_names_no_folder_hides_nothing(value, monkeypatch):
    Path("a_file").write_text("x")
    monkeypatch.setenv("KVPLAN_SPECS", value)
    assert find_model("gpt2").label == "bundled:models/gpt2.yaml"
    assert "gpt2" in names("models")


def test_a_broken_file_of_ones_own_is_told_with_its_path(tmp_path):
    place(tmp_path, "mine").write_text("name: mine\n")
    with pytest.raises(SpecError) as caught:
        load_model(find_model("mine", tmp_path))
    assert caught.value.lines()[0].startswith(f"{tmp_path / 'models' / 'mine.yaml'}:1:1: ")


# Settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("specs = 3\n", "kvplan.toml: specs must be text"),
        ("specs = ['a']\n", "kvplan.toml: specs must be text"),
        ("specs\n", "kvplan.toml: Expected '=' after a key in a key/value pair (at line 1, column 6)"),
        ("\udcff", "kvplan.toml: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_settings_that_cannot_be_read(text, message):
    Path("kvplan.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UsageError) as caught:
        find_model("gpt2")
    assert caught.value.message == message


@pytest.mark.parametrize("text", ["", "[other]\nspecs = 'x'\n", "unknown = 1\n"])
def test_settings_that_name_no_folder(text):
    Path("kvplan.toml").write_text(text)
    assert find_model("gpt2").label == "bundled:models/gpt2.yaml"


def test_a_folder_named_like_the_settings_is_none():
    Path("kvplan.toml").mkdir()
    assert find_model("gpt2").label == "bundled:models/gpt2.yaml"


def test_digest_is_of_the_bytes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_bundled_files_are_inside_an_installed_package(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "kvplan"
    (installed / "_specs").mkdir(parents=True)
    monkeypatch.setattr("kvplan.specs.catalog.__file__", str(installed / "specs" / "catalog.py"))
    assert bundled_folder() == installed / "_specs"
    os.rmdir(installed / "_specs")
    assert bundled_folder() == tmp_path / "site-packages"


def test_a_folder_that_is_named_like_a_model_is_pointed_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    with pytest.raises(UsageError) as caught:
        find_model("my-model")
    assert caught.value.lines()[0].endswith("   (./my-model is a folder)")


def test_weights_are_described_by_the_config_beside_them(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_model(str(tmp_path / "model.safetensors")).path == tmp_path / "config.json"
