"""Whatever a file holds, reading it gives a model, an accelerator, or a SpecError: never anything else."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvplan.errors import SpecError
from kvplan.plan.change import parse_changes
from kvplan.requirement import SentenceError, parse_requirement
from kvplan.specs.catalog import bundled_folder
from kvplan.specs.config_json import FAMILIES, import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.gpu_file import read_gpu
from kvplan.specs.model_file import read_model
from kvplan.specs.plan_file import read_plan
from kvplan.specs.strict_json import parse_json
from kvplan.specs.strict_yaml import parse_yaml

CONFIGS = Path(__file__).parent.parent / "data" / "hf_configs"
IDENTITY = Identity("a-test", "a test")
a_few = settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

MODELS = {
    name: (bundled_folder() / "models" / f"{name}.yaml").read_text(encoding="utf-8")
    for name in ("llama-3.1-8b", "deepseek-v3", "qwen3-next-80b-a3b", "gemma-3-27b", "gpt-oss-20b")
}
GPUS = {
    name: (bundled_folder() / "gpus" / f"{name}.yaml").read_text(encoding="utf-8")
    for name in ("h100-sxm", "t4")
}
PLANS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parents[2] / "examples" / "plans").glob("*.yaml"))
}
JSONS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(CONFIGS.glob("*.json"))}

# The last file of each family.
OF_FAMILIES = {config["model_type"]: config for config in JSONS.values()}

READERS = {
    "model": lambda text: read_model(parse_yaml(text, "f")),
    "gpu": lambda text: read_gpu(parse_yaml(text, "f")),
    "plan": lambda text: read_plan(parse_yaml(text, "f"), Path("f"), parse_changes),
    "config": lambda text: import_config(parse_json(text, "f"), IDENTITY),
}

# What people and generators write in place of a value.
VALUES = [
    *(
        "",
        "~",
        "null",
        "true",
        "no",
        "-1",
        "0",
        "1",
        "3",
        "64",
        "2147483648",
        "2147483649",
        "9" * 30,
        "9" * 31,
    ),
    *(
        "4096.0",
        "1e3",
        "1e400",
        ".nan",
        ".inf",
        "0x10",
        "010",
        "1_000",
        "1:30",
        '"4096 "',
        "'x'",
        "text",
        "é",
    ),
    *(
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "[[[]]]",
        "&a 1",
        "*a",
        "!!int 3",
        "|",
        ">",
        "- 1",
        "a: b",
        '"',
        "'",
        "[",
        "{",
    ),
    *(
        "%",
        "@",
        "`",
        "\t",
        "\0",
        "\x1b",
        "# x",
        "---",
        "...",
        "<<: *a",
        "? x",
        "x" * 5_000,
        '"\\ud800"',
        '"\\e"',
    ),
]
JSON_VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    2**31,
    2**31 + 1,
    10**29,
    1.5,
    1e300,
    "",
    "4096",
    "x" * 500,
    [],
    [1],
    {},
]
JSON_VALUES += [["full_attention"], {"a": 1}, [[]], "\x1b", "\n"]


def read(kind, text):
    """Read a text; every mistake must be one short printable line."""
    lines = ()
    try:
        READERS[kind](text)
    except SpecError as error:
        lines = error.lines()
    assert all(line.isprintable() for line in lines)
    assert all(len(line) < 3_000 for line in lines)
    assert len(lines) <= 110


@pytest.mark.parametrize("kind", READERS)
@a_few
@given(text=st.text(max_size=300))
def test_any_text(kind, text):
    read(kind, text)


@pytest.mark.parametrize("kind", READERS)
@a_few
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
        max_leaves=20,
    )
)
def test_any_data(kind, data):
    read(kind, json.dumps(data))


@pytest.mark.parametrize("family", FAMILIES)
@settings(a_few, max_examples=25)
@given(
    data=st.dictionaries(
        st.sampled_from(sorted({key for config in JSONS.values() for key in config})),
        st.sampled_from(JSON_VALUES) | st.integers(1, 4_096),
        max_size=25,
    )
)
def test_any_values_under_the_keys_of_real_files(family, data):
    read("config", json.dumps({**data, "model_type": family}))


def mutated_lines(text, chance):
    """Return the text with a few lines dropped, doubled, moved, indented, or given another value."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        line = lines[at]
        match chance.randrange(6):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(at, line)
            case 2:
                lines[at] = " " * chance.randint(0, 8) + line.strip()
            case 3:
                lines.insert(chance.randrange(len(lines)), lines.pop(at))
            case 4:
                lines[at] = line.replace(
                    chance.choice([" ", ":", "_", "e"]), chance.choice(["", "::", "E", "\t"]), 1
                )
            case _:
                lines[at] = f"{line.partition(':')[0]}: {chance.choice(VALUES)}"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("kind", "text"),
    [pytest.param("model", text, id=name) for name, text in MODELS.items()]
    + [pytest.param("gpu", text, id=name) for name, text in GPUS.items()]
    + [pytest.param("plan", text, id=name) for name, text in PLANS.items()],
)
@a_few
@given(seed=st.integers(0, 10**9))
def test_a_real_file_with_a_few_lines_changed(kind, text, seed):
    read(kind, mutated_lines(text, random.Random(seed)))


def mutated_config(config, chance):
    """Return the config with a few keys dropped, added, or given another value, nested ones too."""
    config = json.loads(json.dumps(config))
    for _ in range(chance.randint(1, 3)):
        places = [config, *(value for value in config.values() if isinstance(value, dict) and value)]
        place = chance.choice(places)
        key = chance.choice(sorted(place)) if place else "x"
        match chance.randrange(4):
            case 0:
                place.pop(key, None)
            case 1:
                place[f"{key}_{chance.choice('xyz')}"] = chance.choice(JSON_VALUES)
            case _:
                place[key] = chance.choice(JSON_VALUES)
    return config


@pytest.mark.parametrize("family", OF_FAMILIES)
@settings(a_few, max_examples=30)
@given(seed=st.integers(0, 10**9))
def test_a_real_config_with_a_few_keys_changed(family, seed):
    read("config", json.dumps(mutated_config(OF_FAMILIES[family], random.Random(seed))))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{" * 100_000,
        '{"a":' * 50_000,
        "- " * 50_000,
        "a: " * 50_000,
        "\ufeff",
        "\ud800",
        "\r\r\r",
        "\x85",
        "\u2028",
    ],
    ids=lambda text: ascii(text[:5]),
)
def test_texts_that_break_parsers(kind, text):
    read(kind, text)


WORDS = ("fits", "tpot", "max_batch", "kv_pool", "cost", ">=", "<=", "at", "batch", "context", "8k", "0.5")
WORDS += ("GiB", "ms", "USD/Mtok", "s", "-", "1e9", "9" * 40, "\u0663", "")


@settings(a_few, max_examples=600)
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
def test_any_sentence(text):
    offset, message = 0, ""
    try:
        requirement = parse_requirement(text)
    except SentenceError as error:
        offset, message = error.offset, error.message
    else:
        assert parse_requirement(requirement.text) == requirement
        assert requirement.required > 0
    assert 0 <= offset <= len(text)
    assert len(message) < 300
    assert message.isprintable()
