"""Kinds of files from outside that showed a fault, rebuilt small: how much of each can go, and that it goes rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.analysis.held import nothing_to_prune
from onnxprune.errors import NothingToPruneError
from onnxprune.pipeline.run import compress, inspect
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.test_kinds import KINDS
from tests.test_traps import frozen, proved


def kinds(units: dict[str, int]) -> list[int]:
    return sorted(units.values())


def test_layer_normalization_written_with_global_pooling(build: Build) -> None:
    """As tf2onnx does: the pooled axis of [N, tokens, features] holds the features."""
    found = proved(
        build("""
            net (float[n, 10, 6] x) => (float[n, 10, 5] y)
            <float[6, 32] w0, float[32, 48] w1, float[48, 32] w2, float[32, 5] w3, float[32] g, float[32] b,
             float eps = {0.01}>
            {
                h = MatMul(x, w0)
                mean = GlobalAveragePool(h)  c = Sub(h, mean)  s = Mul(c, c)  v = GlobalAveragePool(s)
                e = Add(v, eps)  d = Sqrt(e)  n1 = Div(c, d)  n2 = Mul(n1, g)  n3 = Add(n2, b)
                f = MatMul(n3, w1)  r = Relu(f)  o = MatMul(r, w2)  a = Add(h, o)  y = MatMul(a, w3)
            }
        """)
    )
    assert found.kinds == [("hidden", 32), ("neurons", 48)]


def test_shuffle_by_constant_positions(build: Build) -> None:
    """ShuffleNet as a Gather with 96 positions: every channel goes on its own."""
    found = proved(
        build(
            """
            net (float[n, 3, 6, 6] x) => (float[n, 5, 1, 1] y)
            <float[96, 3, 1, 1] a, int64[96] order, float[48, 48, 1, 1] b, int64[1] zero = {0}, int64[1] half = {48},
             int64[1] end = {96}, int64[1] axis = {1}, float[20, 96, 1, 1] o, float[5, 20, 1, 1] last>
            {
                h = Conv(x, a)  r = Relu(h)  left = Slice(r, zero, half, axis)  right = Slice(r, half, end, axis)
                c = Conv(right, b)  q = Relu(c)  j = Concat<axis = 1>(left, q)  s = Gather<axis = 1>(j, order)
                k = Conv(s, o)  m = Relu(k)  p = GlobalAveragePool(m)  y = Conv(p, last)
            }
            """,
            order=np.arange(96).reshape(2, 48).T.ravel(),
        )
    )
    assert kinds(found.groups) == [20, 48, 48, 48]


def test_places_of_a_pooling_that_undo_it(build: Build) -> None:
    """SegNet: the places are counted over all channels, on both sides."""
    net = """
        net (float[n, 3, 8, 8] x) => (float[n, 5, 8, 8] y)
        <float[12, 3, 3, 3] w1, float[12, 12, 3, 3] w2, float[10, 12, 3, 3] w3, float[5, 10, 3, 3] w4>
        {
            a = Conv<pads = [1, 1, 1, 1]>(x, w1)  r = Relu(a)
            p, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
            b = Conv<pads = [1, 1, 1, 1]>(p, w2)  s = Relu(b)
            u = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(s, INDICES)
            c = Conv<pads = [1, 1, 1, 1]>(u, w3)  t = Relu(c)  y = Conv<pads = [1, 1, 1, 1]>(t, w4)
        }
    """
    assert kinds(proved(build(net.replace("INDICES", "i"))).groups) == [10, 12]
    moved = build(net.replace("INDICES", "k").replace("b = Conv", "k = Identity(i)  b = Conv", 1))
    assert [group.units for group in inspect(moved).groups] == [10]
    assert "places counted over all channels are an output (MaxPool 'MaxPool_2')" in frozen(inspect(moved)).values()


def test_places_that_nobody_reads_hold_nothing(build: Build) -> None:
    found = proved(
        build("""
            net (float[n, 3, 8, 8] x) => (float[n, 5, 4, 4] y)
            <float[12, 3, 3, 3] w1, float[5, 12, 1, 1] w2>
            { a = Conv<pads = [1, 1, 1, 1]>(x, w1)  p, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
              y = Conv(p, w2) }
        """)
    )
    assert kinds(found.groups) == [12]


def test_filter_in_the_frequencies(build: Build) -> None:
    """GFNet: a complex weight per channel and frequency, between a transform and its inverse."""
    found = proved(
        build(
            """
            net (float[n, 3, 8, 8] x) => (float[n, 6, 8, 8] y)
            <float[12, 3, 1, 1] w0, float[12, 8, 8] wr, float[12, 8, 8] wi, float[6, 12, 1, 1] w1, int64[1] last = {-1},
             int64 ax = {3}, int64 zero = {0}, int64 one = {1}>
            {
                h = Conv(x, w0)  r = Relu(h)  u = Unsqueeze(r, last)  f = DFT(u, , ax)
                re = Gather<axis = -1>(f, zero)  im = Gather<axis = -1>(f, one)
                a = Mul(re, wr)  b = Mul(im, wi)  p = Sub(a, b)  c = Mul(re, wi)  d = Mul(im, wr)  q = Add(c, d)
                p1 = Unsqueeze(p, last)  q1 = Unsqueeze(q, last)  z = Concat<axis = -1>(p1, q1)
                g = DFT<inverse = 1>(z, , ax)  o = Gather<axis = -1>(g, zero)  y = Conv(o, w1)
            }
            """,
            opset=20,
        )
    )
    assert kinds(found.groups) == [12]


def test_deformable_convolution_in_groups_and_blocks(build: Build) -> None:
    found = proved(
        build(
            """
            net (float[n, 3, 8, 8] x) => (float[n, 6, 8, 8] y)
            <float[24, 3, 3, 3] w0, float[36, 24, 3, 3] wo, float[16, 12, 3, 3] w1, float[16] b1, float[6, 16, 1, 1] w2>
            {
                h = Conv<pads = [1, 1, 1, 1]>(x, w0)  r = Relu(h)  o = Conv<pads = [1, 1, 1, 1]>(r, wo)
                d = DeformConv<kernel_shape = [3, 3], group = 2, offset_group = 2, pads = [1, 1, 1, 1]>(r, w1, o, b1)
                s = Relu(d)  y = Conv(s, w2)
            }
            """,
            opset=19,
        )
    )
    assert kinds(found.groups) == [2, 8, 12]


def test_einsum_with_labels_of_size_one_without_an_arrow_and_with_an_ellipsis(build: Build) -> None:
    """Attention of four heads on one head of keys and values."""
    found = proved(
        build("""
            net (float[n, 6, 16] x) => (float[n, 6, 5] y)
            <float[16, 32] wq, float[16, 8] wk, float[16, 8] wv, float[32, 24] wo, float[24, 5] wz,
             int64[4] heads = {0, 0, 4, 8}, int64[3] flat = {0, 0, 32}, int64[1] one = {1}>
            {
                q1 = MatMul(x, wq)  q2 = Reshape(q1, heads)  q = Transpose<perm = [0, 2, 1, 3]>(q2)
                k1 = MatMul(x, wk)  k = Unsqueeze(k1, one)  v1 = MatMul(x, wv)  v = Unsqueeze(v1, one)
                s = Einsum<equation = "bhid,bhjd->bhij">(q, k)  p = Softmax<axis = -1>(s)
                o = Einsum<equation = "bhij,bhjd->bihd">(p, v)  o2 = Reshape(o, flat)
                z = MatMul(o2, wo)  y = Einsum<equation = "...k,kj">(z, wz)
            }
        """)
    )
    assert kinds(found.groups) == [4, 8, 8, 24]


def test_widths_behind_the_preparation_of_columns(build: Build) -> None:
    """As scikit-learn's pipelines are exported: onnx tells no shape for what ai.onnx.ml computes."""
    path = build(
        """
        net (float[n, 4] x) => (float[n, 3] y)
        <float[4, 12] w, float[12, 3] v>
        { s = ai.onnx.ml.Scaler<offset = [0.5, 0.0, 0.1, 0.2], scale = [1.0, 2.0, 0.5, 1.0]>(x)
          m = ai.onnx.ml.Normalizer<norm = "L2">(s)  h = MatMul(m, w)  r = Relu(h)  y = MatMul(r, v) }
        """,
        opsets={"ai.onnx.ml": 1},
    )
    assert kinds(proved(path).groups) == [12]


