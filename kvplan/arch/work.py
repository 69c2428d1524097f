"""One step of inference, and the work it is: what is multiplied, read, written and sent."""

from __future__ import annotations

from dataclasses import dataclass, fields

from kvplan.units import Amount


@dataclass(frozen=True, slots=True)
class Step:
    """Equal requests that each add tokens to what they have cached, in one pass through the layers.

    Prefill, a chunk of one, decode and the verification of speculated tokens are all steps and differ in
    their numbers only. Numbers may be arrays that broadcast, of any shape; as floats, they are exact up to
    2^53 and cannot wrap.

    Args:
        batch: requests.
        new_tokens: tokens each of them adds.
        context: tokens each has cached before the step, those of a shared prefix included.
        logits: tokens of each whose logits are made: none in a chunk that is not a prompt's last.
        absorbed: latent attention runs in the latent's own space, as decode kernels do, not on expanded keys.
        replica_share: requests of the average replica over those of this one, the fullest.
        token_ranks: context-parallel ranks that share the new tokens, as in prefill.
    """

    batch: Amount
    new_tokens: Amount
    context: Amount
    logits: Amount = 1
    absorbed: bool = True
    token_ranks: int = 1
    replica_share: Amount = 1.0

    @property
    def tokens(self) -> Amount:
        """Tokens that pass through the layers of the rank that has most of them."""
        return self.batch * -(-self.new_tokens // self.token_ranks)

    @property
    def logit_rows(self) -> Amount:
        """Tokens whose logits are made."""
        return self.batch * self.logits


def decode_step(batch: Amount, context: Amount, new_tokens: Amount = 1) -> Step:
    """Return the step that adds a token to every request, or verifies several that were speculated."""
    return Step(batch, new_tokens, context, logits=new_tokens)


def prefill_step(batch: Amount, new_tokens: Amount, context: Amount = 0, *, last: bool = True) -> Step:
    """Return the step that reads a prompt, or a chunk of it, behind ``context`` tokens cached before."""
    return Step(batch, new_tokens, context, logits=1 if last else 0, absorbed=False)


@dataclass(frozen=True, slots=True)
class Work:
    """What a step, or one operator of it, multiplies and moves on one GPU.

    Args:
        matmul_flops: operations of products with weights.
        attention_flops: operations of attention and recurrences.
        weight_bytes: weights read.
        kv_read_bytes: keys, values, latents and states read.
        kv_write_bytes: the same, written.
        activation_bytes: inputs and outputs of operators, which caches on the chip may spare.
        collective_bytes: sent to other GPUs.
    """

    matmul_flops: Amount = 0
    attention_flops: Amount = 0
    weight_bytes: Amount = 0
    kv_read_bytes: Amount = 0
    kv_write_bytes: Amount = 0
    activation_bytes: Amount = 0
    collective_bytes: Amount = 0

    @property
    def flops(self) -> Amount:
        """All operations."""
        return self.matmul_flops + self.attention_flops

    @property
    def memory_bytes(self) -> Amount:
        """What must come from memory or go there: weights and cache."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_write_bytes

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def times(self, count: Amount) -> Work:
        """Return this work done ``count`` times."""
        return Work(*(getattr(self, f.name) * count for f in fields(Work)))


NO_WORK = Work()
