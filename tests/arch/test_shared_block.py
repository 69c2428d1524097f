"""A block that layers share: its weights once in a model, once on a stage, and read at every use."""

from dataclasses import replace

import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.released import StoredAs
from kvplan.arch.scale_down import kept_layers, scaled_down
from kvplan.arch.shared_block import SharedBlock
from kvplan.arch.what_if import with_kv_heads, with_latent_attention, with_window
from kvplan.checks import FieldError
from kvplan.errors import UsageError
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.step_work import step_weights_bytes
from kvplan.plan.weights import parameter_count, weights_bytes
from kvplan.results import fact
from kvplan.storage import weight_format
from kvplan.units import Unit

HIDDEN, VOCAB = 8, 10
ATTENTION = Attention(2, 2, 8, input_streams=2, adapter_rank=3)
BLOCK = SharedBlock(0, ATTENTION, MLP(12, adapter_rank=3))
RECURS = Mamba2(num_heads=2, head_dim=8, state_size=4, n_groups=1, conv_kernel=4)
PLAIN, FIRST, SECOND = (
    Layer(RECURS, None, shared_block=block) for block in (None, BLOCK, replace(BLOCK, number=1))
)
# Counted by hand. The block: norms of 16 and 8, q, k and v of 16 x 16, o of 8 x 16, three of 8 x 12. A use:
# three adapters of 3 x 16 and 16 x 3, one of 3 x 8 and 24 x 3, and 8 x 8 behind it.
OF_BLOCK = 16 + 8 + 3 * 256 + 128 + 3 * 96
OF_USE = 3 * (48 + 48) + 24 + 72 + 64
# A Mamba-2: in 2 x 16 + 2 and 2 x 4 rows of 8, a convolution of 16 + 8 channels with biases, three numbers a
# head, out 8 x 16, its norm of 16, and the layer's of 8.
OF_MAMBA = (34 + 8) * 8 + 24 * 4 + 24 + 6 + 128 + 16 + 8
OUTSIDE = VOCAB * HIDDEN + HIDDEN
BYTES = fact("element_bytes", 2, "bf16", Unit.BYTES)


def model_of(*layers):
    return Model("shared", "a test", "bf16", HIDDEN, VOCAB, 64, layers, tie_word_embeddings=True)


def test_a_block_is_counted_once_and_each_use_by_itself():
    model = model_of(PLAIN, FIRST, SECOND, FIRST, PLAIN, SECOND, FIRST)
    expected = OUTSIDE + 7 * OF_MAMBA + 5 * OF_USE + 2 * OF_BLOCK
    assert sum(weight.elements * count for weight, count in model.weights()) == expected
    assert parameter_count(model).number == expected
    (stage,) = pipeline_stages(model, 1)
    assert weights_bytes(model, stage, 1, weight_format("bf16")).number == 2 * expected


def test_a_block_is_counted_once_though_its_layers_differ_otherwise():
    other = Layer(replace(RECURS, use_conv_bias=False), None, shared_block=BLOCK)
    model = model_of(FIRST, other)
    assert parameter_count(model).number == OUTSIDE + 2 * OF_MAMBA - 24 + 2 * OF_USE + OF_BLOCK
    assert len(model.runs()) == 2


def test_a_step_reads_a_block_at_every_use():
    model = model_of(PLAIN, FIRST, SECOND, FIRST)
    # The tied head is read, the embedding looked up.
    expected = OUTSIDE + 4 * OF_MAMBA + 3 * (OF_USE + OF_BLOCK)
    assert step_weights_bytes(model, BYTES).number == 2 * expected


def test_every_stage_that_uses_a_block_holds_it():
    model = model_of(FIRST, SECOND, FIRST, PLAIN)
    held = [
        weights_bytes(model, stage, 1, weight_format("bf16")).number for stage in pipeline_stages(model, 2)
    ]
    first = VOCAB * HIDDEN + 2 * (OF_MAMBA + OF_USE + OF_BLOCK)
    second = OUTSIDE + 2 * OF_MAMBA + OF_USE + OF_BLOCK
    assert held == [2 * first, 2 * second]


def test_each_use_caches_keys_and_values_beside_its_state():
    model = model_of(FIRST, FIRST)
    assert model.places() == ((0, 1), (2, 3))
    assert FIRST.slots() == (*ATTENTION.slots(), *RECURS.slots())


def test_names_in_the_model():
    named = {w.name: w.full_name(4) for w in model_of(SECOND).layer_weights(SECOND)}
    assert named["self_attn.q_proj.weight"] == "blocks.1.self_attn.q_proj.weight"
    assert named["self_attn.q_proj_adapter_a.weight"] == "layers.4.self_attn.q_proj_adapter_a.weight"
    assert named["input_layernorm.weight"] == "layers.4.input_layernorm.weight"
    assert named["shared_block.input_layernorm.weight"] == "blocks.1.shared_block.input_layernorm.weight"


def test_a_scaled_model_keeps_a_second_use():
    model = model_of(PLAIN, PLAIN, PLAIN, PLAIN, FIRST, PLAIN, SECOND, PLAIN, PLAIN, FIRST, SECOND)
    assert kept_layers(model) == (0, 1, 4, 6, 9) or kept_layers(model) == (0, 4, 6, 9)
    used = [layer.shared_block.number for layer in scaled_down(model).layers if layer.shared_block]
    assert used == [0, 1, 0]


@pytest.mark.parametrize(
    "other",
    [
        Layer(RECURS, None, shared_block=replace(BLOCK, mlp=MLP(16, adapter_rank=3))),
        replace(FIRST, stored_otherwise=(StoredAs("fp8", ("self_attn.q_proj.weight",)),)),
    ],
    ids=["another block", "stored otherwise"],
)
def test_one_number_is_one_block(other):
    with pytest.raises(FieldError, match=r"layer 2 shares blocks\.0 with another that has not the same"):
        model_of(FIRST, PLAIN, other)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (lambda: Layer(RECURS, MLP(8), shared_block=BLOCK), "needs a plain pre_norm of a state space alone"),
        (lambda: Layer(ATTENTION, None, shared_block=BLOCK), "needs a plain pre_norm of a state space alone"),
        (lambda: SharedBlock(0, Attention(2, 2, 8), MLP(8)), "must be 2 in a shared block"),
        (lambda: SharedBlock(0, replace(ATTENTION, shares_kv=True), MLP(8)), "caches its own keys"),
    ],
)
def test_what_a_layer_with_a_block_cannot_be(layer, complaint):
    with pytest.raises(FieldError, match=complaint):
        layer()


def test_what_if_changes_reach_the_block_and_latents_are_refused():
    model = model_of(PLAIN, FIRST, FIRST)
    fewer = with_kv_heads(model, 1)
    assert [layer.shared_block.attention.num_key_value_heads for layer in fewer.layers[1:]] == [1, 1]
    assert with_window(model, 16).layers[1].shared_block.attention.sliding_window == 16
    with pytest.raises(UsageError, match="cannot keep shared's shared blocks"):
        with_latent_attention(model, 4, 2)
