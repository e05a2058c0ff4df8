"""The documents for programs: complete, plain, and the same for the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from onnxprune.model.file import open_model
from onnxprune.pipeline import run as pipeline
from onnxprune.report import data
from tests.conftest import Build


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """The document after a way through JSON, which must not change it."""
    read = json.loads(json.dumps(document, allow_nan=False))
    assert read == document
    return dict(read)


def test_result_document(digits: dict[str, Path], tmp_path: Path) -> None:
    result = pipeline.compress(digits["resnet"], scope="uniform", ratio=0.5, recover="none")
    result.save(tmp_path / "out.onnx")
    document = data.of_result(result, digits["resnet"], tmp_path / "out.onnx")
    read = json.loads(json.dumps(document, allow_nan=False))
    assert list(read) == [
        "format", "kind", "model", "output", "recipe", "quality", "before", "after", "file_bytes_estimated", "macs_at",
        "groups", "unruled", "recovery", "trainings", "quantization", "sparsity", "scores", "stages", "frozen", "notes",
    ]  # fmt: skip
    assert read["format"] == 1
    assert read["before"]["file_bytes"] == digits["resnet"].stat().st_size
    assert read["after"]["file_bytes"] == (tmp_path / "out.onnx").stat().st_size
    assert read["recipe"]["step"][0] == {"step": "prune", "scope": "uniform"}
    assert read["groups"][0] == {
        "id": "stem.0", "kind": "channels", "units": 16, "kept": 8, "statistics": False,
    }  # fmt: skip


def test_what_json_does_not_know_is_null() -> None:
    text = data.to_json({"whole": float("inf"), "values": (1.5, float("nan")), "name": "NaN"})
    assert json.loads(text, parse_constant=pytest.fail) == {"whole": None, "values": [1.5, None], "name": "NaN"}


def test_analysis_document(digits: dict[str, Path]) -> None:
    document = plain(data.of_analysis(pipeline.inspect(digits["lstm"]), digits["lstm"]))
    assert list(document) == [
        "format", "kind", "model", "opsets", "inputs", "outputs", "cost", "macs_at", "dynamic_axes", "groups", "frozen",
        "unruled", "metadata",
    ]  # fmt: skip
    assert document["metadata"] == {"items": 0, "local_paths": False}
    assert document["cost"]["nodes"] == len(onnx.load(digits["lstm"]).graph.node)
    head = next(axis for axis in document["frozen"] if axis["tensor"] == "head.bias")
    assert head == {
        "tensor": "head.bias", "axis": 0, "size": 10, "reason": "output 'logits' of the model keeps its shape",
        "node": None, "operator": None,
    }  # fmt: skip


def test_parameters_and_macs_of_a_group_by_hand(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] b, float[8, 3] v> { h = Gemm(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
    """)
    (group,) = data.of_analysis(pipeline.inspect(path), path)["groups"]
    assert (group["units"], group["parameters"], group["macs"]) == (8, 5 * 8 + 8 + 8 * 3, 5 * 8 + 8 * 3)
    assert [(place["tensor"], place["axis"]) for place in group["occurrences"]] == [("w", 1), ("b", 0), ("v", 0)]
    assert {place["dim"] for place in group["occurrences"]} == {"w:8"}


def test_axes_without_a_name_are_named_after_their_input(build: Build) -> None:
    path = build("net (float[N, ?, 5] x) => (float[N, ?, 3] y) <float[5, 3] w> { y = MatMul(x, w) }")
    document = plain(data.of_analysis(pipeline.inspect(path), path))
    assert document["dynamic_axes"] == ["N", "x[1]"]
    assert document["inputs"][0]["shape"] == ["N", "x[1]", 5]
    assert document["outputs"][0]["shape"] == ["N", None, 3]


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ('File "/home/ann/net.py", line 7, in forward', True),
        ("/usr/lib/python3/torch/nn/modules/conv.py(458): _conv_forward", True),
        ("/work/net.py:31:0", True),
        ("the second convolution", False),
        ("see net.py", False),
    ],
)
def test_positions_in_source_files_are_recognized(digits: dict[str, Path], text: str, local: bool) -> None:
    model = open_model(digits["resnet"])
    next(iter(model.graph)).doc_string = text
    assert data.exporter_metadata(model) == {"items": 1, "local_paths": local}


def test_metadata_of_the_model_itself_is_not_the_exporters(digits: dict[str, Path]) -> None:
    model = open_model(digits["resnet"])
    model.metadata_props["licence"] = "Apache-2.0"
    assert isinstance(model, ir.Model)
    assert data.exporter_metadata(model)["items"] == 0
