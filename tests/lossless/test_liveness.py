"""Units that change nothing go, all others stay: networks with planted dead units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.conftest import Build
from tests.lossless.harness import check_facts, check_lossless, kill, killing, removed

# -- linear layers

MLP = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w1, float[8] b1, float[8, 6] w2, float[6] b2, float[6, 3] w3>
    { h = Gemm(x, w1, b1)  r = Relu(h)  k = Gemm(r, w2, b2)  s = Relu(k)  y = MatMul(s, w3) }
"""


def test_no_dead_unit_nothing_goes(build: Build) -> None:
    result = check_lossless(build(MLP))
    assert removed(result) == {}
    assert result.report.notes == ("no unit can go without a trace: nothing was removed",)


def test_relu_of_a_negative_bias_is_zero_and_of_a_positive_one_is_folded(build: Build) -> None:
    path = build(MLP, b1=[-1, 2, 0, 0.5, -3, 1, 1, -1], edit=killing({("w1", 1): [0, 1, 4, 5]}))
    assert check_facts(path).keys() == {"h", "r"}
    assert removed(check_lossless(path)) == {"w1": (0, 1, 4, 5)}


def test_a_unit_that_nothing_reads_goes(build: Build) -> None:
    path = build(MLP, edit=killing({("w2", 0): [2, 7], ("w3", 0): [5]}))
    assert removed(check_lossless(path)) == {"w1": (2, 7), "w2": (5,)}


def test_a_unit_that_only_dead_units_read_goes(build: Build) -> None:
    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w2", 0): [3], ("w3", 0): [1]})
        kill(model, {("w2", 1): [1]}, 4.0)  # unit 1 of the second layer reads all of the first, and nothing reads it

    assert removed(check_lossless(build(MLP, edit=edit))) == {"w1": (3,), "w2": (1,)}


def test_one_unit_of_a_dead_group_stays(build: Build) -> None:
    """The second layer reads constants alone then."""
    path = build(MLP, edit=killing({("w1", 1): range(8)}))
    assert removed(check_lossless(path)) == {"w1": tuple(range(1, 8)), "w2": tuple(range(1, 6))}


def test_a_chain_of_constants_is_followed_to_its_end(build: Build) -> None:
    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w1", 1): [5, 6, 7]})
        w2 = next(weight for weight in model.graph.initializer if weight.name == "w2")
        array = onnx.numpy_helper.to_array(w2).copy()
        array[:5, 4] = 0  # unit 4 of the second layer reads nothing but constants
        w2.CopyFrom(onnx.numpy_helper.from_array(array, "w2"))

    path = build(MLP, b1=np.arange(8) - 3.5, b2=np.ones(6), edit=edit)
    assert removed(check_lossless(path)) == {"w1": (5, 6, 7), "w2": (4,)}


def test_gemm_with_factors_and_transposed_operands(build: Build) -> None:
    path = build(
        """
        net (float[5, batch] x) => (float[batch, 3] y)
        <float[8, 5] w1, float[8] b1, float[6, 8] w2, float[1, 6] b2, float[6, 3] w3>
        { h = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(x, w1, b1)  r = Exp(h)
          t = Transpose<perm = [1, 0]>(r)
          k = Gemm<transA = 1, transB = 1, alpha = 3.0, beta = 0.5>(t, w2, b2)  s = Tanh(k)
          y = Gemm<alpha = 2.0, beta = 7.0>(s, w3) }
        """,
        edit=killing({("w1", 0): [0, 7], ("w2", 0): [2]}),
    )
    assert removed(check_lossless(path)) == {"w1": (0, 7), "w2": (2,)}


def test_matmul_gets_an_add_or_uses_the_one_behind_it(build: Build) -> None:
    path = build(
        """
        net (float[batch, 4, 5] x) => (float[batch, 4, 3] y)
        <float[5, 8] w1, float[8] b1, float[8, 6] w2, float[6] b2, float[6, 3] w3>
        { a = MatMul(x, w1)  h = Add(b1, a)  r = Sigmoid(h)
          b = MatMul(r, w2)  k = Add(b, b2)  s = Sigmoid(k)  y = MatMul(s, w3) }
        """,
        edit=killing({("w1", 1): [1, 6], ("w2", 1): [4]}),
    )
    assert removed(check_lossless(path)) == {"w1": (1, 6), "w2": (4,)}
    nodes = onnx.load(path.with_name("model.lossless.onnx")).graph.node
    assert [node.op_type for node in nodes].count("Add") == 3


