"""Decode attention on a GPU: figures by hand, the document's examples, and a scheduler that lays blocks."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention
from kvplan.errors import UsageError
from kvplan.plan import kernel_laws as laws
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.kernel_designs import DESIGNS, kernel_design
from kvplan.plan.kernel_mapping import kernel_mappings
from kvplan.plan.kernel_report import kernel_notes, kernel_table
from kvplan.report.explain import render_explained
from kvplan.report.export import to_dict
from kvplan.report.table import render_table
from kvplan.report.terminal import Terminal
from kvplan.results import Report
from kvplan.storage import kv_format, state_layout, weight_format

DOCUMENT = Path(__file__).parents[2] / "docs" / "gpu-mapping.md"


@pytest.fixture
def mapped(bundled, gpu):
    """A function that maps a model, bundled if given by name, onto an accelerator."""

    def run(model, device="h100-sxm", batch=1, context=4_096, new_tokens=1, *, kv="bf16", tensor=1, cp=1):
        found = bundled(model) if isinstance(model, str) else model
        deployment = Deployment(
            device=gpu(device) if isinstance(device, str) else device,
            parallelism=Parallelism(tensor, context=cp),
            weights=weight_format("bf16"),
            kv=kv_format(kv),
            state=state_layout("transformers"),
            allocation=Paged(64),
            max_tokens=1 << 20,
        )
        return kernel_mappings(found, deployment, batch, context, new_tokens)

    return run


def values(mapping):
    return {quantity.name: quantity.value for quantity in mapping.figures()}


# ------------------------------------------------------------------ by hand


def test_llama_on_h100(mapped):
    """8 KV heads for 132 SMs; 4 of 64 rows; a tile of 128 keys and values of 256 B each."""
    (full,) = mapped("llama-3.1-8b")
    assert (full.name, full.label) == ("full", "full")
    found = values(full)
    assert found["layers"] == 32
    assert (found["query_heads"], found["kv_heads"], found["query_rows"]) == (32, 8, 4)
    assert (found["mma_rows"], found["block_rows"], found["row_blocks"]) == (64, 64, 1)
    assert found["row_use_share"] == 0.0625
    assert (found["tile_tokens"], found["tile_bytes"], found["stages"]) == (128, 65_536, 2)
    assert found["block_shared_bytes"] == 16_384 + 131_072
    assert found["sm_shared_bytes"] == 233_472
    assert (found["blocks_per_sm"], found["slots"]) == (1, 132)
    assert (found["kv_tokens"], found["tiles"], found["unsplit_blocks"]) == (4_097, 33, 8)
    assert found["splits_for_every_sm"] == 17  # 16 give 128 thread blocks, 17 give 136
    assert (found["splits"], found["tiles_per_split"]) == (33, 1)
    assert (found["thread_blocks"], found["waves"]) == (264, 2)
    assert (found["last_wave_share"], found["wave_use_share"]) == (1.0, 1.0)
    assert found["block_kv_bytes"] == 65_536
    # 32 heads x 33 splits x (128 + 1) floats, written and read.
    assert found["partial_bytes"] == 2 * 32 * 33 * 129 * 4


def test_a_batch_that_needs_no_split(mapped):
    found = values(mapped("llama-3.1-8b", batch=64)[0])
    assert (found["unsplit_blocks"], found["splits_for_every_sm"], found["splits"]) == (512, 1, 1)
    assert (found["waves"], found["partial_bytes"]) == (4, 0)
    assert found["last_wave_share"] == pytest.approx(116 / 132)
    assert found["wave_use_share"] == pytest.approx(512 / 528)
    assert found["block_kv_bytes"] == 4_097 * 512


def test_two_blocks_share_an_sm_of_an_a100_as_flash_attention_2_counts_on(mapped):
    """16 rows of 256 B and one tile of 64 KiB: 68 KiB and the reserved one, twice in 164 KiB."""
    found = values(mapped("llama-3.1-8b", "a100-sxm-80gb")[0])
    assert (found["block_rows"], found["row_use_share"]) == (16, 0.25)
    assert found["block_shared_bytes"] == 69_632
    assert (found["blocks_per_sm"], found["slots"]) == (2, 216)
    # In 100 KiB there is room for one.
    assert values(mapped("llama-3.1-8b", "rtx4090")[0])["slots"] == 128


@pytest.mark.parametrize(
    ("kv", "tile_bytes"),
    [
        ("bf16", 128 * 512),
        ("fp32", 128 * 1_024),
        ("fp8", 128 * 256),
        ("int8", 128 * 2 * 130),
        ("int4", 128 * 2 * 68),
        ("int8-kivi", 128 * 130 + 2 * (64 * 128 + 128 * 2)),  # two groups of 64 keys
        ("int4-kivi", 128 * 68 + 2 * (64 * 64 + 128 * 4)),
    ],
)
def test_tiles_are_held_as_they_are_stored(mapped, kv, tile_bytes):
    found = values(mapped("llama-3.1-8b", "b200-sxm", kv=kv)[0])
    tokens = found["tile_tokens"]
    assert found["tile_bytes"] * 128 == tile_bytes * tokens
    assert tokens == (64 if kv == "fp32" else 128)  # 128 x 256 B of queries and 2 x 128 KiB are 288 KiB
    assert found["block_kv_bytes"] == found["tile_bytes"] * found["tiles_per_split"]


def test_a_tile_that_does_not_fit_is_halved(mapped):
    """64 KiB of LDS: with 4 KiB of queries a tile of 64 KiB does not fit, half of it does."""
    found = values(mapped("llama-3.1-8b", "mi300x")[0])
    assert (found["tile_tokens"], found["tile_bytes"], found["blocks_per_sm"]) == (64, 32_768, 1)
    assert found["slots"] == 304


def test_rows_give_way_where_no_tile_fits(mapped):
    """128 heads on latents of 1,152 B: 64 rows are 72 KiB, more than 64; 16 are 18, and 32 tokens 36."""
    (latent,) = mapped("deepseek-v3", "mi300x")
    found = values(latent)
    assert (found["query_rows"], found["block_rows"], found["row_blocks"]) == (128, 16, 8)
    assert (found["tile_tokens"], found["block_shared_bytes"]) == (32, 55_296)
    assert found["unsplit_blocks"] == 8


def test_latents_are_keys_and_values_of_all_heads(mapped):
    (latent,) = mapped("deepseek-v3", "h200-sxm")
    found = values(latent)
    assert (latent.name, found["layers"]) == ("latent", 61)
    assert (found["query_heads"], found["kv_heads"], found["query_rows"]) == (128, 1, 128)
    assert (found["row_blocks"], found["row_use_share"]) == (2, 1.0)
    assert (found["tile_tokens"], found["tile_bytes"]) == (64, 73_728)
    assert found["block_shared_bytes"] == 3 * 73_728  # 64 rows of queries are as large as a tile
    assert found["unsplit_blocks"] == 2
    # Results stay in the latent's 512 elements; 128 rows of each split.
    assert found["partial_bytes"] == 2 * 128 * found["splits"] * 513 * 4


def test_windows_limit_what_is_in_view(mapped):
    sliding, full = mapped("gemma-3-27b", "a100-sxm-80gb", batch=8, context=32_768)
    assert (sliding.name, sliding.label, full.name) == ("window_1024", "sliding 1,024", "full")
    assert (sliding.layers.value, full.layers.value) == (52, 10)
    assert (sliding.splits.kv_tokens.value, full.splits.kv_tokens.value) == (1_024, 32_769)
    assert (sliding.splits.tiles.value, full.splits.tiles.value) == (8, 257)


def test_one_tile_cannot_be_split(mapped):
    sliding, _ = mapped("gpt-oss-20b")
    found = values(sliding)
    assert (found["kv_tokens"], found["tile_tokens"], found["tiles"]) == (128, 256, 1)
    assert (found["splits_for_every_sm"], found["splits"], found["thread_blocks"]) == (1, 1, 8)
    assert found["block_kv_bytes"] == 128 * 2 * 64 * 2


def test_recurrent_layers_have_no_mapping(mapped):
    (full,) = mapped("qwen3-next-80b-a3b")
    assert full.layers.value == 12  # of 48; the others keep a state


def test_ranks_divide_heads_and_keep_a_kv_head_at_least(mapped):
    assert [values(mapped("llama-3.1-8b", tensor=tp)[0])["kv_heads"] for tp in (1, 2, 8, 16)] == [8, 4, 1, 1]
    assert [values(mapped("llama-3.1-8b", tensor=tp)[0])["query_rows"] for tp in (1, 2, 8, 16)] == [
        4,
        4,
        4,
        2,
    ]


def test_context_parallel_ranks_share_the_tokens(mapped):
    assert values(mapped("llama-3.1-8b", cp=4)[0])["kv_tokens"] == 1_025  # of 4,097


def test_speculated_tokens_fill_rows(mapped):
    found = values(mapped("llama-3.1-8b", new_tokens=20)[0])
    assert (found["query_rows"], found["row_blocks"], found["kv_tokens"]) == (80, 2, 4_116)
    assert found["row_use_share"] == 80 / 128


def test_equal_windows_of_unequal_heads_are_told_apart(bundled, mapped):
    llama = bundled("llama-3.1-8b")
    other = replace(llama.layers[0], mixer=Attention(32, 4, 128))
    first, second = mapped(replace(llama, layers=(llama.layers[0], other, other)))
    assert (first.name, second.name) == ("full", "full_kind_2")
    assert (first.heads.query_rows.value, second.heads.query_rows.value) == (4, 8)
    assert (first.layers.value, second.layers.value) == (1, 2)


# ------------------------------------------------------------------ every accelerator


# CUDA C++ Programming Guide: most KiB of shared memory that one thread block may take.
MOST_KIB_PER_BLOCK = {
    "7.5": 64,
    "8.0": 163,
    "8.6": 99,
    "8.9": 99,
    "9.0": 227,
    "10.0": 227,
    "10.3": 227,
    "12.0": 99,
}
ROWS = {"7": 16, "8": 16, "9": 64, "10": 128, "12": 16, "gfx90a": 16, "gfx942": 16, "gfx950": 16}


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gemma-3-27b", "gpt2", "gpt-oss-20b", "deepseek-v3"])
def test_a_thread_block_fits_every_accelerator_with_a_kernel(mapped, gpu, gpu_name, model):
    device = gpu(gpu_name)
    for mapping in mapped(model, gpu_name):
        found = values(mapping)
        if kernel_design(device) is None:
            assert device.vendor in ("google", "intel") or device.architecture == "volta"
            assert found["waves"] is None
            assert found["kv_tokens"] is not None
            continue
        assert found["mma_rows"] == ROWS[device.compute_capability.partition(".")[0]]
        most = MOST_KIB_PER_BLOCK.get(device.compute_capability, device.shared_memory_per_sm_kib)
        assert found["block_shared_bytes"] <= most * 1_024
        assert found["blocks_per_sm"] >= 1


def test_no_two_designs_claim_an_accelerator(gpu, gpu_name):
    assert sum(design.runs_on(gpu(gpu_name)) for design in DESIGNS) <= 1


def test_a_capability_nobody_described_is_not_guessed(gpu):
    h100 = gpu("h100-sxm")
    for capability in ("7.0", "9.5", "11.0", "100.0", "80", ""):
        assert kernel_design(replace(h100, compute_capability=capability)) is None
    assert kernel_design(replace(h100, vendor="amd")) is None
    assert kernel_design(replace(h100, compute_capability="8.7")) is kernel_design(gpu("rtx4090"))


def test_what_is_not_known_has_no_value_and_says_why(mapped, gpu):
    h100 = gpu("h100-sxm")
    (without_sms,) = mapped("llama-3.1-8b", replace(h100, sm_count=None))
    assert without_sms.grid.waves.note == "sm_count of h100-sxm is not known"
    assert without_sms.splits.splits.value is None
    assert without_sms.tile.blocks_per_sm.value == 1
    assert without_sms.splits.unsplit_blocks.value == 8
    (without_memory,) = mapped("llama-3.1-8b", replace(h100, shared_memory_per_sm_kib=None))
    assert without_memory.grid.waves.note == "shared_memory_per_sm_kib of h100-sxm is not known"
    assert without_memory.row_use_share.value == 0.0625
    (tiny,) = mapped("llama-3.1-8b", replace(h100, shared_memory_per_sm_kib=16))
    assert tiny.grid.waves.note == "no tile of 32 tokens fits the 16 KiB of an SM of h100-sxm"
    (tpu,) = mapped("llama-3.1-8b", "tpu-v5e")
    assert tpu.grid.waves.note == "no split-KV kernel is known for tpu"
    for mapping in (without_sms, without_memory, tiny, tpu):
        assert all(q.note for q in mapping.figures() if q.value is None)


def test_refusals(mapped):
    with pytest.raises(UsageError, match="batch must be 1 to 2,147,483,648, not 0"):
        mapped("llama-3.1-8b", batch=0)
    with pytest.raises(UsageError, match="new_tokens must be 1"):
        mapped("llama-3.1-8b", new_tokens=0)
    with pytest.raises(UsageError, match="context must be 0"):
        mapped("llama-3.1-8b", context=-1)
    with pytest.raises(UsageError, match="tensor parallel 3 does not divide"):
        mapped("llama-3.1-8b", tensor=3)
    with pytest.raises(UsageError, match="a window lets go of them one by one"):
        mapped("gemma-3-27b", kv="int4-kivi")
    assert values(mapped("llama-3.1-8b", context=0)[0])["kv_tokens"] == 1


# ------------------------------------------------------------------ a scheduler, block by block


def schedule(thread_blocks, slots):
    """Lay equal thread blocks onto slots, each onto the one that is free first; count each wave's."""
    free_at, started = [0] * slots, {}
    for _ in range(thread_blocks):
        first = free_at.index(min(free_at))
        started[free_at[first]] = started.get(free_at[first], 0) + 1
        free_at[first] += 1
    return [started[time] for time in sorted(started)]


