"""What the tests of time share: a bundled model on a bundled accelerator, as operators with times."""

import pytest

from kvplan.allocation import Paged
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.roofline import plan_roofline
from kvplan.storage import kv_format, state_layout, weight_format


@pytest.fixture(scope="session")
def roofline_of(bundled, gpu):
    """A function that plans the times of a model, bundled if given by name; ``cut`` is of Parallelism."""

    def make(model, device="h100-sxm", *, weights="bf16", kv="bf16", chunk=8_192, **cut):
        planned = bundled(model) if isinstance(model, str) else model
        deployment = Deployment(
            device=gpu(device) if isinstance(device, str) else device,
            parallelism=Parallelism(**cut),
            weights=weight_format(weights),
            kv=kv_format(kv),
            state=state_layout("transformers"),
            allocation=Paged(64),
            max_tokens=planned.max_position_embeddings,
            chunk_tokens=chunk,
        )
        return plan_roofline(planned, deployment)

    return make


@pytest.fixture(scope="session")
def works():
    """A function from a roofline and steps to the work of each operator, by name."""

    def of(roofline, *steps):
        return {timed.name: timed.work for timed in roofline.timed(*steps)}

    return of
