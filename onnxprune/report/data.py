"""Analyses and results as plain dictionaries, ready for JSON.

Every document carries `format`, which changes when a key changes its meaning or goes. The same input and options give
the same document: nothing in it depends on time or machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.dynamic_axes import symbol_of
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.dims import Atom, describe
from onnxprune.evaluation.quality import Quality, QualityScore
from onnxprune.model.file import file_bytes
from onnxprune.passes.strip_metadata import annotated
from onnxprune.pipeline.result import Result
from onnxprune.report.details import details_of, frozen

FORMAT = 1

# Python source positions, as exporters write them: `net.py", line 7`, `net.py(7)`, `net.py:7`.
_SOURCE_POSITION = re.compile(r"\.py\W+(line )?\d")


def to_json(document: dict[str, Any]) -> str:
    """A document as text. JSON knows neither NaN nor infinity, and most readers refuse them: both become null."""
    return json.dumps(_plain(document), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def of_result(result: Result, model: Path, output: Path | None) -> dict[str, Any]:
    """The results of a command that makes a model, like `compress`; `output` is None when no file was written."""
    report, details = result.report, details_of(result)
    sizes = dict(zip(("before", "after"), report.file_bytes, strict=True))
    return {
        "format": FORMAT,
        "kind": "result",
        "model": str(model),
        "output": None if output is None else str(output),
        "recipe": dict(result.recipe),
        "quality": None if report.quality is None else of_quality(report.quality),
        "before": {**asdict(report.before), "file_bytes": sizes["before"]},
        "after": {**asdict(report.after), "file_bytes": sizes["after"]},
        "file_bytes_estimated": report.estimated,
        "macs_at": report.sizes,
        "groups": [asdict(group) for group in report.groups],
        "unruled": report.unruled,
        "recovery": {"method": report.recovery, "layers": [asdict(error) for error in report.errors]},
        "trainings": [dict(training) for training in report.trainings],
        "quantization": None if report.quantization is None else dict(report.quantization),
        "sparsity": None if report.sparsity is None else dict(report.sparsity),
        "scores": list(details.scores),
        "stages": list(details.stages),
        "frozen": list(details.frozen),
        "notes": list(report.notes),
    }


def of_results(ends: Sequence[tuple[str, dict[str, Any] | str]]) -> dict[str, Any]:
    """The results of `compress` for several models: per path the document of the result, or why it failed."""
    models = [
        {
            "model": model,
            "output": None if isinstance(end, str) else end["output"],
            "error": str(end) if isinstance(end, str) else None,
            "result": None if isinstance(end, str) else end,
        }
        for model, end in ends
    ]
    failed = sum(model["error"] is not None for model in models)
    return {"format": FORMAT, "kind": "results", "models": models, "failed": failed}


def of_quality(quality: Quality) -> dict[str, Any]:
    """Metrics before and after, on what they were measured, and whether the model fell apart."""
    latency = quality.latency
    found = {
        "scores": [_score(each) for each in quality.scores],
        "explained": quality.explained,
        "samples": quality.samples,
        "inputs": quality.inputs,
        "on": quality.on,
        "latency": None,
        "damage": quality.damage or None,
    }
    if latency is not None:
        times = {"before": latency.before, "after": latency.after, "words": latency.comparison.words}
        found["latency"] = {**asdict(latency.comparison), **times}
    plain: dict[str, Any] = _plain(found)
    return plain


def _score(score: QualityScore) -> dict[str, Any]:
    """A metric, also as people read it."""
    return {**asdict(score), "name": score.name, "shown": [score.shown(score.before), score.shown(score.after)]}


def of_evaluation(quality: Quality, original: Path, model: Path | None) -> dict[str, Any]:
    """The results of `evaluate`; `model` is None where the original was looked at alone."""
    return {
        "format": FORMAT,
        "kind": "evaluation",
        "original": str(original),
        "model": None if model is None else str(model),
        "quality": of_quality(quality),
        "notes": list(quality.notes),
    }


def of_analysis(analysis: Analysis, model: Path) -> dict[str, Any]:
    """The results of `inspect`."""
    return {
        "format": FORMAT,
        "kind": "analysis",
        "model": str(model),
        "opsets": dict(analysis.model.graph.opset_imports),
        "inputs": interface_ports(analysis, inputs=True),
        "outputs": interface_ports(analysis, inputs=False),
        "cost": {**asdict(cost.before(analysis)), "file_bytes": file_bytes(analysis.model)},
        "macs_at": cost.sizes_of_sample(analysis),
        "dynamic_axes": list(analysis.shapes.bindings),
        "groups": groups(analysis),
        "frozen": frozen(analysis),
        "unruled": dict(analysis.unruled),
        "metadata": exporter_metadata(analysis.model),
    }


def interface_ports(analysis: Analysis, *, inputs: bool) -> list[dict[str, Any]]:
    """The interface: names, element types and shapes with symbols for dynamic axes."""
    graph = analysis.model.graph
    values = [v for v in graph.inputs if v.name not in graph.initializers] if inputs else graph.outputs
    return [
        {
            "name": value.name,
            "type": None if value.dtype is None else value.dtype.name.lower(),
            "shape": None if value.shape is None else [_size(value, axis, inputs) for axis in range(len(value.shape))],
        }
        for value in values
    ]


def _size(value: ir.Value, axis: int, is_input: bool) -> int | str | None:
    assert value.shape is not None
    size = value.shape[axis]
    if isinstance(size, int):
        return size
    return symbol_of(value, axis) if is_input else getattr(size, "value", None)


def groups(analysis: Analysis) -> list[dict[str, Any]]:
    """Every group with where it occurs and what hangs on it, in topological order."""
    names, batch = analysis.names(), cost.batch_size(analysis)
    costs = cost.group_costs(analysis)
    return [
        {
            "id": group.id,
            "kind": group.kind,
            "units": group.units,
            "statistics": group.statistics,
            "parameters": costs[group.id][0],
            "macs": costs[group.id][1] // batch,
            "occurrences": _occurrences(group, names),
        }
        for group in analysis.groups
    ]


def _occurrences(group: Group, names: dict[Atom, str]) -> list[dict[str, Any]]:
    return [
        {"tensor": place.tensor, "axis": place.axis, "dim": describe(place.dim, names)} for place in group.occurrences
    ]


def exporter_metadata(model: ir.Model) -> dict[str, Any]:
    """How many nodes and values carry notes of the exporter, and whether those name files of its author."""
    items = list(annotated(model))
    return {"items": len(items), "local_paths": any(_names_local_paths(item) for item in items)}


def _names_local_paths(item: ir.Node | ir.Value) -> bool:
    if any("stack_trace" in key for key in item.metadata_props):
        return True
    return any(_SOURCE_POSITION.search(text) for text in (*item.metadata_props.values(), item.doc_string or ""))
