"""The recipes for CI under examples/ci: they are YAML, and what they run is there and runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "examples" / "ci"
PLANS = ROOT / "examples" / "plans"
NAMES = sorted(path.stem for path in PLANS.glob("*.yaml"))
WRONG = "name: p\nmodel: gpt2\ngpu: l4\nworkload: {batch: 1, context: 1k}\nrequire: ["


def read(name):
    # As text: YAML 1.1 takes "on" for a truth value, GitHub does not.
    return yaml.load((RECIPES / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def github():
    """Return the commands of the GitHub recipe, and what it uploads."""
    (job,) = read("github-actions.yml")["jobs"].values()
    steps = job["steps"]
    (upload,) = [
        step["with"]["path"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")
    ]
    return [step["run"] for step in steps if "run" in step], upload


def gitlab():
    """Return the commands of the GitLab recipe, and what it uploads."""
    (job,) = read("gitlab-ci.yml").values()
    (upload,) = job["artifacts"]["paths"]
    return job["script"], upload.rstrip("/")


@pytest.fixture
def project(tmp_path):
    """A function that runs a command in a project that has taken a recipe up, with kvplan installed."""
    for folder in ("bin", "plans", "ci"):
        (tmp_path / folder).mkdir()
    installed = tmp_path / "bin" / "kvplan"
    installed.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kvplan "$@"\n')
    installed.chmod(0o755)
    shutil.copy(RECIPES / "report.sh", tmp_path / "ci")

    def run(command, **variables):
        kept = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **variables}
        words = ["bash", "-e", "-c", command]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("recipe", [github, gitlab])
def test_a_recipe_installs_and_calls_the_script_and_keeps_what_it_writes(recipe):
    (install, report), upload = recipe()
    assert install == "python -m pip install kvplan"
    assert report == "bash ci/report.sh plans out"
    assert upload == "out"


def test_what_recipes_keep_is_kept_when_a_plan_does_not_hold():
    (job,) = read("github-actions.yml")["jobs"].values()
    assert job["steps"][-1]["if"] == "${{ !cancelled() }}"
    assert read("gitlab-ci.yml")["plans"]["artifacts"]["when"] == "always"


def test_recipes_have_the_keys_that_their_platforms_want():
    found = read("github-actions.yml")
    assert {"name", "on", "permissions", "jobs"} == found.keys()
    assert {"uses", "run"} >= {
        key for step in found["jobs"]["plans"]["steps"] for key in step if key in ("uses", "run")
    }
    assert all(("uses" in step) != ("run" in step) for step in found["jobs"]["plans"]["steps"])
    assert {"image", "script", "artifacts"} <= read("gitlab-ci.yml")["plans"].keys()


@pytest.mark.timeout(400)
def test_the_github_recipe_reports_on_the_plans_of_the_examples(project, tmp_path):
    for name in NAMES:
        shutil.copy(PLANS / f"{name}.yaml", tmp_path / "plans")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = project(github()[0][1], GITHUB_STEP_SUMMARY=str(summary))
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "out"
    assert summary.read_text() == "before\n" + (out / "check.md").read_text()
    assert [line for line in summary.read_text().split("\n") if line.startswith("### ")]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*NAMES, "check.md", "index.html", "index.md"]
    )
    for name in NAMES:
        assert {"growth.svg", "frontier.svg", "memory.svg", "simulate-dark.svg"} <= {
            path.name for path in (out / name).iterdir()
        }
    assert "Not drawn" not in (out / "index.md").read_text()


def test_the_gitlab_recipe_fails_with_a_report_where_a_plan_does_not_hold(project, tmp_path):
    (tmp_path / "plans" / "p.yaml").write_text(WRONG + "tpot <= 1 us]\n")
    done = project(gitlab()[0][1])
    assert (done.returncode, done.stderr) == (1, "")
    assert "1 of 1 is not met on l4" in (tmp_path / "out" / "check.md").read_text()
    assert "1 of 1 is not met on l4" in (tmp_path / "out" / "index.html").read_text()


def test_a_mistake_in_a_plan_fails_without_a_report(project, tmp_path):
    (tmp_path / "plans" / "p.yaml").write_text(WRONG + "tpot <= 1 parsec]\n")
    done = project("bash ci/report.sh plans out", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: plans/p.yaml:5:")
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "summary.md").exists()


def test_the_script_says_what_it_needs(project):
    done = project("bash ci/report.sh plans")
    assert done.returncode != 0
    assert "bash report.sh PLANS OUT" in done.stderr


def test_this_repository_runs_it_too():
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nbash examples/ci/report.sh examples/plans out\n" in run
    assert "/out/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