@given(st.integers(1, 400), st.integers(1, 90))
def test_waves_are_those_of_a_scheduler(thread_blocks, slots):
    waves = schedule(thread_blocks, slots)
    count = laws.wave_count(thread_blocks, slots)
    assert count == len(waves)
    assert laws.last_wave_share(thread_blocks, count, slots) == waves[-1] / slots
    assert laws.wave_use(thread_blocks, count, slots) == pytest.approx(sum(waves) / (len(waves) * slots))


def dealt(tiles, splits):
    """Give tiles to splits, each as many as the longest needs; return how many each got."""
    longest, left, got = next(n for n in range(1, tiles + 1) if n * splits >= tiles), tiles, []
    for _ in range(splits):
        got.append(min(longest, left))
        left -= got[-1]
    assert left == 0
    return got


@given(st.integers(1, 60), st.integers(1, 120), st.integers(1, 150))
def test_chosen_splits_are_the_fewest_that_use_the_waves_well(unsplit, slots, tiles):
    chosen = laws.chosen_splits(unsplit, slots, tiles)
    if unsplit >= 0.8 * slots:
        assert chosen == 1
        return

    def use(splits):
        waves = schedule(unsplit * splits, slots)
        return sum(waves) / (len(waves) * slots)

    full = [s for s in range(1, min(128, slots, tiles) + 1) if all(dealt(tiles, s))]
    best = max(use(s) for s in full)
    assert chosen == next(s for s in full if use(s) >= 0.85 * best - 1e-9)
    assert max(dealt(tiles, chosen)) == laws.tiles_of_split(tiles, chosen)


