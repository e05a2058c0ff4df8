"""Kinds of networks that are neither in the zoo nor in the cases from outside: what of each can go, and rightly."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from onnxprune.pipeline.run import inspect
from tests.conftest import Build
from tests.test_traps import proved


@dataclass(frozen=True)
class Kind:
    """A small graph and the sizes of its groups; `none` where nothing can go."""

    graph: str
    units: tuple[int, ...]
    opset: int = 17


KINDS = {
    # a gated state-space block: a causal depthwise convolution, a selective scan by cumulative sums
    "state space": Kind(
        """
        net (float[b, 12, 6] x) => (float[b, 12, 5] y)
        <float[6, 20] wi, float[10, 1, 3] k, float[10, 10] wd, float[10] a, float[10, 5] wo, int64 axis = {1}>
        {
            h = MatMul(x, wi)  u, g = Split<axis = 2, num_outputs = 2>(h)  t = Transpose<perm = [0, 2, 1]>(u)
            c = Conv<group = 10, pads = [2, 0]>(t, k)  t2 = Transpose<perm = [0, 2, 1]>(c)  s = Sigmoid(t2)
            m = Mul(t2, s)  d = MatMul(m, wd)  dt = Softplus(d)  da = Mul(dt, a)  ca = CumSum(da, axis)  e = Exp(ca)
            p = Mul(e, m)  cs = CumSum(p, axis)  q = Div(cs, e)  gs = Sigmoid(g)  gg = Mul(g, gs)  r = Mul(q, gg)
            y = MatMul(r, wo)
        }
        """,
        (10,),
        18,
    ),
    # a mixture of experts whose weights are gathered by what a router chose: experts stay, their widths go
    "experts": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 8] wi, float[8, 4] wr, float[4, 8, 12] w1, float[4, 12, 8] w2, float[8, 5] wo, int64[1] two = {2},
         int64[2] inner = {1, 2}, int64[2] last = {2, 3}>
        {
            h = MatMul(x, wi)  r = MatMul(h, wr)  p = Softmax<axis = -1>(r)  v, i = TopK(p, two)
            e1 = Gather(w1, i)  e2 = Gather(w2, i)  hu = Unsqueeze(h, inner)  a = MatMul(hu, e1)  s = Relu(a)
            o = MatMul(s, e2)  vq = Unsqueeze(v, last)  ov = Mul(o, vq)  z = ReduceSum<keepdims = 0>(ov, inner)
            y = MatMul(z, wo)
        }
        """,
        (8, 8, 12),
    ),
    "weight normalization at run time": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] v, float[12] g, float[12, 5] wo>
        {
            n = ReduceL2<axes = [0], keepdims = 1>(v)  d = Div(v, n)  w = Mul(d, g)  h = MatMul(x, w)  r = Relu(h)
            y = MatMul(r, wo)
        }
        """,
        (12,),
    ),
    # StyleGAN: a style multiplies the input channels of the filters, which are normalized then
    "modulated convolution": Kind(
        """
        net (float[1, 6, 8, 8] x, float[1, 4] s) => (float[1, 5, 8, 8] y)
        <float[12, 6, 1, 1] w0, float[4, 12] a, float[1, 10, 12, 3, 3] w1, float[5, 10, 1, 1] w2,
         int64[5] styles = {1, 1, 12, 1, 1}, int64[4] filters = {10, 12, 3, 3}, int64[3] axes = {2, 3, 4},
         float eps = {0.00001}>
        {
            h = Conv(x, w0)  st = MatMul(s, a)  s5 = Reshape(st, styles)  wm = Mul(w1, s5)  sq = Mul(wm, wm)
            ss = ReduceSum<keepdims = 1>(sq, axes)  se = Add(ss, eps)  rt = Sqrt(se)  wd = Div(wm, rt)
            w4 = Reshape(wd, filters)  o = Conv<pads = [1, 1, 1, 1]>(h, w4)  r = Relu(o)  y = Conv(r, w2)
        }
        """,
        (10, 12),
    ),
    # filters mixed from a bank by the picture itself
    "dynamic convolution": Kind(
        """
        net (float[1, 6, 8, 8] x) => (float[1, 5, 8, 8] y)
        <float[12, 6, 1, 1] w0, float[12, 4] att, float[4, 1080] bank, float[5, 10, 1, 1] w2,
         int64[4] filters = {10, 12, 3, 3}, int64[2] flat = {1, 12}>
        {
            h = Conv(x, w0)  p = GlobalAveragePool(h)  q = Reshape(p, flat)  a = MatMul(q, att)
            s = Softmax<axis = 1>(a)  k = MatMul(s, bank)  w = Reshape(k, filters)
            o = Conv<pads = [1, 1, 1, 1]>(h, w)  r = Relu(o)  y = Conv(r, w2)
        }
        """,
        (10, 12),
    ),
    # YOLOv5: four strided slices beside each other
    "space to depth by slices": Kind(
        """
        net (float[b, 3, 8, 8] x) => (float[b, 5, 4, 4] y)
        <float[8, 3, 1, 1] w0, float[5, 32, 1, 1] w1, int64[2] zz = {0, 0}, int64[2] zo = {0, 1}, int64[2] oz = {1, 0},
         int64[2] oo = {1, 1}, int64[2] e = {99999, 99999}, int64[2] ax = {2, 3}, int64[2] st = {2, 2}>
        {
            h = Conv(x, w0)  a = Slice(h, zz, e, ax, st)  c = Slice(h, oz, e, ax, st)  d = Slice(h, zo, e, ax, st)
            f = Slice(h, oo, e, ax, st)  j = Concat<axis = 1>(a, c, d, f)  y = Conv(j, w1)
        }
        """,
        (8,),
    ),
    # YOLOv8: the softmax over the bins of a box's sides stays
    "distribution of box sides": Kind(
        """
        net (float[b, 6, 20] x) => (float[b, 4, 20] y)
        <float[12, 6, 1] w0, float[64, 12, 1] w1, float[1, 16, 1, 1] bins, int64[4] sides = {0, 4, 16, 20},
         int64[3] boxes = {0, 4, 20}>
        {
            h = Conv(x, w0)  r = Relu(h)  d = Conv(r, w1)  q = Reshape(d, sides)  t = Transpose<perm = [0, 2, 1, 3]>(q)
            s = Softmax<axis = 1>(t)  c = Conv(s, bins)  y = Reshape(c, boxes)
        }
        """,
        (12,),
    ),
    # units that are added to themselves, moved by five places: one goes with all
    "rolled features": Kind(
        """
        net (float[b, 8, 6] x) => (float[b, 8, 5] y)
        <float[6, 12] w, float[12, 5] v, int64[1] z = {0}, int64[1] big = {9223372036854775807}, int64[1] axis = {2},
         int64[1] five = {5}>
        {
            h = MatMul(x, w)  f = Slice(h, five, big, axis)  g = Slice(h, z, five, axis)
            k = Concat<axis = 2>(f, g)  s = Add(k, h)  y = MatMul(s, v)
        }
        """,
        (),
    ),
    "normalization of every pixel": Kind(
        """
        net (float[b, 6, 4, 4] x) => (float[b, 5, 4, 4] y)
        <float[12, 6, 1, 1] w, float[5, 12, 1, 1] v, float eps = {0.1}, float two = {2}>
        {
            h = Conv(x, w)  p = Pow(h, two)  m = ReduceMean<axes = [1], keepdims = 1>(p)  e = Add(m, eps)  s = Sqrt(e)
            d = Div(h, s)  y = Conv(d, v)
        }
        """,
        (12,),
    ),
    # Kolmogorov-Arnold: a grid of radial functions of each unit, and the functions themselves
    "radial functions on edges": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[4] grid, float[60, 5] c, int64[1] last = {-1}, int64[2] flat = {-1, 48}>
        {
            h = MatMul(x, w)  u = Unsqueeze(h, last)  d = Sub(u, grid)  q = Mul(d, d)  n = Neg(q)  e = Exp(n)
            f = Reshape(e, flat)  s = Sigmoid(h)  j = Concat<axis = 1>(f, s)  y = MatMul(j, c)
        }
        """,
        (4, 12),
    ),
    "two towers with one set of weights": Kind(
        """
        net (float[b, 6] x, float[b, 6] z) => (float[b, 1] y)
        <float[6, 12] w, float[12, 10] v, int64[1] axis = {1}>
        {
            a = MatMul(x, w)  ar = Relu(a)  ae = MatMul(ar, v)  c = MatMul(z, w)  cr = Relu(c)  ce = MatMul(cr, v)
            na = LpNormalization<axis = 1>(ae)  nc = LpNormalization<axis = 1>(ce)  m = Mul(na, nc)
            y = ReduceSum<keepdims = 1>(m, axis)
        }
        """,
        (10, 12),
    ),
    "group normalization by means": Kind(
        """
        net (float[b, 6, 4, 4] x) => (float[b, 5, 4, 4] y)
        <float[12, 6, 1, 1] w, float[5, 12, 1, 1] v, float[1, 12, 1, 1] g, int64[3] groups = {0, 3, -1},
         float eps = {0.1}, int64[4] back = {0, 12, 4, 4}>
        {
            h = Conv(x, w)  q = Reshape(h, groups)  m = ReduceMean<axes = [2], keepdims = 1>(q)  c = Sub(q, m)
            s = Mul(c, c)  vv = ReduceMean<axes = [2], keepdims = 1>(s)  e = Add(vv, eps)  r = Sqrt(e)  d = Div(c, r)
            o = Reshape(d, back)  k = Mul(o, g)  t = Relu(k)  y = Conv(t, v)
        }
        """,
        (3, 4),
    ),
    # features are turned round between layers and back again, as in flows
    "flow that reverses its features": Kind(
        """
        net (float[b, 5, 6] x) => (float[b, 5, 5] y)
        <float[6, 12] w, float[12, 5] v, float[12, 12] u, int64[1] last = {-1}, int64[1] e = {-9223372036854775807},
         int64[1] axis = {2}>
        {
            h = MatMul(x, w)  f = Slice(h, last, e, axis, last)  r = Relu(f)  g = MatMul(r, u)
            k = Slice(g, last, e, axis, last)  s = Relu(k)  y = MatMul(s, v)
        }
        """,
        (12, 12),
    ),
    # ConvNeXt V2
    "global response normalization": Kind(
        """
        net (float[b, 4, 4, 6] x) => (float[b, 4, 4, 5] y)
        <float[6, 12] w, float[12, 5] v, float[12] g, float[12] be, float eps = {0.1}>
        {
            h = MatMul(x, w)  n = ReduceL2<axes = [1, 2], keepdims = 1>(h)  m = ReduceMean<axes = [3], keepdims = 1>(n)
            me = Add(m, eps)  d = Div(n, me)  k = Mul(h, d)  k2 = Mul(k, g)  k3 = Add(k2, be)  o = Add(k3, h)
            y = MatMul(o, v)
        }
        """,
        (12,),
    ),
    # the mean of the batch is subtracted, its size is a number in the graph
    "mean of the batch": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[12, 5] v, int64 z = {0}, int64[1] axis = {0}>
        {
            h = MatMul(x, w)  s = Shape(h)  n = Gather(s, z)  nf = Cast<to = 1>(n)  i = Reciprocal(nf)
            hm = ReduceSum<keepdims = 1>(h, axis)  c = Mul(hm, i)  d = Sub(h, c)  r = Relu(d)  y = MatMul(r, v)
        }
        """,
        (12,),
    ),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_kind_is_pruned_rightly(kind: Kind, build: Build) -> None:
    path = build(kind.graph, opset=kind.opset)
    assert tuple(sorted(group.units for group in inspect(path).groups)) == kind.units
    if kind.units:
        proved(path)
