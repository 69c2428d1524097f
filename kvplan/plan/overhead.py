"""What a runtime takes on each GPU beside weights, activations and cache.

These are typical figures read from public vLLM start-up logs, not computed: they differ by release and
driver, so ``--overhead`` replaces them with a measured one.
"""

from __future__ import annotations

from kvplan.formula import formula
from kvplan.plan.deployment import Deployment
from kvplan.results import Quantity, computed, fact
from kvplan.units import GIB, MIB, Count, Unit

_LIBRARIES = 256 * MIB
_LIBRARIES_SOURCE = "vLLM logs: non-torch memory at one GPU 0.01 to 0.56 GiB, 0.26 in the latest (2026-10)"
_GRAPHS = 512 * MIB
_GRAPHS_SOURCE = "vLLM logs: CUDA graphs 0.5 to 0.7 GiB for 7-8B models, up to 3.5 for 32B and larger"
_FEW_GPUS = 256 * MIB
_FEW_GPUS_SOURCE = "vLLM logs: non-torch memory 0.2 to 0.4 GiB in all with 2 to 4 GPUs"
_MANY_GPUS = GIB
_MANY_GPUS_SOURCE = "vLLM logs: non-torch memory 0.9 to 2.2 GiB in all with 8 GPUs"


@formula(Unit.BYTES, "kvplan: sum of typical figures from vLLM start-up logs")
def runtime_overhead_bytes(libraries: int, graphs: int, communication: int) -> Count:
    """Bytes of library workspaces, captured graphs and communication buffers on one GPU."""
    return libraries + graphs + communication


def overhead_bytes(deployment: Deployment) -> Quantity:
    """Return the runtime's own memory on each GPU: the user's figure, or the typical one explained."""
    if deployment.overhead_bytes is not None:
        return fact("overhead_bytes", deployment.overhead_bytes, "--overhead", Unit.BYTES, "overhead")
    return computed(
        "overhead_bytes",
        runtime_overhead_bytes,
        fact("libraries", _LIBRARIES, _LIBRARIES_SOURCE, Unit.BYTES),
        fact("graphs", _GRAPHS, _GRAPHS_SOURCE, Unit.BYTES),
        _communication(deployment.parallelism.gpus_that_talk),
        label="overhead (typical)",
    )


def _communication(gpus: int) -> Quantity:
    if gpus == 1:
        return fact("communication", 0, "one GPU", Unit.BYTES)
    if gpus <= 4:
        return fact("communication", _FEW_GPUS, _FEW_GPUS_SOURCE, Unit.BYTES)
    return fact("communication", _MANY_GPUS, _MANY_GPUS_SOURCE, Unit.BYTES)