STACKED = """
    net (float[s, b, 4] x) => (float[s, b, 5] y)
    <float[1, 32, 4] w1, float[1, 32, 8] r1, float[1, 32, 8] w2, float[1, 32, 8] r2, float[8, 5] o,
     int64[1] one = {1}, int64[1] two = {2}, int64[1] eight = {8}, int64[1] axis = {0}, int64[1] axis1 = {1},
     int64[1] end = {1}, float zero = {0}>
    {
        size = Shape(x)  b1 = Gather(size, one)  full = Concat<axis = 0>(two, b1, eight)  z = ZEROS
        za = Slice(z, axis, end, axis)  zb = Slice(z, end, two, axis)
        a, ah, ac = LSTM<hidden_size = 8>(x, w1, r1, , , za, za)  a1 = Squeeze(a, axis1)
        c, ch, cc = LSTM<hidden_size = 8>(a1, w2, r2, , , zb, za)  c1 = Squeeze(c, axis1)  y = MatMul(c1, o)
    }
"""


@pytest.mark.parametrize("zeros", ["ConstantOfShape(full)", "Expand(zero, full)"])
def test_zeros_that_stacked_layers_start_from_tie_nothing(zeros: str, build: Build) -> None:
    """PyTorch slices the states of all layers out of one tensor of zeros."""
    found = proved(build(STACKED.replace("ZEROS", zeros)))
    assert kinds(found.groups) == [8, 8]
    assert not any(node.op_type in ("ConstantOfShape", "Expand", "Slice") for node in found.pruned.graph.node)