def test_the_case_flash_attention_gives():
    """Of flash_api.cpp: 48 thread blocks on 108 SMs, two splits use 0.89 of them and three 0.67."""
    assert laws.wave_use(96, 1, 108) == pytest.approx(0.89, abs=0.005)
    assert laws.wave_use(144, 2, 108) == pytest.approx(0.67, abs=0.005)
    assert laws.chosen_splits(48, 108, 64) == 2


def test_no_more_than_128_results_are_combined():
    """304 tiles on 304 slots: one each would fill them, but 102 splits of 3 are the most there may be."""
    assert laws.chosen_splits(1, 304, 304) == 102
    assert laws.chosen_splits(1, 128, 128) == 128


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 300))
def test_splits_for_every_sm_are_just_enough(unsplit, sms, tiles):
    splits = laws.splits_for_every_sm(unsplit, sms, tiles)
    assert 1 <= splits <= tiles
    assert splits == 1 or unsplit * (splits - 1) < sms
    assert splits == tiles or unsplit * splits >= sms


@pytest.mark.parametrize("device", ["h100-sxm", "rtx4090", "mi300x"])
def test_a_longer_context_never_takes_fewer_tiles_or_bytes(mapped, device):
    found = [
        values(mapped("llama-3.1-8b", device, context=c)[0]) for c in (0, 100, 1_000, 4_095, 4_096, 99_999)
    ]
    for shorter, longer in pairwise(found):
        assert shorter["tiles"] <= longer["tiles"]
        assert shorter["splits_for_every_sm"] <= longer["splits_for_every_sm"]
        assert shorter["kv_tokens"] < longer["kv_tokens"]


