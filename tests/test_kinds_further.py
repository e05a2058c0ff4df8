"""More kinds of networks, from papers and exporters, none of which is in the zoo: what of each can go, and rightly.

`benchmarks/kinds.py` writes them down with what is left of each at a ratio of 0.5.
"""

from __future__ import annotations

import pytest

from onnxprune.pipeline.run import inspect
from tests.conftest import Build
from tests.test_kinds import Kind
from tests.test_traps import proved

FURTHER = {
    # an x-vector: mean and deviation over time, beside each other
    "speaker embedding": Kind(
        """
        net (float[b, 6, 20] x) => (float[b, 5] y)
        <float[12, 6, 3] w, float[10, 12, 1] v, float[20, 5] u, float eps = {0.01}>
        {
            h = Conv(x, w) r = Relu(h) k = Conv(r, v) m = ReduceMean<axes = [2], keepdims = 1>(k) d = Sub(k, m)
            q = Mul(d, d) s2 = ReduceMean<axes = [2], keepdims = 0>(q) se = Add(s2, eps) s = Sqrt(se) mm =
            ReduceMean<axes = [2], keepdims = 0>(k) c = Concat<axis = 1>(mm, s) y = MatMul(c, u)
        }
        """,
        (10, 12),
    ),
    # ECAPA: a softmax over time weighs every channel
    "attentive pooling": Kind(
        """
        net (float[b, 6, 20] x) => (float[b, 5] y)
        <float[12, 6, 3] w, float[8, 12, 1] a1, float[12, 8, 1] a2, float[12, 5] u, int64[1] last = {2}>
        {
            h = Conv(x, w) r = Relu(h) t = Conv(r, a1) t2 = Tanh(t) e = Conv(t2, a2) p = Softmax<axis = 2>(e) z
            = Mul(p, r) m = ReduceSum<keepdims = 0>(z, last) y = MatMul(m, u)
        }
        """,
        (8, 12),
        18,
    ),
    # LoRA that is added at run time
    "low-rank update": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[6, 4] la, float[4, 12] lb, float[12, 5] u, float scale = {0.5}>
        {
            d = MatMul(la, lb) ds = Mul(d, scale) ws = Add(w, ds) h = MatMul(x, ws) r = Relu(h) y = MatMul(r, u)
        }
        """,
        (4, 12),
    ),
    # FiLM: scale and shift of each channel come from a condition
    "feature-wise modulation": Kind(
        """
        net (float[b, 6, 8, 8] x, float[b, 4] c) => (float[b, 5, 8, 8] y)
        <float[12, 6, 1, 1] w, float[4, 10] m, float[10, 24] g, float[5, 12, 1, 1] u, int64[2] sp = {2, 3}>
        {
            h = Conv(x, w) k = MatMul(c, m) kr = Relu(k) gb = MatMul(kr, g) ga, be = Split<axis = 1, num_outputs
            = 2>(gb) g4 = Unsqueeze(ga, sp) b4 = Unsqueeze(be, sp) z = Mul(h, g4) o = Add(z, b4) r = Relu(o) y =
            Conv(r, u)
        }
        """,
        (10, 12),
        18,
    ),
    # RWKV: every feature is mixed with that of the step before
    "time mixing": Kind(
        """
        net (float[b, 8, 6] x) => (float[b, 8, 5] y)
        <float[6, 12] wi, float[12] mk, float[12] one = {1,1,1,1,1,1,1,1,1,1,1,1}, float[12, 10] wk, float[10,
         5] wo, int64[6] pads = {0, 1, 0, 0, -1, 0}>
        {
            h = MatMul(x, wi) s = Pad(h, pads) a = Mul(h, mk) im = Sub(one, mk) c = Mul(s, im) z = Add(a, c) k =
            MatMul(z, wk) r = Relu(k) q = Mul(r, r) y = MatMul(q, wo)
        }
        """,
        (10, 12),
    ),
    # a codebook that distances choose from: its vectors stay, their features go
    "vector quantization": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[12, 10] p, float[16, 10] book, float[10, 8] d1, float[8, 5] d2, int64[1] last =
         {1}>
        {
            h = MatMul(x, w) hr = Relu(h) z = MatMul(hr, p) zz = Mul(z, z) z2 = ReduceSum<keepdims = 1>(zz,
            last) bt = Transpose<perm = [1, 0]>(book) zb = MatMul(z, bt) bb = Mul(book, book) b2 =
            ReduceSum<keepdims = 0>(bb, last) t = Add(zb, zb) d0 = Sub(z2, t) d = Add(d0, b2) i = ArgMin<axis =
            1, keepdims = 0>(d) q = Gather(book, i) k = MatMul(q, d1) kr = Relu(k) y = MatMul(kr, d2)
        }
        """,
        (8, 10, 12),
    ),
    # a deep equilibrium model: one block, five times, in a Loop
    "fixed-point iteration": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[12, 8] u, float[8, 12] v, float[12, 5] o, int64 five = {5}, bool yes = {1}>
        {
            h0 = MatMul(x, w) h = Loop(five, yes, h0) <body = step (int64 i, bool c, float[b, 12] s) => (bool g,
            float[b, 12] t) { g = Identity(c) a = MatMul(s, u) r = Relu(a) k = MatMul(r, v) n = Add(k, h0) t =
            Tanh(n) }> y = MatMul(h, o)
        }
        """,
        (8, 12),
    ),
    # vectors that are squashed by their length, and predict others by a product each
    "capsules": Kind(
        """
        net (float[b, 6] x) => (float[b, 4, 5] y)
        <float[6, 24] w, float[3, 4, 8, 5] r, int64[3] caps = {0, 3, 8}, int64[1] last = {2}, float eps = {0.1}>
        {
            h = MatMul(x, w) c = Reshape(h, caps) sq = Mul(c, c) n2 = ReduceSum<keepdims = 1>(sq, last) ne =
            Add(n2, eps) n = Sqrt(ne) d = Div(c, n) y = Einsum<equation = "bid,ijde->bje">(d, r)
        }
        """,
        (3, 8),
    ),
    # attention over an adjacency that is an input
    "graph attention": Kind(
        """
        net (float[n, 6] x, float[n, n] mask) => (float[n, 5] y)
        <float[6, 12] w, float[12, 1] a1, float[12, 1] a2, float[12, 5] u>
        {
            h = MatMul(x, w) s = MatMul(h, a1) d = MatMul(h, a2) dt = Transpose<perm = [1, 0]>(d) e = Add(s, dt)
            l = LeakyRelu(e) m = Add(l, mask) p = Softmax<axis = 1>(m) z = MatMul(p, h) r = Elu(z) y = MatMul(r,
            u)
        }
        """,
        (12,),
    ),
    # a Siamese tracker: features of the template are the filters of the search
    "tracker": Kind(
        """
        net (float[1, 3, 6, 6] t, float[1, 3, 12, 12] x) => (float[1, 5, 9, 9] y)
        <float[12, 3, 3, 3] w, float[5, 12, 1, 1] u, int64[8] pz = {0,0,1,1,0,0,1,1}, int64[4] filt = {12, 1, 4,
         4}>
        {
            a = Conv(t, w) ar = Relu(a) k = Reshape(ar, filt) b0 = Conv(x, w) br = Relu(b0) c = Conv<group =
            12>(br, k) p = Relu(c) pad = Pad<mode = "constant">(p, pz) y = Conv(pad, u)
        }
        """,
        (12,),
    ),
    # a gate chooses between a layer and what it reads
    "highway": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[12, 12] g, float[12] gb, float[12, 12] h1, float one = {1}, float[12, 5] u>
        {
            s = MatMul(x, w) q = Gemm(s, g, gb) t = Sigmoid(q) k = MatMul(s, h1) r = Relu(k) a = Mul(t, r) it =
            Sub(one, t) c = Mul(it, s) z = Add(a, c) y = MatMul(z, u)
        }
        """,
        (12,),
    ),
    # the square of a sum less the sum of squares
    "factorization machine": Kind(
        """
        net (int64[b, 4] ids) => (float[b, 1] y)
        <float[20, 12] e, float[12, 1] u, int64[1] one = {1}, float half = {0.5}>
        {
            v = Gather(e, ids) s = ReduceSum<keepdims = 0>(v, one) s2 = Mul(s, s) q = Mul(v, v) q2 =
            ReduceSum<keepdims = 0>(q, one) d = Sub(s2, q2) h = Mul(d, half) y = MatMul(h, u)
        }
        """,
        (12,),
    ),
    # features and classes of length 1
    "cosine classifier": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 12] w, float[12, 10] e, float[5, 10] c, float s = {16}>
        {
            h = MatMul(x, w) r = Relu(h) f = MatMul(r, e) fn = LpNormalization<axis = 1>(f) cn =
            LpNormalization<axis = 1>(c) ct = Transpose<perm = [1, 0]>(cn) z = MatMul(fn, ct) y = Mul(z, s)
        }
        """,
        (10, 12),
    ),
    # the larger of two features; both are units of one layer
    "maxout": Kind(
        """
        net (float[b, 6] x) => (float[b, 5] y)
        <float[6, 24] w, float[12, 5] u, int64[3] two = {0, 12, 2}>
        {
            h = MatMul(x, w) q = Reshape(h, two) m = ReduceMax<axes = [2], keepdims = 0>(q) y = MatMul(m, u)
        }
        """,
        (2, 12),
    ),
    # a weight put together from real and imaginary parts, each there twice
    "complex layer": Kind(
        """
        net (float[b, 12] x) => (float[b, 5] y)
        <float[6, 10] re, float[6, 10] im, float[20, 5] u>
        {
            ni = Neg(im) top = Concat<axis = 1>(re, im) low = Concat<axis = 1>(ni, re) w = Concat<axis = 0>(top,
            low) h = MatMul(x, w) t = Tanh(h) y = MatMul(t, u)
        }
        """,
        (10,),
    ),
    # convolutions, a GRU of both directions, an output for every column
    "text recognizer": Kind(
        """
        net (float[b, 3, 8, 20] x) => (float[20, b, 5] y)
        <float[12, 3, 3, 3] w, float[10, 12, 8, 1] v, float[2, 24, 10] gw, float[2, 24, 8] gr, float[16, 5] u,
         int64[1] two = {2}, int64[3] flat = {0, 0, -1}>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(h) k = Conv(r, v) kr = Relu(k) s = Squeeze(kr, two) t =
            Transpose<perm = [2, 0, 1]>(s) g, gh = GRU<hidden_size = 8, direction = "bidirectional">(t, gw, gr)
            gt = Transpose<perm = [0, 2, 1, 3]>(g) f = Reshape(gt, flat) y = MatMul(f, u)
        }
        """,
        (8, 10, 12),
    ),
}


@pytest.mark.parametrize("kind", FURTHER.values(), ids=FURTHER)
def test_kind_is_pruned_rightly(kind: Kind, build: Build) -> None:
    path = build(kind.graph, opset=kind.opset)
    assert tuple(sorted(group.units for group in inspect(path).groups)) == kind.units
    proved(path)
