"""What a reader must know of estimated times: how far off they are, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvplan.arch.attention import Attention
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Model
from kvplan.arch.recurrent import Recurrent
from kvplan.hardware.efficiency import Kernel
from kvplan.hardware.link import GPUS_OF_A_BOX
from kvplan.plan.deployment import Deployment
from kvplan.plan.serving import ESTIMATE_MEDIAN_ERROR, ESTIMATE_P90_ERROR


def time_notes(model: Model, deployments: Sequence[Deployment]) -> Iterator[str]:
    """Iterate over what to know of the times of a model under these deployments, each sentence once."""
    yield (
        f"estimate: median error {ESTIMATE_MEDIAN_ERROR:.0%}, 90th percentile {ESTIMATE_P90_ERROR:.0%}, on "
        "public measurements of dense models, gpt-oss and Mixtral, nearly all on NVIDIA (docs/accuracy.md)"
    )
    kinds = dict.fromkeys(_unjudged(model))
    if kinds:
        yield f"no public time of {' or '.join(kinds)} is among them"
    yield from dict.fromkeys(note for deployment in deployments for note in _of_deployment(deployment))


def _unjudged(model: Model) -> Iterator[str]:
    """Iterate over the kinds of layers that no end-to-end measurement is of."""
    for mixer in (mixer for run in model.runs() for mixer in run.layer.mixers()):
        if isinstance(mixer, Attention) and mixer.indexer is not None:
            yield "attention over chosen blocks"
        if isinstance(mixer, LatentAttention):
            yield "latent attention"
        if isinstance(mixer, CompressedAttention):
            yield "compressed attention"
        if isinstance(mixer, Recurrent):
            yield "a recurrent layer"


def _of_deployment(deployment: Deployment) -> Iterator[str]:
    device, cut = deployment.device, deployment.parallelism
    if not device.efficiency:
        yield f"no kernel of {device.name} was measured: constants of other GPUs"
    measured = {fit.format for fit in device.efficiency if fit.kernel is Kernel.DECODE_ATTENTION}
    stored = "bf16" if deployment.kv.name in ("bf16", "fp16", "fp32") else deployment.kv.name
    if device.efficiency and stored not in measured:
        yield f"no kernel over {stored} KV was measured on {device.name}: the nearest stand in"
    measured = {fit.format for fit in device.efficiency if fit.kernel in (Kernel.GEMM, Kernel.EXPERTS)}
    stored = "bf16" if deployment.weights.name in ("bf16", "fp16", "fp32") else deployment.weights.name
    if device.efficiency and stored not in measured:
        yield f"no kernel over {stored} weights was measured on {device.name}: the nearest stand in"
    if cut.gpus_that_talk > GPUS_OF_A_BOX:
        yield f"exchanges of {cut.gpus_that_talk:,} GPUs are timed as if all shared the links of one box"
    if cut.gpus_that_talk > 2 and device.interconnect.link_gb_per_s_per_direction is None:
        yield "all-reduces of more than 2 GPUs over PCIe are of one slow machine: others were faster"
