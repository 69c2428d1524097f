"""Routed experts held whole, some on each GPU of a pipeline stage."""

import json
from dataclasses import replace
from math import ceil

import pytest

from kvplan.arch.buffer import Buffer
from kvplan.arch.experts import Experts
from kvplan.arch.weight import features
from kvplan.errors import UsageError
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.capacity_report import capacity_report
from kvplan.plan.deployment import Parallelism
from kvplan.plan.verdict import verdict
from kvplan.plan.weights import weights_bytes
from kvplan.storage import weight_format

MIB = 1 << 20
MIXTURES = (
    "deepseek-v2-lite",
    "deepseek-v3",
    "gpt-oss-120b",
    "gpt-oss-20b",
    "kimi-k2",
    "mixtral-8x7b",
    "qwen3-235b-a22b",
    "qwen3-30b-a3b",
    "qwen3-coder-480b-a35b",
    "qwen3-next-80b-a3b",
)


def planned(plan, name, gpu="h200-sxm", *, cut, **options):
    """Plan a bundled model on accelerators it is cut over."""
    alone = plan(name, gpu, **options)
    return plan_capacity(alone.model, replace(alone.deployment, parallelism=cut))


def weights_per_gpu(capacity):
    return [stage.weights.number for stage in capacity.stages]


def routed_bytes(stage, walk):
    """Sum the bytes of a stage's routed experts, however many equal layers have them."""
    found = 0
    for part in stage.weights.parts:
        if part.formula is not None and part.formula.name == "bytes_of_layers":
            layers, one = part.inputs
            experts = (q.number for q in walk(one) if q.name.startswith("mlp.experts."))
            found += layers.number * sum(experts)
    return found


# ------------------------------------------------------------------ DeepSeek-V3 as it is released, on 8 GPUs


def block_fp8(rows, columns):
    """Count the bytes of a matrix in float8 with a float32 scale for each block of 128 x 128."""
    return rows * columns + 4 * ceil(rows / 128) * ceil(columns / 128)


# 58 layers of 256 experts of three matrices of 2,048 x 7,168, each with 16 x 56 scales:
# 3 x (14,680,064 + 3,584) = 44,050,944 bytes an expert.
ALL_EXPERTS = 58 * 256 * 44_050_944