def test_a_state_that_is_not_zero_stays(build: Build) -> None:
    """Ones tie the layers that share them."""
    ones = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [1.0])

    def fill(model: onnx.ModelProto) -> None:
        (node,) = (node for node in model.graph.node if node.op_type == "ConstantOfShape")
        node.attribute.append(onnx.helper.make_attribute("value", ones))

    found = proved(build(STACKED.replace("ZEROS", "ConstantOfShape(full)"), edit=fill))
    assert kinds(found.groups) == [8]


def test_padding_to_whole_windows_leaves_the_features_alone(build: Build) -> None:
    """Swin at any size: how much is padded is computed for one axis and zero for the others."""
    path = build("""
        net (float[b, s, 6] x) => (float[b, s2, 5] y)
        <float[6, 12] w, float[12, 10] u, float[10, 5] v, int64 one = {1}, int64 eight = {8}, int64[2] none2 = {0, 0},
         int64[1] none = {0}, int64[1] a1 = {1}, int64[4] windows = {0, -1, 8, 12}, int64[3] back = {0, -1, 10}>
        {
            h = MatMul(x, w)  sh = Shape(h)  n = Gather(sh, one)  m = Mod(n, eight)  d = Sub(eight, m)
            k = Mod(d, eight)  k1 = Unsqueeze(k, none)  pads = Concat<axis = 0>(none, none, none2, k1, none)
            p = Pad(h, pads)  q = Reshape(p, windows)  r = MatMul(q, u)  t = Relu(r)  f = Reshape(t, back)
            n1 = Unsqueeze(n, none)  c = Slice(f, none, n1, a1)  y = MatMul(c, v)
        }
    """)
    assert kinds(proved(path, {"b": 2, "s": 8}, {"b": 1, "s": 1}, {"b": 3, "s": 13}).groups) == [10, 12]


UNSAID = """
    net (float[n, 6, 1, 1] x) => (float[n, 5] y)
    <float[12, 6, 1, 1] w, float[12, 5] v>
    { h = Conv(x, w)  r = Relu(h)  s = Squeeze(r)  y = MatMul(s, v) }
"""


def test_axes_that_a_squeeze_drops_unsaid_are_those_of_the_original_at_every_batch(build: Build) -> None:
    """A batch of 1 goes with them, and so it does in what is left."""
    path = build(UNSAID)
    assert kinds(proved(path, {"n": 3}).groups) == [12]
    small = path.with_name("small.onnx")
    compress(path, ratio=0.5, recover="none").save(small)
    for batch, shape in ((1, (5,)), (3, (3, 5))):
        feed = {"x": np.ones((batch, 6, 1, 1), np.float32)}
        assert Session(small).run(feed)["y"].shape == Session(path).run(feed)["y"].shape == shape


SCRIPTED = """
    net (float[n, SIZE, 6] x) => (float[n, 5] y)
    <float[6, 12] w, float[12, 5] v, int64[1] axis = {1}, int64 at = {1}, int64 one = {1}>
    {
        h = MatMul(x, w)  r = Relu(h)  s = Shape(r)  d = Gather(s, at)  e = Equal(d, one)
        q = If(e) <then_branch = yes () => (float[n, 12] a) { a = Squeeze(r, axis) },
                   else_branch = no () => (float[n, SIZE, 12] c) { c = Identity(r) }>
        y = MatMul(q, v)
    }
"""


def test_branch_of_a_scripted_squeeze_is_taken_where_the_size_is_known(build: Build) -> None:
    """torch.jit.script writes squeeze(1) as an If whose branches differ in rank."""
    found = proved(build(SCRIPTED.replace("SIZE", "1")))
    assert kinds(found.groups) == [12]
    assert not any(node.op_type == "If" for node in found.pruned.graph.node)


def test_branch_of_a_scripted_squeeze_is_left_to_the_run_where_the_size_is_dynamic(build: Build) -> None:
    """The only legal size is 1, which the analysis need not have tried first."""
    path = build(SCRIPTED.replace("SIZE", "m"))
    written = path.with_name("lossless.onnx")
    compress(path, lossless=True).save(written)
    for size in (1, 3):
        feed = {"x": np.random.default_rng(0).standard_normal((size, 1, 6)).astype(np.float32)}
        np.testing.assert_allclose(Session(written).run(feed)["y"], Session(path).run(feed)["y"], rtol=1e-5, atol=1e-6)


