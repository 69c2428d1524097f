"""A config.json under interpretation: typed reading, and a memory of which keys were understood.

A key that nothing has read and that is not known to be harmless is refused by name: it might change
what is cached or multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import NoReturn

from kvplan.checks import LARGEST_SIZE
from kvplan.errors import Problem, SpecError
from kvplan.specs.document import MAX_PROBLEMS, Document, NodePath, dotted, shown
from kvplan.specs.harmless_keys import is_harmless
from kvplan.specs.layer_pattern import MAX_LAYERS

REQUIRED = -1
LARGEST_NUMBER = 1e12
# As transformers 5 saves it: JSON has no such number.
_INFINITE = {"__float__": "Infinity"}


class Config:
    """One mapping of a config.json, read key by key."""

    def __init__(self, document: Document, path: NodePath = ()) -> None:
        """Look at the mapping at ``path``.

        Raises:
            SpecError: there is no mapping there.
        """
        data = document.at(path)
        self._document = document
        self._path = path
        self._understood: set[str] = set()
        self._from_around: dict[str, NodePath] = {}
        self._ruled: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        if not isinstance(data, dict):
            self._refuse(None, f"expected a mapping, not {shown(data)}")
        self._data: dict[str, object] = data

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self._data.get(key) is not None

    def is_text(self, key: str) -> bool:
        """Whether the key is there with a text."""
        return isinstance(self._data.get(key), str)

    def is_list(self, key: str) -> bool:
        """Whether there is a list under the key."""
        return isinstance(self._data.get(key), list)

    def integer(self, *keys: str, default: int = REQUIRED) -> int:
        """Return the positive integer under the first of the keys that is there and not null.

        Raises:
            SpecError: it is no such integer, or no key is there and there is no default.
        """
        found = self.optional_integer(*keys)
        if found is not None:
            return found
        if default == REQUIRED:
            self._refuse(None, f"'{keys[0]}' is required")
        return default

    def depth(self, *keys: str, default: int = REQUIRED) -> int:
        """Return the number of layers under the first of the keys that is there and not null."""
        found = self.integer(*keys, default=default)
        if found > MAX_LAYERS:
            self._refuse(self._first_present(keys), f"expected 1 to {MAX_LAYERS:,} layers, not {found:,}")
        return found

    def optional_integer(self, *keys: str, default: int | None = None) -> int | None:
        """Return the positive integer under the first of the keys that is there; null reads as ``None``.

        ``default`` is for a key that is missing: a missing key is not a null one.
        """
        present = self._first_present(keys)
        if present is None:
            return default
        value = self._data[present]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(present, f"expected a whole number, not {shown(value)}")
        if not 1 <= value <= LARGEST_SIZE:
            self._refuse(present, f"expected 1 to {LARGEST_SIZE:,}, not {shown(value)}")
        return value

    def names(self) -> tuple[str, ...]:
        """Return the keys of the mapping, in the order of the file."""
        return tuple(self._data)

    def whole_number(self, key: str, default: int) -> int:
        """Return the integer under the key, whatever its sign; missing and null read as the default."""
        self._understood.add(key)
        value = self._data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(key, f"expected a whole number, not {shown(value)}")
        return value

    def count(self, key: str, default: int) -> int:
        """Return the integer of at least 0 under the key; missing reads as the default, null as 0."""
        self._understood.add(key)
        value = self._data.get(key, default)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(key, f"expected a whole number, not {shown(value)}")
        if not 0 <= value <= LARGEST_SIZE:
            self._refuse(key, f"expected 0 to {LARGEST_SIZE:,}, not {shown(value)}")
        return value

    def number(self, *keys: str, default: float | None = None) -> float:
        """Return the number above 0 under the first of the keys that is there and not null.

        Raises:
            SpecError: it is no such number, or no key is there and there is no default.
        """
        found = self.optional_number(*keys)
        if found is not None:
            return found
        if default is None:
            self._refuse(None, f"'{keys[0]}' is required")
        return default

    def optional_number(self, *keys: str, default: float | None = None) -> float | None:
        """Return the number above 0 under the first of the keys that is there; null reads as ``None``.

        ``default`` is for a key that is missing: a missing key is not a null one.
        """
        present = self._first_present(keys)
        if present is None:
            return default
        value = self._data[present]
        return None if value is None else self._checked_number(present, value, least="above 0 and up")

    def amount(self, key: str) -> float | None:
        """Return the number of at least 0 under the key; ``None`` where it is missing or null."""
        self._understood.add(key)
        value = self._data.get(key)
        return None if value is None else self._checked_number(key, value, least="from 0")

    def _checked_number(self, key: str, value: object, *, least: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(key, f"expected a number, not {shown(value)}")
        if not 0 <= value <= LARGEST_NUMBER or (value == 0 and least == "above 0 and up"):
            self._refuse(key, f"expected a number {least} to {LARGEST_NUMBER:,.0f}, not {shown(value)}")
        return float(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return the list of numbers above 0 under the key.

        Raises:
            SpecError: it is missing, null or no such list.
        """
        values = self._list(key)
        if values is None:
            self._refuse(None, f"'{key}' is required")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                self._refuse(key, f"expected a list of numbers, not {shown(value)} in it")
        return tuple(self._checked_number(key, value, least="above 0 and up") for value in values)

    def never_limits(self, key: str) -> bool:
        """Whether the pair of limits under the key is 0 and what no number here reaches, or is not there."""
        limits = self._list(key)
        if limits is None:
            return True
        if limits[1:] == [_INFINITE]:
            limits = [limits[0], inf]
        found = [x for x in limits if isinstance(x, int | float) and not isinstance(x, bool)]
        return len(found) == len(limits) == 2 and found[0] == 0 and found[1] > LARGEST_NUMBER

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false under the key; missing reads as the default, null as false (as in Python)."""
        self._understood.add(key)
        value = self._data.get(key, default)
        if value is None:
            return False
        if not isinstance(value, bool):
            self._refuse(key, f"expected true or false, not {shown(value)}")
        return value

    def text(self, *keys: str, default: str = "") -> str:
        """Return the text under the first of the keys that is there and not null, else the default."""
        present = self._first_present(keys)
        value = self._data.get(present) if present else None
        if value is None:
            return default
        if not isinstance(value, str):
            self._refuse(present or keys[0], f"expected text, not {shown(value)}")
        return value

    def texts(self, key: str, length: int, allowed: tuple[str, ...]) -> list[str] | None:
        """Return the list of ``length`` words under the key, each one of ``allowed``; ``None`` if absent."""
        values = self._list(key)
        if values is None:
            return None
        if len(values) != length:
            self._refuse(key, f"has {len(values):,} entries for {length:,} layers")
        for index, value in enumerate(values):
            if value not in allowed:
                path = (*self._path_of(key), index)
                problem = f"{dotted(path)}{shown(value)} is not one of {', '.join(allowed)}"
                raise SpecError([self._document.problem(path, problem)])
        return [str(value) for value in values]

    def integers(self, key: str) -> list[int]:
        """Return the list of whole numbers under the key; empty if absent or null."""
        values = self._list(key) or []
        found = []
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                self._refuse(key, f"expected a list of whole numbers, not {shown(value)} in it")
            found.append(value)
        return found

    def list_as_given(self, key: str) -> list[object] | None:
        """Return the list under the key, whatever is in it; ``None`` if absent or null."""
        return self._list(key)

    def two_sizes(self, key: str, *, missing: tuple[int, int]) -> tuple[int, int]:
        """Return the two positive integers under the key; a single one stands for both.

        Raises:
            SpecError: it is neither.
        """
        self._understood.add(key)
        if not self.has(key):
            return missing
        if not isinstance(self._data[key], list):
            both = self.integer(key)
            return both, both
        found = self.integers(key)
        if len(found) != 2 or not all(1 <= size <= LARGEST_SIZE for size in found):
            self._refuse(key, f"expected two sizes from 1 to {LARGEST_SIZE:,}")
        return found[0], found[1]

    def words(self, key: str) -> list[str]:
        """Return the list of texts under the key; empty if absent or null."""
        values = self._list(key) or []
        for value in values:
            if not isinstance(value, str):
                self._refuse(key, f"expected a list of texts, not {shown(value)} in it")
        return [str(value) for value in values]

    def entries(self, key: str, *, missing: int) -> int:
        """Return how many entries the list under the key has; a value that is no list is one."""
        self._understood.add(key)
        if not self.has(key):
            return missing
        value = self._data[key]
        return len(value) if isinstance(value, list) else 1

    def _list(self, key: str) -> list[object] | None:
        self._understood.add(key)
        values = self._data.get(key)
        if values is None:
            return None
        if not isinstance(values, list):
            self._refuse(key, f"expected a list, not {shown(values)}")
        return values

    def inner(self, key: str) -> Config:
        """Return the mapping under the key.

        Raises:
            SpecError: it is missing or no mapping.
        """
        self._understood.add(key)
        if key not in self._data:
            self._refuse(None, f"'{key}' is required")
        return self._part(key)

    def _part(self, key: str) -> Config:
        """Return the mapping under the key, with what is said here and holds there too."""
        found = Config(self._document, self._path_of(key))
        parts, keys = self._ruled
        if key in parts:
            said = {name: self._data[name] for name in sorted(keys) if self.has(name)}
            kept = {name: value for name, value in found._data.items() if not said or name not in keys}
            found._data = kept | said
            found._from_around |= dict.fromkeys(said, self._path)
        return found

    def rule(self, parts: tuple[str, ...], keys: tuple[str, ...]) -> None:
        """Let what is said here under the keys hold in these mappings inside too, whatever they say.

        What they say holds where nothing is said here.
        """
        self._understood.update(keys)
        self._ruled = frozenset(parts), frozenset(keys)

    def inner_or(self, key: str, missing: Mapping[str, object]) -> Config:
        """Return the mapping under the key, or where it is missing or null what stands in for it."""
        self._understood.add(key)
        if self.has(key):
            return self._part(key)
        found = Config(self._document, self._path)
        found._data = dict(missing)
        return found

    def inner_with(self, key: str, applied: tuple[str, ...]) -> Config:
        """Return the mapping under the key, to which the ``applied`` keys beside it belong too.

        Any other key beside it that says what the mapping says itself is understood.

        Raises:
            SpecError: it is missing or no mapping, or says otherwise under an applied key.
        """
        found = self.inner(key)
        self._understood.update(k for k, v in found._data.items() if k in self._data and self._data[k] == v)
        for name in applied:
            self._understood.add(name)
            if not self.has(name):
                continue
            around, within = self._data[name], found._data.get(name)
            if within is not None and within != around:
                found._refuse(name, f"{shown(within)} contradicts the surrounding file's {shown(around)}")
            found._data = {**found._data, name: around}
            found._from_around[name] = self._path
        return found

    def leave_out(self, key: str) -> None:
        """Read on as if the key were not there: what it says changes nothing here."""
        self._data = {name: value for name, value in self._data.items() if name != key}

    def complete(self, missing: Mapping[str, object]) -> None:
        """Let these keys have these values where they are missing; one that is null stays null."""
        self._data = {**missing, **self._data}

    def inners(self, key: str) -> list[Config]:
        """Return the mappings in the list under the key.

        Raises:
            SpecError: it is missing, null or no such list.
        """
        values = self._list(key)
        if values is None:
            self._refuse(None, f"'{key}' is required")
        return [Config(self._document, (*self._path_of(key), index)) for index in range(len(values))]

    def optional_inner(self, *keys: str) -> Config | None:
        """Return the mapping under the first of the keys that is there; ``None`` for null or an empty one."""
        present = self._first_present(keys)
        if present is None or self._data[present] in (None, {}):
            return None
        return Config(self._document, self._path_of(present))

    def only(self, key: str, allowed: object, meaning: str) -> None:
        """Refuse any value but ``allowed`` (missing and null pass): nothing else is understood here."""
        self._understood.add(key)
        value = self._data.get(key)
        if value is not None and (value != allowed or isinstance(value, bool) != isinstance(allowed, bool)):
            self._refuse(key, f"{shown(value)} is not understood: {meaning}")

    def harmless(self, *keys: str) -> None:
        """Note keys that this family carries and that change nothing kvplan counts."""
        self._understood.update(keys)

    def finish(self) -> None:
        """Refuse every key that was not understood.

        Raises:
            SpecError: one problem for each such key.
        """
        unread = (item for item in self._data.items() if item[0] not in self._understood)
        unknown = [key for key, value in unread if not is_harmless(key, value)]
        if unknown:
            shown_keys = unknown[:MAX_PROBLEMS]
            problems = [self._problem(k, "this key is not understood", at_key=True) for k in shown_keys]
            if len(unknown) > MAX_PROBLEMS:
                more = f"{len(unknown) - MAX_PROBLEMS:,} more keys are not understood"
                problems.append(replace(problems[-1], message=more))
            raise SpecError(problems)

    def refuse(self, key: str | None, message: str) -> NoReturn:
        """Refuse the value of a key, or without one the whole mapping.

        Raises:
            SpecError: always.
        """
        self._refuse(key, message)

    def refuse_entry(self, key: str, index: int, message: str) -> NoReturn:
        """Refuse one entry of the list under a key.

        Raises:
            SpecError: always.
        """
        path = (*self._path_of(key), index)
        raise SpecError([self._document.problem(path, f"{dotted(path)}{message}")])

    def _first_present(self, keys: tuple[str, ...]) -> str | None:
        self._understood.update(keys)
        present = [key for key in keys if key in self._data]
        given = [key for key in present if self._data[key] is not None]
        for other in given[1:]:
            if self._data[other] != self._data[given[0]]:
                self._refuse(other, f"{shown(self._data[other])} contradicts '{given[0]}'")
        return next(iter([*given, *present]), None)

    def _refuse(self, key: str | None, message: str) -> NoReturn:
        raise SpecError([self._problem(key, message)])

    def _path_of(self, key: str) -> NodePath:
        return (*self._from_around.get(key, self._path), key)

    def _problem(self, key: str | None, message: str, *, at_key: bool = False) -> Problem:
        path = self._path if key is None else self._path_of(key)
        return self._document.problem(path, f"{dotted(path)}{message}", at_key=at_key)
