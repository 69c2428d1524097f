"""Where models and accelerators are found: files by path, or names on a search path of folders.

A name is looked up in, from first to last: ``--specs DIR``, ``$KVPLAN_SPECS``, the ``specs`` folder named
by ``./kvplan.toml``, the user's configuration folder, and the files that come with kvplan. Each of these
holds ``models/NAME.yaml`` and ``gpus/NAME.yaml``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kvplan.arch.model import Model
from kvplan.checks import NAME
from kvplan.errors import FileError, UsageError, did_you_mean, unknown
from kvplan.hardware.device import Device
from kvplan.specs.document import printable, shortened

_FILE_ENDINGS = (".yaml", ".yml", ".json", ".gguf")


@dataclass(frozen=True, slots=True)
class Found:
    """A spec file: how a report names it, where it is, and the bundled name it hides, if any."""

    label: str
    path: Path
    shadows: bool = False


def bundled_folder() -> Path:
    """Return the folder that holds the bundled ``models`` and ``gpus``.

    They are inside an installed package, and beside the package in a source tree or an editable install.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "_specs"
    return inside if inside.is_dir() else package.parent


def search_path(specs: Path | None) -> list[Path]:
    """Return the folders a name is looked up in, the bundled one last."""
    folders = [] if specs is None else [specs]
    if os.environ.get("KVPLAN_SPECS"):
        folders.append(Path(os.environ["KVPLAN_SPECS"]))
    folders += _project_folders()
    folders.append(_user_folder())
    return [*folders, bundled_folder()]


def _project_folders() -> list[Path]:
    settings = Path("kvplan.toml")
    if not os.path.isfile(settings):
        return []
    import tomllib

    try:
        folder = tomllib.loads(settings.read_text(encoding="utf-8")).get("specs")
    except (OSError, ValueError) as error:
        raise UsageError(f"kvplan.toml: {error}", hint='expected: specs = "FOLDER"') from error
    if folder is None:
        return []
    if not isinstance(folder, str):
        raise UsageError("kvplan.toml: specs must be text", hint='expected: specs = "FOLDER"')
    return [Path(folder)]


def _user_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir("kvplan"))


def specs_folder(text: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of specs that was named, ``None`` where none was.

    Raises:
        UsageError: it is no folder.
    """
    if text is None or text == "":
        return None
    if not os.path.isdir(text):
        shown = os.fspath(text)[:80]
        raise UsageError(f"--specs: {shown!r} is no folder", hint="it holds models/*.yaml and gpus/*.yaml")
    return Path(text)


def names(kind: str, specs: Path | None = None) -> dict[str, Found]:
    """Return every name of a kind (``models`` or ``gpus``) with the file it means, in alphabetical order."""
    found: dict[str, Found] = {}
    for folder in reversed(search_path(specs)):
        if not os.path.isdir(folder / kind):
            continue
        for path in sorted((folder / kind).glob("*.yaml")):
            if NAME.fullmatch(path.stem):
                found[path.stem] = Found(_label(folder, kind, path), path, path.stem in found)
    return dict(sorted(found.items()))


def find(kind: str, noun: str, name: str, specs: Path | None = None) -> Found:
    """Return the file a name means.

    Raises:
        UsageError: there is no such name; the closest ones are suggested.
    """
    if NAME.fullmatch(name):
        holders = [f for f in search_path(specs) if os.path.isfile(f / kind / f"{name}.yaml")]
        if holders:
            path = holders[0] / kind / f"{name}.yaml"
            return Found(_label(holders[0], kind, path), path, len(holders) > 1)
    is_folder = kind == "models" and name not in (os.curdir, os.pardir) and os.path.isdir(name)
    see = f"./{name} is a folder" if is_folder else f"kvplan {kind} list"
    raise unknown(noun, name, names(kind, specs), see=see)


def find_model(text: str, specs: Path | None = None) -> Found:
    """Return the file a MODEL argument means: a name, a file (YAML, config.json, GGUF), or a folder.

    Raises:
        UsageError: an unknown name.
        FileError: a path with nothing there.
    """
    if not is_path(text):
        return find("models", "model", text, specs)
    path = Path(text)
    if os.path.isdir(path):
        path /= "config.json"
    elif path.suffix == ".safetensors":  # weights, which config.json beside them describes
        path = path.with_name("config.json")
    return _file("models", path, text, specs)


def find_gpu(text: str, specs: Path | None = None) -> Found:
    """Return the file a ``--gpu`` value means: a name or a YAML file.

    Raises:
        UsageError: an unknown name.
        FileError: a path with nothing there.
    """
    if not is_path(text):
        return find("gpus", "accelerator", text, specs)
    return _file("gpus", Path(text), text, specs)


def _file(kind: str, path: Path, asked: str, specs: Path | None) -> Found:
    """Return a file that is there; where none is, suggest the names closest to what was asked for."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        wrong = Path(asked).stem if asked.endswith(_FILE_ENDINGS) else Path(asked).name
        hint = did_you_mean(wrong, names(kind, specs)) or f"kvplan {kind} list"
        shown = printable(shortened(path))
        raise FileError(f"cannot read '{shown}': there is no such file", hint=hint) from None
    except (OSError, ValueError):
        pass  # reading it says what is wrong
    return Found(printable(shortened(path)), path)


def load_model(found: Found) -> Model:
    """Read a model file, a config.json or the head of a GGUF file.

    Raises:
        SpecError: mistakes in the file.
        UsageError: a GGUF file is damaged, or not understood.
        FileError: it cannot be read.
    """
    if found.path.suffix == ".json":
        from kvplan.specs.config_json import import_file
        from kvplan.specs.families.common import Identity

        return import_file(found.path, Identity(name_from(found.path), found.label))
    if found.path.suffix.lower() == ".gguf":
        from kvplan.specs.families.common import Identity
        from kvplan.specs.gguf_file import import_gguf

        return import_gguf(found.path, Identity(name_from(found.path), found.label))
    from kvplan.specs.model_file import read_model
    from kvplan.specs.strict_yaml import read_yaml

    return read_model(read_yaml(found.path))


def load_gpu(found: Found) -> Device:
    """Read an accelerator file.

    Raises:
        SpecError: mistakes in the file.
        FileError: it cannot be read.
    """
    from kvplan.specs.gpu_file import read_gpu
    from kvplan.specs.strict_yaml import read_yaml

    return read_gpu(read_yaml(found.path))


def name_from(path: Path) -> str:
    """Return a catalog name for a config.json: its own name, or its folder's where that says nothing."""
    stem = path.resolve().parent.name if path.name == "config.json" else path.stem
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.rsplit("--", 1)[-1].lower()).strip("-._")[:64]
    return name or "model"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, by which a report says what it was computed from."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint(path: Path) -> tuple[str, str]:
    """Return what a report calls the digest of a model or GPU file, and the digest.

    Of a GGUF file it is that of its head, which is all a plan is computed from: the file may have 40 GB.
    """
    import hashlib

    if path.suffix.lower() != ".gguf":
        return "sha256", digest(path)
    from kvplan.specs.document import read_start
    from kvplan.specs.gguf_header import read_header

    head = read_start(path, read_header(path).tensors[0].start)
    return "head_sha256", hashlib.sha256(head).hexdigest()


def is_path(text: str) -> bool:
    """Whether a text means a file or a folder, not a name."""
    return os.sep in text or "/" in text or text.lower().endswith(_FILE_ENDINGS)


def _label(folder: Path, kind: str, path: Path) -> str:
    return f"bundled:{kind}/{path.name}" if folder == bundled_folder() else str(path)
