"""What a dynamic size decides is not static, however many of the sizes that were tried agree on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.analysis.shapes import infer
from onnxprune.model.file import open_model
from onnxprune.model.signature import synthetic_feed
from onnxprune.pipeline.run import compress, inspect
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.test_traps import frozen, proved

# Each makes a factor `k` from the batch `b`; the sizes are those at which it differs.
DECISIONS = {
    "Equal 1": ("e = Equal(b, one)  k = Where(e, f1, f2)", (1, 2)),
    "Equal 16": ("e = Equal(b, c16)  k = Where(e, f1, f2)", (16, 2)),
    "Less": ("e = Less(b, c100)  k = Where(e, f1, f2)", (128, 2)),
    "Not": ("e = Equal(b, c16)  n = Not(e)  p = Cast<to = 1>(n)  k = Add(p, f1)", (16, 2)),
    "Min": ("m1 = Min(b, two)  k = Cast<to = 1>(m1)", (1, 3)),
    "Max": ("m1 = Max(b, c100)  k = Cast<to = 1>(m1)", (128, 3)),
    "Clip": ("m1 = Clip(b, c100)  k = Cast<to = 1>(m1)", (128, 3)),
    "Sign": ("d = Sub(b, c100)  s1 = Sign(d)  k = Cast<to = 1>(s1)", (128, 3)),
    "Relu": ("d = Sub(b, c100)  f = Cast<to = 1>(d)  r1 = Relu(f)  k = Add(r1, f1)", (128, 3)),
    "integer division": ("d = Div(b, c100)  p = Add(d, one)  k = Cast<to = 1>(p)", (128, 3)),
    "float division": ("f = Cast<to = 1>(b)  q = Div(f, f100)  c = Ceil(q)  k = Add(c, f1)", (128, 3)),
    "Mod of odd sizes": ("d = Mod(b, two)  p = Add(d, one)  k = Cast<to = 1>(p)", (2, 3)),
    "rounded up to even": (
        "p = Add(b, one)  d = Div(p, two)  t = Mul(d, two)  u = Sub(t, b)  v = Add(u, one)  k = Cast<to = 1>(v)",
        (2, 3),
    ),
    "If": (
        "e = Equal(b, c16)"
        "k = If(e) <then_branch = yes () => (float a) { a = Identity(f1) }, else_branch = no () => (float c)"
        "{ c = Identity(f2) }>",
        (16, 3),
    ),
    "Range": ("d = Div(b, c100)  p = Add(d, two)  r1 = Range(one, p, one)  t = ReduceSum<keepdims = 0>(r1)"
              "k = Cast<to = 1>(t)", (128, 3)),
    "TopK": ("d = Div(b, c100)  p = Add(d, one)  n = Unsqueeze(p, axis)  v, i = TopK(ramp, n)"
             "k = ReduceSum<keepdims = 0>(v)", (128, 3)),
    "Slice": ("d = Div(b, c100)  p = Add(d, one)  n = Unsqueeze(p, axis)  v = Slice(ramp, axis, n)"
              "k = ReduceSum<keepdims = 0>(v)", (128, 3)),
    "Loop": (
        "d = Div(b, c100)  p = Add(d, one)  k = Loop(p, yes, f1) <body = step (int64 i, bool c, float a)"
        "=> (bool o, float z) { o = Identity(c)  z = Add(a, f2) }>",
        (128, 3),
    ),
    "shape of a slice": ("m1 = Min(b, two)  n = Unsqueeze(m1, axis)  v = Slice(ramp, axis, n)  z = Shape(v)"
                         "k1 = Cast<to = 1>(z)  k = Squeeze(k1)", (1, 3)),
    "shape of a doubtful slice": (
        "d = Div(b, c100)  p = Add(d, one)  n = Unsqueeze(p, axis)  v = Slice(ramp, axis, n)  w = Neg(v)  z = Shape(w)"
        "k1 = Cast<to = 1>(z)  k = Squeeze(k1)",
        (128, 3),
    ),
    "shape of a constant slice": ("v = Slice(x, axis, two1)  z = Shape(v)  n = Gather(z, zero)  k = Cast<to = 1>(n)",
                                  (1, 3)),
}  # fmt: skip

NET = """
    net (float[batch, 8] x) => (float[batch, 4] y)
    <float[8, 16] w1, float[16, 4] w2, int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 c16 = {16},
     int64 c100 = {100}, float f1 = {1}, float f2 = {2}, float f100 = {100}, int64[1] axis = {0}, int64[1] two1 = {2},
     float[3] ramp = {3, 2, 1}, bool yes = {1}>
    { h = MatMul(x, w1)  r = Relu(h)  m = MatMul(r, w2)  s = Shape(x)  b = Gather(s, zero)  DECISION  y = Mul(m, k) }
