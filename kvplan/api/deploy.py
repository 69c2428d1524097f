"""A deployment of a model, both given by name or as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvplan.api.load import GpuLike, ModelLike, load_gpu, load_model
from kvplan.plan import deploy as planner
from kvplan.plan.deployment import Deployment

if TYPE_CHECKING:
    from typing import Unpack

    from kvplan.api.given import DeployOptions


def deploy(model: ModelLike, gpu: GpuLike, **options: Unpack[DeployOptions]) -> Deployment:
    """Return how a model is deployed on accelerators of one kind; what ``options`` are, the planner says.

    ``kvplan.deploy("llama-3.1-8b", "h100-sxm", gpus=2, kv="fp8")``. See
    :func:`kvplan.plan.deploy.deploy` for every option.

    Raises:
        UsageError: a name is not known, or a value cannot be.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    return planner.deploy(load_model(model), load_gpu(gpu), **options)
