"""Plans in terms of torch's parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.analysis.names import torch_module
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.prune.plan_to_torch import cuts, to_document
from tests.conftest import Build

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/conv1/Conv", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.0/features.0.1/Conv", "features.0.1"),
        ("/model/layers.3/self_attn/q_proj/MatMul", "model.layers.3.self_attn.q_proj"),
        ("/Conv", ""),
        ("node_conv2d", ""),
        ("", ""),
    ],
)
def test_modules_by_the_names_of_nodes(node: str, module: str) -> None:
    assert torch_module(ir.Node("", "Conv", [], name=node)) == module


@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_parameters_are_those_of_the_network(digits: dict[str, Path], name: str) -> None:
    """Every name is in the state of the module that the file was exported from, and has the shape that is told."""
    state = _state(name)
    document = to_document(
        inspect(digits[name]), compress(digits[name], scope="uniform", ratio=0.5, recover="none").plan
    )
    assert document["unmapped"] == []
    for parameter, entry in document["parameters"].items():
        assert tuple(state[parameter].shape) == tuple(entry["shape"]), parameter
        for axis, keep in entry["keep"].items():
            assert keep == sorted(set(keep))
            assert keep[-1] < entry["shape"][int(axis)]
    large = {key for key, value in state.items() if value.ndim > 1}
    assert large <= set(document["parameters"])


def _state(name: str) -> dict[str, Any]:
    pytest.importorskip("torch")
    sys.path.insert(0, str(ROOT / "models"))
    try:
        import digits_networks
    finally:
        sys.path.remove(str(ROOT / "models"))
    network = {"resnet": "ResNet", "transformer": "VisionTransformer"}[name]
    return dict(getattr(digits_networks, network)().state_dict())


def test_transposed_weights_are_told_as_torch_has_them(build: Build) -> None:
    def named(model: onnx.ModelProto) -> None:
        for item in (*model.graph.initializer, *(node.input for node in model.graph.node)):
            if isinstance(item, onnx.TensorProto):
                item.name = item.name.replace("fc1_", "fc1.")
            else:
                item[:] = [name.replace("fc1_", "fc1.") for name in item]
        model.graph.node[0].name, model.graph.node[3].name = "node_1", "/head/fc2/MatMul"

    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] val_1, float[8] fc1_bias, float[8, 3] val_2>
        { h = MatMul(x, val_1)  b = Add(h, fc1_bias)  r = Relu(b)  y = MatMul(r, val_2) }
        """,
        edit=named,
    )
    plan = compress(path, ratio=0.5, recover="none").plan
    found = {cut.name: cut for cut in cuts(inspect(path), plan)}
    assert set(found) == {"fc1.weight", "fc1.bias", "head.fc2.weight"}
    kept = np.setdiff1d(np.arange(8), plan.removals[0].remove).tolist()
    assert (found["fc1.weight"].shape, found["fc1.weight"].keep) == ((8, 5), {0: kept})
    assert (found["head.fc2.weight"].shape, found["head.fc2.weight"].keep) == ((3, 8), {1: kept})


def test_what_cannot_be_traced_is_listed(digits: dict[str, Path]) -> None:
    document = to_document(inspect(digits["lstm"]), compress(digits["lstm"], ratio=0.5, recover="none").plan)
    assert set(document["parameters"]) == {"head.weight"}
    assert {entry["onnx"].rpartition("::")[0] for entry in document["unmapped"]} == {"onnx"}
