"""The model by stages: which operators are drawn, how they hang together, their widths and parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from onnxprune.analysis import cost
from onnxprune.pipeline import run as pipeline
from onnxprune.report.flow import flow
from onnxprune.report.stages import stages_of

RESIDUAL = """
    net (float[1, 4] x) => (float[1, 3] y)
    <float[4, 8] w, float[8, 8] v, float[8] b, float[8, 3] u>
    { h = MatMul(x, w)  r = Relu(h)  p = MatMul(r, v)  q = Add(p, b)  s = Add(q, r)  t = Relu(s)  y = MatMul(t, u) }
"""


def test_layers_and_joins_only(build: Callable[..., Path]) -> None:
    analysis = pipeline.inspect(build(RESIDUAL))
    (group,) = analysis.groups
    found = stages_of(analysis, {group.atom: 5})
    assert [(each["kind"], each["operator"], each["stage"], each["from"]) for each in found] == [
        ("input", None, 0, []),
        ("layer", "MatMul", 1, [0]),
        ("layer", "MatMul", 2, [1]),
        ("join", "Add", 3, [2, 1]),
        ("layer", "MatMul", 4, [3]),
        ("output", None, 5, [4]),
    ]
    assert [each["width"] for each in found] == [None, [8, 5], [8, 5], [8, 5], [3, 3], None]
    assert [each["parameters"] for each in found if each["kind"] == "layer"] == [[32, 20], [64, 25], [24, 15]]


def test_a_tied_weight_counts_once(build: Callable[..., Path]) -> None:
    analysis = pipeline.inspect(
        build("""
            net (float[1, 4] x) => (float[1, 4] y)
            <float[4, 4] w> { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }
        """)
    )
    layers = [each for each in stages_of(analysis, {}) if each["kind"] == "layer"]
    assert sum(each["parameters"][0] for each in layers) == 16


def test_a_size_is_no_way(build: Callable[..., Path]) -> None:
    """What a Reshape computes its target from does not join the data."""
    analysis = pipeline.inspect(
        build("""
            net (float[batch, 4] x) => (float[batch, 3] y) <float[4, 6] w, float[6, 3] v, int64[1] z = {0},
            int64[1] rest = {-1}> { h = MatMul(x, w)  n = Shape(x)  s = Gather(n, z)  t = Concat<axis = 0>(s, rest)
            f = Reshape(h, t)  y = MatMul(f, v) }
        """)
    )
    assert [each["kind"] for each in stages_of(analysis, {})] == ["input", "layer", "layer", "output"]


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_every_matrix_is_drawn(digits: dict[str, Path], name: str) -> None:
    analysis = pipeline.inspect(digits[name])
    found = stages_of(analysis, {})
    total = sum(each["parameters"][0] for each in found)
    assert 0.95 * cost.cost_of(analysis).parameters < total <= cost.cost_of(analysis).parameters
    assert all(found[before]["stage"] < each["stage"] for each in found for before in each["from"])
    assert {each["kind"] for each in found} >= {"input", "layer", "output"}
    picture = ElementTree.fromstring(flow(found))
    boxes = [each for each in picture.iter() if each.get("class") == "whole"]
    assert len(boxes) == len(found)
    width = float(picture.get("width") or 0)
    assert all(0 <= float(box.get("x") or -1) <= width - float(box.get("width") or 0) for box in boxes)
