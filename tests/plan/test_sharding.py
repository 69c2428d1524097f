"""How a model is cut: ranks of a tensor-parallel group, stages of a pipeline, replicas."""

import pytest

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.mamba2 import Mamba2
from kvplan.errors import UsageError
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.weights import parameter_count

# Which axis of which tensor a tensor-parallel group cuts (vLLM's layers): outputs, inputs, or none.
OUTPUTS = {
    "embed_tokens.weight",
    "lm_head.weight",
    "lm_head.bias",
    *(f"self_attn.{p}_proj.{w}" for p in "qkv" for w in ("weight", "bias")),
    "self_attn.sinks",
    "self_attn.q_b_proj.weight",
    "self_attn.o_a_proj.weight",
    "self_attn.kv_b_proj.weight",
    "linear_attn.in_proj_qkvz.weight",
    "linear_attn.in_proj_ba.weight",
    "linear_attn.conv1d.weight",
    "linear_attn.dt_bias",
    "linear_attn.A_log",
    *(f"mlp.{e}{p}_proj.weight" for e in ("", "experts.", "shared_expert.") for p in ("gate", "up")),
    *(f"mlp.{e}{p}_proj.bias" for e in ("", "experts.") for p in ("gate", "up")),
    *(f"cross_attn.{p}_proj.weight" for p in "qkv"),
    *(f"self_attn.{p}.weight" for p in ("qkv_proj", "output_gate", "norm")),
    *(f"self_attn.{p}" for p in ("conv1d.weight", "dt_bias", "A_log")),
    *(f"self_attn.{p}_proj.weight" for p in ("f_b", "b", "g_b")),
    *(f"mamba.{p}.weight" for p in ("in_proj", "dt_proj", "conv1d", "norm")),
    *(f"mamba.{p}" for p in ("conv1d.bias", "dt_proj.bias", "dt_bias", "A_log", "D")),
    *(f"temporal_block.{p}.{w}" for p in ("linear_x", "linear_y", "conv_1d") for w in ("weight", "bias")),
    *(f"temporal_block.rg_lru.{p}_gate_{w}" for p in ("input", "recurrent") for w in ("weight", "bias")),
    "temporal_block.rg_lru.recurrent_param",
    "conv.in_proj.weight",
    "conv.conv.weight",
}
INPUTS = {
    "self_attn.o_proj.weight",
    "self_attn.o_b_proj.weight",
    "linear_attn.out_proj.weight",
    "mlp.down_proj.weight",
    "mlp.experts.down_proj.weight",
    "mlp.shared_expert.down_proj.weight",
    "cross_attn.o_proj.weight",
    "self_attn.out_proj.weight",
    "mamba.x_proj.weight",
    "mamba.out_proj.weight",
    "temporal_block.linear_out.weight",
    "conv.out_proj.weight",
}
# Of groups of heads: each rank has a whole one where there are more ranks than groups.
GROUPS = {"mamba.in_proj_groups.weight", "mamba.conv1d_groups.weight", "mamba.conv1d_groups.bias"}
# Norms over all heads together are cut with them; those of each head are not.
HEAD_NORMS = {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}
KV_HEADS = {f"self_attn.{p}_proj.{w}" for p in "kv" for w in ("weight", "bias")}
KV_HEADS |= {"self_attn.index_q_proj.weight"}  # MiniMax-M3 chooses blocks for each KV head
VOCABULARY = {"embed_tokens.weight", "lm_head.weight", "lm_head.bias"}


def tensors(model):
    found = {(None, w): w for w in (*model.input_weights(), *model.output_weights())}
    for run in model.runs():
        found |= {(run.layer, w): w for w in model.layer_weights(run.layer)}
    return [(layer, weight) for (layer, _), weight in found.items()]


def attention(layer):
    return next((mixer for mixer in layer.mixers() if isinstance(mixer, Attention)), None)


