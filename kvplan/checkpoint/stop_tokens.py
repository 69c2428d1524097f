"""The tokens behind which a model's text ends, as its folder names them."""

from __future__ import annotations

from pathlib import Path

from kvplan.errors import SpecError
from kvplan.specs.document import shown
from kvplan.specs.strict_json import read_json

_KEY = "eos_token_id"


def stop_tokens_in(folder: Path) -> frozenset[int]:
    """Return what generation_config.json has as ``eos_token_id``, or else config.json; none where neither.

    Raises:
        SpecError: it is no token and no list of them.
        FileError: a file cannot be read.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file() and (found := _stop_tokens(path)):
            return found
    return frozenset()


def _stop_tokens(path: Path) -> frozenset[int]:
    """Return the tokens in a file; those of its text_config where it has none itself."""
    document = read_json(path)
    data = document.data if isinstance(document.data, dict) else {}
    inner = data.get("text_config")
    around = (_KEY,) if data.get(_KEY) is not None or not isinstance(inner, dict) else ("text_config", _KEY)
    value = document.at(around[:-1])
    value = value.get(_KEY) if isinstance(value, dict) else None
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int):
            raise SpecError([document.problem(around, f"{_KEY}: {shown(token)} is no token")])
    return frozenset(tokens)
