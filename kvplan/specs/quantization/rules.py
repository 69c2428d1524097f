"""What a quantisation says, whoever wrote it: rules that store modules in a format, the last one winning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from kvplan.specs.config import Config
from kvplan.storage import WEIGHT_FORMATS


class Scope(Enum):
    """Modules that a rule without names is about."""

    EXPERTS = auto()  # routed experts
    LINEAR = auto()  # every linear layer but routers and the output head
    LINEAR_AND_HEAD = auto()  # and an output head with a matrix of its own


@dataclass(frozen=True, slots=True)
class Names:
    """Modules as a file names them: whole names, ``*`` patterns, or regular expressions behind ``re:``.

    ``config`` and ``key`` are where they stand; ``listed`` says that they are entries of a list there.
    """

    config: Config
    key: str
    names: tuple[str, ...]
    listed: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """Modules that are stored in a format of :mod:`kvplan.storage`; empty for the model's dtype."""

    format: str
    modules: Scope | Names


@dataclass(frozen=True, slots=True)
class Quantization:
    """All that a quantisation says.

    Args:
        rules: which modules are stored in which format; later ones win.
        kv_format: the KV format the files have scales for; empty for none.
    """

    rules: tuple[Rule, ...]
    kv_format: str = ""


def known_format(config: Config, key: str | None, name: str, said: str) -> str:
    """Return the name of a format, or refuse what the file said where there is no such format.

    Raises:
        SpecError: no format has this name.
    """
    if name not in {known.name for known in WEIGHT_FORMATS}:
        config.refuse(key, f"{said} is not understood")
    return name


def exceptions(config: Config, *keys: str) -> tuple[Rule, ...]:
    """Return the rules of lists of modules that keep their dtype."""
    lists = ((key, tuple(config.words(key))) for key in keys)
    return tuple(Rule("", Names(config, key, names)) for key, names in lists if names)
