"""Encoders whose tensors are not counted: a model says that they are missing."""

from __future__ import annotations

from collections.abc import Callable

from kvplan.arch.model import Model
from kvplan.arch.tower import Tower
from kvplan.specs.config import Config


def uncounted(*keys: str) -> Callable[[Config, Model], tuple[Tower, ...]]:
    """Return a function that counts no tower; the keys beside an encoder's config say things of it only."""

    def towers(config: Config, _model: Model) -> tuple[Tower, ...]:
        config.harmless(*keys)
        return ()

    return towers
