"""Architectures that are not in the zoo, each as the core of what its exporter writes: half goes, exactly.

What they have in common is that nothing in the tool was made for them.
"""

from __future__ import annotations

import numpy as np

from tests.conftest import Build
from tests.test_traps import proved


def test_selective_scan_with_states_of_computed_size(build: Build) -> None:
    """Mamba, unrolled: states [batch, channels, n] start as zeros whose sizes the graph computes from a dynamic one."""
    path = build("""
        net (float[batch, 3, 5] x) => (float[batch, 4] y)
        <float[5, 12] up, float[12, 6] dtb, float[12, 2] a, float[12] d, float[12, 4] out, int64[1] two = {2},
         int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64 zero = {0}, int64 one = {1},
         int64[1] last = {-1}, int64[3] sizes = {2, 2, 2}>
        {
            u = MatMul(x, up)  p = MatMul(u, dtb)  s, b, c = Split<axis = 2>(p, sizes)
            u4 = Unsqueeze(u, last)  b4 = Unsqueeze(b, two)  w = Mul(u4, b4)
            w0 = Gather<axis = 1>(w, zero)  w1 = Gather<axis = 1>(w, one)
            shape = Shape(w0)  h = ConstantOfShape(shape)
            decay = Exp(a)
            h0 = Mul(h, decay)  g0 = Add(h0, w0)  h1 = Mul(g0, decay)  g1 = Add(h1, w1)
            c1 = Gather<axis = 1>(c, one)  c3 = Unsqueeze(c1, i1)
            t = Mul(g1, c3)  r = ReduceSum<keepdims = 0>(t, i2)
            skip = Gather<axis = 1>(u, one)  ds = Mul(skip, d)  all = Add(r, ds)  y = MatMul(all, out)
        }
    """)
    proof = proved(path, {"batch": 1}, {"batch": 4})
    assert proof.groups["up"] == 12


def test_spatial_gating_over_tokens(build: Build) -> None:
    """gMLP: a convolution with a window of 1 whose channels are tokens, so that the features lie where space is."""
    path = build("""
        net (float[batch, 7, 5] x) => (float[batch, 7, 4] y)
        <float[5, 24] up, float[7, 7, 1] mix, float[7] bias, float[12, 4] down, int64[2] halves = {12, 12}>
        {
            h = MatMul(x, up)  u, v = Split<axis = 2>(h, halves)
            m = Conv<kernel_shape = [1]>(v, mix, bias)  g = Mul(u, m)  y = MatMul(g, down)
        }
    """)
    assert proved(path, {"batch": 2}).groups == {"up": 12}


def test_keras_attention_with_kernels_of_three_axes(build: Build) -> None:
    """EinsumDense: projections to [heads, size] at once, under an ellipsis or not."""
    path = build("""
        net (float[batch, 7, 5] x) => (float[batch, 7, 5] y)
        <float[5, 3, 8] wq, float[5, 3, 8] wk, float[5, 3, 8] wv, float[3, 8] bq, float[3, 8, 5] wo>
        {
            q = Einsum<equation = "...c,chd->...hd">(x, wq)  qb = Add(q, bq)
            k = Einsum<equation = "abc,chd->abhd">(x, wk)  v = Einsum<equation = "abc,chd->abhd">(x, wv)
            s = Einsum<equation = "aehd,abhd->ahbe">(k, qb)  w = Softmax<axis = -1>(s)
            o = Einsum<equation = "ahbe,aehd->abhd">(w, v)  y = Einsum<equation = "abhd,hdc->abc">(o, wo)
        }
    """)
    assert proved(path, {"batch": 2}).kinds == [("heads", 3), ("head-dim", 8), ("head-dim", 8)]


def test_second_stage_of_a_detector(build: Build) -> None:
    """As many regions as are found: proposals, suppression, pooled regions, a head with a Reshape between."""
    path = build(
        """
        net (float[1, 3, 16, 16] image) => (float[found, 6] scores, float[found, 4] boxes)
        <float[8, 3, 3, 3] stem, float[12, 8, 3, 3] rpn, float[1, 12, 1, 1] objectness, float[256, 4] anchors,
         float[72, 24] fc, float[24, 6] classify, float[24, 4] regress,
         int64[3] per_anchor = {1, 1, 256}, int64[1] axis = {0}, int64[1] first = {2}, int64[1] many = {10},
         float[1] overlap = {0.7}, float[1] least = {-9}, int64[2] flat = {0, -1}, int64 column = {2}>
        {
            f = Conv<pads = [1, 1, 1, 1]>(image, stem)  features = Relu(f)
            p = Conv<pads = [1, 1, 1, 1]>(features, rpn)  r = Relu(p)  o = Conv(r, objectness)
            s = Reshape(o, per_anchor)  a = Unsqueeze(anchors, axis)
            chosen = NonMaxSuppression(a, s, many, overlap, least)
            index = Gather<axis = 1>(chosen, column)  regions = Gather<axis = 0>(anchors, index)
            zero = Sub(index, index)
            pooled = RoiAlign<output_height = 3, output_width = 3>(features, regions, zero)
            v = Reshape(pooled, flat)
            h = MatMul(v, fc)  hr = Relu(h)  scores = MatMul(hr, classify)  boxes = MatMul(hr, regress)
        }
    """,
        anchors=np.random.default_rng(1).random((256, 4)) * 4 + [0, 0, 8, 8],
    )
    proof = proved(path)
    assert proof.groups == {"stem": 8, "rpn": 12, "fc": 24}