def deepseek_v3_without_experts(ranks):
    """Count one rank's bytes of everything but the routed experts, from the published shapes."""
    attention = (
        block_fp8(1_536, 7_168)
        + 2 * 1_536
        + block_fp8(24_576 // ranks, 1_536)
        + block_fp8(576, 7_168)
        + 2 * 512
        + block_fp8(32_768 // ranks, 512)
        + block_fp8(7_168, 16_384 // ranks)
        + 2 * 2 * 7_168
    )
    dense = 2 * block_fp8(18_432 // ranks, 7_168) + block_fp8(7_168, 18_432 // ranks)
    shared = 2 * block_fp8(2_048 // ranks, 7_168) + block_fp8(7_168, 2_048 // ranks)
    router = 2 * 256 * 7_168 + 4 * 256
    outer = 2 * 2 * (129_280 // ranks) * 7_168 + 2 * 7_168
    return 61 * attention + 3 * dense + 58 * (shared + router) + outer


@pytest.mark.parametrize(
    ("cut", "ranks"),
    [(Parallelism(tensor=8, expert=8), 8), (Parallelism(data=8, expert=8), 1)],
    ids=["tp 8 ep 8", "dp 8 ep 8"],
)
def test_each_of_8_gpus_holds_an_eighth_of_deepseek_v3s_experts(cut, ranks, plan, walk):
    assert ALL_EXPERTS == 654_068_416_512
    (stage,) = planned(plan, "deepseek-v3", cut=cut).stages
    assert routed_bytes(stage, walk) == 81_758_552_064 == ALL_EXPERTS // 8
    assert stage.weights.number == deepseek_v3_without_experts(ranks) + 81_758_552_064


def test_replicas_that_share_no_experts_hold_all_of_them(plan, walk):
    (stage,) = planned(plan, "deepseek-v3", cut=Parallelism(data=8)).stages
    assert routed_bytes(stage, walk) == ALL_EXPERTS
    assert stage.shortfall.number > 0


def test_attention_data_parallelism_multiplies_requests(plan):
    # Latents are whole on every rank of either: 61 layers x 1,152 B; with eight replicas each has requests of
    # its own. Pools differ by the weights and activations.
    by_tensor = planned(plan, "deepseek-v3", cut=Parallelism(tensor=8, expert=8))
    by_data = planned(plan, "deepseek-v3", cut=Parallelism(data=8, expert=8))
    for capacity, replicas in ((by_tensor, 1), (by_data, 8)):
        (stage,) = capacity.stages
        assert capacity.max_batch(32_768) == replicas * (stage.pool.number // (32_768 * 61 * 1_152))
    assert by_data.max_batch(32_768) > 5 * by_tensor.max_batch(32_768) > 0


# ------------------------------------------------------------------ other mixtures


def test_mixtral_on_two_gpus(plan, walk):
    # 32 layers of 8 experts of three matrices of 14,336 x 4,096 in bfloat16; four experts on each GPU.
    (stage,) = planned(plan, "mixtral-8x7b", "h100-sxm", cut=Parallelism(tensor=2, expert=2)).stages
    assert routed_bytes(stage, walk) == 32 * 4 * 3 * 14_336 * 4_096 * 2 == 45_097_156_608
    tensors = {q.name: q for part in stage.weights.parts for q in walk(part)}
    assert tensors["mlp.experts.down_proj.weight"].inputs[0].source == "4 x (4,096 x 14,336)"


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_unpacked_experts_take_the_same_bytes_whole_or_cut(name, ranks, plan, bundled):
    """Only the biases of what experts put out differ: every tensor-parallel rank keeps those of all."""
    try:
        (cut,) = weights_per_gpu(planned(plan, name, weights="bf16", cut=Parallelism(tensor=ranks)))
    except UsageError:
        pytest.fail(f"{name} cannot be cut over {ranks} ranks: take it out of the list")
    whole = planned(plan, name, weights="bf16", cut=Parallelism(tensor=ranks, expert=ranks))
    biases = 0
    for layer in bundled(name).layers:
        if isinstance(layer.mlp, Experts) and layer.mlp.expert_bias:
            kept = layer.mlp.num_experts - layer.mlp.num_experts // ranks
            biases += kept * bundled(name).hidden_size * 2
    assert weights_per_gpu(whole) == [cut - biases]


@pytest.mark.parametrize("name", MIXTURES)
def test_ranks_together_hold_every_expert_once(name, bundled):
    model = bundled(name)
    for weight, _ in model.weights():
        piece = weight.on_rank(4, 4)
        if "mlp.experts." in weight.name:
            assert (piece.shape, 4 * piece.copies) == (weight.shape, weight.copies)
        else:
            assert piece == weight.on_rank(4)


def test_a_vision_towers_layers_are_no_experts(bundled):
    (tower, *_) = [w for w, _ in bundled("gemma-3-27b").weights() if "layers" in w.name and w.copies > 1]
    assert tower.copies == 27
    assert tower.on_rank(1, 27) is tower


def test_every_stage_of_a_pipeline_shares_its_own_experts(plan, walk):
    capacity = planned(plan, "deepseek-v3", cut=Parallelism(tensor=4, pipeline=2, data=2, expert=8))
    assert capacity.deployment.parallelism.gpus == 16
    assert sum(routed_bytes(stage, walk) for stage in capacity.stages) == ALL_EXPERTS // 8


def test_weights_bytes_without_the_degree_are_cut(plan):
    capacity = planned(plan, "mixtral-8x7b", cut=Parallelism(tensor=2))
    (memory,) = capacity.stages
    fp8 = weight_format("fp8")
    # fp8 scales: a whole expert has its own; a cut one has one on each rank. 32 x 8 x 3 matrices of 4 bytes.
    cut = weights_bytes(capacity.model, memory.stage, 2, fp8).number
    assert cut - weights_bytes(capacity.model, memory.stage, 2, fp8, 2).number == 32 * 4 * 3 * 4


# ------------------------------------------------------------------ what is refused, and what no longer is


def test_whole_experts_have_whole_tiles(plan):
    # Qwen3-235B has experts 1,536 wide: 192 on each of 8 ranks, which is one and a half blocks of 128.
    with pytest.raises(UsageError, match="not whole fp8-block groups of 128"):
        planned(plan, "qwen3-235b-a22b", weights="fp8-block", cut=Parallelism(tensor=8))
    cut = Parallelism(tensor=8, expert=8)
    assert planned(plan, "qwen3-235b-a22b", weights="fp8-block", cut=cut).max_batch(4_096) > 0


@pytest.mark.parametrize(
    ("name", "ranks", "message", "hint"),
    [
        (
            "deepseek-v3",
            6,
            "expert parallel 6 does not divide the model's 256 routed experts",
            "expert parallel sizes that do: 1, 2, 4, 8, 16, 32, 64, 128, 256",
        ),
        (
            "kimi-k2",
            5,
            "expert parallel 5 does not divide the model's 384 routed experts",
            "expert parallel sizes that do: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 384",
        ),
        ("llama-3.1-8b", 2, "expert parallel 2: llama-3.1-8b has no routed experts", "--ep 1"),
    ],
)
def test_experts_that_cannot_be_shared_are_refused(name, ranks, message, hint, plan):
    with pytest.raises(UsageError) as error:
        planned(plan, name, cut=Parallelism(data=ranks, expert=ranks))
    assert (error.value.message, error.value.hint) == (message, hint)


def test_a_stack_that_does_not_divide_is_refused_by_itself(bundled):
    (weight, *_) = [w for w, _ in bundled("mixtral-8x7b").weights() if w.routed]
    with pytest.raises(UsageError) as error:
        weight.on_rank(1, 3)
    assert error.value.message == "expert parallel 3 does not divide the model's 8 routed experts"


# ------------------------------------------------------------------ activations, overhead and the report


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3"])
def test_evenly_shared_experts_have_the_activations_of_cut_ones(name, plan):
    (cut,) = planned(plan, name, cut=Parallelism(tensor=8)).stages
    (whole,) = planned(plan, name, cut=Parallelism(tensor=8, expert=8)).stages
    assert whole.activations.number == cut.activations.number


def test_a_buffer_of_experts_no_rank_cuts_is_rounded_up():
    assert Buffer("expert activated", 2 * 100, features(0, 100)).on_rank(3) == 67
    assert Buffer("expert activated", 2 * 100, features(0, 100)).on_rank(4) == 50


@pytest.mark.parametrize(
    ("cut", "mib"),
    [
        (Parallelism(data=2), 768),
        (Parallelism(data=2, expert=2), 1_024),  # replicas that share experts talk to each other
        (Parallelism(data=8, expert=8), 1_792),
        (Parallelism(data=4, pipeline=2, expert=4), 1_792),
    ],
)
def test_overhead(cut, mib, plan):
    for stage in planned(plan, "mixtral-8x7b", cut=cut).stages:
        assert stage.overhead.number == mib * MIB


def test_what_would_fit_keeps_the_experts_whole(plan):
    # 93.4 GB of weights on L4s of 20.7 GB planned: a quarter is 23.4 GB, an eighth 11.7 GB.
    capacity = planned(plan, "mixtral-8x7b", "l4", cut=Parallelism(tensor=2, expert=2))
    found = verdict(capacity, 4_096, 1)
    assert not found.yes
    assert found.text.endswith("It fits on 8 of these GPUs (--gpus 8 --tp 8 --ep 8).")


def test_the_report_says_it(plan):
    capacity = planned(plan, "deepseek-v3", cut=Parallelism(data=8, expert=8))
    report = capacity_report(capacity, [4_096], [1], decide_context=4_096, decide_batch=1, inputs=())
    assert "on 8 x NVIDIA H200 SXM 141GB, ep 8 (" in report.heading
    assert "each GPU holds 1 in 8 of the routed experts, whole (--ep)" in report.notes
    assert report.notes[-1].endswith("(tp 1 x pp 1 x dp 8, ep 8)")
    found = {q.name: q.value for q in report.section("deployment").quantities}
    assert (found["data_parallel"], found["expert_parallel"], found["context_parallel"]) == (8, 8, 1)


@pytest.mark.parametrize(
    ("options", "degrees"),
    [
        (["--gpus", "8", "--ep", "8"], (8, 1, 1, 8, 1)),
        (["--ep", "8"], (8, 1, 1, 8, 1)),
        (["--ep", "8", "--dp", "8"], (1, 1, 8, 8, 1)),
        (["--ep", "8", "--dp", "2", "--cp", "2"], (2, 1, 2, 8, 2)),
    ],
)
def test_the_command_shares_experts(options, degrees, command):
    status, out, _ = command("capacity", "deepseek-v3", "--gpu", "h200-sxm", "--json", *options)
    names = ("tensor", "pipeline", "data", "expert", "context")
    found = json.loads(out)["deployment"]
    assert status == 0
    assert tuple(found[f"{name}_parallel"] for name in names) == degrees
