"""The options of a deployment are written once: every command that plans one has all of them."""

import json
from dataclasses import fields

import pytest
import typer

from kvplan.cli.app import app
from kvplan.cli.deployment import DeploymentOptions
from kvplan.cli.options import AnswerOptions, ListOptions

COMMANDS = typer.main.get_command(app).commands
PLANS = {
    "capacity": ("capacity",),
    "roofline": ("roofline",),
    "compare": ("compare", "--no-measure", "--only", "--with", "kv=int8"),
}
V3 = ("deepseek-v3", "--gpu", "h200-sxm", "--gpus", "8")


def options_of(name):
    return {parameter.name: parameter for parameter in COMMANDS[name].params}


@pytest.mark.parametrize("name", [*PLANS, "plot"])
def test_a_command_that_plans_a_deployment_has_every_option_of_one(name):
    found = options_of(name)
    for field in fields(DeploymentOptions):
        assert found[field.name].opts == [f"--{field.name.replace('_', '-')}"]
        assert found[field.name].default == field.default
        assert found[field.name].help == options_of("capacity")[field.name].help


@pytest.mark.parametrize("name", [*PLANS, "simulate"])
def test_every_command_shows_its_answer_alike(name):
    assert {field.name for field in fields(AnswerOptions)} <= options_of(name).keys()


@pytest.mark.parametrize("group", ["models", "gpus"])
@pytest.mark.parametrize("name", ["list", "show"])
def test_every_list_is_shown_alike(group, name):
    found = {parameter.name for parameter in COMMANDS[group].commands[name].params}
    assert {field.name for field in fields(ListOptions)} <= found


# Each value, and the part of the deployment it is told by.
TOLD = [
    (("--kv", "fp8"), "kv", "fp8"),
    (("--weights", "int4"), "weights", "int4"),
    (("--state", "vllm"), "state", "vllm"),
    (("--chunk", "2k"), "chunk_tokens", 2_048),
    (("--max-length", "9k"), "max_length_tokens", 9_216),
]


@pytest.mark.parametrize("name", PLANS)
def test_every_option_reaches_the_plan(name, command):
    first, *more = PLANS[name]
    asked = [part for options, _, _ in TOLD for part in options]
    status, out, _ = command(first, *V3, *more, *asked, "--json")
    assert status == 0
    deployed = json.loads(out)["deployment"]
    for _, key, value in TOLD:
        assert deployed[key] == value, deployed


def test_compare_caches_latents_expanded_where_it_is_asked_to(command):
    """61 layers: a latent of 512 and a key of 64; or 128 heads with a key of 192 and a value of 128."""
    first, *more = PLANS["compare"]
    for form, per_token in (("latent", 61 * 1_152), ("expanded", 61 * 81_920)):
        status, out, _ = command(first, *V3, *more, "--latent-cache", form, "--json")
        assert status == 0
        assert json.loads(out)["baseline"]["kv_bytes_per_token"] == per_token


QWEN = ("qwen3-next-80b-a3b", "--gpu", "h100-sxm", "--tp", "4", "--state", "vllm", "--context", "8k")


@pytest.mark.parametrize(("guesses", "status"), [("0", 0), ("4", 1)])
def test_states_behind_guesses_are_held_in_every_plan(guesses, status, command):
    """320 requests fit without guesses, and no 300 of them where a state is kept behind each of four."""
    asked = (*QWEN, "--speculative-tokens", guesses, "--batch", "300", "--check", "--json")
    for first, *more in PLANS.values():
        found, out, _ = command(first, *asked, *more)
        verdict = json.loads(out)["verdict"]
        assert found == status, verdict


@pytest.mark.parametrize("name", ["roofline", "compare"])
def test_layers_to_draft_with_are_refused_by_name_where_times_are_told(name, refused):
    first, *more = PLANS[name]
    (line,) = refused(first, *V3, *more, "--mtp")
    assert line.startswith("--mtp: how long drafting with prediction layers takes is not modelled")
    assert "kvplan capacity --mtp" in line