def test_a_larger_batch_never_needs_more_splits(mapped):
    found = [
        values(mapped("llama-3.1-8b", batch=b, context=32_768)[0]) for b in (1, 2, 3, 8, 16, 17, 64, 500)
    ]
    needed = [one["splits_for_every_sm"] for one in found]
    assert needed == sorted(needed, reverse=True)
    assert [one["unsplit_blocks"] for one in found] == [8, 16, 24, 64, 128, 136, 512, 4_000]


def test_thread_blocks_read_the_whole_cache_between_them(mapped):
    """The busiest thread block's bytes, times all of them, cover the keys and values in view."""
    for context in (500, 4_096, 100_000):
        found = values(mapped("llama-3.1-8b", batch=2, context=context)[0])
        whole = 2 * 8 * found["kv_tokens"] * 512
        assert whole <= found["thread_blocks"] * found["block_kv_bytes"]
        assert found["thread_blocks"] * (found["block_kv_bytes"] - found["tile_bytes"]) < whole


# ------------------------------------------------------------------ table and sentences


def report_of(mappings):
    table = kernel_table(mappings)
    return Report("roofline", "a test", (table,), notes=kernel_notes(mappings))


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gemma-3-27b", "deepseek-v3", "gpt-oss-20b"])
def test_the_table_has_room_on_80_columns(mapped, model):
    mappings = mapped(model, batch=256, context=131_000)
    text = render_table(report_of(mappings), Terminal(80))
    assert max(map(len, text.splitlines())) <= 80
    assert "no room" not in text
    for mapping in mappings:
        assert mapping.label in text


