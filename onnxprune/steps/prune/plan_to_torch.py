"""A plan for those who keep their model in torch: which entries of which parameters stay.

ONNX files name most weights as torch does. What exporters rename (folded BatchNorms, transposed weights of Linear) is
traced back through the names of the nodes that read it, or of the bias behind; what cannot be traced is listed as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.names import TORCH_NAME, bias_behind, torch_module
from onnxprune.dims import Mask, keep_mask
from onnxprune.model.weights import is_weight
from onnxprune.ops.traits import parameters, turned_weight
from onnxprune.steps.plan import Plan

_INVENTED = re.compile(r"val_\d+|.*_\d+|.*/.*|.*::.*")


@dataclass(frozen=True)
class Cut:
    """The part of one weight that stays.

    Attributes:
        onnx: the initializer's name.
        name: the parameter's name in torch; None where it could not be traced.
        shape: as torch has it, before.
        keep: per axis that loses something, as torch has it, the positions that stay.
    """

    onnx: str
    name: str | None
    shape: tuple[int, ...]
    keep: dict[int, list[int]]


def cuts(analysis: Analysis, plan: Plan) -> list[Cut]:
    """Every weight that loses something, in the model's order. Raises PlanError when the plan does not fit."""
    keep = plan.keep(analysis)
    found = []
    for name, value in analysis.model.graph.initializers.items():
        dims = analysis.dims.get(name)
        if not is_weight(value) or dims is None:
            continue
        masks = {axis: mask for axis, mask in enumerate(keep_mask(dim, keep) for dim in dims) if not mask.all()}
        if masks:
            found.append(_cut(value, masks, tuple(dim.size for dim in dims)))
    return found


def to_document(analysis: Analysis, plan: Plan) -> dict[str, Any]:
    """The cuts as plain data, for JSON: `parameters` by torch's names, and `unmapped` initializers."""
    found = cuts(analysis, plan)
    return {
        "format": 1,
        "kind": "torch-plan",
        "parameters": {
            cut.name: {"onnx": cut.onnx, "shape": list(cut.shape), "keep": {str(a): p for a, p in cut.keep.items()}}
            for cut in found
            if cut.name is not None
        },
        "unmapped": [
            {"onnx": cut.onnx, "shape": list(cut.shape), "keep": {str(a): p for a, p in cut.keep.items()}}
            for cut in found
            if cut.name is None
        ],
        "notes": [
            "a BatchNorm that the exporter folded into the layer before it is in no ONNX file: "
            "its parameters and statistics keep the same positions as axis 0 of that layer's weight"
        ],
    }


def _cut(value: ir.Value, masks: Mapping[int, Mask], shape: tuple[int, ...]) -> Cut:
    name, turned = _traced(value)
    positions = {axis: [int(each) for each in np.flatnonzero(mask)] for axis, mask in masks.items()}
    if turned:
        shape, positions = shape[::-1], {len(shape) - 1 - axis: kept for axis, kept in positions.items()}
    return Cut(value.name or "", name, shape, dict(sorted(positions.items())))


def _traced(value: ir.Value) -> tuple[str | None, bool]:
    """Torch's name of an initializer, and whether torch has it transposed."""
    name = value.name or ""
    if name.endswith(".weight_bias"):
        return f"{name.removesuffix('.weight_bias')}.bias", False
    if TORCH_NAME.fullmatch(name) and not _INVENTED.fullmatch(name):
        return name, False
    for node, slot in value.uses():
        module = torch_module(node)
        if slot in parameters(node) and module:
            return f"{module}.{parameters(node)[slot]}", False
        if slot == turned_weight(node) and value.shape is not None and len(value.shape) == 2:
            bias = bias_behind(node)
            if bias is not None:
                return f"{bias.removesuffix('.bias')}.weight", True
            if module:
                return f"{module}.weight", True
    return None, False
