"""JSON Schemas of the spec files, for editors: exported by ``kvplan schema`` and kept beside the files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from kvplan.arch.altup import AltUp
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.arch.released import StoredAs
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.shared_block import SharedBlock
from kvplan.arch.temperature import TemperatureTuning
from kvplan.arch.tower import Tower, TowerTensor
from kvplan.hardware import device, efficiency
from kvplan.specs import gpu_file, model_file, plan_file

ADAPTERS: dict[str, Callable[[], TypeAdapter[Any]]] = {
    "model": model_file.adapter,
    "gpu": gpu_file.adapter,
    "plan": plan_file.adapter,
}
KINDS = tuple(ADAPTERS)

_DOCUMENTED = {
    found.__name__: found
    for found in (
        *(*model_file.MIXERS.values(), *model_file.FEED_FORWARDS.values()),
        *(EntryIndexer, HyperConnections, SharedBlock),
        *(RopeParameters, PerLayerInput, AltUp, StoredAs, TemperatureTuning, Tower, TowerTensor),
        *(device.Device, device.Memory, device.DensePeaks, device.Interconnect, device.HourlyPrice),
        *(efficiency.KernelFit, efficiency.AllReduceFit),
        *(model_file.ModelFile, model_file.LayerKind, model_file.LayerGroup),
        *(plan_file.PlanFile, plan_file.DeploymentText, plan_file.WorkloadText),
    )
}
_ARGUMENT = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a kind of spec files; a field's text is its class's docstring."""
    found = ADAPTERS[kind]().json_schema()
    for definition in (found, *found.get("$defs", {}).values()):
        _describe(definition)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _describe(definition: dict[str, Any]) -> None:
    """Move what a docstring says of each field to that field, and close the object to other keys."""
    documented = _DOCUMENTED.get(definition.get("title", ""))
    if documented is None:
        return
    definition["additionalProperties"] = False
    text = inspect.cleandoc(documented.__doc__ or "")
    definition["description"] = text.split("\n\n")[0].strip()
    for names, said in _ARGUMENT.findall(text):
        for name in names.split(", "):
            definition["properties"][name]["description"] = " ".join(said.split())
