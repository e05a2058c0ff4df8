"""What onnx-ir cannot hold is a limit of onnx-ir: it is worked on all the same, and errors blame what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune as op
from onnxprune.errors import ModelError, NothingToPruneError, TargetError
from onnxprune.runtime.session import Session
from tests.conftest import Build

NET = """
    net (float[n, 8] x) => (float[n, 3] y) <float[24, 3] v, float[8, 24] w>
    { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""


def sparse_weight(*, coordinates: bool) -> tuple[onnx.SparseTensorProto, np.ndarray]:
    array = np.zeros((8, 24), np.float32)
    array[::2, ::3] = np.random.default_rng(1).standard_normal((4, 8))
    places = np.argwhere(array) if coordinates else np.flatnonzero(array)
    values = numpy_helper.from_array(array[array != 0], "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "at"), [8, 24]), array


def as_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(next(weight for weight in model.graph.initializer if weight.name == "w"))
    model.graph.sparse_initializer.append(sparse_weight(coordinates=False)[0])


def as_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(next(weight for weight in model.graph.initializer if weight.name == "w"))
    sparse = sparse_weight(coordinates=True)[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))


@pytest.mark.parametrize("edit", [as_initializer, as_constant])
def test_sparse_weights_are_made_dense(build: Build, edit: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    path, x = build(NET, edit=edit), np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    result = op.compress(path, lossless=True)
    assert any("sparse weights are written as dense ones" in note for note in result.report.notes)
    result.save(tmp_path / "same.onnx")
    answers = [Session(each).run({"x": x})["y"] for each in (path, tmp_path / "same.onnx")]
    assert np.allclose(*answers, atol=1e-5)
    assert op.compress(path, ratio=0.5, recover="none").save(tmp_path / "half.onnx").after.macs == 132  # of 264


def test_damaged_sparse_weight(build: Build) -> None:
    def beyond(model: onnx.ModelProto) -> None:
        as_initializer(model)
        model.graph.sparse_initializer[0].dims[:] = [2, 2]

    with pytest.raises(ModelError, match="its sparse tensor 'w' cannot be read"):
        op.compress(build(NET, edit=beyond), ratio=0.5, recover="none")


def zip_map(path: Path) -> None:
    """A classifier as scikit-learn exports it: its probabilities come as a sequence of maps."""
    rng = np.random.default_rng(0)
    weights = {"w": (6, 16), "v": (16, 3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    outputs = [helper.make_value_info("z", helper.make_sequence_type_proto(kind))]
    inputs = [helper.make_tensor_value_info("x", 1, ["n", 6])]
    stored = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, stored)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


def test_types_with_maps_are_carried(tmp_path: Path) -> None:
    path, small = tmp_path / "classifier.onnx", tmp_path / "small.onnx"
    zip_map(path)
    report = op.compress(path, ratio=0.5, recover="none").save(small)
    assert report.after.macs == report.before.macs // 2
    assert onnx.load(small).graph.output[0].type == onnx.load(path).graph.output[0].type
    answer = Session(small).run({"x": np.zeros((2, 6), np.float32)})["z"]
    assert [sorted(sample) for sample in answer] == [[0, 1, 2], [0, 1, 2]]
    again = op.compress(
        op.compress(path, ratio=0.5, recover="none").model, ratio=0.5, recover="none"
    )  # from memory, too
    assert again.save(tmp_path / "quarter.onnx").after.macs == report.before.macs // 4


def test_only_errors_about_the_file_blame_the_file(build: Build) -> None:
    """The checker refuses the declared output, but ONNX Runtime runs the file and nothing that follows is due to it."""
    path = build(NET.replace("float[n, 3] y", "float[n, 4] y"))
    with pytest.raises(TargetError) as unmet:
        op.compress(path, target="params=0.0001", recover="none")
    assert "not a valid ONNX model" not in str(unmet.value)
    with pytest.raises(NothingToPruneError, match="excluded"):
        op.compress(path, skip="neurons", ratio=0.5, recover="none")


TEXTS = """
    net (string[n, 1] color, int64[n, 1] size, float[n, 4] x) => (float[n, 3] y)
    <float[4, 8] w, float[8, 3] v, int64[2] flat = {-1, 3}, int64[2] flat2 = {-1, 2}, float[3, 8] a, float[2, 8] b>
    {
        c = ai.onnx.ml.OneHotEncoder<cats_strings = ["red", "green", "blue"], zeros = 0>(color)  cf = Reshape(c, flat)
        s = ai.onnx.ml.OneHotEncoder<cats_int64s = [38, 40], zeros = 0>(size)  sf = Reshape(s, flat2)
        h = MatMul(x, w)  hc = MatMul(cf, a)  hs = MatMul(sf, b)  t = Add(h, hc)  u = Add(t, hs)
        r = Relu(u)  y = MatMul(r, v)
    }
"""


def test_categories_that_an_encoder_knows_are_tried(build: Build, tmp_path: Path) -> None:
    path = build(TEXTS, opsets={"ai.onnx.ml": 3})
    result = op.compress(path, ratio=0.5, recover="none")
    trial = result.original.trials[0].feed
    assert trial["color"].item() in ("red", "green", "blue")
    assert trial["size"].item() in (38, 40)
    result.save(tmp_path / "small.onnx")
