"""``kvplan roofline`` as people type it."""

import json
import re

import pytest

from kvplan.specs.catalog import bundled_folder

LLAMA = ("roofline", "llama-3.1-8b", "--gpu", "h100-sxm")
OPERATOR = {
    "name": str,
    "batch": int,
    "flops": int,
    "weight_bytes": int,
    "kv_read_bytes": int,
    "kv_write_bytes": int,
    "activation_bytes": int,
    "collective_bytes": int,
    "limit": str,
    "bound_s": (int, float),
    "estimate_s": float,
}


def ask(command, *options):
    status, out, lines = command(*LLAMA, *options, "--json")
    assert (status, lines) == (0, [])
    return json.loads(out)


def operator(data, name, batch=1):
    (row,) = (row for row in data["operators"] if (row["name"], row["batch"]) == (name, batch))
    return row


def test_the_keys_that_are_promised(command):
    data = ask(command, "--batch", "1,8", "--context", "4k")
    assert data["command"] == "roofline"
    for row in data["operators"]:
        for key, kind in OPERATOR.items():
            assert isinstance(row[key], kind), (row["name"], key)
        assert row["arithmetic_intensity"] is None or row["arithmetic_intensity"] > 0
    assert {*OPERATOR} - {"name"} <= data["total"].keys()
    assert data["verdict"]["fits"] is True
    asked = ("phase", "batch", "context_tokens", "new_tokens", "cached_tokens", "usd_per_gpu_hour")
    assert [data["inputs"][key] for key in asked] == ["decode", [1, 8], 4_096, 1, 0, None]


def test_a_step_by_hand(command):
    """Batch 8 at 4,096 tokens: 15.01 GB of weights, 4,097 tokens read and one written, of 131,072 bytes."""
    total = ask(command, "--batch", "8", "--context", "4k")["total"]
    assert total["weight_bytes"] == (8_030_261_248 - 525_336_576) * 2 + 8 * 8_192
    assert total["kv_read_bytes"] == 8 * 4_097 * 131_072
    assert total["kv_write_bytes"] == 8 * 131_072
    moved = total["weight_bytes"] + total["kv_read_bytes"] + total["kv_write_bytes"]
    assert total["bound_s"] == pytest.approx(moved / 3.35e12, rel=1e-12)
    assert total["bound_s"] < total["estimate_s"] < 2 * total["bound_s"]


def test_every_batch_has_its_rows(command):
    data = ask(command, "--batch", "1..8")
    assert [row["batch"] for row in data["steps"]] == [1, 2, 4, 8]
    assert operator(data, "o_proj", 8)["flops"] == 8 * operator(data, "o_proj", 1)["flops"]
    assert data["total"]["batch"] == 8


def test_prefill_in_chunks_behind_a_cached_prefix(command):
    data = ask(command, "--phase", "prefill", "--context", "5k", "--cached", "1k", "--chunk", "1k")
    done = operator(data, "o_proj")
    assert done["flops"] == 2 * 4_096 * 32 * 4_096**2
    assert done["weight_bytes"] == 4 * 2 * 32 * 4_096**2, "once a chunk"
    attention = operator(data, "attention")
    assert attention["flops"] == 32 * 32 * 512 * sum(range(1_025, 5_121))
    assert attention["kv_read_bytes"] == 131_072 * (2_048 + 3_072 + 4_096 + 5_120)
    assert operator(data, "lm_head")["flops"] == 2 * 128_256 * 4_096, "of the last token alone"
    assert "compute_bound_batch" not in done
    assert data["total"]["tokens_per_s"] == pytest.approx(4_096 / data["total"]["estimate_s"])


def test_speculated_tokens_are_verified_in_one_step(command):
    one, five = (ask(command, "--new-tokens", tokens) for tokens in ("1", "5"))
    for name in ("qkv_proj", "gate_up_proj", "lm_head"):
        assert operator(five, name)["flops"] == 5 * operator(one, name)["flops"]
        assert operator(five, name)["weight_bytes"] == operator(one, name)["weight_bytes"]
    assert operator(five, "attention")["flops"] > 5 * operator(one, "attention")["flops"]
    assert operator(five, "qkv_proj")["compute_bound_batch"] == 60
    assert operator(one, "qkv_proj")["compute_bound_batch"] == 296