def mamba2(layer):
    return next(mixer for mixer in layer.mixers() if isinstance(mixer, Mamba2))


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_together_hold_every_element_once(representative, ranks, bundled):
    model = bundled(representative)
    for layer, weight in tensors(model):
        try:
            piece = weight.on_rank(ranks)
        except UsageError:
            assert representative in DOES_NOT_DIVIDE[ranks]
            return
        cut = list(weight.shape)
        if weight.name in KV_HEADS and attention(layer) is not None:
            cut[0] //= min(ranks, attention(layer).num_key_value_heads)
        elif weight.name in GROUPS:
            cut[0] //= min(ranks, mamba2(layer).n_groups)
        elif weight.name in HEAD_NORMS and attention(layer).qk_norm is QkNorm.PROJECTION:
            cut[0] //= ranks
        elif weight.name in VOCABULARY:
            cut[0] = -(-cut[0] // 64) * 64 // ranks
        elif weight.name in OUTPUTS:
            assert cut[0] % ranks == 0
            cut[0] //= ranks
        elif weight.name in INPUTS:
            assert cut[1] % ranks == 0
            cut[1] //= ranks
        assert piece.shape == tuple(cut), weight.name
        assert piece.copies == weight.copies
    assert representative not in DOES_NOT_DIVIDE[ranks]


# Heads that do not divide: Falcon-7B has 71, GPT-Neo 20, GPT-2 and Falcon-H1-7B 12, RecurrentGemma-2B 10.
DOES_NOT_DIVIDE = {
    2: {"falcon-7b"},
    4: {"falcon-7b", "recurrentgemma-2b"},
    8: {"falcon-7b", "falcon-h1-7b", "gpt-neo-2.7b", "gpt2", "recurrentgemma-2b"},
}


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("llama-3.1-8b", 3, "tensor parallel 3 does not divide the model's 32 query heads"),
        ("falcon-7b", 2, "tensor parallel 2 does not divide the model's 71 query heads"),
        ("phi-4", 4, "tensor parallel 4 does not divide the model's 10 KV heads"),
        ("gpt2", 5, "tensor parallel 5 does not divide the model's 50,304 padded vocabulary rows"),
        ("qwen3-next-80b-a3b", 32, "tensor parallel 32 does not divide the model's 16 "),
    ],
)
def test_what_does_not_divide_is_refused(name, ranks, message, plan):
    with pytest.raises(UsageError) as error:
        plan(name, tensor=ranks)
    assert error.value.message.startswith(message)
    assert error.value.hint.startswith("tensor parallel sizes that do: ")


@pytest.mark.parametrize(
    ("name", "ranks", "sizes"),
    [
        # Heads 32, KV heads 8 (repeated from 8 on), rows 128,256 and features 14,336 = 2^11 x 7.
        ("llama-3.1-8b", 3, "1, 2, 4, 8, 16, 32"),
        ("falcon-7b", 2, "1"),  # 71 heads
        ("phi-4", 4, "1, 2"),  # 10 KV heads, and rows of 100,352 = 2^11 x 49, which 5 does not divide
    ],
)
def test_sizes_that_would_divide_are_named(name, ranks, sizes, plan):
    with pytest.raises(UsageError) as error:
        plan(name, tensor=ranks)
    assert error.value.hint == f"tensor parallel sizes that do: {sizes}"


def test_a_rank_holds_whole_groups_of_a_packed_format(plan):
    # Llama-3.1-8B's 14,336 features over 16 are 896 = 7 x 128; over 32 they are 448 = 3.5 x 128.
    plan("llama-3.1-8b", tensor=16, weights="int4")
    with pytest.raises(UsageError, match="not whole int4 groups of 128"):
        plan("llama-3.1-8b", tensor=32, weights="int4")


def weights_per_rank(plan, name, **cut):
    return [stage.weights.number for stage in plan(name, weights="bf16", **cut).stages]


def test_llama_on_16_ranks_keeps_one_kv_head_each(plan):
    # q, o: 256 rows of 16,777,216 / 16 = 1,048,576; k, v: one head of 128 x 4,096 = 524,288, not 262,144;
    # three of 896 x 4,096 = 3,670,016; two norms. 14,166,016 a layer.
    layer = 2 * 1_048_576 + 2 * 524_288 + 3 * 3_670_016 + 8_192
    assert layer == 14_163_968
    outer = 2 * 8_016 * 4_096 + 4_096  # 128,256 / 16 rows of embedding and head; the last norm
    assert weights_per_rank(plan, "llama-3.1-8b", tensor=16) == [2 * (32 * layer + outer)]


@pytest.mark.parametrize(("ranks", "rows"), [(1, 50_257), (2, 25_152), (4, 12_576)])
def test_vocabulary_padding(ranks, rows, plan):
    (stage,) = plan("gpt2", tensor=ranks, weights="fp32").stages
    (embedding,) = (q for q in stage.weights.parts if q.name == "embed_tokens.weight")
    assert embedding.number == rows * 768 * 4


def test_latent_projections_are_whole_on_every_rank(plan):
    # DeepSeek-V2-Lite on 2 ranks. Cut: q 3,072 x 2,048, kv_b 4,096 x 512, o 2,048 x 2,048; the first MLP of
    # 10,944; 64 experts and 2 shared ones of 3 x 1,408 x 2,048; embedding and head of 102,400 x 2,048.
    # Whole: kv_a 576 x 2,048, its norm 512, two norms of 2,048, router 64 x 2,048, the last norm.
    attention = (3_072 * 2_048 + 4_096 * 512 + 2_048 * 2_048) // 2 + 576 * 2_048 + 512 + 2 * 2_048
    experts = 66 * 3 * 1_408 * 2_048 // 2 + 64 * 2_048
    elements = 27 * attention + 26 * experts + 3 * 10_944 * 2_048 // 2 + 2 * 102_400 * 2_048 // 2 + 2_048
    assert weights_per_rank(plan, "deepseek-v2-lite", tensor=2) == [2 * elements]


# ------------------------------------------------------------------ pipelines


