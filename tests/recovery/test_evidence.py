"""What layers of several kinds are fitted to, against least squares in numpy on activations from ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnxprune.analysis.layers import read
from onnxprune.model.file import save
from onnxprune.runtime.session import Session
from onnxprune.steps.recover.evidence import Evidence
from onnxprune.steps.recover.layerwise import walk
from onnxprune.steps.recover.pairing import Pairing
from tests.conftest import Build
from tests.recovery.pruned import feeds, pair

Array = npt.NDArray[Any]

# w is read twice, the second time behind the first; `a` and `c` are the layers around it.
DEEP = """
    net (float[batch, 5, 4] x) => (float[batch, 5, 3] y)
    <float[4, 6] a, float[6, 6] w, float[6] p, float[6, 3] c>
    { h = MatMul(x, a)  i = MatMul(h, w)  s = Add(i, p)  r = Tanh(s)  j = MatMul(r, w)  y = MatMul(j, c) }
"""
ATTENTION = """
    net (float[batch, 5, 8] x) => (float[batch, 5, 3] y)
    <float[8, 7] a, float[7, 18] w, float[18] b, float[6, 3] c>
    { h = MatMul(x, a)  i = com.microsoft.Attention<num_heads = 2>(h, w, b)  y = MatMul(i, c) }
"""
EXPERTS = """
    net (float[batch, 3, 5, 8] x) => (float[batch, 3, 5, 2] y)
    <float[8, 7] a, float[3, 7, 2] w>
    { h = MatMul(x, a)  y = MatMul(h, w) }
"""
FUSED = """
    net (float[batch, 8, 6] x) => (float[batch, 3, 6] y)
    <float[7, 8, 1] a, float[3, 7, 1] w, float[3] b>
    { h = Conv(x, a)  y = com.microsoft.FusedConv<activation = "Relu">(h, w, b) }
