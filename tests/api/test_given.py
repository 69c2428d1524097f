"""Names or objects, options or a whole deployment: one plan, however it is said."""

import inspect
import shutil
from pathlib import Path
from typing import get_type_hints

import pytest

import kvplan
from kvplan.allocation import Contiguous, Paged
from kvplan.api.given import DeployOptions, PlanOptions
from kvplan.errors import FileError, UsageError
from kvplan.plan.deploy import deploy
from kvplan.specs.catalog import bundled_folder
from kvplan.storage import kv_format, state_layout, weight_format

CONFIG = Path(__file__).parent.parent / "data" / "hf_configs" / "llama-3.1-8b.json"
ASKED = {"contexts": (4096,), "batches": (1, 16)}


def test_what_people_type_first():
    """16 requests of 4,096 tokens, 32 layers x 8 heads x 128 x 2 float8 elements, heads over two GPUs."""
    report = kvplan.capacity(
        "llama-3.1-8b", gpu="h100-sxm", gpus=2, kv="fp8", contexts=(4096,), batches=(1, 16)
    )
    data = report.to_dict()
    assert data["kv"]["bytes_per_token_per_gpu"] == 32 * 4 * 128 * 2
    assert data["gpu"]["count"] == 2
    assert [row["context_tokens"] for row in data["growth"]] == [4096]
    assert [row["batch"] for row in data["max_context"]] == [1, 16]
    assert data["verdict"]["fits"] is True


def as_path(tmp_path):
    shutil.copy(bundled_folder() / "models" / "llama-3.1-8b.yaml", tmp_path / "mine.yaml")
    return tmp_path / "mine.yaml"


def test_a_model_and_a_gpu_are_names_files_or_objects(tmp_path, monkeypatch):
    path = as_path(tmp_path)
    model, device = kvplan.load_model("llama-3.1-8b"), kvplan.load_gpu("h100-sxm")
    named = kvplan.capacity("llama-3.1-8b", gpu="h100-sxm", **ASKED)
    for given in (path, str(path), model):
        for gpu in ("h100-sxm", device, bundled_folder() / "gpus" / "h100-sxm.yaml"):
            assert kvplan.capacity(given, gpu=gpu, **ASKED).sections == named.sections
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    shutil.copy(CONFIG, tmp_path / "llama" / "config.json")
    # A path is a path, even where a name would look the same.
    assert kvplan.load_model(Path("mine.yaml")) == model
    assert len(kvplan.load_model(Path("llama")).layers) == 32
    with pytest.raises(UsageError, match="no model named 'llama'"):
        kvplan.load_model("llama")
    with pytest.raises(FileError, match="cannot read 'absent'"):
        kvplan.load_model(Path("absent"))


def test_a_model_and_a_gpu_that_are_loaded_stay_what_they_are():
    model, device = kvplan.load_model("gpt2"), kvplan.load_gpu("t4")
    assert kvplan.load_model(model) is model
    assert kvplan.load_gpu(device) is device


def test_a_report_says_which_files_it_is_from_and_nothing_of_objects():
    digest = "sha256"
    named = dict(kvplan.capacity("gpt2", gpu="t4").inputs)
    assert (named["model_file"], named["gpu_file"]) == ("bundled:models/gpt2.yaml", "bundled:gpus/t4.yaml")
    assert len(named[f"model_{digest}"]) == len(named[f"gpu_{digest}"]) == 64
    loaded = dict(kvplan.capacity(kvplan.load_model("gpt2"), gpu=kvplan.load_gpu("t4")).inputs)
    files = [loaded[f"{kind}_{what}"] for kind in ("model", "gpu") for what in ("file", digest)]
    assert files == [None] * 4


def test_names_are_looked_up_in_a_folder_first(tmp_path):
    (tmp_path / "models").mkdir()
    shutil.copy(bundled_folder() / "models" / "gpt2.yaml", tmp_path / "models" / "llama-3.1-8b.yaml")
    assert kvplan.load_model("llama-3.1-8b", specs=tmp_path).name == "gpt2"
    with pytest.raises(UsageError, match="is no folder"):
        kvplan.load_gpu("t4", specs=tmp_path / "absent")


