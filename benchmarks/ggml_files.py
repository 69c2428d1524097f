"""Which runtime a llama.cpp row was measured with, and the bytes of its mixed file that a step reads."""

from __future__ import annotations

from dataclasses import replace

from public_cases import Q4_K_M_OVER_Q4_K, Case

from kvplan.hardware.runtime_fits import Runtime
from kvplan.plan.roofline import Roofline, plan_roofline
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.weights import weights_bytes
from kvplan.storage import WeightFormat
from kvplan.storage.tensor_role import EVERY_MATRIX


def runtime_of(case: Case) -> Runtime:
    """Return what ran a row: rows of src xd are of May 2024, those of sp and jg of 2025."""
    if case.deployment.device.vendor == "apple":
        return Runtime.LLAMA_CPP_METAL
    return Runtime.LLAMA_CPP_CUDA_2024 if case.source == "xd" else Runtime.LLAMA_CPP_CUDA_2025


def roofline_of(case: Case) -> Roofline:
    """Return the roofline of a row, every matrix of an mxfp4 file in mxfp4: the least it can be.

    What such a file has beside its experts is in formats of its own, mostly 8 bits.
    """
    storage = case.deployment.weights
    packed = replace(storage, applies_to=EVERY_MATRIX) if storage.name == "mxfp4" else storage
    return plan_roofline(case.model, replace(case.deployment, weights=packed))


def read_weight_bytes(case: Case, roofline: Roofline) -> float:
    """Return the bytes of its file that a step reads."""
    storage = case.deployment.weights
    plain, read = _stored(case, storage), _read(case, roofline)
    if storage.name == "mxfp4":
        return _beside_experts(case, plain, read)
    if case.file_bytes is not None:
        return read * case.file_bytes / plain
    return read * (Q4_K_M_OVER_Q4_K if storage.name == "q4_k" else 1)


def _beside_experts(case: Case, plain: int, read: float) -> float:
    """Return the same of a file that has its experts in mxfp4 and the rest in something of its own."""
    every = roofline_of(case)
    packed = every.deployment.weights
    # What both formats store alike is the experts; the rest differs by as many bytes for each weight.
    rest = (plain - _stored(case, packed)) / (2 - 17 / 32)
    rest_read = (read - _read(case, every)) / (2 - 17 / 32)
    assert case.file_bytes is not None
    return read - 2 * rest_read + rest_read * (case.file_bytes - (plain - 2 * rest)) / rest


def _read(case: Case, roofline: Roofline) -> float:
    return float(roofline.work(roofline.decode(case.batch, case.context)).weight_bytes)


def _stored(case: Case, storage: WeightFormat) -> int:
    (whole,) = pipeline_stages(case.model, 1)
    return weights_bytes(case.model, whole, 1, storage).number