def test_data_has_a_row_for_each_figure(mapped):
    mappings = mapped("gemma-3-27b")
    rows = {row["figure"]: row for row in to_dict(report_of(mappings))["kernel"]}
    assert rows["tile_bytes"] == {"figure": "tile_bytes", "window_1024": 65_536, "full": 65_536, "unit": "B"}
    assert len(rows) == len(mappings[0].figures())
    assert all(q.label for q in mappings[0].figures())
    assert [c.key for c in kernel_table(mappings).shown_columns()] == ["figure", "window_1024", "full"]


def test_no_attention_is_an_empty_table():
    assert to_dict(report_of(()))["kernel"] == []


def test_figures_are_explained(mapped):
    text = render_explained(report_of(mapped("llama-3.1-8b")), "kernel.splits_for_every_sm.full")
    assert "= min(-(-132 // 8), 33)\n  = 17" in text
    text = render_explained(report_of(mapped("llama-3.1-8b")), "blocks_per_sm")
    assert "= min(1, 233472 // (147456 + 1024))\n  = 1 " in text


@pytest.mark.parametrize(
    ("model", "device", "batch", "sentence"),
    [
        (
            "llama-3.1-8b",
            "h100-sxm",
            1,
            "full attention: batch 1 gives 8 thread blocks for 132 SMs: 17 splits fill them; "
            "33 splits of 1 tile are chosen, 264 thread blocks in 2 waves, 100% full",
        ),
        (
            "llama-3.1-8b",
            "h100-sxm",
            64,
            "full attention: batch 64 gives 512 thread blocks for 132 SMs: enough without a split, "
            "512 thread blocks in 4 waves, 97% full",
        ),
        (
            "gpt-oss-20b",
            "h100-sxm",
            1,
            "sliding 128 attention: batch 1 gives 8 thread blocks for 132 SMs: 128 tokens are one tile, "
            "not to be split, and 124 SMs are idle",
        ),
        (
            "gemma-3-27b",
            "a100-sxm-80gb",
            8,
            "sliding 1,024 attention: batch 8 gives 128 thread blocks for 108 SMs: at least one for each; "
            "3 splits of 3 tiles are chosen, 384 thread blocks in 2 waves, 89% full",
        ),
        (
            "gpt-oss-20b",
            "mi300x",
            1,
            "sliding 128 attention: batch 1 gives 8 thread blocks for 304 SMs: 128 tokens are one tile, "
            "not to be split, and 296 SMs are idle",
        ),
        ("llama-3.1-8b", "gaudi3", 1, "full attention: no split-KV kernel is known for gaudi3"),
    ],
)
def test_a_sentence_says_what_limits(mapped, model, device, batch, sentence):
    assert kernel_notes(mapped(model, device, batch))[0] == sentence


