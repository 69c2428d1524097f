"""The formulas of time: what bytes, operations, launches and exchanges take."""

from __future__ import annotations

from kvplan.formula import formula
from kvplan.units import Amount, Unit, maximum


@formula(Unit.SECONDS, "roofline: whichever is longer (Williams, Waterman, Patterson 2009)")
def roofline_s(memory_bytes: Amount, bytes_per_s: float, flops: Amount, flops_per_s: float) -> Amount:
    """Least time of an operator whose reading and multiplying overlap."""
    return maximum(memory_bytes / bytes_per_s, flops / flops_per_s)


@formula(Unit.SECONDS, "at the measured share of the bandwidth")
def moving_s(moved_bytes: Amount, memory_share: float, bytes_per_s: float) -> Amount:
    """Expected time to move bytes between memory and chip."""
    return moved_bytes / (memory_share * bytes_per_s)


@formula(Unit.SECONDS, "at the measured share of the dense peak")
def multiplying_s(flops: Amount, compute_share: float, flops_per_s: float) -> Amount:
    """Expected time of operations."""
    return flops / (compute_share * flops_per_s)


@formula(Unit.FLOPS, "tiles on the diagonal are computed whole: a prompt works as if it were a little longer")
def ramped_flops(flops: Amount, ramp_tokens: float, context: Amount, new_tokens: Amount) -> Amount:
    """Operations of prefill attention as its kernels do them."""
    return flops * (1 + ramp_tokens / (context + new_tokens))


@formula(Unit.SECONDS, "each call takes so long however little it does")
def launching_s(calls: int, launch_us: float) -> float:
    """Expected time of launches, and of what a kernel takes to fill and drain the chip."""
    return calls * launch_us * 1e-6


@formula(Unit.SECONDS, "every byte once over the link: the network may sum on the way")
def sending_bound_s(sent_bytes: Amount, link_bytes_per_s: float) -> Amount:
    """Least time of an exchange."""
    return sent_bytes / link_bytes_per_s


@formula(Unit.SECONDS, "a ring sends each byte 2 (n - 1) / n times, at the measured share of the link")
def ring_s(sent_bytes: Amount, ranks: int, link_share: float, link_bytes_per_s: float) -> Amount:
    """Expected time of a sum over ranks, without its launches."""
    return sent_bytes * 2 * (ranks - 1) / ranks / (link_share * link_bytes_per_s)


@formula(Unit.SECONDS, "every byte once, at the measured share of the link")
def sending_s(sent_bytes: Amount, link_share: float, link_bytes_per_s: float) -> Amount:
    """Expected time of any other exchange, without its launches."""
    return sent_bytes / (link_share * link_bytes_per_s)