def test_a_price_becomes_dollars_for_a_million_tokens(command):
    data = ask(command, "--batch", "16", "--price", "2.95", "--gpus", "2")
    rate = 16 / data["total"]["estimate_s"]
    assert data["serving"]["usd_per_million_tokens"] == pytest.approx(2 * 2.95 / 3_600 / rate * 1e6)
    assert data["inputs"]["usd_per_gpu_hour"] == 2.95
    assert "usd_per_million_tokens" not in ask(command)["serving"]


def test_the_kernel_is_told_of_where_it_is_asked_for(command):
    without, told = ask(command), ask(command, "--kernel")
    more = told.keys() - without.keys()
    assert more
    assert {key: told[key] for key in without if key != "notes"} == {
        key: without[key] for key in without if key != "notes"
    }


def test_parallelism_sends_and_pays_for_it(command):
    data = ask(command, "--tp", "8")
    assert operator(data, "all_reduce")["collective_bytes"] == 65 * 4_096 * 2
    assert data["total"]["collective_bytes"] == 65 * 4_096 * 2 + 7 * 128_256 // 8 * 2
    assert data["total"]["weight_bytes"] < 15_009_857_536 / 7


def test_explained_figures_print_what_ran(command):
    status, out, _ = command(*LLAMA, "--batch", "8", "--explain", "operators.o_proj.8.bound_s")
    assert status == 0
    assert "maximum(memory_bytes / bytes_per_s, flops / flops_per_s)" in out
    assert "1073741824 / 3350000000000.0" in out
    assert "0.321 ms" in out
    status, out, _ = command(*LLAMA, "--explain", "serving")
    assert status == 0
    assert "tokens_per_s / count" in out


def test_the_answer_is_no_where_it_does_not_fit(command):
    too_much = ("--batch", "64", "--context", "16k")
    status, out, _ = command(*LLAMA, *too_much)
    assert status == 0
    assert "Does not fit: " in out
    assert command(*LLAMA, *too_much, "--check")[0] == 1
    assert command(*LLAMA, "--check")[0] == 0


