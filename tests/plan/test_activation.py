"""The activation peak by hand."""

import pytest


def peaks(plan, name, **options):
    """Return the activation peak of each stage, and the three it is the largest of."""
    found = [stage.activations for stage in plan(name, **options).stages]
    return [q.number for q in found], [[i.number for i in q.inputs] for q in found]


def test_llama_8192_tokens(plan):
    # Elements a token: residual and input 2 x 4,096, and
    #   attention: queries 4,096, keys 1,024, values 1,024, output 4,096, projected 4,096: 22,528 in all;
    #   MLP: gate and up 28,672, activated 14,336, output 4,096: 55,296 in all.
    # Head: hidden states 8,192 x 4,096 x 2 = 67,108,864; 256 rows of 128,256 logits in 2 + 4 + 4 bytes.
    assert peaks(plan, "llama-3.1-8b") == (
        [905_969_664],
        [[8_192 * 22_528 * 2, 905_969_664, 67_108_864 + 328_335_360]],
    )


def test_mixture_8192_tokens(plan):
    # Qwen3-30B-A3B, elements a token: 2 x 2,048, and
    #   attention: 4,096 + 512 + 512 + 4,096 + 2,048 = 11,264: 15,360 in all;
    #   experts: router 128, gate and up 8 x 2 x 768, activated 8 x 768, outputs 8 x 2,048, output 2,048:
    #   36,992; 41,088 in all.
    # Head: 8,192 x 2,048 x 2 + 256 x 151,936 x 10.
    assert peaks(plan, "qwen3-30b-a3b") == (
        [8_192 * 41_088 * 2],
        [[8_192 * 15_360 * 2, 673_185_792, 33_554_432 + 388_956_160]],
    )


def test_latent_attention_expands_its_keys_and_values(plan):
    # DeepSeek-V3, elements a token: 2 x 7,168; compressed queries 1,536, queries 24,576, latent 576, expanded
    # 32,768, keys with rotation 24,576, output 16,384, projected 7,168: 121,920 in all.
    _, ((mixer, _, _),) = peaks(plan, "deepseek-v3")
    assert mixer == 8_192 * 121_920 * 2


def test_the_head_can_be_the_largest(plan):
    # Gemma-3-1B, one token: 1 x 1,152 x 2 + 256 x 262,144 x 10.
    assert peaks(plan, "gemma-3-1b", chunk=1)[0] == [671_090_944]
    assert 1_152 * 2 + 256 * 262_144 * 10 == 671_090_944


def test_ranks_share_what_they_cut(plan):
    # Llama-3.1-8B on 2: gate and up 14,336, activated 7,168, output 4,096, 2 x 4,096: 33,792.
    assert peaks(plan, "llama-3.1-8b", tensor=2)[0] == [8_192 * 33_792 * 2]
    # On 16 ranks one KV head of 128 is kept: queries and output 256, keys and values 128, projected 4,096.
    _, ((mixer, _, _),) = peaks(plan, "llama-3.1-8b", tensor=16)
    assert mixer == 8_192 * (2 * 4_096 + 2 * 256 + 2 * 128 + 4_096) * 2


def test_only_the_last_stage_makes_logits(plan):
    _, inputs = peaks(plan, "llama-3.1-8b", pipeline=3)
    assert [head for _, _, head in inputs] == [0, 0, 395_444_224]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3", "qwen3-next-80b-a3b"])
def test_linear_in_the_chunk(name, plan):
    sizes = {chunk: peaks(plan, name, chunk=chunk)[0][0] for chunk in (8_192, 16_384, 24_576)}
    assert sizes[16_384] == 2 * sizes[8_192]
    assert sizes[24_576] == 3 * sizes[8_192]
    for part in range(2):
        first, second, third = (peaks(plan, name, chunk=c)[1][0][part] for c in (1, 2, 3))
        assert (second, third) == (2 * first, 3 * first)


def test_never_a_function_of_the_weights(representative, plan):
    """Neither their storage nor how many layers hold them changes what is alive in one of them."""
    found = {
        storage: peaks(plan, representative, weights=storage)[0]
        for storage in ("bf16", "fp32", "int4", "q2_k")
    }
    assert len({tuple(sizes) for sizes in found.values()}) == 1


def test_never_a_function_of_the_context(plan):
    assert peaks(plan, "llama-3.1-8b", max_tokens=1_000) == peaks(plan, "llama-3.1-8b")