"""


def plain(evidence: Evidence) -> tuple[Array, Array]:
    """Least squares, with next to no ridge."""
    matrix = evidence.everything.solve(evidence.matrix, 1e-12)
    return matrix, evidence.everything.best_bias(matrix)


def seen(path: Path, name: str, data: list[dict[str, Array]]) -> Array:
    """A value of a model on all batches, in double precision."""
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    onnx.save(model, path.with_suffix(".seen.onnx"))
    session = Session(path.with_suffix(".seen.onnx"))
    return np.concatenate([session.run(feed, [name])[name] for feed in data]).astype(np.float64)


def fitted(pairing: Pairing, data: list[dict[str, Array]], tmp_path: Path) -> Path:
    """The pruned model as it was, in a file, after the pairing was mended."""
    before = tmp_path / "before.onnx"
    save(pairing.pruned.model, before)
    walk(pairing, data, plain)
    return before


def weight(pairing: Pairing, name: str) -> Array:
    return read(pairing.pruned.model.graph.initializers[name])


def least_squares(rows: Array, targets: Array) -> Array:
    """Matrix of the affine fit: rows and targets about their means."""
    rows, targets = (array.reshape(-1, array.shape[-1]) for array in (rows, targets))
    solution: Array = np.linalg.lstsq(rows - rows.mean(0), targets - targets.mean(0))[0]
    return solution


def test_one_weight_for_two_depths(build: Build, tmp_path: Path) -> None:
    """The first reader sees the pruned prefix, the second what it would see if all in front of it were mended."""
    path, data = build(DEEP), feeds(shape=(5, 4))
    pairing = pair(path, {"a": (1, 4)})
    keep = [0, 2, 3, 5]
    before = fitted(pairing, data, tmp_path)
    pairs = [
        (seen(before, "h", data), seen(path, "s", data)[..., keep]),
        (seen(path, "r", data)[..., keep], seen(path, "j", data)[..., keep]),
    ]
    rows, targets = (
        np.concatenate([(each[side] - each[side].mean((0, 1))).reshape(-1, 4) for each in pairs]) for side in (0, 1)
    )
    np.testing.assert_allclose(weight(pairing, "w"), least_squares(rows, targets), atol=1e-4)
    after = tmp_path / "after.onnx"
    save(pairing.pruned.model, after)
    for name in ("s", "j"):  # each reader has a bias of its own
        np.testing.assert_allclose(
            seen(after, name, data).mean((0, 1)), seen(path, name, data)[..., keep].mean((0, 1)), atol=1e-4
        )


@pytest.mark.parametrize(
    ("graph", "left"),
    [
        (
            "{ h = MatMul(x, a)  i = MatMul(h, w)  g = Gather(w, n)  y = Add(i, g) }",
            ["w (MatMul: its weight is read in other ways, too)"],
        ),
        (
            "{ h = MatMul(x, a)  i = MatMul(h, w)  t = Transpose(w)  y = MatMul(i, t) }",
            ["w (MatMul: its weight is read in other ways, too)"] * 2,
        ),
        (
            '{ h = MatMul(x, a)  i = Einsum<equation = "bi,io->ob">(h, w)  y = Transpose(i) }',
            ["w (Einsum: its weight is read in other ways, too)"],
        ),
        (
            "{ h = MatMul(x, a)  i = Gemm<beta = 0.0>(h, w)  y = Relu(i) }",
            ["w (Gemm: its weight is read in other ways, too)"],
        ),
        (
            "{ h = MatMul(x, a)  d = ReduceMax<keepdims = 0>(x)  s = Mul(w, d)  y = MatMul(h, s) }",
            ["MatMul_3 (MatMul: its weight is computed at run time)"],
        ),
    ],
)
def test_what_cannot_be_fitted_is_left_and_named(graph: str, left: list[str], build: Build) -> None:
    head = "net (float[batch, 4] x) => (float[batch, 6] y) <float[4, 6] a, float[6, 6] w, int64[1] n = {2}>"
    pairing = pair(build(f"{head} {graph}"), {})
    before = weight(pairing, "w")
    assert [str(each) for each in pairing.left()] == left
    walk(pairing, feeds(), plain)
    np.testing.assert_array_equal(weight(pairing, "w"), before)


def test_experts_of_a_stack_are_fitted_each_for_itself(build: Build, tmp_path: Path) -> None:
    """They lie in one initializer, of which each reads a part that no other does."""
    path = build(
        """
        net (float[batch, 4] x) => (float[batch, 3] y, float[batch, 3] z)
        <float[4, 6] a, float[2, 6, 3] b, int64 first = {0}, int64 second = {1}>
        {
            h = MatMul(x, a)  r = Relu(h)  t = Sigmoid(h)
            c = Gather(b, first)  y = MatMul(r, c)  d = Gather(b, second)  z = MatMul(t, d)
        }
        """
    )
    data = feeds()
    pairing = pair(path, {"a": (1, 4)})
    assert not pairing.left()
    before = fitted(pairing, data, tmp_path)
    (stored,) = (onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer if each.name == "b")
    found = weight(pairing, "b")
    for part, value in enumerate("rt"):
        rows, targets = seen(before, value, data), seen(path, value, data) @ stored[part]
        np.testing.assert_allclose(found[part], least_squares(rows, targets), atol=1e-3)


def test_attention_learns_what_the_whole_projection_gives(build: Build, tmp_path: Path) -> None:
    path, data = build(ATTENTION), feeds(shape=(5, 8))
    pairing = pair(path, {"a": (1, 4)})
    before = fitted(pairing, data, tmp_path)
    w, b = (onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer if each.name in ("w", "b"))
    rows, targets = seen(before, "h", data), seen(path, "h", data) @ w + b
    matrix = least_squares(rows, targets)
    np.testing.assert_allclose(weight(pairing, "w"), matrix, atol=1e-4)
    (node,) = [node for node in pairing.pruned.model.graph if node.op_type == "Attention"]
    bias = (targets - rows @ matrix).mean((0, 1))
    np.testing.assert_allclose(read(node.inputs[2]), bias, atol=1e-4)


def test_heads_that_went_are_no_targets(build: Build, tmp_path: Path) -> None:
    """Columns of a packed projection that are left: those of the second head, in queries, keys and values."""
    path, data = build(ATTENTION), feeds(shape=(5, 8))
    heads = next(group.id for group in pair(path, {}).original.groups if group.units == 2)
    pairing = pair(path, {"a": (1, 4), heads: (0,)})
    before = fitted(pairing, data, tmp_path)
    w, b = (onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer if each.name in ("w", "b"))
    columns = [3, 4, 5, 9, 10, 11, 15, 16, 17]
    targets = seen(path, "h", data) @ w[:, columns] + b[columns]
    np.testing.assert_allclose(weight(pairing, "w"), least_squares(seen(before, "h", data), targets), atol=1e-4)


def test_products_side_by_side_are_fitted_one_by_one(build: Build, tmp_path: Path) -> None:
    path, data = build(EXPERTS), feeds(shape=(3, 5, 8))
    pairing = pair(path, {"a": (1, 4)})
    before = fitted(pairing, data, tmp_path)
    rows, targets = seen(before, "h", data), seen(path, "y", data)
    for product in range(3):
        due = least_squares(rows[:, product], targets[:, product])
        np.testing.assert_allclose(weight(pairing, "w")[product], due, atol=1e-4)


def test_what_goes_into_a_fused_activation_is_the_target(build: Build, tmp_path: Path) -> None:
    path, data = build(FUSED), feeds(shape=(8, 6))
    pairing = pair(path, {"a": (1, 4)})
    before = fitted(pairing, data, tmp_path)
    w, b = (onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer if each.name in ("w", "b"))
    rows, whole = (seen(model, "h", data).transpose(0, 2, 1) for model in (before, path))
    due = least_squares(rows, whole @ w[:, :, 0].T + b)
    np.testing.assert_allclose(weight(pairing, "w")[:, :, 0].T, due, atol=1e-4)
