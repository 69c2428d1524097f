"""Write the tables of docs/architectures.md: every bundled model, every family, and how each was verified.

    python docs/architectures.py [--check]

With ``--check`` nothing is written, and the exit status is 1 where the page is not what would be written.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pages import keep, table

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.retention import Compressed, Full
from kvplan.plan.cache import Cache, request_cache
from kvplan.plan.listing import kept_in_words
from kvplan.plan.weights import parameter_count
from kvplan.specs.catalog import load_model, names
from kvplan.specs.config_json import FAMILIES
from kvplan.specs.families.wrappers import WRAPPERS
from kvplan.specs.model_file import MIXERS
from kvplan.storage import kv_format, state_layout

TESTS = Path(__file__).parent.parent / "tests"
DATA = TESTS / "data"
PAGE = Path(__file__).parent / "architectures.md"
BEGIN, END = "<!-- begin: python docs/architectures.py -->", "<!-- end -->"
CONTEXT = 32_768
KINDS = {kind: key.replace("_", " ") for key, kind in MIXERS.items()}
HEADINGS = (
    "model",
    "parameters",
    "active",
    "mixers",
    "experts",
    "layers keep",
    "KV B/token",
    "past windows",
    "state B/request",
    "MiB at 32k",
    "verified",
)
NUMBERS = frozenset((1, 2, 6, 7, 8, 9))


@dataclass(frozen=True)
class Oracles:
    """What the tests compare a model with.

    Args:
        measured: rows of model_truth.yaml by their config.json.
        by_hand: names in the test of parameters worked out by hand.
        cases: cases of logits made with transformers, by the model_type of their config.
    """

    measured: Mapping[str, Mapping[str, object]]
    by_hand: frozenset[str]
    cases: Mapping[str, list[str]]

    @classmethod
    def read(cls) -> Oracles:
        """Return those of tests/."""
        truth = yaml.safe_load((DATA / "model_truth.yaml").read_text(encoding="utf-8"))
        hand = (TESTS / "arch" / "test_hand_counts.py").read_text(encoding="utf-8")
        cases: dict[str, list[str]] = {}
        for path in sorted((TESTS / "golden" / "configs").glob("*.json")):
            cases.setdefault(_model_type(_read(path)), []).append(path.stem)
        by_hand = frozenset(re.findall(r'"([^"\s]+)": [\d_]+,', hand))
        return cls({row["config"]: row for row in truth}, by_hand, cases)


@dataclass(frozen=True)
class Row:
    """A bundled model, the families of its config.json and of its text model, and what it was held to."""

    model: Model
    family: str
    text_family: str
    verified: str

    def cells(self) -> tuple[str, ...]:
        """Return what the table says of it."""
        model, whole = self.model, self._cache("transformers")
        growth = whole.growth("growth", "").number
        past = sum(
            cached.growth().number
            for run, cached in zip(model.slot_runs(), whole.runs, strict=True)
            if isinstance(run.slot.retention, Full | Compressed)
        )
        states = [self._cache(layout).state("state", "").number for layout in ("transformers", "vllm-fp32")]
        long_enough = model.max_position_embeddings >= CONTEXT
        return (
            model.name,
            f"{parameter_count(model).number:,}",
            f"{parameter_count(model, active=True).number:,}",
            _distinct(_mixer_words(layer) for layer in model.layers),
            _distinct(_expert_words(layer) for layer in model.layers),
            kept_in_words(model.layers),
            f"{growth:,}",
            "" if past == growth else f"{past:,}",
            " / ".join(f"{state:,}" for state in dict.fromkeys(states)) if any(states) else "",
            f"{whole.live_bytes(CONTEXT) / (1 << 20):,.0f}" if long_enough else "",
            self.verified,
        )

    def _cache(self, layout: str) -> Cache:
        model = self.model
        stored = (kv_format("bf16"), state_layout(layout), model.dtype, Paged(16), model.source)
        return request_cache(model.slot_runs(), 1, *stored)


def _mixer_words(layer: Layer) -> str:
    """Return a layer's mixers: ``32/8 x 128``, query heads, KV heads and width, or what kind they are of."""
    words = []
    for mixer in layer.mixers():
        match mixer:
            case Attention(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim):
                widths = f"{dim}" if mixer.value_dim == dim else f"{dim}/{mixer.value_dim}"
                words.append(f"{heads}/{kv_heads} x {widths}")
            case LatentAttention(num_attention_heads=heads):
                words.append(f"{heads}, latent {mixer.kv_lora_rank} + {mixer.qk_rope_head_dim}")
            case _:
                words.append(KINDS[type(mixer)])
    return " beside ".join(words)