@pytest.mark.parametrize(
    ("name", "stages", "sizes"),
    [
        ("deepseek-v3", 4, [15, 15, 16, 15]),  # 61: the one left over goes before the last stage
        ("deepseek-v3", 2, [31, 30]),
        ("gemma-3-27b", 4, [15, 16, 16, 15]),  # 62
        ("gemma-3-27b", 8, [7, 8, 8, 8, 8, 8, 8, 7]),
        ("llama-3.1-8b", 3, [11, 11, 10]),
        ("llama-3.1-8b", 5, [6, 6, 7, 7, 6]),
        ("llama-3.1-8b", 32, [1] * 32),
    ],
)
def test_layers_of_each_stage(name, stages, sizes, bundled):
    found = pipeline_stages(bundled(name), stages)
    assert [len(s.layers) for s in found] == sizes
    assert [layer for s in found for layer in s.layers] == list(bundled(name).layers)


def test_more_stages_than_layers_are_refused(bundled):
    with pytest.raises(UsageError) as error:
        pipeline_stages(bundled("gpt2"), 13)
    assert error.value.message == "pipeline parallel 13 is more than the model's 12 layers"


def test_layers_stay_with_the_cache_they_read(bundled):
    """Gemma-3n-E2B: of 30 layers the last 10 read what layers 18 and 19 store; 15 | 15 keeps them so."""
    gemma = bundled("gemma-3n-e2b")
    assert len(pipeline_stages(gemma, 2)) == 2
    with pytest.raises(UsageError) as error:
        pipeline_stages(gemma, 3)
    assert error.value.message == "layers on stage 3 of 3 read the cache of a layer on a stage before it"


def test_embedding_first_head_last(plan):
    # Llama-3.1-8B over 2: 16 layers of 218,112,000 each; embedding; head and the last norm.
    assert weights_per_rank(plan, "llama-3.1-8b", pipeline=2) == [
        2 * (16 * 218_112_000 + 525_336_576),
        2 * (16 * 218_112_000 + 525_336_576 + 4_096),
    ]


def test_a_tied_head_is_copied_to_the_last_stage(plan):
    # Gemma-2-9B over 2: 21 layers of 198,195,200; the embedding of 256,000 x 3,584 on both, once as the head.
    assert weights_per_rank(plan, "gemma-2-9b", pipeline=2) == [
        2 * (21 * 198_195_200 + 917_504_000),
        2 * (21 * 198_195_200 + 917_504_000 + 3_584),
    ]


def test_learned_positions_and_towers_are_on_the_first_stage(plan):
    first, last = plan("gpt2", pipeline=2, weights="fp32").stages
    assert [q.name for q in first.weights.parts[:2]] == ["embed_tokens.weight", "embed_positions.weight"]
    assert first.weights.number == 4 * (6 * 7_087_872 + 38_597_376 + 786_432)
    assert last.weights.number == 4 * (6 * 7_087_872 + 38_597_376 + 1_536)
    tower = 2 * 423_060_336
    stages = plan("gemma-3-27b", pipeline=2).stages
    held = [sum(q.number for q in s.weights.parts if q.name.startswith("vision_tower.")) for s in stages]
    assert held == [tower, 0]


@pytest.mark.parametrize("pipeline", [1, 2])
def test_stages_together_hold_the_model(representative, pipeline, plan, bundled):
    model = bundled(representative)
    buffers = sum(w.elements * n for w, n in model.weights() if not w.trained)
    head = model.vocab_size * (model.embedding_size or model.hidden_size)
    copied = head if model.tie_word_embeddings and pipeline > 1 else 0
    expected = 2 * (parameter_count(model).number + copied) + 4 * buffers
    assert sum(weights_per_rank(plan, representative, pipeline=pipeline)) == expected


def test_stages_together_hold_the_cache(representative, plan):
    capacity = plan(representative, pipeline=2)
    for context in (1, 1_000, 5_000):
        held = sum(s.cache.allocated_bytes(context) for s in capacity.stages)
        assert held == capacity.whole_cache.allocated_bytes(context)


def test_the_worst_stage_decides(plan):
    """DeepSeek-V3 over 4: the third stage has 16 layers of 1,152 B, and less room than the first."""
    capacity = plan("deepseek-v3", "b300-sxm", pipeline=4, max_tokens=1 << 30)
    longest = capacity.max_context(1)
    room = [stage.pool.number // (len(stage.stage.layers) * 1_152 * 16) * 16 for stage in capacity.stages]
    assert longest == min(room)
    assert capacity.most_loaded is capacity.stages[room.index(min(room))]


# ------------------------------------------------------------------ replicas


@pytest.mark.parametrize("context", [1_000, 8_192, 100_000])
def test_replicas_multiply_requests(context, plan):
    one = plan("llama-3.1-8b").max_batch(context)
    assert one > 0
    assert plan("llama-3.1-8b", data=2).max_batch(context) == 2 * one
    assert plan("llama-3.1-8b", data=5).max_batch(context) == 5 * one


def test_the_fullest_replica_decides(plan):
    capacity = plan("llama-3.1-8b", data=4)
    assert [capacity.replica_batch(n) for n in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
    assert capacity.max_context(5) == plan("llama-3.1-8b").max_context(2)
