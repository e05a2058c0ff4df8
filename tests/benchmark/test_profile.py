"""Profiles: the times of nodes, under the names that they have in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxprune.evaluation.benchmark import profile as profiling
from onnxprune.evaluation.benchmark.profile import NodeTime, Profile, layer_names, movers, profile
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of
from onnxprune.runtime.latency import Setting, made_inputs
from tests.conftest import Build

BLOCK = """
    net (float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y)
    <float[8, 8, 3, 3] w, float[8, 8, 3, 3] v>
    { a = Conv<pads=[1, 1, 1, 1]>(x, w)  b = Relu(a)  c = Conv<pads=[1, 1, 1, 1]>(b, v)  d = Add(c, x)
      e = Relu(d)  y = Softmax(e) }
"""


def named(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"


def test_values_stand_for_the_layer_that_computes_them(build: Build) -> None:
    found = layer_names(open_model(build(BLOCK, edit=named)))
    assert found == {"a": "node_a", "b": "node_a", "c": "node_c", "d": "node_c", "e": "node_c", "y": "node_y"}


def test_every_layer_is_found_by_its_name(digits: dict[str, Path]) -> None:
    """Whatever ONNX Runtime made of them: all convolutions of the file have a time under their own name."""
    path = digits["resnet"]
    (found,) = profile([path], Setting(warmup=1), made_inputs(ports_of(open_model(path)), 1), runs=3)
    layers = {node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"}
    assert len(layers) > 10
    assert layers <= {node.name for node in found.nodes}
    assert found.run_seconds > 0
    assert set(found.operators) == {node.operator for node in found.nodes}


def test_times_are_medians_over_the_runs_behind_the_warm_up(build: Build) -> None:
    def kernel(name: str, ts: int, dur: int) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": "Conv"}}

    runs = [
        {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur} for ts, dur in ((0, 900), (1000, 50), (2000, 70))
    ]
    events = [
        *runs,
        kernel("node_a", 10, 800),
        kernel("node_a", 1010, 10),
        kernel("b_nchwc", 1030, 5),  # node_a under the name of a value: both count
        kernel("node_a", 2010, 20),
        kernel("node_a", 2030, 1),
        {"cat": "Node", "name": "node_a_fence_before", "ts": 2040, "dur": 1000, "args": {}},
    ]
    found = profiling._read(build(BLOCK, edit=named), events, warmup=1)
    assert found.nodes == (NodeTime("node_a", "Conv", pytest.approx(18e-6)),)
    assert found.run_seconds == pytest.approx(60e-6)
    assert found.between_nodes == pytest.approx(42e-6)


def test_movers_come_with_the_greatest_change_first() -> None:
    before = Profile("a", (NodeTime("x", "Conv", 5.0), NodeTime("y", "Conv", 1.0), NodeTime("z", "Relu", 2.0)), 8.0)
    after = Profile(
        "b", (NodeTime("x", "FusedConv", 4.5), NodeTime("z", "Relu", 2.0), NodeTime("r", "Reorder", 3.0)), 9.5
    )
    found = movers(before, after)
    assert [(each.name, each.operator, each.before, each.after) for each in found] == [
        ("r", "Reorder", None, 3.0),
        ("y", "Conv", 1.0, None),
        ("x", "FusedConv", 5.0, 4.5),
        ("z", "Relu", 2.0, 2.0),
    ]
    assert [each.change for each in found] == [3.0, -1.0, -0.5, 0.0]