def test_a_sentence_where_tiles_run_out(mapped):
    """5 tiles of 8 KV heads are 40 thread blocks for 132 SMs."""
    (note,) = kernel_notes(mapped("llama-3.1-8b", context=600))
    assert note.partition(": ")[2].partition(": ")[2] == (
        "even 5 splits, one for each tile, leave some idle; 5 splits of 1 tile are chosen, "
        "40 thread blocks in 1 wave, 30% full"
    )


# ------------------------------------------------------------------ the documentation's examples


EXAMPLE = re.compile(
    r"example: (\S+) on (\S+), kv (\S+), tp (\d+), batch (\d+), context (\d+), new tokens (\d+), (\S+)\n"
    r"(.*?)```",
    re.DOTALL,
)
LINE = re.compile(r"(\w+) +(.+) = ([\d,.]+)( %)?")


def documented_examples():
    return EXAMPLE.findall(DOCUMENT.read_text(encoding="utf-8"))


def test_the_document_has_its_examples():
    assert len(documented_examples()) == 4


@pytest.mark.parametrize("example", documented_examples(), ids=lambda e: f"{e[0]}-{e[1]}-{e[2]}-batch-{e[4]}")
def test_documented_examples_are_what_is_computed(mapped, example):
    model, device, kv, tensor, batch, context, new, kind, body = example
    mappings = mapped(model, device, int(batch), int(context), int(new), kv=kv, tensor=int(tensor))
    found = values(next(mapping for mapping in mappings if mapping.name == kind))
    lines = body.splitlines()
    assert len(lines) >= 7
    for line in lines:
        name, expression, said, percent = LINE.fullmatch(line).groups()
        by_hand = eval(expression, {"__builtins__": {}}, {"ceil": math.ceil, "floor": math.floor, "min": min})
        number = float(said.replace(",", "")) / (100 if percent else 1)
        assert by_hand == pytest.approx(number, rel=1e-3 if percent else 0), line
        assert found[name] == pytest.approx(by_hand, rel=1e-12), line


def test_the_documents_table_of_kernels(gpu):
    """The document's table of designs says what the designs say."""
    rows = re.findall(
        r"\| (.+) \| (.+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", DOCUMENT.read_text(encoding="utf-8")
    )
    said = {row[1]: tuple(map(int, row[2:])) for row in rows}
    assert len(said) == len(DESIGNS)
    for name, expected in (("t4", 0), ("l40s", 1), ("h100-sxm", 2), ("b200-sxm", 3), ("mi300x", 4)):
        design = kernel_design(gpu(name))
        assert design is DESIGNS[expected]
        numbers = (design.mma_rows, design.most_rows, design.stages, design.most_blocks_per_sm)
        assert said[design.instruction] == numbers


def test_the_documents_comparison_of_splits():
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+)% \| (\d+) \|$",
        DOCUMENT.read_text(encoding="utf-8"),
        re.M,
    )
    assert [row[0] for row in rows] == ["1", "11", "17", "33"]
    for splits, tiles, blocks, waves, used, steps in rows:
        laid = schedule(8 * int(splits), 132)
        assert max(dealt(33, int(splits))) == int(tiles)
        assert (sum(laid), len(laid)) == (int(blocks), int(waves))
        assert round(100 * sum(laid) / (len(laid) * 132), 1) == float(used)
        assert int(steps) == int(tiles) * int(waves)
