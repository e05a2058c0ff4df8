"""Inputs that say shapes and are not constants: fed by the user, computed from data, or from sizes that vary.

What they name is put right after removal where that can be proved to hold for every size, and keeps its size elsewhere.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.analysis.coupling import analyze
from onnxprune.analysis.shapes import infer
from onnxprune.model.file import open_model
from onnxprune.pipeline.run import inspect
from tests.conftest import Build
from tests.oracle import Trio, every_other_unit
from tests.test_traps import frozen, proved


@pytest.mark.parametrize(
    ("node", "declared"),
    [
        ("Reshape(h, target)", (2, 4, 6)),
        ("Expand(h3, target)", (2, 4, 24)),
    ],
)
def test_target_fed_as_an_input_keeps_what_it_names(build: Build, node: str, declared: tuple[int, ...]) -> None:
    """Even where the file declares the result as static: nobody can tell the user to feed another target."""
    path = build(f"""
        net (float[2, 4] x, int64[3] target) => (float[a, b, c] y)
        <float[4, 24] w, int64[1] one = {{1}}>
        {{ h = MatMul(x, w)  h3 = Unsqueeze(h, one)  z = {node}  y = Relu(z) }}
    """)
    model = open_model(path)
    shapes = infer(model)
    for name in "zy":
        shapes.shapes[name] = declared
        shapes.dtypes[name] = ir.DataType.FLOAT
        shapes.dynamic -= {(name, axis) for axis in range(3)}
    model.graph.outputs.clear()  # the interface is not what keeps the sizes
    analysis = analyze(model, shapes)
    assert not analysis.groups
    assert "its size is given by data" in " ".join(frozen(analysis).values())


def test_constants_beside_data_in_a_target_follow(build: Build) -> None:
    """As many rows as the mask has ones, split into heads: [count, 4, 6] becomes [count, 2, 3]."""
    path = build("""
        net (float[2000, 4] x, float[2000] mask) => (float[a, 3] y)
        <float[4, 24] w, float[24, 3] v, int64[1] axis = {0}, int64[1] n4 = {4}, int64[1] n6 = {6},
         float[1] half = {0.5}, int64[2] merge = {-1, 24}>
        {
            h = MatMul(x, w)
            chosen = Greater(mask, half)  ones = Cast<to = 7>(chosen)  count = ReduceSum(ones, axis)
            best, rows = TopK(mask, count)  picked = Gather(h, rows)
            apart = Concat<axis = 0>(count, n4, n6)
            heads = Reshape(picked, apart)  act = Relu(heads)
            together = Reshape(act, merge)  y = MatMul(together, v)
        }
    """)
    analysis = inspect(path)
    assert [group.units for group in analysis.groups] == [4, 6]
    trio = Trio(path, every_other_unit(analysis), path.parent)
    rng = np.random.default_rng(0)
    for count in (2, 1500):
        feed = {"x": rng.standard_normal((2000, 4), np.float32), "mask": np.float32(np.arange(2000) < count)}
        verdict = trio.judge(feed)
        assert verdict.difference < 1e-4
        assert verdict.effect > 1e-3


def test_count_taken_from_data_varies_although_a_constant_bounds_it(build: Build) -> None:
    """The smaller of a count and 4 is not always 4: it must not be folded."""
    path = build(
        """
        net (float[8] x) => (float[n] y)
        <int64[1] four = {4}, int64[1] axis = {0}>
        {
            places = NonZero(x)  sizes = Shape(places)  last = Gather(sizes, one)  k = Min(last, four)
            y, rows = TopK(x, k)
        }
    """.replace("<int64[1] four", "<int64[1] one = {1}, int64[1] four")
    )
    found = infer(open_model(path))
    assert "k" not in found.known
    assert ("y", 0) in found.dynamic


def test_sequences_of_rows_have_the_shapes_that_onnx_runtime_gives_them(build: Build) -> None:
    """Blocks of one row lose that axis where keepdims says so, whatever onnx's own inference holds of it."""
    found = infer(
        open_model(
            build("""
        net (float[4, 6] x) => (float[6] y, float[2, 6] z)
        <int64 one = {1}, int64 two = {2}, int64 first = {0}>
        {
            rows = SplitToSequence<axis = 0, keepdims = 0>(x, one)  y = SequenceAt(rows, first)
            pairs = SplitToSequence<axis = 0>(x, two)  z = SequenceAt(pairs, first)
        }
    """)
        )
    )
    assert (found.shapes["y"], found.shapes["z"]) == ((6,), (2, 6))


def batch_times_heads(build: Build, target: str) -> dict[tuple[str, int], str]:
    """Twelve heads of two entries on the axis of the batch, and something expanded to them: [batch * 12, 2]."""
    path = build(f"""
        net (float[batch, 4] x) => (float[batch, 3] y)
        <float[4, 24] w, float[24, 3] v, float[1, 2] each, int64[2] apart = {{-1, 2}}, int64[2] merge = {{-1, 24}},
         int64 zero = {{0}}, int64[1] axis = {{0}}, int64 n12 = {{12}}, int64[1] n2 = {{2}}>
        {{
            h = MatMul(x, w)  flat = Reshape(h, apart)
            {target}
            rows = Unsqueeze(n, axis)  shape = Concat<axis = 0>(rows, n2)  e = Expand(each, shape)
            s = Mul(flat, e)  back = Reshape(s, merge)  y = MatMul(back, v)
        }}
    """)
    return frozen(proved(path, {"batch": 1}, {"batch": 2}, {"batch": 5}).analysis)


@pytest.mark.parametrize(
    "target",
    [
        "sizes = Shape(x)  b = Gather(sizes, zero)  n = Mul(b, n12)",
        "sizes = Shape(flat)  n = Gather(sizes, zero)",
    ],
)
def test_varying_target_is_scaled_where_that_is_exact(build: Build, target: str) -> None:
    assert ("w", 1) not in batch_times_heads(build, target)


def test_varying_target_whose_arithmetic_rounds_keeps_its_size(build: Build) -> None:
    """shape // 12 * 12: with six heads left and seven images, 42 // 12 * 12 is 36, which no factor puts right."""
    target = "sizes = Shape(flat)  a = Gather(sizes, zero)  b = Div(a, n12)  n = Mul(b, n12)"
    reasons = batch_times_heads(build, target)
    assert "by arithmetic that rounds" in reasons["w", 1]
