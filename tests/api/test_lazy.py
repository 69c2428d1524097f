"""``import kvplan`` costs nothing; what Python users call is imported when it is first used."""

import json
import subprocess
import sys

import pytest

import kvplan
from kvplan.api.capacity import capacity

PUBLIC = {
    *("Report", "capacity", "check_plan", "compare", "deploy", "load_gpu", "load_model", "load_plan"),
    *("plot_all", "quality", "roofline", "simulate"),
}


def loaded_by(code):
    probe = f"import sys; before = set(sys.modules)\n{code}\n"
    probe += "after = set(sys.modules)\nimport json; print(json.dumps(sorted(after - before)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_kvplan_imports_nothing_else():
    assert loaded_by("import kvplan") == ["kvplan"]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there(name):
    assert name in kvplan.__all__
    assert name in dir(kvplan)
    found = getattr(kvplan, name)
    assert found.__name__ == name
    assert found.__module__.startswith("kvplan.api.")


def test_nothing_else_is_public():
    assert set(kvplan.__all__) == PUBLIC


def test_a_name_is_the_same_thing_each_time():
    assert kvplan.capacity is kvplan.capacity is capacity


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'kvplan' has no attribute 'capacities'"):
        _ = kvplan.capacities
    with pytest.raises(ImportError):
        exec("from kvplan import capacities")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "kvplan.load_model('llama-3.1-8b')",
            ("numpy", "matplotlib", "kvplan.plan.capacity", "typer", "rich"),
        ),
        (
            "kvplan.capacity('llama-3.1-8b', gpu='h100-sxm').to_json()",
            ("numpy", "matplotlib", "typer", "rich", "kvplan.engine", "kvplan.plan.charts", "kvplan.cli"),
        ),
        (
            "kvplan.roofline('llama-3.1-8b', gpu='h100-sxm').to_dict()",
            ("numpy", "matplotlib", "typer", "rich", "kvplan.engine", "kvplan.check", "kvplan.cli"),
        ),
        ("kvplan.capacity('llama-3.1-8b', gpu='h100-sxm').chart()", ("matplotlib", "kvplan.report.plots")),
    ],
)
def test_a_call_loads_only_what_it_needs(code, absent):
    loaded = loaded_by(f"import kvplan; {code}")
    assert not [name for name in absent if any(one == name or one.startswith(f"{name}.") for one in loaded)]
