"""What the tests share: the bundled specs, plans of them, and the measured truth."""

import csv
import os

# Before NumPy is imported. The decoder runs on one BLAS thread by itself; tests of its parts do by this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from kvplan.allocation import Contiguous, Paged
from kvplan.cli.app import main
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.specs.catalog import Found, bundled_folder, load_gpu, load_model
from kvplan.specs.config_json import import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.strict_json import read_json
from kvplan.storage import kv_format, state_layout, weight_format

# The same examples on every run and machine; a slow machine is no failure.
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")

DATA = Path(__file__).parent / "data"

# Between them every kind of layer that a bundled model has (tests/arch/test_representatives.py), for tests
# that another model of the same kinds would tell nothing new.
REPRESENTATIVES = (
    *"command-r7b deepseek-v2-lite deepseek-v4-flash falcon-7b falcon-h1-7b gemma-2-9b".split(),
    *"gemma-3n-e2b glm-5.2".split(),
    *"gpt-neo-2.7b gpt-oss-20b gpt2 jamba-v0.1 kimi-linear-48b-a3b lfm2-1.2b llama-3.1-8b".split(),
    *"llama-3.2-11b-vision llama-4-scout mimo-v2-flash minimax-m1 minimax-m3 mixtral-8x7b".split(),
    *"nemotron-3-super-120b-a12b-fp8 olmo-2-13b olmo-7b opt-350m pythia-6.9b".split(),
    *"qwen3-next-80b-a3b recurrentgemma-2b".split(),
)


def pytest_sessionfinish(session, exitstatus):
    """Fail a run in CI that skipped a test: there, everything a test needs is at hand."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@cache
def bundled_model(name):
    path = bundled_folder() / "models" / f"{name}.yaml"
    return load_model(Found(path.name, path))


@cache
def bundled_gpu(name):
    path = bundled_folder() / "gpus" / f"{name}.yaml"
    return load_gpu(Found(path.name, path))


@cache
def imported_model(relative_path, name="imported", source="a test"):
    return import_config(read_json(DATA / relative_path), Identity(name, source))


def make_plan(
    model,
    gpu="h100-sxm",
    *,
    tensor=1,
    pipeline=1,
    data=1,
    weights="",
    kv="bf16",
    state="transformers",
    block=16,
    contiguous=False,
    max_tokens=0,
    utilization_bp=9_000,
    chunk=8_192,
    overhead=None,
):
    """Plan a model, bundled if given by name, on accelerators of one kind."""
    planned = bundled_model(model) if isinstance(model, str) else model
    longest = max_tokens or planned.max_position_embeddings
    deployment = Deployment(
        device=bundled_gpu(gpu) if isinstance(gpu, str) else gpu,
        parallelism=Parallelism(tensor, pipeline, data),
        weights=weight_format(weights) if weights else planned.as_released(),
        kv=kv_format(kv),
        state=state_layout(state),
        allocation=Contiguous(longest) if contiguous else Paged(block),
        max_tokens=longest,
        utilization_bp=utilization_bp,
        chunk_tokens=chunk,
        overhead_bytes=overhead,
    )
    return plan_capacity(planned, deployment)


def walk_figure(quantity):
    """Iterate over a figure and everything it was computed from."""
    yield quantity
    for below in (*quantity.inputs, *quantity.parts):
        yield from walk_figure(below)


@pytest.fixture(scope="session")
def bundled():
    """A function from a bundled model's name to the model."""
    return bundled_model


@pytest.fixture(scope="session")
def representatives():
    """The names of bundled models that have every kind of layer between them."""
    return REPRESENTATIVES


@pytest.fixture(scope="session")
def gpu():
    """A function from a bundled accelerator's name to the accelerator."""
    return bundled_gpu


@pytest.fixture(scope="session")
def imported():
    """A function from a config.json under tests/data to the model it describes."""
    return imported_model


@pytest.fixture(scope="session")
def plan():
    """A function that plans a model on accelerators; see :func:`make_plan`."""
    return make_plan


@pytest.fixture(scope="session")
def walk():
    """A function that iterates over a figure and all figures below it."""
    return walk_figure


@pytest.fixture
def command(capsys):
    """A function that runs a command line in this process: its exit status, output and error lines."""

    def run(*arguments):
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


# What pydantic, Python and a crash would say; none of it is written for the person who typed the command.
NOT_OURS = ("Input should", "String should", "List should", "Value error", "[type=", "Errno", "Traceback")


@pytest.fixture
def refused(command):
    """A function that runs a command line that must be refused: its lines on standard error."""

    def run(*arguments, status=2):
        found, out, lines = command(*arguments)
        assert (found, out) == (status, "")
        assert lines
        assert all(line.isprintable() for line in lines)
        assert lines[0].startswith("error: ")
        assert all(line.startswith("       ") for line in lines[1:])
        assert not any(words in line for words in NOT_OURS for line in lines)
        return [line[7:] for line in lines]

    return run


def pytest_generate_tests(metafunc):
    """Give a test one case for each bundled model, accelerator, measured model or real log it asks for.

    ``model_name`` is every bundled model, for what its own file can get wrong; ``representative`` is one for
    each kind of layer, for what the code can.
    """
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", bundled_names("models"))
    if "representative" in metafunc.fixturenames:
        metafunc.parametrize("representative", REPRESENTATIVES)
    if "gpu_name" in metafunc.fixturenames:
        metafunc.parametrize("gpu_name", bundled_names("gpus"))
    if "truth" in metafunc.fixturenames:
        rows = read_data("model_truth.yaml")
        metafunc.parametrize("truth", rows, ids=[row["model"] for row in rows])
    if "published" in metafunc.fixturenames:
        rows = [row for row in read_data("model_truth.yaml") if "published_total" in row]
        metafunc.parametrize("published", rows, ids=[row["model"] for row in rows])
    if "config_row" in metafunc.fixturenames:
        with open(DATA / "hf_configs" / "SOURCES.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        metafunc.parametrize("config_row", rows, ids=[row["name"] for row in rows])
    if "engine_log" in metafunc.fixturenames:
        rows = read_data("engine_logs.yaml")["logs"]
        metafunc.parametrize("engine_log", rows, ids=[row["id"] for row in rows])


def bundled_names(kind):
    return sorted(path.stem for path in (bundled_folder() / kind).glob("*.yaml"))


@cache
def read_data(name):
    return yaml.load(
        (DATA / name).read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
