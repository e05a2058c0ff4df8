"""Patterns of exporters and of parts of networks that are in no zoo: what of each can go, and rightly.

`benchmarks/kinds.py` writes them down with what is left of each at a ratio of 0.5.
"""

from __future__ import annotations

import pytest

from onnxprune.pipeline.run import inspect
from tests.conftest import Build
from tests.test_kinds import Kind
from tests.test_traps import proved

EXPORTED = {
    # tf2onnx: images with channels last between transposed convolutions, biases as an Add, Relu6 as Min and Max
    "channels last": Kind(
        """
        net (float[b, 8, 8, 3] x) => (float[b, 5] y)
        <float[12, 3, 3, 3] w, float[12] p, float[12, 1, 3, 3] d, float[10, 12, 1, 1] v, float[40, 5] u, float[5] q,
         float six = {6}, float zero = {0}, int64[2] flat = {-1, 40}>
        {
            t = Transpose<perm = [0, 3, 1, 2]>(x)  c = Conv<strides = [2, 2], auto_pad = "SAME_UPPER">(t, w)
            l = Transpose<perm = [0, 2, 3, 1]>(c)  a = Add(l, p)  m = Min(a, six)  r = Max(m, zero)
            t2 = Transpose<perm = [0, 3, 1, 2]>(r)
            e = Conv<group = 12, strides = [2, 2], auto_pad = "SAME_UPPER">(t2, d)
            f = Conv(e, v)  l2 = Transpose<perm = [0, 2, 3, 1]>(f)  s = Reshape(l2, flat)  g = MatMul(s, u)
            y = Add(g, q)
        }
        """,
        (10, 12),
    ),
    # paddle2onnx: hard-swish from its parts, a matrix product behind a Reshape by slices of the shape
    "hard swish in parts": Kind(
        """
        net (float[b, 3, 8, 8] x) => (float[b, 5] y)
        <float[12, 3, 3, 3] w, float[10, 12, 1, 1] v, float[10, 5] u, float three = {3}, float six = {6},
         float zero = {0},
         int64[1] first = {0}, int64[1] second = {1}, int64[1] rest = {-1}>
        {
            c = Conv(x, w)  a = Add(c, three)  k = Clip(a, zero, six)  m = Mul(c, k)  h = Div(m, six)
            f = Conv(h, v)  g = GlobalAveragePool(f)  s = Shape(g)  n = Slice(s, first, second)
            to = Concat<axis = 0>(n, rest)  z = Reshape(g, to)  y = MatMul(z, u)
        }
        """,
        (10, 12),
    ),
    # ultralytics' C2f and SPPF: chunks, each bottleneck's output joined to all before; poolings of poolings
    "chunks that are joined again": Kind(
        """
        net (float[b, 3, 8, 8] x) => (float[b, 4, 8, 8] y)
        <float[16, 3, 1, 1] w, float[8, 8, 3, 3] m1, float[8, 8, 3, 3] m2, float[10, 24, 1, 1] v, float[6, 10, 1,
         1] s,
         float[4, 18, 1, 1] u, int64[2] two = {8, 8}>
        {
            c = Conv(x, w)  cs = Sigmoid(c)  ca = Mul(c, cs)  p, q = Split<axis = 1>(ca, two)
            b1 = Conv<pads = [1, 1, 1, 1]>(q, m1)  r1 = Relu(b1)  b2 = Conv<pads = [1, 1, 1, 1]>(r1, m2)
            n = Add(q, b2)
            j = Concat<axis = 1>(p, q, n)  f = Conv(j, v)  fr = Relu(f)  g = Conv(fr, s)
            p1 = MaxPool<kernel_shape = [5, 5], pads = [2, 2, 2, 2]>(g)
            p2 = MaxPool<kernel_shape = [5, 5], pads = [2, 2, 2, 2]>(p1)  k = Concat<axis = 1>(g, p1, p2)
            y = Conv(k, u)
        }
        """,
        (6, 8, 8, 8, 10),
    ),
    # the joiner of an RNN transducer: every frame with every token
    "joiner": Kind(
        """
        net (float[b, t, 6] x, int64[b, k] tokens) => (float[b, t, k, 9] y)
        <float[6, 12] w, float[9, 8] table, float[8, 12] v, float[12] p, float[12, 9] u, int64[1] one = {1},
         int64[1] two = {2}>
        {
            e = MatMul(x, w)  d = Gather(table, tokens)  g = MatMul(d, v)  e4 = Unsqueeze(e, two)
            g4 = Unsqueeze(g, one)
            s = Add(e4, g4)  sp = Add(s, p)  t4 = Tanh(sp)  y = MatMul(t4, u)
        }
        """,
        (8, 12),
    ),
    # a residual block of a diffusion network: GroupNorm in parts, an embedding of the time that is added
    "block with time": Kind(
        """
        net (float[b, 3, 6, 6] x, float[b] time) => (float[b, 3, 6, 6] y)
        <float[12, 3, 3, 3] w, float[4] freq, float[8, 10] t1, float[10, 12] t2, float[12, 12, 3, 3] v,
         float[4] ones, float[4] zeros, float[12, 1, 1] scale, float[12, 1, 1] shift, float[3, 12, 1, 1] u,
         int64[3] groups = {0, 4, -1}, int64[1] last = {1}, int64[2] places = {2, 3}>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)
            tu = Unsqueeze(time, last)  a = Mul(tu, freq)  sa = Sin(a)  co = Cos(a)  e = Concat<axis = 1>(sa, co)
            e1 = MatMul(e, t1)  es = Sigmoid(e1)  e2 = Mul(e1, es)  e3 = MatMul(e2, t2)  e4 = Unsqueeze(e3, places)
            s = Shape(h)  r = Reshape(h, groups)  n = InstanceNormalization(r, ones, zeros)  k = Reshape(n, s)
            m = Mul(k, scale)  o = Add(m, shift)  g = Sigmoid(o)  q = Mul(o, g)  z = Add(q, e4)
            f = Conv<pads = [1, 1, 1, 1]>(z, v)  res = Add(f, h)  y = Conv(res, u)
        }
        """,
        (3, 4, 4, 10),
    ),
    # one step of a decoder with a cache: keys and values are joined to those of before, which are inputs and outputs
    "decoder with a cache": Kind(
        """
        net (int64[b, 1] ids, float[b, 2, p, 4] pk, float[b, 2, p, 4] pv) =>
            (float[b, 1, 9] y, float[b, 2, k, 4] nk, float[b, 2, k, 4] nv)
        <float[9, 10] table, float[10, 8] wq, float[10, 8] wk, float[10, 8] wv, float[8, 10] wo, float[10, 14] m1,
         float[14, 10] m2, float[10, 9] u, int64[4] heads = {0, 0, 2, 4}, int64[3] flat = {0, 0, 8}>
        {
            x = Gather(table, ids)  q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
            q4 = Reshape(q, heads)  k4 = Reshape(k, heads)  v4 = Reshape(v, heads)
            qh = Transpose<perm = [0, 2, 1, 3]>(q4)  kh = Transpose<perm = [0, 2, 1, 3]>(k4)
            vh = Transpose<perm = [0, 2, 1, 3]>(v4)  nk = Concat<axis = 2>(pk, kh)  nv = Concat<axis = 2>(pv, vh)
            kt = Transpose<perm = [0, 1, 3, 2]>(nk)  s = MatMul(qh, kt)  a = Softmax<axis = 3>(s)  o = MatMul(a, nv)
            ot = Transpose<perm = [0, 2, 1, 3]>(o)  of = Reshape(ot, flat)  op = MatMul(of, wo)  h = Add(x, op)
            f = MatMul(h, m1)  g = Gelu(f)  d = MatMul(g, m2)  z = Add(h, d)  y = MatMul(z, u)
        }
        """,
        (10, 14),
        20,
    ),
    # messages along edges that are summed by ScatterND
    "messages": Kind(
        """
        net (float[n, 6] x, int64[e, 1] from, int64[e, 1] to) => (float[n, 5] y)
        <float[6, 12] w, float[12, 10] v, float[6, 10] s, float[10, 5] u, int64 axis = {0}, float zero = {0}>
        {
            h = MatMul(x, w)  r = Relu(h)  m = GatherND(r, from)  k = MatMul(m, v)  own = MatMul(x, s)
            none = Mul(own, zero)  a = ScatterND<reduction = "add">(none, to, k)  z = Add(a, own)  q = Relu(z)
            y = MatMul(q, u)
        }
        """,
        (10, 12),
        18,
    ),
    # a selective scan as a Scan: the state of every channel decays by what the input says
    "selective scan": Kind(
        """
        net (float[t, b, 6] x) => (float[t, b, 5] y)
        <float[6, 12] w, float[12, 12] wd, float[12, 4] wb, float[12, 4] wc, float[12, 4] a, float[12, 5] u,
         int64[1] last = {2}, int64[1] mid = {1}, int64[1] states = {4}>
        {
            h = MatMul(x, w)  d = MatMul(h, wd)  dt = Softplus(d)  bb = MatMul(h, wb)  cc = MatMul(h, wc)
            size = Abs(a)  decay = Neg(size)
            z = ReduceMean<axes = [0], keepdims = 0>(h)  of = Shape(z)  to = Concat<axis = 0>(of, states)
            start = ConstantOfShape(to)
            end, s = Scan <num_scan_inputs = 4,
                body = step (float[b, 12, 4] now, float[b, 12] dtt, float[b, 4] bt, float[b, 4] ct, float[b, 12] ht)
                    => (float[b, 12, 4] next, float[b, 12] out) {
                    d3 = Unsqueeze(dtt, last)  da = Mul(d3, decay)  keep = Exp(da)  k = Mul(now, keep)
                    b3 = Unsqueeze(bt, mid)  h3 = Unsqueeze(ht, last)  dh = Mul(d3, h3)  inn = Mul(dh, b3)
                    next = Add(k, inn)  c3 = Unsqueeze(ct, mid)  p = Mul(next, c3)
                    out = ReduceSum<keepdims = 0>(p, last)
                }
            > (start, dt, bb, cc, h)
            y = MatMul(s, u)
        }
        """,
        (4, 12),
    ),
    # Kolmogorov-Arnold: every input through hat functions around the points of a grid
    "hat functions": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[24, 12] w, float[48, 5] v, float[4] grid, float one = {1}, float zero = {0}, int64[1] last = {2},
         int64[2] flat = {0, -1}>
        {
            e = Unsqueeze(x, last)  d = Sub(e, grid)  a = Abs(d)  t = Sub(one, a)  r = Max(t, zero)
            f = Reshape(r, flat)
            h = MatMul(f, w)  e2 = Unsqueeze(h, last)  d2 = Sub(e2, grid)  a2 = Abs(d2)  t2 = Sub(one, a2)
            r2 = Max(t2, zero)
            f2 = Reshape(r2, flat)  y = MatMul(f2, v)
        }
        """,
        (4, 12),
    ),
    # the second stage of a detector: what is around each box, then dense layers
    "boxes of a second stage": Kind(
        """
        net (float[1, 3, 16, 16] x, float[k, 4] boxes) => (float[k, 5] y, float[k, 4] sides)
        <float[12, 3, 3, 3] w, float[48, 10] f1, float[10, 5] c, float[10, 4] r>
        {
            i = Cast<to = 7>(boxes)  j = ReduceMax<axes = [1], keepdims = 0>(i)  image = Sub(j, j)
            h = Conv<pads = [1, 1, 1, 1]>(x, w)  a = Relu(h)
            q = RoiAlign<output_height = 2, output_width = 2, sampling_ratio = 2>(a, boxes, image)
            f = Flatten(q)  g = MatMul(f, f1)  z = Relu(g)  y = MatMul(z, c)  sides = MatMul(z, r)
        }
        """,
        (10, 12),
    ),
    # deformable attention: where to look is computed, values are sampled there
    "sampled values": Kind(
        """
        net (float[b, 6, 8, 8] x) => (float[b, 5, 4, 4] y)
        <float[12, 6, 1, 1] w, float[10, 6, 1, 1] o1, float[2, 10, 2, 2] o2, float[5, 12, 1, 1] u>
        {
            v = Conv(x, w)  o = Conv(x, o1)  r = Relu(o)  p = Conv<strides = [2, 2]>(r, o2)  t = Tanh(p)
            g = Transpose<perm = [0, 2, 3, 1]>(t)  s = GridSample(v, g)  y = Conv(s, u)
        }
        """,
        (10, 12),
    ),
    # attention without a softmax: products of keys and values first
    "linear attention": Kind(
        """
        net (float[b, t, 6] x) => (float[b, t, 5] y)
        <float[6, 12] wq, float[6, 12] wk, float[6, 10] wv, float[10, 5] u, float one = {1}, float eps = {0.001},
         int64[1] steps = {1}>
        {
            q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  qe = Elu(q)  qf = Add(qe, one)  ke = Elu(k)
            kf = Add(ke, one)  kt = Transpose<perm = [0, 2, 1]>(kf)  m = MatMul(kt, v)  n = MatMul(qf, m)
            s = ReduceSum<keepdims = 1>(kf, steps)  st = Transpose<perm = [0, 2, 1]>(s)  d = MatMul(qf, st)
            de = Add(d, eps)  o = Div(n, de)  y = MatMul(o, u)
        }
        """,
        (10, 12),
    ),
    # a network that makes the weights of another one
    "weights from a network": Kind(
        """
        net (float[b, 1, 6] x, float[b, 3] z) => (float[b, 1, 5] y)
        <float[3, 10] h1, float[10, 72] h2, float[12, 5] u, int64[3] matrix = {-1, 6, 12}>
        {
            a = MatMul(z, h1)  r = Relu(a)  w = MatMul(r, h2)  m = Reshape(w, matrix)  h = MatMul(x, m)  s = Relu(h)
            y = MatMul(s, u)
        }
        """,
        (10, 12),
    ),
    # a radiance field: sines of the position, which comes in once more halfway
    "sines and a skip": Kind(
        """
        net (float[n, 3] x) => (float[n, 4] y)
        <float[3, 8] b, float[16, 12] w, float[28, 10] v, float[10, 4] u>
        {
            f = MatMul(x, b)  s = Sin(f)  c = Cos(f)  e = Concat<axis = 1>(s, c)  h = MatMul(e, w)  r = Relu(h)
            j = Concat<axis = 1>(r, e)  k = MatMul(j, v)  q = Relu(k)  y = MatMul(q, u)
        }
        """,
        (8, 10, 12),
    ),
    # a conformer's convolution: gated linear units, a depthwise convolution with a norm, swish
    "gated convolution": Kind(
        """
        net (float[b, t, 6] x) => (float[b, t, 6] y)
        <float[24, 6, 1] w, float[12, 1, 3] d, float[12] g, float[12] s, float[12] m,
         float[12] q = {1,1,1,1,1,1,1,1,1,1,1,1},
         float[6, 12, 1] v>
        {
            c = Transpose<perm = [0, 2, 1]>(x)  h = Conv(c, w)  a, b2 = Split<axis = 1, num_outputs = 2>(h)
            gs = Sigmoid(b2)  k = Mul(a, gs)  e = Conv<group = 12, pads = [1, 1]>(k, d)
            n = BatchNormalization(e, g, s, m, q)
            z = Sigmoid(n)  o = Mul(n, z)  p = Conv(o, v)  t2 = Transpose<perm = [0, 2, 1]>(p)  y = Add(x, t2)
        }
        """,
        (12,),
        18,
    ),
    # super-resolution in the order of torch: channels become places
    "channels become places": Kind(
        """
        net (float[b, 3, 6, 6] x) => (float[b, 2, 12, 12] y)
        <float[12, 3, 3, 3] w, float[40, 12, 3, 3] v, float[2, 10, 3, 3] u>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)  r = Relu(h)  k = Conv<pads = [1, 1, 1, 1]>(r, v)
            p = DepthToSpace<blocksize = 2, mode = "CRD">(k)  q = Relu(p)  y = Conv<pads = [1, 1, 1, 1]>(q, u)
        }
        """,
        (10, 12),
    ),
    # slots: learned vectors that compete for the inputs by a softmax over themselves, and a gated cell
    "slots": Kind(
        """
        net (float[b, t, 6] x) => (float[b, 3, 5] y)
        <float[1, 3, 8] slots, float[8, 12] wq, float[6, 12] wk, float[6, 10] wv, float[10, 8] z1, float[8, 8] z2,
         float[8, 5] u, float one = {1}>
        {
            q = MatMul(slots, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  kt = Transpose<perm = [0, 2, 1]>(k)
            d = MatMul(q, kt)  a = Softmax<axis = 1>(d)  m = MatMul(a, v)  g1 = MatMul(m, z1)  g2 = MatMul(slots, z2)
            g = Add(g1, g2)  z = Sigmoid(g)  c = Sub(one, z)  old = Mul(z, slots)  new = Tanh(g1)  n = Mul(c, new)
            s = Add(old, n)  y = MatMul(s, u)
        }
        """,
        (8, 10, 12),
    ),
}


@pytest.mark.parametrize("kind", EXPORTED.values(), ids=EXPORTED)
def test_kind_is_pruned_rightly(kind: Kind, build: Build) -> None:
    path = build(kind.graph, opset=kind.opset)
    assert tuple(sorted(group.units for group in inspect(path).groups)) == kind.units
    proved(path)