"""


def outputs(path: Path, batch: int) -> np.ndarray:
    session = Session(path)
    return np.asarray(session.run(synthetic_feed(session.inputs, {"batch": batch}))["y"])


@pytest.mark.parametrize(("decision", "sizes"), DECISIONS.values(), ids=DECISIONS)
def test_decision_by_a_dynamic_size_is_left_to_the_run(decision: str, sizes: tuple[int, ...], build: Build) -> None:
    path = build(NET.replace("DECISION", decision))
    proved(path, *({"batch": size} for size in sizes))
    written = path.with_name("lossless.onnx")
    compress(path, lossless=True).save(written)
    for size in sizes:
        np.testing.assert_allclose(outputs(written, size), outputs(path, size), rtol=1e-5, atol=1e-6)


PROVEN = {
    "quotient of products": ("t = Mul(b, c16)  k = Div(t, b)", 16),
    "difference": ("t = Add(b, two)  k = Sub(t, b)", 2),
    "product with zero": ("k = Mul(b, zero)", 0),
    "constant slice": ("v = Slice(x, last, end, axis)  w = Shape(v)  k = Gather(w, zero)", 1),
    "comparison of proven numbers": ("t = Add(b, two)  u = Sub(t, b)  v = Equal(u, two)  k = Cast<to = 7>(v)", 1),
    "static size beside a dynamic one": ("k = Gather(s, one)", 8),
    "quotient as floats": ("t = Mul(b, c16)  f = Cast<to = 1>(t)  g = Cast<to = 1>(b)  q = Div(f, g)  n = Floor(q)"
                           "k = Cast<to = 7>(n)", 16),
    "part of a split shape": ("a, c = Split<axis = 0>(s)  k = Squeeze(c, axis)", 8),
    "entry of a choice": ("e = Equal(s, c16v)  t = Where(e, c16v, s)  k = Gather(t, one)", 8),
}  # fmt: skip


@pytest.mark.parametrize(("computation", "value"), PROVEN.values(), ids=PROVEN)
def test_what_arithmetic_proves_is_known(computation: str, value: int, build: Build) -> None:
    found = infer(
        open_model(
            build(f"""
                net (float[batch, 8] x) => (int64 k)
                <int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64 c16 = {{16}},
                 int64[2] c16v = {{16, 16}}, int64[1] last = {{-1}}, int64[1] end = {{9223372036854775807}},
                 int64[1] axis = {{0}}>
                {{ s = Shape(x)  b = Gather(s, zero)  {computation} }}
            """)
        )
    )
    assert found.known["k"].tolist() == value


SIZED = """
    net (float[batch, 6] x) => (float[batch, 6] y)
    <float[6, 12] w1, float[12, 6] w2, int64 zero = {0}, int64 one = {1}, int64 c100 = {100}, int64[1] axis = {0},
     int64[1] last = {1}, int64[1] twelve = {12}, int64[1] six = {6}>
    {
        s = Shape(x)  b = Gather(s, zero)  d = Div(b, c100)  d1 = Unsqueeze(d, axis)  d2 = Sub(twelve, d1)
        h = MatMul(x, w1)  z = Slice(h, axis, d2, last)  a = ReduceSum<keepdims = 1>(z, last)  m = MatMul(h, w2)
        y = Add(m, a)
    }
"""


def test_axis_that_a_doubtful_number_sizes_keeps_its_size(build: Build) -> None:
    """At each of the sizes tried the slice is whole; at 100 its last unit is not read."""
    found = infer(open_model(build(SIZED)))
    assert ("z", 1) in found.dynamic
    assert "sliced with bounds that are computed" in frozen(inspect(build(SIZED)))["w1", 1]


def test_sizes_of_image_sides_are_not_taken_for_multiples(build: Build) -> None:
    """Halved and doubled again, an odd side comes out one larger: the difference is not a constant."""
    found = infer(
        open_model(
            build("""
                net (float[1, 3, h, w] x) => (int64 d)
                <float[3, 3, 1, 1] k, float[4] double = {1, 1, 2, 2}, int64 two = {2}>
                {
                    a = Conv<strides = [2, 2]>(x, k)  u = Resize(a, , double)  su = Shape(u)  sx = Shape(x)
                    p = Gather(su, two)  q = Gather(sx, two)  d = Sub(p, q)
                }
            """)
        )
    )
    assert "d" not in found.known