def test_a_bias_that_is_computed_at_run_time_refuses(build: Build) -> None:
    path = build(
        """
        net (float[1, 5] x) => (float[1, 3] y)
        <float[5, 8] w1, float[8] b1, float[8, 3] w2, float[5, 3] w3>
        { h = Gemm(x, w1, b1)  r = Sigmoid(h)  c = MatMul(x, w3)  [read] y = Gemm(r, w2, c) }
        """,
        edit=killing({("w1", 1): [3, 4]}),
    )
    result = check_lossless(path)
    assert removed(result) == {}
    note = "w1: constant units stay (2), since Gemm 'read' has a bias that is computed at run time"
    assert result.report.notes[0] == note


def test_weights_that_are_turned_in_the_graph(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[8, 5] w1, float[8] b1, float[3, 8] w2>
        { t = Transpose<perm = [1, 0]>(w1)  h = MatMul(x, t)  k = Add(h, b1)  r = Softplus(k)
          u = Transpose<perm = [1, 0]>(w2)  y = MatMul(r, u) }
        """,
        edit=killing({("w1", 0): [3], ("w2", 1): [6]}),
    )
    assert removed(check_lossless(path)) == {"w1": (3, 6)}


def test_weights_that_a_caller_may_override_are_no_constants(build: Build) -> None:
    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w1", 1): [0, 1, 4, 5]})
        model.graph.input.append(onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [5, 8]))

    assert removed(check_lossless(build(MLP, edit=edit))) == {}


def test_jumps_are_not_trusted_to_rounding(build: Build) -> None:
    path = build(MLP.replace("r = Relu(h)", "r = Floor(h)"), edit=killing({("w1", 1): [0]}))
    assert removed(check_lossless(path)) == {}


def test_only_and_skip_are_respected(build: Build) -> None:
    path = build(MLP, edit=killing({("w2", 0): [2], ("w3", 0): [5]}))
    assert removed(check_lossless(path, only=["w1*"], again=False)) == {"w1": (2,)}
    assert removed(check_lossless(path, skip=["w1*"], again=False)) == {"w2": (5,)}
    everything_skipped = check_lossless(path, skip=["neurons"], again=False)
    assert removed(everything_skipped) == {}


def test_what_a_skipped_group_reads_stays(build: Build) -> None:
    """Unit 1 of the second layer is dead, but it stays, and what it reads must stay with it."""

    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w2", 0): [3], ("w3", 0): [1]})
        kill(model, {("w2", 1): [1]}, 4.0)

    assert removed(check_lossless(build(MLP, edit=edit), skip=["w2"], again=False)) == {}


# -- convolutions

CNN = """
    net (float[batch, 3, 9, 9] x) => (float[batch, 4] y)
    <float[8, 3, 3, 3] w1, float[8] b1, float[8] scale, float[8] shift, float[8] mean, float[8] var,
     float[6, 8, 3, 3] w2, float[6] b2, float[6, 4] w3>
    {
        a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
        n = BatchNormalization(a, scale, shift, mean, var)
        r = Relu(n)  [second] c = Conv<PADDING>(r, w2, b2)
        s = Relu(c)  g = GlobalAveragePool(s)  f = Flatten(g)  y = MatMul(f, w3)
    }
"""
NORM = {"mean": np.full(8, 0.5), "var": np.full(8, 2.0), "scale": np.full(8, 0.7), "shift": np.zeros(8)}
BIAS = {"b1": [-2, 2, -2, 2, 0, 0, 0, 0]}


@pytest.mark.parametrize("padding", ["pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"', "pads = [0, 0, 0, 1]"])
def test_behind_padding_zeros_go_and_constants_stay(build: Build, padding: str) -> None:
    """A constant channel is not constant at the border."""
    path = build(CNN.replace("PADDING", padding), **NORM, **BIAS, edit=killing({("w1", 0): [0, 1]}))
    assert {"a", "n", "r"} <= check_facts(path).keys()
    result = check_lossless(path)
    assert removed(result) == {"w1": (0,)}
    note = "w1: constant units stay (1), since Conv 'second' pads its input with zeros"
    assert result.report.notes == (note,)


@pytest.mark.parametrize(
    "padding", ["strides = [2, 2]", 'auto_pad = "VALID"', "pads = [0, 0, 0, 0], dilations = [2, 2]"]
)
def test_without_padding_constants_go_too(build: Build, padding: str) -> None:
    path = build(CNN.replace("PADDING", padding), **NORM, **BIAS, edit=killing({("w1", 0): [0, 1]}))
    assert removed(check_lossless(path)) == {"w1": (0, 1)}


def test_a_scale_of_zero_makes_a_channel_constant(build: Build) -> None:
    norm = {**NORM, "scale": [0, 1, 1, 0, 1, 1, 1, 1], "shift": [-1, 0, 0, 2, 0, 0, 0, 0]}
    path = build(CNN.replace("PADDING", "kernel_shape = [3, 3]"), **norm)
    assert removed(check_lossless(path)) == {"w1": (0, 3)}


def test_a_filter_that_reads_only_dead_channels_goes_with_them(build: Build) -> None:
    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w1", 0): [0, 2]})
        w2 = next(weight for weight in model.graph.initializer if weight.name == "w2")
        array = onnx.numpy_helper.to_array(w2).copy()
        array[5, [1, 3, 4, 5, 6, 7]] = 0
        w2.CopyFrom(onnx.numpy_helper.from_array(array, "w2"))

    path = build(CNN.replace("PADDING", "pads = [1, 1, 1, 1]"), **NORM, **BIAS, edit=edit)
    assert removed(check_lossless(path)) == {"w1": (0, 2), "w2": (5,)}


RESIDUAL = """
    net (float[batch, 3, 7, 7] x) => (float[batch, 2] y)
    <float[8, 3, 1, 1] w0, float[8] b0, float[8, 8, 3, 3] w1, float[8] b1, float[8, 8, 1, 1] w2, float[8] b2,
     float[8, 2] w3>
    {
        a = Conv(x, w0, b0)
        c = Conv<pads = [1, 1, 1, 1]>(a, w1, b1)  d = Relu(c)  e = Conv(d, w2, b2)
        s = Add(a, e)  r = Relu(s)
        g = GlobalAveragePool(r)  f = Flatten(g)  y = MatMul(f, w3)
    }
"""


def test_a_residual_channel_is_constant_only_if_all_its_producers_are(build: Build) -> None:
    """Channel 1: one producer; 2: both, constants add up; 3: both, but the padded reader sees a constant."""
    path = build(
        RESIDUAL,
        b0=[0, 0, 0, 1, 0, 0, 0, 0],
        b2=[0, 0, 3, 1, 0, 0, 0, 0],
        edit=killing({("w0", 0): [1, 2, 3], ("w2", 0): [2, 3], ("w1", 1): []}),
    )
    result = check_lossless(path)
    assert removed(result) == {"w0": (2,)}
    assert result.report.notes == ("w0: constant units stay (1), since Conv 'Conv_1' pads its input with zeros",)


def test_a_residual_channel_that_only_its_own_branch_reads_goes(build: Build) -> None:
    """A loop of units that read each other and nothing else."""

    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w3", 0): [4]})  # the end does not read channel 4
        for name, rows, columns in (("w1", [6], range(8)), ("w1", range(8), [4])):
            weight = next(weight for weight in model.graph.initializer if weight.name == name)
            array = onnx.numpy_helper.to_array(weight).copy()
            array[np.ix_(list(rows), list(columns))] = 0
            if columns == [4]:
                array[6, 4] = 1.0  # filter 6 reads channel 4
            weight.CopyFrom(onnx.numpy_helper.from_array(array, name))
        weight = next(weight for weight in model.graph.initializer if weight.name == "w2")
        array = onnx.numpy_helper.to_array(weight).copy()
        array[:, 6] = 0
        array[4, 6] = 1.0  # and writes it
        weight.CopyFrom(onnx.numpy_helper.from_array(array, "w2"))

    assert removed(check_lossless(build(RESIDUAL, edit=edit))) == {"w0": (4,), "w1": (6,)}


def test_concatenation_and_split_pass_constants_along(build: Build) -> None:
    path = build(
        """
        net (float[batch, 3, 5, 5] x) => (float[batch, 2, 5, 5] y, float[batch, 2, 5, 5] z)
        <float[4, 3, 1, 1] w0, float[4] b0, float[6, 3, 3, 3] w1, float[6] b1, float[2, 3, 1, 1] v, float[2, 7, 1, 1] u>
        {
            a = Conv(x, w0, b0)  b = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
            c = Concat<axis = 1>(a, b)  t = Tanh(c)
            p, q = Split<axis = 1>(t, sizes)
            y = Conv(p, v)  z = Conv(q, u)
        }
        """.replace("float[2, 3, 1, 1] v", "int64[2] sizes = {3, 7}, float[2, 3, 1, 1] v"),
        edit=killing({("w0", 0): [1, 3], ("w1", 0): [0, 5]}),
    )
    assert check_facts(path).keys() == {"a", "b", "c", "t", "p", "q"}
    assert removed(check_lossless(path)) == {"w0": (1,), "w1": (0, 5)}  # channel 3 of w0 is a part of its own


@pytest.mark.parametrize(("pads", "goes"), [([0, 0, 0, 0], (1, 2)), ([1, 1, 1, 1], (1,))])
def test_depthwise_convolution_keeps_constants_where_it_does_not_pad(
    build: Build, pads: list[int], goes: tuple[int, ...]
) -> None:
    """Channel 1 is zero, channel 2 a constant."""
    path = build(
        f"""
        net (float[batch, 3, 7, 7] x) => (float[batch, 2] y)
        <float[6, 3, 1, 1] w0, float[6] b0, float[6, 1, 3, 3] w1, float[6] b1, float[5, 6, 1, 1] w2, float[5, 2] w3>
        {{
            a = Conv(x, w0, b0)  r = Relu(a)  d = Conv<group = 6, pads = {pads}>(r, w1, b1)  s = Relu(d)
            e = Conv(s, w2)  g = GlobalMaxPool(e)  f = Flatten(g)  y = MatMul(f, w3)
        }}
        """,
        b0=[0, -1, 2, 1, 1, 1],
        b1=[0, 3, 3, 0, 0, 0],
        edit=killing({("w0", 0): [1, 2]}),
    )
    check_facts(path)
    assert removed(check_lossless(path)) == {"w0": goes}


def test_a_depthwise_filter_of_zeros_makes_its_channel_constant(build: Build) -> None:
    path = build(
        """
        net (float[batch, 3, 7, 7] x) => (float[batch, 2, 7, 7] y)
        <float[6, 3, 1, 1] w0, float[6, 1, 3, 3] w1, float[6] b1, float[2, 6, 1, 1] w2>
        { a = Conv(x, w0)  d = Conv<group = 6, pads = [1, 1, 1, 1]>(a, w1, b1)  y = Conv(d, w2) }
        """,
        edit=killing({("w1", 0): [4]}),
    )
    assert removed(check_lossless(path)) == {"w0": (4,)}


def test_groups_of_a_convolution_go_whole(build: Build) -> None:
    """Group 1 of 3 is dead; of group 2, whose two outputs are read, input 1 is not read."""

    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w2", 1): [2, 3]})
        kill(model, {("w0", 0): [0]})

    path = build(
        """
        net (float[batch, 3, 7, 7] x) => (float[batch, 2, 5, 5] y)
        <float[9, 3, 1, 1] w0, float[9] b0, float[6, 3, 3, 3] w1, float[6] b1, float[2, 6, 1, 1] w2>
        { a = Conv(x, w0, b0)  d = Conv<group = 3>(a, w1, b1)  r = Relu(d)  y = Conv(r, w2) }
        """,
        edit=edit,
    )
    assert removed(check_lossless(path)) == {"w0": (1,)}


POOLS = {
    "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>": (1, 2),
    "MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>": (1, 2),
    "AveragePool<kernel_shape = [3, 3]>": (1, 2),
    "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>": (1, 2),
    "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>": (1,),
    "LpPool<kernel_shape = [2, 2]>": (1,),
    "GlobalLpPool": (1,),
}


@pytest.mark.parametrize("pool", POOLS)
def test_pooling_of_a_constant_channel(build: Build, pool: str) -> None:
    """Channel 1 is zero, channel 2 a constant."""
    path = build(
        f"""
        net (float[batch, 3, 8, 8] x) => (float[batch, 2, a, b] y)
        <float[4, 3, 1, 1] w0, float[4] b0, float[2, 4, 1, 1] w1>
        {{ c = Conv(x, w0, b0)  r = Relu(c)  p = {pool}(r)  y = Conv(p, w1) }}
        """,
        b0=[0, -1, 2, 1],
        edit=killing({("w0", 0): [1, 2]}),
    )
    check_facts(path)
    assert removed(check_lossless(path)) == {"w0": POOLS[pool]}


def test_upsampling_transposed_convolutions_and_padding_nodes(build: Build) -> None:
    path = build(
        """
        net (float[batch, 3, 4, 4] x) => (float[batch, 2, e, f] y)
        <float[4, 3, 1, 1] w0, float[4] b0, float[4] scales = {1, 1, 2, 2}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1},
         float[4, 5, 2, 2] w1, float[5] b1, float[2, 5, 3, 3] w2>
        {
            a = Conv(x, w0, b0)  r = Relu(a)  u = Resize<mode = "linear">(r, , scales)
            [up] t = ConvTranspose<strides = [2, 2]>(u, w1, b1)  s = Relu(t)  p = Pad(s, pads)  y = Conv(p, w2)
        }
        """,
        b0=[0, -1, 2, 1],
        b1=[1, -1, 1, 1, 2],
        edit=killing({("w0", 0): [1, 2], ("w1", 1): [1, 4]}),
    )
    assert {"a", "r", "u", "t", "s", "p"} <= check_facts(path).keys()
    result = check_lossless(path)
    assert removed(result) == {"w0": (1,), "w1": (1,)}
    note = "w0: constant units stay (1), since ConvTranspose 'up' sees them through more taps in one place than"
    assert [each.removesuffix(" in another") for each in result.report.notes] == [note]


def test_zero_padded_shortcut(build: Build) -> None:
    """Of the eight channels the first and the last two get zeros from the shortcut."""
    path = build(
        """
        net (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
        <float[4, 3, 1, 1] w0, float[8, 4, 3, 3] w1, float[8] b1, float[2, 8, 3, 3] w2,
         int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}>
        { a = Conv(x, w0)  b = Conv<pads = [1, 1, 1, 1]>(a, w1, b1)  p = Pad(a, pads)  s = Add(b, p)  r = Relu(s)
          y = Conv<pads = [1, 1, 1, 1]>(r, w2) }
        """,
        b1=np.full(8, -1),
        edit=killing({("w1", 0): [0, 3, 7]}),
    )
    assert removed(check_lossless(path)) == {"w1": (0,), "w1#2": (1,)}


def test_a_gate_of_zero_closes_a_channel(build: Build) -> None:
    """Zero times anything is zero: of the product here, whichever side it is on."""
    path = build(
        """
        net (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
        <float[4, 3, 1, 1] w0, float[5, 4, 1, 1] w1, float[5] b1, float[4, 5, 1, 1] w2, float[4] b2,
         float[2, 4, 3, 3] w3>
        { a = Conv(x, w0)  g = GlobalAveragePool(a)  h = Conv(g, w1, b1)  i = Relu(h)  j = Conv(i, w2, b2)
          k = HardSigmoid(j)  m = Mul(a, k)  y = Conv<pads = [1, 1, 1, 1]>(m, w3) }
        """,
        b2=[0, -9, 0, 0],
        edit=killing({("w2", 0): [1]}),
    )
    assert "m" in check_facts(path)
    assert removed(check_lossless(path)) == {}  # channel 1 is read by the gates of the others
    killing_readers = build_again(path, {("w1", 1): [1]})
    assert removed(check_lossless(killing_readers)) == {"w0": (1,)}


def build_again(path: Path, entries: dict[tuple[str, int], Any]) -> Path:
    model = onnx.load(path)
    kill(model, entries)
    onnx.save(model, path)
    return path


def test_flattened_channels(build: Build) -> None:
    path = build(
        """
        net (float[batch, 3, 4, 4] x) => (float[batch, 2] y)
        <float[5, 3, 1, 1] w0, float[5] b0, float[80, 2] w1>
        { a = Conv(x, w0, b0)  r = Sigmoid(a)  f = Flatten(r)  y = Gemm(f, w1) }
        """,
        edit=killing({("w0", 0): [2], ("w1", 0): range(16)}),
    )
    assert removed(check_lossless(path)) == {"w0": (0, 2)}


# -- attention, recurrence, norms

ATTENTION = """
    net (float[batch, 5, 12] x) => (float[batch, 5, 12] y)
    <float[12, 12] wq, float[12, 12] wk, float[12, 12] wv, float[12] bv, float[12, 12] wo,
     int64[4] split = {0, 0, 3, 4}, int64[3] join = {0, 0, 12}>
    {
        q0 = MatMul(x, wq)  q1 = Reshape(q0, split)  q = Transpose<perm = [0, 2, 1, 3]>(q1)
        k0 = MatMul(x, wk)  k1 = Reshape(k0, split)  k = Transpose<perm = [0, 2, 3, 1]>(k1)
        v0 = MatMul(x, wv)  v1 = Add(v0, bv)  v2 = Reshape(v1, split)  v = Transpose<perm = [0, 2, 1, 3]>(v2)
        s = MatMul(q, k)  p = Softmax<axis = -1>(s)
        o0 = MatMul(p, v)  o1 = Transpose<perm = [0, 2, 1, 3]>(o0)  o = Reshape(o1, join)
        y = MatMul(o, wo)
    }
"""


def test_a_head_whose_values_are_zero_goes(build: Build) -> None:
    path = build(ATTENTION, bv=np.zeros(12), edit=killing({("wv", 1): range(4, 8)}))
    assert "o" in check_facts(path)
    assert removed(check_lossless(path)) == {"wq:heads": (1,)}


def test_entries_of_heads_go_where_queries_or_keys_are_zero(build: Build) -> None:
    """Entry 2 of every head, in the queries; entry 1 in the values; a constant value has to stay."""
    path = build(
        ATTENTION,
        bv=np.tile([0, 0, 0, 3], 3),
        edit=killing({("wq", 1): [2, 6, 10], ("wv", 1): [1, 5, 9, 3, 7, 11]}),
    )
    assert removed(check_lossless(path)) == {"wq:head-dim": (2,), "wv:head-dim": (1,)}


@pytest.mark.parametrize("norm", ["LayerNormalization<axis = -1>(x, one, zero)", "Identity(x)"])
def test_feed_forward_neurons_of_a_transformer(build: Build, norm: str) -> None:
    """Neuron 3 is gelu(b), neuron 5 is read by nobody; the residual stream is normalized and stays."""
    path = build(
        f"""
        net (float[batch, tokens, 6] x) => (float[batch, tokens, 6] y)
        <float[6] one, float[6] zero, float[6, 9] w1, float[9] b1, float[9, 6] w2, float[6] b2,
         float half = {{0.5}}, float root = {{1.4142135}}, float unit = {{1.0}}>
        {{
            n = {norm}  h0 = MatMul(n, w1)  h = Add(h0, b1)
            d = Div(h, root)  e = Erf(d)  f = Add(e, unit)  g = Mul(h, f)  i = Mul(g, half)
            o0 = MatMul(i, w2)  o = Add(b2, o0)  y = Add(x, o)
        }}
        """,
        edit=killing({("w1", 1): [3], ("w2", 0): [5]}),
    )
    assert "i" in check_facts(path)
    assert removed(check_lossless(path)) == {"w1": (3, 5)}


def test_gelu_as_one_operator(build: Build) -> None:
    text = MLP.replace("r = Relu(h)", 'r = Gelu<approximate = "tanh">(h)')
    assert removed(check_lossless(build(text, opset=20, edit=killing({("w1", 1): [3]})))) == {"w1": (3,)}


def test_units_under_a_norm_stay_and_are_named(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w1, float[8] scale, float[8] shift, float[8, 3] w2>
        { h = MatMul(x, w1)  n = LayerNormalization<axis = -1>(h, scale, shift)  y = MatMul(n, w2) }
        """,
        edit=killing({("w2", 0): [1, 2]}),
    )
    result = check_lossless(path)
    assert removed(result) == {}
    note = "w1: units without effect stay (2), since a norm takes statistics over them"
    assert result.report.notes[0] == note


