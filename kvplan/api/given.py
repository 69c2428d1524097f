"""What is planned: names or objects, and options or a whole deployment, made into one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypedDict

from kvplan.allocation import Allocation
from kvplan.api.load import GpuLike, ModelLike, gpu_file, load_gpu, load_model, model_file
from kvplan.arch.latent_cache import cached_as
from kvplan.arch.model import Model
from kvplan.arch.prediction_layer import with_prediction_layers
from kvplan.errors import UsageError
from kvplan.hardware.device import Device
from kvplan.plan import deploy as planner
from kvplan.plan.deployment import Deployment
from kvplan.results import Scalar
from kvplan.specs.catalog import Found, fingerprint
from kvplan.storage import KvFormat, StateLayout, WeightStorage

Echo: TypeAlias = tuple[tuple[str, Scalar | list[int]], ...]


class DeployOptions(TypedDict, total=False):
    """What :func:`kvplan.plan.deploy.deploy` takes by name, and says."""

    gpus: int | None
    tp: int | None
    pp: int | None
    dp: int | None
    ep: int | None
    cp: int | None
    weights: WeightStorage | str | None
    kv: KvFormat | str | None
    state: StateLayout | str
    allocation: Allocation | str
    block_size: int
    max_length: int | None
    chunk: int
    memory_utilization: float
    overhead_bytes: int | None
    speculative_tokens: int


class PlanOptions(DeployOptions, total=False):
    """The same, and what else changes the model that is held.

    ``latent_cache`` is what is cached of latent attention: ``latent``, or ``expanded`` to every head's key
    and value. ``mtp`` holds the layers that predict further tokens, to draft with.
    """

    latent_cache: str
    mtp: bool


@dataclass(frozen=True, slots=True)
class Given:
    """A model, its deployment, and what a report says both are from."""

    model: Model
    deployment: Deployment
    files: Echo


def given(
    model: ModelLike, gpu: GpuLike | None, deployment: Deployment | None, options: PlanOptions
) -> Given:
    """Return what is planned, from either the accelerator and options or a whole deployment.

    Raises:
        UsageError: both are given, or neither, or an option cannot be.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    deploying: PlanOptions = {**options}
    form, drafting = deploying.pop("latent_cache", "latent"), deploying.pop("mtp", False)
    file = model_file(model)
    if deployment is not None and (gpu is not None or deploying):
        extra = ", ".join(["gpu"] * (gpu is not None) + list(deploying))
        raise UsageError(f"deployment says all of it: leave out {extra}", hint="or deployment")
    if deployment is None and gpu is None:
        raise UsageError("which accelerator is not said", hint='gpu="h100-sxm", or a deployment')
    device_file = gpu_file(gpu) if gpu is not None else None
    held = cached_as(load_model(file), form)
    if drafting:
        held = with_prediction_layers(held)
    if deployment is None:
        assert device_file is not None
        deployment = planner.deploy(held, load_gpu(device_file), **_of_deployment(deploying))
    return Given(held, deployment, (*files_of("model", file), *files_of("gpu", device_file)))


def _of_deployment(options: PlanOptions) -> DeployOptions:
    """Return options without those of the model, which are out of them by now."""
    return options


def files_of(kind: str, given: Found | Model | Device | None) -> Echo:
    """Return how a report names a file and its content; neither is known of what was not read from one."""
    if isinstance(given, Found):
        what, value = fingerprint(given.path)
        return ((f"{kind}_file", given.label), (f"{kind}_{what}", value))
    return ((f"{kind}_file", None), (f"{kind}_sha256", None))


def refuse_drafting(options: PlanOptions) -> None:
    """Refuse ``mtp`` where times are told.

    Raises:
        UsageError: it was asked for.
    """
    if options.get("mtp"):
        raise UsageError(
            "--mtp: how long drafting with prediction layers takes is not modelled",
            hint="kvplan capacity --mtp says what they hold; --new-tokens times a step that verifies",
        )
