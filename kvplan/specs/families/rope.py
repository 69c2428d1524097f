"""How a config.json says the rotation of queries and keys.

Older files have ``rope_theta`` and, where the context is stretched, ``rope_scaling``; transformers 5 writes
both into ``rope_parameters``. Rules from transformers 5.23, modeling_rope_utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, sqrt

from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.errors import did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import shown

_TYPES = {kind.value: kind for kind in RopeType}


@dataclass(frozen=True, slots=True)
class RopeDefaults:
    """What a family's class says where a config.json says nothing.

    Args:
        rope_theta: the base.
        theta_key: the key of the base outside the mapping.
        partial_key: the key of the rotated share outside the mapping.
        partial_rotary_factor: share of a head that is rotated; absent where the family rotates whole
            heads, whatever a file says.
        interleaved: neighbours are rotated together.
        original_max_position_embeddings: the trained context; absent where it is the longest one.
        longrope_names: names this family gives to longrope besides its own.
        mrope: places in an image turn parts of a head apart; a text's three places are one, and so this
            rotation is the plain one (arXiv 2409.12191).
    """

    rope_theta: float = 10_000.0
    theta_key: str = "rope_theta"
    partial_key: str = "partial_rotary_factor"
    partial_rotary_factor: float | None = None
    interleaved: bool = False
    original_max_position_embeddings: int | None = None
    longrope_names: tuple[str, ...] = ()
    mrope: bool = False


PLAIN = RopeDefaults()


def rope(config: Config, longest: int, defaults: RopeDefaults = PLAIN) -> RopeParameters:
    """Return the rotation of a file in which every layer has the same.

    ``longest`` is the file's ``max_position_embeddings``.
    """
    return rope_from(config, config.optional_inner("rope_scaling", "rope_parameters"), longest, defaults)


def rope_from(config: Config, given: Config | None, longest: int, defaults: RopeDefaults) -> RopeParameters:
    """Return the rotation that a mapping, or without one the keys outside it, describe.

    Raises:
        SpecError: a key is malformed, not understood, or said twice and not the same.
    """
    base = RopeParameters(
        rope_theta=_theta(config, given, defaults),
        partial_rotary_factor=_partial(config, given, defaults),
        interleaved=defaults.interleaved,
    )
    original = _original(config, given, defaults) or longest
    if given is None:
        return base
    found = _stretched(base, _kind(given, defaults), given, original, longest)
    given.finish()
    return found


def _kind(given: Config, defaults: RopeDefaults) -> RopeType:
    names: tuple[str, ...] = ("rope_type", "type")
    if defaults.mrope:
        given.harmless("mrope_section", "mrope_interleaved")
        if given.has("rope_type") and given.text("type") == "mrope":
            names = ("rope_type",)  # transformers 5 saves its own name beside the one of old
    name = given.text(*names, default="default")
    if name in defaults.longrope_names:
        return RopeType.LONGROPE
    if defaults.mrope and name == "mrope":
        return RopeType.DEFAULT
    if name not in _TYPES:
        key = "rope_type" if given.has("rope_type") else "type"
        suggestion = did_you_mean(name, _TYPES)
        end = f" ({suggestion})" if suggestion else ""
        given.refuse(key, f"{shown(name)} is not one of {', '.join(_TYPES)}{end}")
    return _TYPES[name]


def _theta(config: Config, given: Config | None, defaults: RopeDefaults) -> float:
    outside = config.optional_number(defaults.theta_key)
    inside = given.optional_number("rope_theta") if given else None
    return _agreed(config, defaults.theta_key, outside, inside) or defaults.rope_theta


def _partial(config: Config, given: Config | None, defaults: RopeDefaults) -> float:
    key, inner_key = defaults.partial_key, "partial_rotary_factor"
    outside, inside = config.optional_number(key), given.optional_number(inner_key) if given else None
    found = _agreed(config, key, outside, inside)
    if defaults.partial_rotary_factor is not None:
        return found or defaults.partial_rotary_factor
    if found not in (None, 1.0):
        owner = config if given is None or outside is not None else given
        owner.refuse(key, f"{found:g} is not understood: this family rotates whole heads")
    return 1.0


def _original(config: Config, given: Config | None, defaults: RopeDefaults) -> int | None:
    key = "original_max_position_embeddings"
    outside = config.optional_integer(key, default=defaults.original_max_position_embeddings)
    inside = given.optional_integer(key) if given else None
    if given is not None and None not in (outside, inside) and outside != inside:
        # Where the key is missing outside, transformers takes the class default all the same.
        given.refuse(key, f"{inside} contradicts the file's own, {outside}")
    return outside or inside


def _agreed(config: Config, key: str, outside: float | None, inside: float | None) -> float | None:
    if outside is not None and inside is not None and outside != inside:
        config.refuse(key, f"{outside:g} contradicts the rotation's own, {inside:g}")
    return inside if outside is None else outside


def _stretched(
    base: RopeParameters, kind: RopeType, given: Config, original: int, longest: int
) -> RopeParameters:
    """Return the rotation stretched as the mapping says; ``original`` is the trained context."""
    match kind:
        case RopeType.LINEAR:
            return replace(base, rope_type=kind, factor=given.number("factor"))
        case RopeType.DYNAMIC:
            # Frequencies change past max_position_embeddings, whatever else the file calls original.
            return replace(
                base,
                rope_type=kind,
                factor=given.number("factor"),
                original_max_position_embeddings=longest,
            )
        case RopeType.LLAMA3:
            return replace(
                base,
                rope_type=kind,
                factor=given.number("factor"),
                low_freq_factor=given.number("low_freq_factor"),
                high_freq_factor=given.number("high_freq_factor"),
                original_max_position_embeddings=original,
            )
        case RopeType.PROPORTIONAL:
            return replace(base, rope_type=kind, factor=given.optional_number("factor"))
        case RopeType.YARN:
            return _yarn(base, given, original, longest)
        case RopeType.LONGROPE:
            return _longrope(base, given, original, longest)
    return base


def _yarn(base: RopeParameters, given: Config, original: int, longest: int) -> RopeParameters:
    return replace(
        base,
        rope_type=RopeType.YARN,
        factor=given.number("factor", default=longest / original),
        original_max_position_embeddings=original,
        beta_fast=given.optional_number("beta_fast"),
        beta_slow=given.optional_number("beta_slow"),
        # Zero reads as absent there.
        mscale=given.amount("mscale") or None,
        mscale_all_dim=given.amount("mscale_all_dim") or None,
        attention_factor=given.optional_number("attention_factor"),
        truncate=given.flag("truncate", True),
    )


def _longrope(base: RopeParameters, given: Config, original: int, longest: int) -> RopeParameters:
    """Return the rotation with its attention factor, which the file seldom says.

    It is ``sqrt(1 + ln(factor) / ln(original))``, where the factor is by default how much longer the longest
    context is than the trained one.
    """
    factor = given.number("factor", default=longest / original)
    if original == 1:
        given.refuse(None, "a trained context of one token gives no attention factor")
    derived = sqrt(1 + log(factor) / log(original)) if factor > 1 else 1.0
    return replace(
        base,
        rope_type=RopeType.LONGROPE,
        original_max_position_embeddings=original,
        attention_factor=given.number("attention_factor", default=derived),
        short_factor=given.numbers("short_factor"),
        long_factor=given.numbers("long_factor"),
    )
