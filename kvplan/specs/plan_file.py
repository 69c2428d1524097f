"""The plan file: what a YAML plan says, and how it becomes a :class:`~kvplan.planned.Plan`.

Values mean what they mean on the command line: a context is ``8192`` or ``8k``, an overhead ``1.5GiB``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, PlainValidator, TypeAdapter, WithJsonSchema

from kvplan.arch.latent_cache import LATENT_CACHES
from kvplan.checks import LARGEST_SIZE, FieldError, Where
from kvplan.errors import KvplanError, Problem, SpecError, UsageError
from kvplan.planned import Plan, PlannedDeployment, Workload
from kvplan.requirement import Requirement, SentenceError, parse_requirement
from kvplan.specs.catalog import find_gpu, find_model, is_path
from kvplan.specs.document import (
    MAX_PROBLEMS,
    Document,
    NodePath,
    dotted,
    printable,
    quoted,
    shortened,
    shown,
)
from kvplan.specs.model_file import Name
from kvplan.specs.validation import validate
from kvplan.storage import kv_format, state_layout, weight_format
from kvplan.units import LARGEST_COUNT, parse_bytes, parse_count, parse_share

if TYPE_CHECKING:
    LatentCache: TypeAlias = str
else:
    LatentCache = Literal[LATENT_CACHES]

MAX_ENTRIES = 64
MAX_TEXT = 500
# As --price is: up to seven digits, and six decimals.
SMALLEST_PRICE, LARGEST_PRICE = 1e-6, 1_000_000

_COUNT = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]}

# Whatever a text names, read only to see whether it names anything.
Reader: TypeAlias = Callable[[str], object]


# ------------------------------------------------------------------ values


def _wrong(message: str, where: Where = ()) -> FieldError:
    return FieldError((where, message))


def _read(given: object, parse: Callable[[str], int], expected: str, least: int = 1) -> int:
    """Return a whole number, written as one or as a text."""
    if isinstance(given, str):
        try:
            given = parse(given)
        except ValueError as error:
            raise _wrong(str(error)) from None
    if isinstance(given, bool) or not isinstance(given, int):
        raise _wrong(f"expected {expected}, not {shown(given)}")
    if not least <= given <= LARGEST_COUNT:
        raise _wrong(f"{given:,} is out of range: expected {least:,} to {LARGEST_COUNT:,}")
    return given


def _count(given: object) -> int:
    return _read(given, parse_count, "a count such as 8192 or 8k")


def _size(given: object) -> int:
    return _read(given, parse_bytes, "a size such as 1.5GiB", least=0)


def _counts(given: object) -> tuple[int, ...]:
    """Return one count, or a list of them."""
    if isinstance(given, list):
        return tuple(_entries(given, _count))
    if isinstance(given, str) and "," in given:
        raise _wrong(f"{shown(given)} is no count: a list of them is written [4k, 32k]")
    return (_count(given),)


def _texts(given: object) -> tuple[str, ...]:
    """Return one text, or a list of them."""
    return (_text(given),) if not isinstance(given, list) else tuple(_entries(given, _text))


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise _wrong(f"expected text, not {shown(given)}")
    if not 0 < len(given.strip()) <= MAX_TEXT:
        raise _wrong(f"must have 1 to {MAX_TEXT} characters")
    return given


def _entries(given: list[Any], read: Callable[[object], Any]) -> list[Any]:
    """Return the entries of a list, each once, with every mistake in them."""
    if not 1 <= len(given) <= MAX_ENTRIES:
        raise _wrong(f"must have 1 to {MAX_ENTRIES} entries, not {len(given):,}")
    found: list[Any] = []
    complaints: list[tuple[Where, str]] = []
    for index, one in enumerate(given):
        try:
            value = read(one)
        except FieldError as error:
            complaints += [((index, *where), text) for where, text in error.complaints]
            continue
        if value in found:
            complaints.append(((index,), f"{shown(one)} is there already"))
        found.append(value)
    if complaints:
        raise FieldError(*complaints)
    return found


def _share(given: object) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str):
        raise _wrong(f"expected a share such as 0.9 or 90%, not {shown(given)}")
    try:
        return parse_share(given) / 10_000
    except ValueError as error:
        raise _wrong(str(error)) from None


def _price(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _wrong(f"expected US dollars for a GPU and hour such as 2.95, not {shown(given)}")
    if not SMALLEST_PRICE <= given <= LARGEST_PRICE:
        raise _wrong(f"must be above 0 and at most {LARGEST_PRICE:,}, not {given:g}")
    return float(given)


def _named(read: Reader) -> Callable[[object], str]:
    """Return the check of a text that names something."""

    def check(given: object) -> str:
        name = _text(given)
        try:
            read(name)
        except UsageError as error:
            raise _wrong(error.lines()[0]) from None
        return name

    return check


Count = Annotated[int, PlainValidator(_count), WithJsonSchema(_COUNT)]
Counts = Annotated[
    tuple[int, ...],
    PlainValidator(_counts),
    WithJsonSchema({"anyOf": [*_COUNT["anyOf"], {"type": "array", "items": _COUNT, "minItems": 1}]}),
]
Texts = Annotated[
    tuple[str, ...],
    PlainValidator(_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
TextList = Annotated[tuple[str, ...], Field(max_length=MAX_ENTRIES)]
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
_STRING = WithJsonSchema({"type": "string"})


class DeploymentText(BaseModel):
    """How the model is deployed: the options of ``kvplan capacity`` of the same names.

    Args:
        gpus: number of GPUs; tensor parallel unless pp, dp or cp take some.
        tp: tensor parallel ranks.
        pp: pipeline parallel stages.
        dp: data parallel replicas.
        ep: expert parallel ranks: 1, or all GPUs of a stage share experts.
        cp: context parallel ranks that share the tokens of a request.
        weights: storage of weights: bf16, fp8, int4, q4_k... As released if absent.
        kv: storage of keys and values: bf16, fp16, fp32, fp8, int8, int4, int2, int8-kivi, int4-kivi,
            int2-kivi.
        state: storage of states and index keys: transformers, vllm, vllm-fp32, sglang.
        latent_cache: what is cached of latent attention: latent, or expanded to every head's key and value.
        mtp: hold the layers that predict further tokens, to draft with.
        speculative_tokens: guessed tokens a step checks; a vllm state only.
        alloc: paged, or contiguous to max_length.
        block_size: tokens in a block of the paged cache.
        max_length: longest context allowed; the model's own limit if absent.
        chunk: tokens of the largest prefill step.
        memory_utilization: share of each GPU's memory to plan with: 0.9 or 90%.
        overhead: the runtime's own memory on each GPU: 1.5GiB. Typical figures if absent.
    """

    gpus: Count | None = None
    tp: Count | None = None
    pp: Count | None = None
    dp: Count | None = None
    ep: Count | None = None
    cp: Count | None = None
    weights: Annotated[str, PlainValidator(_named(weight_format)), _STRING] | None = None
    kv: Annotated[str, PlainValidator(_named(kv_format)), _STRING] | None = None
    state: Annotated[str, PlainValidator(_named(state_layout)), _STRING] | None = None
    latent_cache: LatentCache | None = None
    mtp: bool | None = None
    speculative_tokens: Annotated[int, Field(ge=0, le=LARGEST_SIZE)] | None = None
    alloc: Literal["paged", "contiguous"] | None = None
    block_size: Count | None = None
    max_length: Count | None = None
    chunk: Count | None = None
    memory_utilization: (
        Annotated[
            float,
            PlainValidator(_share),
            WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
        ]
        | None
    ) = None
    overhead: (
        Annotated[
            int,
            PlainValidator(_size),
            WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
        ]
        | None
    ) = None

    def planned(self) -> PlannedDeployment:
        """Return what it says."""
        return PlannedDeployment(**self.model_dump())


class WorkloadText(BaseModel):
    """The load to carry.

    Args:
        batch: requests at once: one number of them, or a list.
        context: tokens of each request, one number or a list; of its prompt, where output_tokens are made.
        output_tokens: tokens each request makes in a closed loop, where the next one follows it.
    """

    batch: Counts | None = None
    context: Counts | None = None
    output_tokens: Count | None = None

    def planned(self) -> Workload:
        """Return what it says."""
        return Workload(self.batch or (), self.context or (), self.output_tokens)


class PlanFile(BaseModel):
    """A plan: a model on GPUs, its load, and what must hold of it.

    Args:
        name: what the plan is called.
        model: a name (kvplan models list), or a file or folder, from the folder of the plan.
        gpu: a name (kvplan gpus list) or a file, or a list of them: the plan is checked on each.
        deployment: how the model is cut over GPUs and stored.
        workload: the load to carry.
        price: US dollars for one GPU and hour.
        compare: what kvplan compare tries, each as behind --with: kv=fp8,weights=int4.
        require: what must hold, such as max_context >= 32k at batch 16, tpot <= 30 ms, or fits.
    """

    name: Name
    model: Text
    gpu: Texts
    deployment: DeploymentText = DeploymentText()
    workload: WorkloadText = WorkloadText()
    price: (
        Annotated[float, PlainValidator(_price), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
        | None
    ) = None
    compare: TextList = ()
    require: TextList = ()


def adapter() -> TypeAdapter[PlanFile]:
    """Return the checker of plan files."""
    return TypeAdapter(PlanFile)


# ------------------------------------------------------------------ reading


def read_plan(document: Document, path: Path, parse_changes: Reader, specs: Path | None = None) -> Plan:
    """Return the plan a document describes.

    Args:
        document: the file at ``path``.
        path: its folder is where files that it names are looked for.
        parse_changes: reads what is to be compared; it raises UsageError where that is nothing.
        specs: a folder whose models and accelerators are looked up first.

    Raises:
        SpecError: every mistake in the document.
    """
    if isinstance(document.data, dict) and (kind := _other_kind(document.data)):
        raise SpecError([document.problem((), f"this is {kind}, not a plan")])
    sentences, strange = _sentences(document)
    strange = [*strange, *_strange_changes(document, parse_changes)]
    strange += _unknown_names(document, path, specs)
    try:
        found = validate(document, adapter())
    except SpecError as error:
        raise SpecError([*error.problems, *strange[:MAX_PROBLEMS]]) from None
    workload = found.workload.planned()
    required, open_ones = _at_workload(document, sentences, workload, priced=found.price is not None)
    if problems := [*strange, *open_ones, *_no_loop(document, workload)]:
        raise SpecError(problems[:MAX_PROBLEMS])
    return Plan(
        path=path,
        label=printable(shortened(path)),
        name=found.name,
        model=beside(path, found.model),
        gpus=tuple(beside(path, gpu) for gpu in found.gpu),
        deployment=found.deployment.planned(),
        workload=workload,
        price=found.price,
        compare=found.compare,
        require=required,
    )


def beside(path: Path, name: str) -> str:
    """Return a name as it is, and a file's from the folder of the plan that names it."""
    return os.path.join(path.parent, name) if is_path(name) else name


