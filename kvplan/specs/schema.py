"""JSON Schemas of the spec files, for editors: exported by ``kvplan schema`` and kept beside the files."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import TypeAdapter

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.mlp import MLP
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.vision import SiglipTower
from kvplan.hardware import device, efficiency
from kvplan.specs import gpu_file, model_file

KINDS = ("model", "gpu")

_DOCUMENTED = {
    found.__name__: found
    for found in (
        *(Attention, LatentAttention, GatedDeltaNet, RopeParameters, MLP, Experts, SiglipTower),
        *(device.Device, device.Memory, device.DensePeaks, device.Interconnect, device.HourlyPrice),
        *(efficiency.KernelFit, efficiency.AllReduceFit),
        *(model_file.ModelFile, model_file.LayerKind, model_file.LayerGroup),
    )
}
_ARGUMENT = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of model or accelerator files; a field's text is its class's docstring."""
    adapter: TypeAdapter[Any] = model_file.adapter() if kind == "model" else gpu_file.adapter()
    found = adapter.json_schema()
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