def test_a_gpu_that_reaches_no_other_is_refused_more_than_one(refused, command, tmp_path):
    text = (bundled_folder() / "gpus" / "h20.yaml").read_text(encoding="utf-8")
    alone = re.sub(r"interconnect:\n(  .*\n)+", "interconnect: {}\n", text)
    assert alone != text
    (tmp_path / "alone.yaml").write_text(alone, encoding="utf-8")
    arguments = ("roofline", "llama-3.1-8b", "--gpu", str(tmp_path / "alone.yaml"))
    assert command(*arguments)[0] == 0
    assert refused(*arguments, "--tp", "2") == [
        "no link of h20 to other GPUs is known: exchanges cannot be timed"
        "   (link_gb_per_s_per_direction in its file)"
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("llama-3.1-8b", "--gpu", "tpu-v5e", "--tp", "4"),
        ("llama-3.1-8b", "--gpu", "t4", "--tp", "4"),
        ("gpt2", "--gpu", "v100-sxm2-16gb"),
        ("deepseek-v3", "--gpu", "h200-sxm", "--dp", "8", "--ep", "8"),
        ("deepseek-v3", "--gpu", "h200-sxm", "--tp", "8", "--phase", "prefill"),
        ("qwen3-next-80b-a3b", "--gpu", "b200-sxm", "--phase", "prefill", "--context", "20k"),
        ("gemma-3-27b", "--gpu", "rtx5090", "--weights", "q4_k", "--kv", "int8"),
        ("gpt-oss-120b", "--gpu", "b300-sxm", "--kv", "fp8", "--batch", "64"),
        ("llama-3.1-405b", "--gpu", "h100-sxm", "--tp", "8", "--pp", "2", "--phase", "prefill"),
        ("llama-3.1-8b", "--gpu", "mi300x", "--cp", "2"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_every_kind_of_model_and_accelerator_has_an_answer(arguments, form, command):
    status, out, lines = command("roofline", *arguments, "--format", form)
    assert (status, lines) == (0, [])
    assert not re.search(r"\bnan\b|\binf\b", out)


def test_no_number_of_a_table_is_another_in_json(command):
    """Milliseconds of the table are those of the JSON, to three digits."""
    _, out, _ = command(*LLAMA, "--batch", "8")
    data = ask(command, "--batch", "8")
    lines = {line[2:].split("  ")[0]: line for line in out.splitlines() if line.startswith("  ")}
    for row, label in (
        ("o_proj", "output projection"),
        ("attention", "attention"),
        ("lm_head", "output head"),
    ):
        found = operator(data, row, 8)
        assert f"{found['estimate_s'] * 1e3:.3g}" in lines[label]
        assert f"{found['bound_s'] * 1e3:.3g}" in lines[label]


def test_the_formats_agree(command):
    """Every operator, by name and batch, is in CSV and in plain lines what it is in JSON."""
    data = ask(command, "--batch", "1,8")
    _, table, _ = command(*LLAMA, "--batch", "1,8", "--format", "csv")
    rows = dict(line.split(",")[:2] for line in table.splitlines() if line.startswith("operators."))
    _, plain, _ = command(*LLAMA, "--batch", "1,8", "--format", "plain")
    lines = dict(line.split(" ")[:2] for line in plain.splitlines() if line.startswith("operators."))
    assert rows.keys() == lines.keys()
    assert len(rows) == sum(len(row) - 2 for row in data["operators"])
    for row in data["operators"]:
        for key, value in row.items():
            if key not in ("name", "batch"):
                name = f"operators.{row['name']}.{row['batch']}.{key}"
                assert rows[name] == ("" if value is None else str(value))
                assert lines[name] == ("-" if value is None else str(value))


@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_the_same_question_has_the_same_answer(form, command):
    asked = (*LLAMA, "--batch", "1,64", "--price", "3", "--format", form)
    assert command(*asked) == command(*asked)


def test_a_closed_loop_of_one_request_only_decodes(command):
    """Its own prompt is not read between its own tokens; half of its 512 tokens are there on average."""
    loop = ask(command, "--context", "1024", "--output-tokens", "512")["closed_loop"]
    step = ask(command, "--context", "1280")["total"]
    assert loop["tpot_estimate_s"] == pytest.approx(step["estimate_s"], rel=1e-12)
    assert loop["tpot_bound_s"] == pytest.approx(step["bound_s"], rel=1e-12)


def test_a_closed_loop_of_many_reads_prompts_between_tokens(command):
    options = ("--batch", "64", "--context", "1024", "--output-tokens", "512", "--price", "2", "--gpus", "2")
    data = ask(command, *options)
    loop, first = data["closed_loop"], data["serving"]["ttft_estimate_s"]
    assert (
        loop["tpot_estimate_s"]
        > ask(command, "--batch", "64", "--context", "1280", "--gpus", "2")["total"]["estimate_s"]
    )
    rate = 64 * 512 / (first + 511 * loop["tpot_estimate_s"])
    assert loop["tokens_per_s"] == pytest.approx(rate, rel=1e-12)
    assert loop["tokens_per_s_per_gpu"] == pytest.approx(rate / 2, rel=1e-12)
    assert loop["usd_per_million_tokens"] == pytest.approx(2 * 2 / 3_600 / rate * 1e6, rel=1e-12)
    assert data["inputs"]["output_tokens"] == 512


def test_no_loop_is_told_where_none_is_asked_for(command):
    assert "closed_loop" not in ask(command)


def test_a_runtime_with_kernels_of_its_own(command):
    """Llama-3-8B Q4_K_M on an RTX 4090 was measured at 127.7 tokens/s (GPU-Benchmarks-on-LLM-Inference)."""
    card = ("roofline", "llama-3.1-8b", "--gpu", "rtx4090", "--weights", "q4_k", "--kv", "fp16")
    status, out, _ = command(*card, "--context", "512", "--runtime", "llama.cpp-2024", "--json")
    told = json.loads(out)["runtime"]
    assert status == 0
    assert told["tokens_per_s"] == pytest.approx(127.7, rel=0.06)
    assert told["tokens_per_s"] * told["decode_step_estimate_s"] == pytest.approx(1)
    assert told["median_error"] == 0.057


def test_reading_prompts_with_a_runtime_has_no_decode_step(command):
    card = ("roofline", "llama-3.1-8b", "--gpu", "rtx4090", "--weights", "q4_k", "--phase", "prefill")
    told = json.loads(command(*card, "--runtime", "llama.cpp", "--json")[1])["runtime"]
    assert {*told} == {"prefill_estimate_s", "median_error"}


def test_a_closed_loop_holds_its_requests_at_their_ends(command):
    """55 requests of 8,192 tokens fit an H100; 100 that end there do not, though 100 of 4,096 do."""
    options = (*LLAMA, "--batch", "100", "--context", "4k", "--check")
    assert command(*options)[0] == 0
    status, out, _ = command(*options, "--output-tokens", "4k")
    assert status == 1
    assert "55 would fit" in " ".join(out.split())


def test_guesses_past_the_longest_context_do_not_fit(command):
    """131,072 tokens are the limit: a plain step of a full context is told, four more are not."""
    assert command(*LLAMA, "--context", "131072", "--check")[0] == 0
    assert command(*LLAMA, "--context", "131072", "--new-tokens", "5", "--check")[0] == 1


def test_one_prompt_on_one_of_eight_replicas_is_one_prompts_work(command):
    """DeepSeek-V3, 58 layers: a token runs 8 experts of three matrices of 7168 x 2048, on 8 ranks."""
    cut = ("roofline", "deepseek-v3", "--gpu", "h200-sxm", "--dp", "8", "--ep", "8", "--phase", "prefill")
    one, eight = (json.loads(command(*cut, "--batch", batch, "--json")[1]) for batch in ("1", "8"))
    flops = 2 * 58 * 4_096 * 8 * 3 * 7_168 * 2_048 / 8
    assert operator(one, "experts", 1)["flops"] == pytest.approx(flops, rel=1e-12)
    assert operator(eight, "experts", 8)["flops"] == pytest.approx(8 * flops, rel=1e-12)


def test_notes_say_what_times_rest_on(command):
    def notes(*options):
        return " ".join(json.loads(command("roofline", *options, "--json")[1])["notes"])

    assert "latent attention is among them" in notes("deepseek-v3", "--gpu", "h200-sxm", "--gpus", "8")
    assert "experts: bounds read those of one token only" in notes("mixtral-8x7b", "--gpu", "h200-sxm")
    assert "experts" not in notes(*LLAMA[1:])
    assert "no kernel of mi300x was measured" in notes("llama-3.1-8b", "--gpu", "mi300x")
    assert "no kernel over int8 KV was measured on h100-sxm" in notes(*LLAMA[1:], "--kv", "int8")
    assert "stand in" not in notes(*LLAMA[1:], "--kv", "fp8")
    assert "of one slow machine" in notes("llama-3.1-8b", "--gpu", "l40s", "--tp", "4")
    assert "of one slow machine" not in notes("llama-3.1-8b", "--gpu", "l40s", "--tp", "2")


def test_attention_has_a_ridge_of_its_own_where_it_runs_at_another_rate(command):
    """H100: 1,978.9 TFLOP/s in FP8 and 989.4 in bf16, over 3.35 TB/s."""
    found = ask(command, "--weights", "fp8")["crossovers"]
    assert found["ridge_flops_per_byte"] == pytest.approx(1_978.9e12 / 3.35e12)
    assert found["attention_ridge_flops_per_byte"] == pytest.approx(989.4e12 / 3.35e12)
    assert "attention_ridge_flops_per_byte" not in ask(command)["crossovers"]
