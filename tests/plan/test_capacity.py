"""What fits: exact boundaries against an independent count, grids against single calls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.arch.attention import Attention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.errors import UsageError

GPUS = ("rtx4090", "h100-sxm", "mi300x")
# Every law of what is kept: full attention, windows, chunks, shared caches, latents, states.
COUNTED = (
    *"deepseek-v2-lite falcon-7b gemma-2-9b gemma-3n-e2b gpt-oss-20b gpt2 llama-3.1-8b".split(),
    *"llama-4-scout mixtral-8x7b qwen3-next-80b-a3b".split(),
)


def smallest_that_holds(plan, model_name, device, **options):
    """Plan on the fewest GPUs of a tensor-parallel group that hold the model, or on one where none does."""
    for tensor in (1, 2, 4, 8, 16):
        try:
            capacity = plan(model_name, device, tensor=tensor, **options)
        except UsageError:
            continue
        if capacity.max_batch(1):
            return capacity
    return plan(model_name, device, **options)


def bytes_needed(capacity, batch, context, block=16):
    """Count a plan's cache layer by layer, in bf16, block by block: written apart from the planner."""
    ranks, needed = capacity.deployment.parallelism.tensor, 0
    for layer in capacity.model.layers:
        mixer = layer.mixer
        if not all(slot.owned for slot in layer.slots()):
            continue
        if isinstance(mixer, Attention):
            heads = max(1, mixer.num_key_value_heads // ranks)
            per_token = 2 * heads * mixer.head_dim * 2
        elif isinstance(mixer, LatentAttention):
            per_token = (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * 2
        else:
            keys = mixer.linear_num_key_heads * mixer.linear_key_head_dim
            values = mixer.linear_num_value_heads * mixer.linear_value_head_dim
            state = (2 * keys + values) * mixer.linear_conv_kernel_dim * 2
            needed += (state + values * mixer.linear_key_head_dim * 4) // ranks
            continue
        blocks = (context + block - 1) // block
        window = getattr(mixer, "sliding_window", None)
        if window is not None:
            blocks = min(blocks, (window - 1 + block - 1) // block + 1)
        if getattr(mixer, "attention_chunk_size", None) is not None:
            blocks = min(blocks, mixer.attention_chunk_size // block)
        needed += per_token * blocks * block
    return batch * needed


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("name", COUNTED)
def test_n_fits_and_one_more_does_not(name, device, plan):
    capacity = smallest_that_holds(plan, name, device)
    (stage,) = capacity.stages
    longest = capacity.deployment.max_tokens

    def fits(batch, context):
        found = bytes_needed(capacity, batch, context) <= stage.pool.number
        return found and not stage.shortfall.number and context <= longest

    for context in {1, 1_000, 4_096, longest // 2, longest, longest + 1}:
        batch = capacity.max_batch(context)
        assert batch == 0 or (fits(batch, context) and capacity.fits(batch, context))
        assert not fits(batch + 1, context)
        assert not capacity.fits(batch + 1, context)
    for batch in (1, 7, 64, 1_000):
        context = capacity.max_context(batch)
        assert context == 0 or (fits(batch, context) and capacity.fits(batch, context))
        assert not fits(batch, context + 1)
        assert not capacity.fits(batch, context + 1)


def test_boundaries_are_of_memory_for_most_of_them(plan):
    """The test above is worth something: on these GPUs memory, not the model's limit, is what ends most."""
    ended = [
        smallest_that_holds(plan, name, "rtx4090").max_context(7) for name in ("llama-3.1-8b", "gemma-2-9b")
    ]
    assert ended[0] not in (0, 131_072)
    assert ended[1] not in (0, 8_192)


def test_llama_on_an_h100_by_hand(plan):
    # 59,196,930,457 bytes of pool; a request of 8,192 tokens takes 1,073,741,824, of 8,193 one block more.
    capacity = plan("llama-3.1-8b")
    assert capacity.stages[0].pool.number == 59_196_930_457
    assert capacity.max_batch(8_192) == 55
    assert capacity.max_batch(8_193) == 55  # 55 x 1,075,838,976 = 59,171,143,680
    assert capacity.max_batch(131_072) == 3
    # One of 131,072 tokens: the model's limit. Four: 59,196,930,457 / 4 / 2,097,152 = 7,056.8 blocks.
    assert capacity.max_context(1) == 131_072
    assert capacity.max_context(4) == 7_056 * 16
    assert capacity.max_context(10**6) == 0


def test_the_last_byte_of_the_pool_counts(plan):
    # 76,968,728,985 planned - 16,060,522,496 - 905,969,664, less what three requests of 8,192 tokens take.
    exact = 76_968_728_985 - 16_060_522_496 - 905_969_664 - 3 * 1_073_741_824
    assert plan("llama-3.1-8b", overhead=exact).max_batch(8_192) == 3
    assert plan("llama-3.1-8b", overhead=exact + 1).max_batch(8_192) == 2
    grid = plan("llama-3.1-8b", overhead=exact).fits_grid(np.array([3, 4]), np.array([8_192]))
    assert grid.tolist() == [[True], [False]]


def test_a_contiguous_cache_is_full_at_once(plan):
    # To 131,072 tokens: 17,179,869,184 bytes each, whatever is asked: three.
    capacity = plan("llama-3.1-8b", contiguous=True)
    assert [capacity.max_batch(c) for c in (1, 8_192, 131_072)] == [3, 3, 3]
    assert (capacity.max_context(3), capacity.max_context(4)) == (131_072, 0)


@pytest.mark.parametrize("contiguous", [False, True])
def test_the_limit_of_length_is_a_limit(contiguous, plan):
    capacity = plan("llama-3.1-8b", contiguous=contiguous, max_tokens=1_000)
    assert capacity.fits(1, 1_000)
    assert not capacity.fits(1, 1_001)
    assert capacity.max_batch(1_001) == 0
    assert capacity.max_context(1) == 1_000


PLANS = {
    "llama": ("llama-3.1-8b", "h100-sxm", {}),
    "gemma": ("gemma-2-9b", "rtx4090", {"kv": "int8"}),
    "replicas": ("qwen2.5-7b", "a100-sxm-80gb", {"data": 3}),
    "pipeline": ("deepseek-v3", "b300-sxm", {"pipeline": 4}),
    "state": ("qwen3-next-80b-a3b", "h200-sxm", {"tensor": 2, "state": "vllm"}),
    "contiguous": ("gpt-oss-20b", "rtx5090", {"contiguous": True}),
    "short": ("llama-3.1-70b", "rtx4090", {}),
}
batches, contexts = st.integers(1, 5_000), st.integers(1, 300_000)


@pytest.fixture(params=PLANS)
def capacity(request, plan):
    name, device, options = PLANS[request.param]
    return plan(name, device, **options)


@settings(max_examples=25)
@given(some=st.lists(batches, min_size=1, max_size=6), long=st.lists(contexts, min_size=1, max_size=6))
@pytest.mark.parametrize("planned", PLANS)
def test_a_grid_equals_single_calls(planned, some, long, plan):
    name, device, options = PLANS[planned]
    capacity = plan(name, device, **options)
    grid = capacity.fits_grid(np.array(some), np.array(long))
    assert grid.shape == (len(some), len(long))
    assert grid.tolist() == [[capacity.fits(b, c) for c in long] for b in some]


def test_the_edge_of_a_grid_is_the_searched_one(capacity):
    lengths = np.array([1, 1_000, 4_096, 8_192])
    numbers = np.arange(1, 400)
    counted = capacity.fits_grid(numbers, lengths).sum(axis=0)
    assert counted.tolist() == [min(399, capacity.max_batch(int(c))) for c in lengths]


def test_an_empty_grid(capacity):
    assert capacity.fits_grid(np.array([], dtype=np.int64), np.array([5])).shape == (0, 1)


def test_a_grid_past_2_to_53_is_refused_with_the_number(plan):
    # 131,072 B/token x 2^20 tokens x 2^17 requests = 2^54 bytes.
    capacity = plan("llama-3.1-8b", max_tokens=1 << 20)
    with pytest.raises(UsageError) as error:
        capacity.fits_grid(np.array([1, 1 << 17]), np.array([1, 1 << 20]))
    assert error.value.message == (
        "batch 131,072 x context 1,048,576 is 18,014,398,509,481,984 bytes of cache, past 2^53"
    )
    assert error.value.hint == "ask for a smaller grid"
    allowed = capacity.fits_grid(np.array([1 << 16]), np.array([1 << 20]))  # exactly 2^53
    assert allowed.tolist() == [[False]]


@settings(max_examples=40)
@given(one=st.tuples(batches, contexts), other=st.tuples(batches, contexts))
@pytest.mark.parametrize("planned", PLANS)
def test_monotone(planned, one, other, plan):
    """What fits still fits with fewer requests, shorter ones, or fewer bits."""
    name, device, options = PLANS[planned]
    capacity = plan(name, device, **options)
    smaller = (min(one[0], other[0]), min(one[1], other[1]))
    if capacity.fits(*one):
        assert capacity.fits(*smaller)
    low, high = sorted((one[1], other[1]))
    assert capacity.max_batch(low) >= capacity.max_batch(high)
    low, high = sorted((one[0], other[0]))
    assert capacity.max_context(low) >= capacity.max_context(high)


@pytest.mark.parametrize("context", [100, 8_000])
def test_fewer_bits_never_hold_less(representative, context, plan):
    most = [
        plan(representative, "mi300x", kv=kv).max_batch(context)
        for kv in ("fp32", "bf16", "int8", "fp8", "int4")
    ]
    assert most == sorted(most)


def test_less_memory_never_holds_more(plan):
    found = [plan("llama-3.1-8b", utilization_bp=bp).max_batch(8_192) for bp in range(2_000, 10_001, 500)]
    assert found == sorted(found)
    assert found[0] == 0
    # All of it: 85,520,809,984 - 17,771,798,528 = 67,749,011,456 bytes, 63.1 requests of 2^30.
    assert found[-1] == 63
