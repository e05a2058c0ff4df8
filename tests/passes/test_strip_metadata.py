"""What exporters wrote about their author's machine goes; what the model says of itself stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from onnxprune.analysis.names import SCOPES
from onnxprune.model.file import open_model, save
from onnxprune.passes.strip_metadata import StripMetadata
from tests.conftest import Build

TRACE = 'File "/home/ann/net.py", line 7, in forward'


def annotate(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="licence", value="MIT")
    model.doc_string = "a small network"
    model.graph.input[0].doc_string = "pixels"
    branches = [attribute.g for node in model.graph.node for attribute in node.attribute if attribute.HasField("g")]
    for node in (*model.graph.node, *(node for branch in branches for node in branch.node)):
        node.doc_string = TRACE
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=TRACE)


def test_traces_go_from_nodes_at_any_depth_and_the_model_keeps_its_own(build: Build, tmp_path: Path) -> None:
    path = build(
        """
        net (float[2, 4] x, bool flag) => (float[2, 4] y)
        {
            h = Relu(x)
            y = If (flag) <
                then_branch = yes () => (float[2, 4] t) { t = Relu(h) },
                else_branch = no () => (float[2, 4] e) { e = Neg(h) }
            >
        }
        """,
        edit=annotate,
    )
    model = open_model(path)
    assert StripMetadata()(model).modified
    save(model, tmp_path / "out.onnx")
    assert TRACE.encode() not in (tmp_path / "out.onnx").read_bytes()
    written = onnx.load(tmp_path / "out.onnx")
    assert {entry.key: entry.value for entry in written.metadata_props} == {"licence": "MIT"}
    assert written.doc_string == "a small network"
    assert written.graph.input[0].doc_string == "pixels"


def test_dynamo_export_loses_nothing_but_text(zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = zoo_file("hf.bert.dy")
    model = open_model(path)
    assert StripMetadata()(model).modified
    save(model, tmp_path / "out.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    assert any(node.metadata_props for node in before.graph.node)
    assert {entry.key for node in after.graph.node for entry in node.metadata_props} == {SCOPES}
    assert [(n.op_type, list(n.input), list(n.output)) for n in after.graph.node] == [
        (n.op_type, list(n.input), list(n.output)) for n in before.graph.node
    ]
