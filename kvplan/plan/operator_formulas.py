"""The formulas of a step's work that the phases of a run do not share.

Amounts are of all equal layers together, on one GPU. A step stores its own tokens first and then reads,
once, every token that one of its queries sees.
"""

from __future__ import annotations

from kvplan.formula import formula
from kvplan.units import Amount, Unit, maximum, minimum

# ------------------------------------------------------------------ tokens


@formula(Unit.PAIRS, "every request of the batch")
def batch_pairs(batch: Amount, pairs: Amount) -> Amount:
    """Pairs of query and key of a whole batch."""
    return batch * pairs


@formula(Unit.TOKENS, "its own tokens and all before them")
def full_step_tokens(context: Amount, new_tokens: Amount) -> Amount:
    """Cached tokens that one request's step reads under full attention."""
    return context + new_tokens


@formula(Unit.TOKENS, "its own tokens and those before them that its first query sees")
def window_step_tokens(context: Amount, new_tokens: Amount, window: int) -> Amount:
    """Cached tokens that one request's step reads through a window, sinks included in its length."""
    return new_tokens + minimum(context, window - 1)


@formula(Unit.TOKENS, "its own tokens and the chunk its first query stands in")
def chunk_step_tokens(context: Amount, new_tokens: Amount, chunk: int) -> Amount:
    """Cached tokens that one request's step reads in chunks."""
    return new_tokens + context % chunk


@formula(Unit.TOKENS, "those chosen for each of its own tokens, and none twice that is in view")
def selected_step_tokens(context: Amount, new_tokens: Amount, index_topk: int) -> Amount:
    """Most cached tokens that one request's decode step reads where an indexer chooses them."""
    return minimum(context + new_tokens, new_tokens * index_topk)


@formula(Unit.TOKENS, "each query reads its own block so far, and whole blocks of all before it")
def selected_block_step_tokens(
    context: Amount, new_tokens: Amount, topk_blocks: int, block_tokens: int
) -> Amount:
    """Most cached tokens that one request's decode step reads where an indexer chooses blocks of them."""
    return minimum(
        context + new_tokens,
        new_tokens
        * (minimum(context // block_tokens, topk_blocks - 1) * block_tokens + context % block_tokens + 1),
    )


@formula(Unit.TOKENS, "tokens divided over the ranks of a context-parallel group, rounded up")
def tokens_on_rank(tokens: Amount, context_parallel: int) -> Amount:
    """Tokens of a request that the fullest context-parallel rank holds."""
    return -(-tokens // context_parallel)


@formula(Unit.GROUPS, "groups complete once the step's tokens are stored")
def step_groups(context: Amount, new_tokens: Amount, group_tokens: int) -> Amount:
    """Complete groups of keys that one request's step reads."""
    return (context + new_tokens) // group_tokens


@formula(Unit.TOKENS, "keys behind the last complete group")
def step_waiting(context: Amount, new_tokens: Amount, group_tokens: int) -> Amount:
    """Keys that one request's step reads one by one, as they wait for their group."""
    return (context + new_tokens) % group_tokens


@formula(Unit.NONE, "every request of the batch")
def of_batch(batch: Amount, each: Amount) -> Amount:
    """An amount of a whole batch."""
    return batch * each


# ------------------------------------------------------------------ weights


@formula(Unit.BYTES, "weights are read once a step, however many tokens pass")
def weights_read_bytes(layers: int, bytes_of_one_layer: int) -> int:
    """Bytes of weights that a step reads in equal layers."""
    return layers * bytes_of_one_layer


@formula(Unit.BYTES, "the head and the last norm are read once, where any logits are made")
def head_read_bytes(logit_rows: Amount, head_bytes: int) -> Amount:
    """Bytes of the output head that a step reads."""
    return minimum(logit_rows, 1) * head_bytes


@formula(Unit.BYTES, "one row of the embedding for each token")
def embedding_read_bytes(tokens: Amount, row_bytes: Amount) -> Amount:
    """Bytes of embeddings that a step looks up."""
    return tokens * row_bytes


@formula(
    Unit.NONE,
    "each token picks its experts by chance: E (1 - (1 - k / E)^T) of them are picked at all; "
    "the busiest rank reads some in any case",
)
def distinct_experts(experts_on_rank: int, experts: int, chosen: int, tokens: Amount, fewest: int) -> Amount:
    """Expected routed experts of one layer that a rank reads, of those it holds."""
    return maximum(experts_on_rank * (1 - (1 - chosen / experts) ** tokens), fewest)


@formula(Unit.BYTES, "only experts that some token picked are read")
def experts_read_bytes(layers: int, distinct: Amount, bytes_of_one_expert: int) -> Amount:
    """Expected bytes of routed experts that a step reads in equal layers."""
    return layers * distinct * bytes_of_one_expert


@formula(Unit.TOKENS, "ranks that share experts take the tokens of every replica")
def routed_tokens(replicas: int, replica_share: Amount, batch: Amount, new_tokens: Amount) -> Amount:
    """Tokens that pass through experts shared by all replicas, of which one is the fullest."""
    return replicas * replica_share * batch * new_tokens


@formula(Unit.FLOPS, "the ranks that share the experts run the picks of all tokens evenly")
def ranks_share(flops: Amount, expert_parallel: int) -> Amount:
    """Operations of routed experts that one expert-parallel rank runs."""
    return flops / expert_parallel


# ------------------------------------------------------------------ what an operator moves


@formula(Unit.BYTES, "weights and cache, which no chip holds between steps")
def memory_bytes(weight_bytes: Amount, kv_read_bytes: Amount, kv_write_bytes: Amount) -> Amount:
    """Bytes that must come from memory or go there."""
    return weight_bytes + kv_read_bytes + kv_write_bytes


@formula(Unit.BYTES, "and activations, which kernels pass on through memory")
def moved_bytes(
    weight_bytes: Amount, kv_read_bytes: Amount, kv_write_bytes: Amount, activation_bytes: Amount
) -> Amount:
    """Bytes that usually come from memory or go there."""
    return weight_bytes + kv_read_bytes + kv_write_bytes + activation_bytes


# ------------------------------------------------------------------ between operators, and between GPUs


@formula(Unit.BYTES, "inputs read and outputs written, for each token")
def activations_bytes(layers: int, tokens: Amount, features: int, element_bytes: int) -> Amount:
    """Bytes of activations that an operator of equal layers reads and writes."""
    return layers * tokens * features * element_bytes


@formula(Unit.BYTES, "every token's hidden state, each time it is summed")
def hidden_bytes(exchanges: int, tokens: Amount, hidden_size: int, element_bytes: int) -> Amount:
    """Bytes of hidden states that a rank contributes to exchanges with the others."""
    return exchanges * tokens * hidden_size * element_bytes


@formula(Unit.BYTES, "a copy for each chosen expert that lives on another rank, there and back")
def dispatched_bytes(
    layers: int, tokens: Amount, chosen: int, expert_input: int, element_bytes: int, expert_parallel: int
) -> Amount:
    """Bytes of hidden states, or of their latents, that go to experts on other ranks and back."""
    return (
        2 * layers * tokens * chosen * expert_input * element_bytes * (expert_parallel - 1) / expert_parallel
    )