def test_branches_are_taken_one_inside_the_other_and_as_an_output_of_the_model(build: Build) -> None:
    path = build("""
        net (float[n, 4] x) => (float[n, 5] y)
        <float[4, 12] w, float[12, 5] v, float[12, 5] u, bool yes = {1}, bool no = {0}>
        {
            h = MatMul(x, w)  r = Relu(h)
            y = If(yes) <then_branch = t () => (float[n, 5] a)
                { a = If(no) <then_branch = t2 () => (float[n, 5] b) { b = MatMul(r, u) },
                              else_branch = e2 () => (float[n, 5] c) { c = MatMul(r, v) }> },
                else_branch = e () => (float[n, 5] d) { d = MatMul(r, u) }>
        }
    """)
    found = proved(path)
    assert kinds(found.groups) == [12]
    assert {node.op_type for node in found.pruned.graph.node} == {"MatMul", "Relu", "Identity"}


# -- words


def refusal(path: Path) -> str:
    with pytest.raises(NothingToPruneError) as error:
        compress(path, ratio=0.5, recover="none")
    return str(error.value)


def test_reason_that_nothing_can_be_pruned_is_what_holds_the_most(build: Build) -> None:
    """Not the first in the alphabet, which is nearly always an input that keeps its shape."""
    path = build(
        """
        net (float[n, 4] x) => (float[n, 3] y)
        <float[4, 40] w, float[40, 30] v, float[30, 3] u>
        { h = MatMul(x, w)  a = Softmax(h)  g = MatMul(a, v)  b = acme.Mystery(g)  y = MatMul(b, u) }
        """,
        opsets={"acme": 1},
    )
    assert not inspect(path).groups
    reason = nothing_to_prune(inspect(path), path.name)
    assert "softmax runs over it (Softmax 'Softmax_1')" in reason
    assert "1,360 parameters" in reason


def test_units_that_are_tied_to_each_other_are_said_to_be(build: Build) -> None:
    """Added to themselves, moved by five of twelve places."""
    assert "ties the units of 'w' to each other, so one goes with all" in refusal(build(KINDS["rolled features"].graph))


def test_file_without_layers_is_said_to_have_none(build: Build) -> None:
    """Tree ensembles, for example, keep their numbers in attributes."""
    path = build("net (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
    assert "there are no weights of layers in this file" in refusal(path)


def test_state_that_grows_is_said_to(build: Build) -> None:
    path = build(
        """
        net (float[n, 6] x) => (float[n, 6] y)
        <int64 three = {3}, bool yes = {1}, int64[2] start = {1, 0}, float[6, 16] w, float[16, 6] v, float[6, 6] u>
        {
            h = MatMul(x, w)  g = MatMul(h, v)
            m = Loop(three, yes, g) <body = step (int64 i, bool c, float[k, 6] s) => (bool o, float[k2, 6] t)
            { o = Identity(c)  t = Concat<axis = 0>(s, s) }>
            t = MatMul(m, u)  y = ReduceMax<axes = [0]>(t)
        }
        """,
    )
    reasons = set(frozen(inspect(path)).values())
    assert any("a state whose shape changes from step to step" in reason for reason in reasons), reasons
    assert not any("zip()" in reason for reason in reasons)


NESTED = """
    net (float[n, 3, 6, 6] x) => (float[n, 5, 1, 1] y)
    <float[64, 3, 3, 3] a, float[64, 8, 3, 3] b, float[64] g, float[64] s, float[5, 64, 1, 1] last>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, a)  n1 = GroupNormalization<num_groups = 4, epsilon = 0.1>(h, g, s)
        r = Relu(n1)  c = Conv<group = 8, pads = [1, 1, 1, 1]>(r, b)  t = Relu(c)  p = GlobalAveragePool(t)
        y = Conv(p, last)
    }
"""


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_shares_of_nested_groups_do_not_multiply(ratio: float, build: Build) -> None:
    """Eight channels in each of eight groups, or sixteen in each of four: a half of them is 32."""
    path = build(NESTED, opset=21)
    small = compress(path, ratio=ratio, scope="uniform", recover="none").proto()
    shapes = {tensor.name: list(tensor.dims) for tensor in small.graph.initializer}
    assert shapes["a"][0] == shapes["b"][0] == round(64 * (1 - ratio))


def test_nested_groups_go_one_after_the_other_down_to_single_units(build: Build) -> None:
    small = compress(build(NESTED, opset=21), ratio=0.99, scope="uniform", recover="none").proto()
    shapes = {tensor.name: list(tensor.dims) for tensor in small.graph.initializer}
    assert shapes["a"][0] < 8
