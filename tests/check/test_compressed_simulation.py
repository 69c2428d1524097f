"""The plan of DeepSeek-V4 is what the engine does, to the byte and operation, and a wrong formula is seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import simulate
from kvplan.plan import compressed_entries, entry_bytes, kept_tokens
from kvplan.specs.config_json import import_file
from kvplan.specs.families.common import Identity
from kvplan.storage import kv_format

CONFIGS = Path(__file__).parents[1] / "golden" / "configs"
MIXES = {
    "fp32 in pages": Scenario((3, 26, 61), 14, 17, 2, kv_format("fp32"), Paged(4)),
    "int8 in one piece": Scenario((1, 40, 77), 5, 100, 3, kv_format("int8"), Contiguous(128)),
    "fp8 token by token": Scenario((9, 31), 9, 1, 4, kv_format("fp8"), Paged(16)),
}


def differing(name, mix):
    model = import_file(CONFIGS / f"{name}.json", Identity(name, "a test"))
    simulation = simulate(model, MIXES[mix], lambda _: None)
    return {check.name for check in simulation.disagreeing}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", ["deepseek-v4", "deepseek-v4-new-keys"])
def test_every_figure_agrees(name, mix):
    assert differing(name, mix) == set()


@pytest.mark.parametrize(
    ("module", "name", "seen"),
    [
        (compressed_entries, "compressed_pairs", {"prefill_attention_flops", "decode_attention_flops"}),
        (compressed_entries, "selected_compressed_pairs", {"prefill_attention_flops"}),
        (compressed_entries, "compressed_entries_read", {"prefill_cache_read_bytes"}),
        (compressed_entries, "selected_entries_read", {"decode_cache_read_bytes"}),
        (compressed_entries, "waiting_tokens_read", {"prefill_cache_read_bytes", "decode_cache_read_bytes"}),
        (compressed_entries, "waiting_tokens_written", {"prefill_cache_written_bytes"}),
        (compressed_entries, "compressed_entries_written", {"prefill_cache_written_bytes"}),
        (kept_tokens, "compressed_entries", {"cache_live_bytes"}),
        (kept_tokens, "unfinished_tokens", {"cache_live_bytes"}),
        (kept_tokens, "paged_entries", {"cache_allocated_bytes", "cache_blocks"}),
        (kept_tokens, "waiting_room", {"cache_allocated_bytes"}),
        (entry_bytes, "pending_entry_bytes", {"cache_live_bytes", "decode_cache_read_bytes"}),
        (entry_bytes, "one_vector_entry_bytes", {"cache_live_bytes", "decode_cache_read_bytes"}),
    ],
)
def test_a_wrong_formula_is_seen(module, name, seen, monkeypatch):
    formula = getattr(module, name)
    wrong = replace(formula, function=lambda *args: formula.function(*args) + 4)
    monkeypatch.setattr(module, name, wrong)
    assert seen <= differing("deepseek-v4", "fp32 in pages")