def _other_kind(data: dict[str, object]) -> str:
    if {"kinds", "layers"} <= data.keys():
        return "a model file"
    return "an accelerator file" if {"memory", "peak_dense"} <= data.keys() else ""


def _listed(document: Document, key: str) -> list[tuple[NodePath, str]]:
    """Return the texts of a list, or of one text, each with its path; nothing where the data is no such."""
    data = document.data.get(key) if isinstance(document.data, dict) else None
    if isinstance(data, str):
        return [((key,), data)]
    entries = data[:MAX_ENTRIES] if isinstance(data, list) else []
    return [((key, index), text) for index, text in enumerate(entries) if isinstance(text, str)]


def _sentences(document: Document) -> tuple[dict[NodePath, Requirement], list[Problem]]:
    """Return the requirements that can be read, and what is wrong with the others.

    They are looked for in the plain data, so that they are told together with whatever else is wrong.
    """
    found: dict[NodePath, Requirement] = {}
    problems = []
    for path, text in _listed(document, "require"):
        try:
            found[path] = parse_requirement(text)
        except SentenceError as error:
            problems.append(document.problem_within(path, error.offset, f"{dotted(path)}{error.message}"))
    return found, problems


def _at_workload(
    document: Document, sentences: dict[NodePath, Requirement], workload: Workload, *, priced: bool
) -> tuple[tuple[Requirement, ...], list[Problem]]:
    """Return requirements with the load each is asked at, and what is wrong with those that have none."""
    found: dict[str, Requirement] = {}
    problems = []
    for path, sentence in sentences.items():
        try:
            whole = sentence.at(workload.batch, workload.context, priced=priced)
        except SentenceError as error:
            problems.append(document.problem_within(path, error.offset, f"{dotted(path)}{error.message}"))
            continue
        if (other := found.setdefault(whole.name, whole)) is not whole:
            message = f"{dotted(path)}{quoted(other.text)} asks the same"
            problems.append(document.problem(path, message))
    return tuple(found.values()), problems


def _strange_changes(document: Document, parse_changes: Reader) -> Iterable[Problem]:
    """Return what is wrong with what is to be compared."""
    for path, text in _listed(document, "compare"):
        try:
            parse_changes(text)
        except UsageError as error:
            yield document.problem(path, f"{dotted(path)}{error.lines()[0]}")


def _unknown_names(document: Document, path: Path, specs: Path | None) -> Iterable[Problem]:
    """Return the models and accelerators that are not there."""
    models = [named for named in _listed(document, "model") if named[0] == ("model",)]
    for find, named in ((find_model, models), (find_gpu, _listed(document, "gpu"))):
        for place, text in named:
            try:
                if text.strip():
                    find(beside(path, text), specs)
            except KvplanError as error:
                yield document.problem(place, f"{dotted(place)}{error.lines()[0]}")


def _no_loop(document: Document, workload: Workload) -> list[Problem]:
    """Return the mistake of a closed loop whose requests end with their first token."""
    if workload.output_tokens != 1:
        return []
    path = ("workload", "output_tokens")
    return [document.problem(path, f"{dotted(path)}must be at least 2: a token after the first")]
