"""What transformers calls the tensors of each family, one file for each group of families."""

from __future__ import annotations

from names import (
    first_families,
    gemma,
    latent,
    linear,
    mixtures,
    older_dense,
    recent_dense,
    state_spaces,
    wrapped,
)
from names.fusing import Names

_MODULES = (
    first_families,
    gemma,
    latent,
    linear,
    mixtures,
    older_dense,
    recent_dense,
    state_spaces,
    wrapped,
)
NAMES: dict[str, Names] = {kind: names for module in _MODULES for kind, names in module.NAMES.items()}