def _expert_words(layer: Layer) -> str:
    """Return how many experts a token uses of how many: ``8 of 256 + shared``."""
    if not isinstance(layer.mlp, Experts):
        return ""
    shared = " + shared" if layer.mlp.shared_expert_intermediate_size else ""
    return f"{layer.mlp.num_experts_per_tok} of {layer.mlp.num_experts:,}{shared}"


def _distinct(words: Iterable[str]) -> str:
    return "; ".join(word for word in dict.fromkeys(words) if word)


def _read(path: Path) -> dict[str, object]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _model_type(config: Mapping[str, object]) -> str:
    return str(config.get("model_type", ""))


def _text_family(config: Mapping[str, object]) -> str:
    """Return the family of a config's text model."""
    kind, inner = _model_type(config), config.get("text_config")
    if kind not in WRAPPERS:
        return kind
    said = _model_type(inner) if isinstance(inner, dict) else ""
    return said or WRAPPERS[kind].text_type


def rows(oracles: Oracles) -> Iterator[Row]:
    """Iterate over the bundled models in alphabetical order."""
    with (DATA / "hf_configs" / "SOURCES.csv").open(encoding="utf-8") as file:
        imported = {row["name"] for row in csv.DictReader(file)}
    for name, found in names("models").items():
        if name in imported:
            place = f"hf_configs/{name}.json"
            given = _read(DATA / place)
            text, measured = _text_family(given), oracles.measured.get(place)
            letters = (
                ("T", measured is not None),
                ("P", measured is not None and "published_total" in measured),
                ("H", name in oracles.by_hand),
                ("L", text in oracles.cases),
            )
            verified = "".join(letter for letter, holds in letters if holds)
            yield Row(load_model(found), _model_type(given), text, verified)


def families(bundled: Iterable[Row], oracles: Oracles) -> Iterator[tuple[str, ...]]:
    """Iterate over the families: their cases against transformers' logits, and the bundled models of each."""
    models: dict[str, list[str]] = {}
    for row in bundled:
        models.setdefault(row.family, []).append(row.model.name)
    for kind in sorted(FAMILIES):
        compared = ", ".join(oracles.cases.get(kind, []))
        if not compared and kind in WRAPPERS:
            compared = f"those of `{WRAPPERS[kind].text_type}`"
        yield (f"`{kind}`", compared, ", ".join(models.get(kind, [])))


def generated() -> str:
    """Return what stands between the marks of the page."""
    oracles = Oracles.read()
    bundled = list(rows(oracles))
    held_to = ((letter, sum(letter in row.verified for row in bundled)) for letter in "TPHL")
    counts = ", ".join(f"{count} {letter}" for letter, count in held_to)
    return "\n\n".join(
        (
            f"{len(bundled)} bundled models ({counts}), {len(FAMILIES)} families.",
            table(HEADINGS, (row.cells() for row in bundled), NUMBERS),
            "## Families",
            table(
                ("`model_type`", "logits compared with transformers", "bundled"),
                families(bundled, oracles),
            ),
        )
    )


def fresh(page: str) -> str:
    """Return the page with what stands between its marks written again."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{generated()}\n\n{END}{tail}"


if __name__ == "__main__":
    sys.exit(keep(PAGE, fresh, __doc__ or ""))
