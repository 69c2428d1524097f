"""Plain experts in a latent: what a step multiplies, reads and sends, worked out by hand."""

import pytest

from kvplan.allocation import Paged
from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.work import decode_step
from kvplan.plan.deployment import Parallelism
from kvplan.plan.operators import stage_operators
from kvplan.plan.rank import Rank
from kvplan.plan.stages import pipeline_stages
from kvplan.storage import kv_format, state_layout, weight_format

# Hidden states of 40 and latents of 24; 8 experts of 20, of which 3 are used; a shared one of 36.
EXPERTS = Experts(
    8,
    3,
    20,
    shared_expert_intermediate_size=36,
    gated=False,
    moe_latent_size=24,
    hidden_act=Activation.RELU_SQUARED,
)
LAYERS = 2
MODEL = Model(
    "latent", "a test", "bf16", 40, 64, 512, (Layer(Attention(4, 4, 10), None), Layer(None, EXPERTS)) * LAYERS
)


def works_of(cut, batch):
    """The work of each operator of a decode step in bfloat16."""
    formats = weight_format("bf16"), kv_format("bf16"), state_layout("transformers")
    rank = Rank(MODEL, cut, *formats, Paged(16))
    (stage,) = pipeline_stages(MODEL, 1)
    step = decode_step(batch, 100)
    return {operator.name: operator.work(step) for operator in stage_operators(rank, stage)}


def test_a_step_multiplies_two_matrices_of_each_expert_it_uses():
    found = works_of(Parallelism(), 5)
    flops = {name: work.matmul_flops for name, work in found.items()}
    assert flops["router"] == 2 * LAYERS * 5 * 8 * 40
    assert flops["latent_in_proj"] == flops["latent_out_proj"] == 2 * LAYERS * 5 * 24 * 40
    assert flops["experts"] == 2 * LAYERS * 5 * 3 * 2 * 20 * 24
    assert flops["shared_up_proj"] == flops["shared_down_proj"] == 2 * LAYERS * 5 * 36 * 40


def test_one_token_reads_its_own_experts_and_both_latent_matrices():
    found = works_of(Parallelism(), 1)
    read = {name: work.weight_bytes for name, work in found.items()}
    assert read["experts"] == pytest.approx(LAYERS * 3 * 2 * 20 * 24 * 2)
    assert read["latent_in_proj"] == read["latent_out_proj"] == LAYERS * 24 * 40 * 2


def test_an_experts_activations_pass_through_its_two_steps():
    # For each of 3 experts: 24 numbers in, 20 out, 20 in, 24 out.
    assert works_of(Parallelism(), 5)["experts"].activation_bytes == LAYERS * 5 * 3 * 88 * 2


def test_tensor_parallel_ranks_share_experts_and_repeat_the_latent():
    whole, cut = works_of(Parallelism(), 5), works_of(Parallelism(tensor=4), 5)
    assert cut["experts"].matmul_flops * 4 == whole["experts"].matmul_flops
    assert cut["latent_in_proj"].matmul_flops == whole["latent_in_proj"].matmul_flops
    assert cut["latent_out_proj"].weight_bytes == whole["latent_out_proj"].weight_bytes


def test_expert_parallel_ranks_send_latents():
    found = works_of(Parallelism(data=4, expert=4), 2)
    # Two tokens a replica, three copies each of 24 numbers of 2 bytes, there and back; a quarter stays.
    assert found["all_to_all"].collective_bytes == 2 * LAYERS * 2 * 3 * 24 * 2 * 3 / 4
    assert found["experts"].matmul_flops == 2 * LAYERS * 8 * 3 * 2 * 20 * 24 / 4