LSTM = """
    net (float[7, batch, 5] x) => (float[7, batch, 3] y)
    <float[1, 24, 5] w, float[1, 24, 6] r, float[1, 48] b, int64[1] axes = {1}, float[6, 3] v>
    { o = LSTM<hidden_size = 6>(x, w, r, b)  s = Squeeze(o, axes)  y = MatMul(s, v) }
"""


def gates(count: int, units: int, *which: int) -> list[int]:
    """The rows of some units in the weights of a cell, of all its gates."""
    return [gate * units + unit for gate in range(count) for unit in which]


def test_hidden_units_of_an_lstm_go_only_if_nothing_reads_them(build: Build) -> None:
    """Unit 2 is read by the cell alone, unit 4 by nobody; unit 5 is zero, for its candidate is, whatever its gates."""
    zero = {("w", 1): [23], ("r", 1): [23], ("b", 1): [23, 47]}
    path = build(LSTM, edit=killing({("v", 0): [2, 4], ("r", 2): [4], **zero}))
    assert removed(check_lossless(path)) == {"w": (4, 5)}
    assert "o" in check_facts(path)


def test_last_states_of_units_that_are_zero_are_known_too(build: Build) -> None:
    """A network that reads the last states alone, of an LSTM that runs backwards."""
    path = build(
        """
        net (float[7, batch, 5] x) => (float[batch, 3] y)
        <float[1, 24, 5] w, float[1, 24, 6] r, float[1, 48] b, int64[1] axes = {0}, float[6, 3] v>
        { o, h, c = LSTM<hidden_size = 6, direction = "reverse">(x, w, r, b)
          k = Add(h, c)  s = Squeeze(k, axes)  y = MatMul(s, v) }
        """,
        edit=killing({("w", 1): [20], ("r", 1): [20], ("b", 1): [20, 44]}),
    )
    assert {"o", "h", "c", "k"} <= set(check_facts(path))
    assert removed(check_lossless(path)) == {"w": (2,)}


