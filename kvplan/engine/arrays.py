"""Names for the arrays that the engine's files hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float32]
Tokens: TypeAlias = NDArray[np.int64]
"""Token ids."""
Blocks: TypeAlias = NDArray[np.int64]
"""Physical blocks, or places in them."""
Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""What one layer keeps of a sequence, by name."""