@pytest.mark.parametrize("question", ["capacity", "roofline", "compare"])
def test_a_whole_deployment_stands_for_a_gpu_and_options(question):
    ask = getattr(kvplan, question)
    more = {"measure": False, "changes": ["kv=int8"], "only": True} if question == "compare" else {}
    deployment = kvplan.deploy("llama-3.1-8b", "h100-sxm", gpus=2, kv="fp8", max_length=9_000)
    whole = ask("llama-3.1-8b", deployment=deployment, **more)
    parts = ask("llama-3.1-8b", gpu="h100-sxm", gpus=2, kv="fp8", max_length=9_000, **more)
    assert whole.sections == parts.sections
    assert whole.verdict == parts.verdict


@pytest.mark.parametrize("question", ["capacity", "roofline", "compare"])
@pytest.mark.parametrize(
    ("extra", "named"),
    [({"gpu": "t4"}, "gpu"), ({"kv": "fp8"}, "kv"), ({"gpu": "t4", "tp": 2, "chunk": 5}, "gpu, tp, chunk")],
)
def test_both_a_deployment_and_parts_of_one_are_refused(question, extra, named):
    deployment = kvplan.deploy("gpt2", "t4")
    with pytest.raises(UsageError, match=rf"leave out {named}$"):
        getattr(kvplan, question)("gpt2", deployment=deployment, **extra)


@pytest.mark.parametrize("question", ["capacity", "roofline", "compare"])
def test_without_an_accelerator_there_is_no_plan(question):
    with pytest.raises(UsageError, match="which accelerator is not said"):
        getattr(kvplan, question)("gpt2")


def test_options_of_the_model_go_with_a_deployment():
    """61 layers: a latent of 512 and a key of 64; or 128 heads with a key of 192 and a value of 128."""
    deployment = kvplan.deploy("deepseek-v3", "h200-sxm", gpus=8)
    of = {
        form: kvplan.capacity("deepseek-v3", deployment=deployment, latent_cache=form).to_dict()
        for form in ("latent", "expanded")
    }
    assert of["latent"]["kv"]["bytes_per_token"] == 61 * 1_152
    assert of["expanded"]["kv"]["bytes_per_token"] == 61 * 81_920
    drafting = kvplan.capacity("deepseek-v3", deployment=deployment, mtp=True).to_dict()
    assert drafting["kv"]["bytes_per_token"] == 62 * 1_152


@pytest.mark.parametrize("question", ["roofline", "compare"])
def test_drafting_layers_are_refused_where_times_are_told(question):
    ask = getattr(kvplan, question)
    with pytest.raises(UsageError, match=r"^--mtp: how long drafting"):
        ask("deepseek-v3", gpu="h200-sxm", gpus=8, mtp=True)
    more = {"measure": False, "changes": ["kv=fp8"], "only": True} if question == "compare" else {}
    assert ask("deepseek-v3", gpu="h200-sxm", gpus=8, mtp=False, **more).sections


def test_an_unknown_option_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match="'batch_size'"):
        kvplan.capacity("gpt2", gpu="t4", batch_size=4)


# The types of the options are written once for deploy, once for those who pass them on.


def test_options_are_those_of_deploy():
    parameters = inspect.signature(deploy).parameters.values()
    named = [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    hints, options = get_type_hints(deploy), get_type_hints(DeployOptions)
    assert options == {name: hints[name] for name in named}
    more = get_type_hints(PlanOptions)
    assert {name: more[name] for name in more if name not in options} == {"latent_cache": str, "mtp": bool}


def test_storage_is_a_name_or_an_object():
    by_name = kvplan.deploy(
        "gpt2", "t4", kv="fp8", weights="int4", state="vllm", allocation="contiguous", max_length=512
    )
    by_object = kvplan.deploy(
        "gpt2",
        "t4",
        kv=kv_format("fp8"),
        weights=weight_format("int4"),
        state=state_layout("vllm"),
        allocation=Contiguous(512),
        max_length=512,
    )
    assert by_name == by_object
    assert kvplan.deploy("gpt2", "t4", allocation=Paged(32)) == kvplan.deploy("gpt2", "t4", block_size=32)
