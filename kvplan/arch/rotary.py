"""Rotary position embeddings: which frequencies turn which elements of a head."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from kvplan.checks import LARGEST_AMOUNT, FieldError, require_amounts, require_sizes


class RopeType(Enum):
    """How the frequencies are stretched past the trained context; the value is Hugging Face's name."""

    DEFAULT = "default"
    LINEAR = "linear"
    DYNAMIC = "dynamic"
    LLAMA3 = "llama3"
    YARN = "yarn"
    LONGROPE = "longrope"
    # The share of a head's pairs that partial_rotary_factor says is turned, each as a whole head's (Gemma 4).
    PROPORTIONAL = "proportional"


# The largest base in use is about 5e10; past this it is a slip.
LARGEST_THETA = 1e12

_NEEDED = {
    RopeType.DEFAULT: (),
    RopeType.LINEAR: ("factor",),
    RopeType.DYNAMIC: ("factor", "original_max_position_embeddings"),
    RopeType.LLAMA3: ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    RopeType.YARN: ("factor", "original_max_position_embeddings"),
    RopeType.LONGROPE: (
        *("short_factor", "long_factor"),
        *("original_max_position_embeddings", "attention_factor"),
    ),
    RopeType.PROPORTIONAL: (),
}
_OF_ALL = ("rope_theta", "rope_type", "partial_rotary_factor", "interleaved")
_MAY_HAVE = {
    RopeType.YARN: ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"),
    RopeType.PROPORTIONAL: ("factor",),
}


@dataclass(frozen=True, slots=True)
class RopeParameters:
    """The rotation of queries and keys by their position (arXiv 2104.09864), and how it is stretched.

    Args:
        rope_theta: the base of the frequencies.
        rope_type: how they are stretched.
        partial_rotary_factor: share of a head that is rotated, from its first element on; of its pairs, from
            the first on, with rope_type proportional.
        interleaved: neighbours are rotated together, not the two halves of the rotated part.
        factor: by how much the context is stretched (all types but default and longrope; proportional may).
        original_max_position_embeddings: the trained context (all types but default and linear).
        low_freq_factor, high_freq_factor: where llama3 blends (its wavelengths, in trained contexts).
        beta_fast, beta_slow: where yarn blends (rotations over the trained context).
        mscale, mscale_all_dim: yarn's attention temperature as DeepSeek writes it.
        attention_factor: the factor of the rotated parts, given outright (yarn may, longrope must).
        truncate: yarn rounds the ends of its blend to whole dimensions.
        short_factor, long_factor: longrope's divisors, one per frequency.
    """

    rope_theta: float
    rope_type: RopeType = RopeType.DEFAULT
    partial_rotary_factor: float = 1.0
    interleaved: bool = False
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_amounts(self, "partial_rotary_factor", "factor", "attention_factor")
        require_amounts(self, "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")
        require_amounts(self, "mscale", "mscale_all_dim")
        require_sizes(self, "original_max_position_embeddings")
        if not 1 < self.rope_theta <= LARGEST_THETA:
            limits = f"above 1 and at most {LARGEST_THETA:,.0f}"
            raise FieldError((("rope_theta",), f"must be {limits}, not {self.rope_theta:g}"))
        if self.partial_rotary_factor > 1:
            raise FieldError(
                (("partial_rotary_factor",), f"must be at most 1, not {self.partial_rotary_factor:g}")
            )
        self._require_parameters_of_the_type()
        self._require_divisors()

    def _require_parameters_of_the_type(self) -> None:
        kind, needed = self.rope_type, _NEEDED[self.rope_type]
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise FieldError((("rope_type",), f"{kind.value} needs {', '.join(missing)}"))
        used = {*_OF_ALL, *needed, *_MAY_HAVE.get(kind, ())}
        idle = [f.name for f in fields(self) if f.name not in used and getattr(self, f.name) != f.default]
        if idle:
            raise FieldError(*(((name,), f"is not used with rope_type {kind.value}") for name in idle))
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and high < low:
            raise FieldError(
                (("high_freq_factor",), f"must be at least low_freq_factor ({low:g}), not {high:g}")
            )

    def _require_divisors(self) -> None:
        lists = {"short_factor": self.short_factor, "long_factor": self.long_factor}
        wrong = [
            ((name, index), f"must be above 0 and at most {LARGEST_AMOUNT:,.0f}, not {divisor:g}")
            for name, divisors in lists.items()
            for index, divisor in enumerate(divisors)
            if not 0 < divisor <= LARGEST_AMOUNT
        ]
        if wrong:
            raise FieldError(*wrong)

    def rotated(self, head_dim: int) -> int:
        """Return how many elements of a head of this width are rotated."""
        if self.rope_type is RopeType.PROPORTIONAL:
            return head_dim
        return int(head_dim * self.partial_rotary_factor)

    def require_fit(self, head_dim: int) -> None:
        """Raise FieldError, placed under ``rope_parameters``, unless heads of this width can be rotated."""
        rotated = self.rotated(head_dim)
        if rotated < 2 or rotated % 2:
            message = f"must rotate an even number of a head's {head_dim} elements, not {rotated}"
            part = ("partial_rotary_factor",) if self.partial_rotary_factor < 1 else ()
            raise FieldError((("rope_parameters", *part), message))
        lists = {"short_factor": self.short_factor, "long_factor": self.long_factor}
        wrong = [
            (("rope_parameters", name), f"must have {rotated // 2} entries, not {len(divisors)}")
            for name, divisors in lists.items()
            if divisors and len(divisors) != rotated // 2
        ]
        if wrong:
            raise FieldError(*wrong)
