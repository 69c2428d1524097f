"""What the tests of charts share: plans by the name they have on a chart."""

import pytest

from kvplan.plan.charts.words import Named
from kvplan.plan.roofline import plan_roofline


@pytest.fixture(scope="session")
def named(plan):
    """A function that plans a model under a name; see the fixture ``plan``."""

    def make(name, model, gpu="h100-sxm", **options):
        return Named(name, plan(model, gpu, **options))

    return make


@pytest.fixture(scope="session")
def timed():
    """A function from a plan to the same as operators with times."""

    def make(capacity):
        return plan_roofline(capacity.model, capacity.deployment)

    return make