def test_a_candidate_that_reads_a_unit_or_a_bias_is_not_zero(build: Build) -> None:
    for zero in ({("w", 1): [23], ("r", 1): [23]}, {("w", 1): [23], ("b", 1): [23, 47]}, {("w", 1): [23]}):
        assert removed(check_lossless(build(LSTM, edit=killing(zero)))) == {}


def test_units_of_a_cell_that_only_each_other_read_go(build: Build) -> None:
    """Units 1 and 3 read each other; no other unit and nothing behind the cell reads them."""

    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("v", 0): [1, 3]})
        r = next(weight for weight in model.graph.initializer if weight.name == "r")
        array = onnx.numpy_helper.to_array(r).copy()
        others = [row for row in range(24) if row % 6 not in (1, 3)]
        array[:, np.ix_(others, [1, 3])[0], [1, 3]] = 0
        r.CopyFrom(onnx.numpy_helper.from_array(array, "r"))

    assert removed(check_lossless(build(LSTM, edit=edit))) == {"w": (1, 3)}


@pytest.mark.parametrize(("operator", "count"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_units_that_only_a_cell_reads_go_where_its_weights_are_zero(operator: str, count: int, build: Build) -> None:
    """A layer in front of a cell, a cell in front of a cell, and one that starts at zero."""
    path = build(
        f"""
        net (float[7, batch, 5] x) => (float[7, batch, 3] y)
        <float[5, 4] p, float[4] q, float[1, {6 * count}, 4] w, float[1, {6 * count}, 6] r, float[1, {12 * count}] b,
         float[1, {3 * count}, 6] w2, float[1, {3 * count}, 3] r2, int64[1] axes = {{1}}>
        {{ m = MatMul(x, p)  a = Add(m, q)  h = Tanh(a)  o = {operator}<hidden_size = 6>(h, w, r, b)
           s = Squeeze(o, axes)  k = {operator}<hidden_size = 3>(s, w2, r2)  y = Squeeze(k, axes) }}
        """,
        edit=killing({("w", 2): [1], ("w2", 2): [0, 5], ("r", 2): [0, 5]}),
    )
    assert removed(check_lossless(path)) == {"p": (1,), "w": (0, 5)}


def test_half_precision(build: Build) -> None:
    text = MLP.replace("float[", "float16[")
    path = build(text, edit=killing({("w1", 1): [0, 1, 4, 5]}))
    assert removed(check_lossless(path, tolerance=5e-3)) == {"w1": (0, 1, 4, 5)}


@pytest.mark.parametrize("half", ["y = MatMul(r, w2)", "m = MatMul(r, w2)  y = Neg(m)"])
def test_constants_are_folded_inside_branches(build: Build, half: str) -> None:
    path = build(
        f"""
        net (float[batch, 5] x, bool which) => (float[batch, 3] o)
        <float[5, 8] w1, float[8] b1, float[8, 3] w2, float[8, 3] w3>
        {{
            h = Gemm(x, w1, b1)  r = Sigmoid(h)
            o = If(which) <
                then_branch = left () => (float[batch, 3] y) {{ {half} }},
                else_branch = right () => (float[batch, 3] z) {{ z = Gemm(r, w3) }}
            >
        }}
        """,
        edit=killing({("w1", 1): [3, 4]}),
    )
    rng = np.random.default_rng(0)
    given = [{"x": rng.standard_normal((2, 5)).astype(np.float32), "which": np.array(which)} for which in (True, False)]
    assert removed(check_lossless(path, given)) == {"w1": (3, 4)}


# -- models that the project trained


@pytest.fixture
def digits_resnet(digits: dict[str, Path], tmp_path: Path) -> Callable[[float], Path]:
    """The residual network with every third scale of every batch normalization zeroed, and its shift set."""

    def write(shift: float) -> Path:
        model = onnx.load(digits["resnet"])
        for node in model.graph.node:
            if node.op_type == "BatchNormalization":
                size = next(list(weight.dims) for weight in model.graph.initializer if weight.name == node.input[1])[0]
                kill(model, {(node.input[1], 0): range(0, size, 3)})
                kill(model, {(node.input[2], 0): range(0, size, 3)}, shift)
        onnx.save(model, tmp_path / "resnet.onnx")
        return tmp_path / "resnet.onnx"

    return write


def test_digits_resnet_with_scales_of_zero(digits_resnet: Callable[[float], Path]) -> None:
    path = digits_resnet(0.0)
    assert check_facts(path)
    result = check_lossless(path)
    for removal in result.plan.removals:
        assert set(range(0, removal.units, 3)) <= set(removal.remove) | {0}
    assert len(result.plan.removals) == len(result.report.groups)


def test_digits_resnet_with_constants_behind_padding(digits_resnet: Callable[[float], Path]) -> None:
    path = digits_resnet(0.25)
    assert check_facts(path)
    assert any("pads its input with zeros" in note for note in check_lossless(path).report.notes)


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_trained_models_stay_whole(digits: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = tmp_path / digits[name].name
    path.write_bytes(digits[name].read_bytes())
    assert removed(check_lossless(path)) == {}
