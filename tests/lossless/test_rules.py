"""What the rules say to be constant is so in ONNX Runtime, and they say it where they should."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.ops.constants.base import RULES
from tests.conftest import Build
from tests.lossless.harness import check_facts, kill, killing

# `r` is [2, 6, 4, 5]: of its six channels 0 is zero, 1 is 2.5, 2 is 0.5, the others are not constant.
# Behind it: an operator, and how many numbers say what is constant in its output: one for each constant channel, more
# where constants differ along another axis as well.
CASES = {
    # entry by entry
    "Relu(r)": 3,
    "Mul(r, r)": 3,
    "Mul(r, x6)": 1,
    "Add(r, x6)": 0,
    "Div(x6, r)": 0,
    "Clip(r, low, high)": 3,
    "Where(mask, r, r)": 6,
    "Max(r, low, x6)": 0,
    "PRelu(r, slope)": 3,
    "Cast<to = 11>(r)": 3,
    "CastLike(r, low)": 3,
    "Log(r)": 2,
    "Reciprocal(r)": 2,
    "Floor(r)": 0,
    "Sign(r)": 0,
    "RandomNormalLike(r)": 0,
    "Dropout(r)": 3,
    "Dropout(r, low, yes)": 0,
    "Dropout(r, low, no)": 3,
    # norms
    "BatchNormalization(r, six, six, six, six)": 3,
    "BatchNormalization(r, gaps, six, six, six)": 4,
    "InstanceNormalization(r, six, six)": 1,
    "InstanceNormalization(r, gaps, six)": 2,
    "LayerNormalization<axis = 1>(r, small, small)": 0,
    "Softmax<axis = 1>(r)": 0,
    # reductions
    "ReduceMean<axes = [2, 3]>(r)": 3,
    "ReduceMax<axes = [-1], keepdims = 0>(r)": 3,
    "ReduceMin<axes = [0, 3]>(r)": 3,
    "ReduceSum(r, axes)": 1,
    "ReduceSum(r, none)": 0,
    "ReduceSum<noop_with_empty_axes = 1>(r, none)": 3,
    "ReduceL1<axes = [2]>(r)": 1,
    "ReduceL2<axes = [2, 3], keepdims = 0>(r)": 1,
    "ReduceSumSquare<axes = [3]>(r)": 1,
    "ReduceMean<axes = [1]>(r)": 0,
    # images
    "MaxPool<kernel_shape = [2, 2], pads = [1, 1, 1, 1]>(r)": 3,
    "MaxPool<kernel_shape = [1, 1], strides = [3, 3], ceil_mode = 1>(r)": 0,
    "MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(r)": 3,
    'MaxPool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_LOWER">(r)': 3,
    "MaxPool<kernel_shape = [2, 2], dilations = [2, 2]>(r)": 3,
    "MaxPool<kernel_shape = [2, 2], dilations = [3, 3], pads = [1, 1, 1, 1]>(r)": 0,
    "AveragePool<kernel_shape = [2, 2]>(r)": 3,
    "AveragePool<kernel_shape = [2, 2], pads = [1, 1, 0, 0]>(r)": 3,
    "AveragePool<kernel_shape = [2, 2], pads = [1, 1, 0, 0], count_include_pad = 1>(r)": 1,
    'AveragePool<kernel_shape = [2, 2], auto_pad = "SAME_UPPER", count_include_pad = 1>(r)': 1,
    "AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(r)": 1,
    "LpPool<kernel_shape = [2, 2]>(r)": 1,
    "GlobalAveragePool(r)": 3,
    "GlobalMaxPool(r)": 3,
    "GlobalLpPool(r)": 1,
    'Resize<mode = "nearest">(r, , scales)': 3,
    'Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(r, , scales)': 3,
    'Resize<mode = "cubic">(r, , scales)': 3,
    'Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize">(r, regions, scales)': 0,
    "Resize(r, none_f, scales)": 3,
    # entries move
    "Reshape(r, flat)": 3,
    "Reshape(r, mixed)": 60,
    "Flatten<axis = 2>(r)": 6,
    "Flatten(r)": 60,
    "Unsqueeze(r, axes)": 3,
    "Transpose<perm = [3, 1, 0, 2]>(r)": 3,
    "Transpose(r)": 3,
    "Expand(r, wide)": 3,
    "Tile(r, twice)": 6,
    "Tile(r, along)": 3,
    "Concat<axis = 1>(r, x6, r)": 6,
    "Concat<axis = 2>(r, r)": 24,
    "Concat<axis = 3>(r, x6)": 15,
    "Slice(r, one, four, axis1)": 2,
    "Slice(r, last, front, axis1, back)": 3,
    "Slice(r, one, four, axis3)": 3,
    "Pad(r, pads_channels)": 6,
    "Pad(r, pads_space)": 150,
    "Pad(r, pads_space, high)": 150,
    'Pad<mode = "edge">(r, pads_space)': 0,
    "Gather<axis = 1>(r, picks)": 3,
    "Gather<axis = 2>(r, picks)": 3,
    "Gather<axis = 3>(r, i)": 3,
    # sums
    "Conv(r, point, six)": 1,
    "Conv<pads = [0, 0, 1, 0]>(r, window, six)": 0,
    "Conv<group = 6>(r, depth, six)": 3,
    "Conv<group = 6, pads = [1, 1, 1, 1]>(r, depth, six)": 1,
    "ConvTranspose<group = 6, strides = [2, 2]>(r, depth, six)": 1,
    "Mod<fmod = 1>(r, low)": 0,
    "Shrink<lambd = 0.5>(r)": 0,
}
DECLARED = """
    float low = {0.25}, float high = {2.0}, bool yes = {1}, bool no = {0}, int64[0] none, float[0] none_f,
    int64[1] axes = {3},
    float[6] six = {1, 2, 3, 4, 5, 6}, float[6] gaps = {0, 1, 1, 1, 1, 0}, float[6, 4, 5] small, float[6, 1, 1] slope,
    bool[2, 6, 1, 1] mask, float[4] scales = {1, 1, 1.5, 2}, float[8] regions = {0, 0, 0, 0, 1, 1, 2, 2},
    int64[3] flat = {2, 6, 20}, int64[3] mixed = {2, 4, 30}, int64[5] wide = {1, 2, 6, 4, 5},
    int64[4] twice = {1, 2, 1, 1}, int64[4] along = {1, 1, 2, 3}, int64[1] one = {1}, int64[1] four = {4},
    int64[1] axis1 = {1}, int64[1] axis3 = {3}, int64[1] last = {-1}, int64[1] front = {-100}, int64[1] back = {-1},
    int64[8] pads_channels = {0, 1, 0, 0, 0, 2, 0, 0}, int64[8] pads_space = {0, 0, 1, 0, 0, 0, 0, 2},
    int64[3] picks = {1, 0, -4}, float[6, 6, 1, 1] point, float[6, 6, 2, 2] window, float[6, 1, 2, 2] depth
"""


def graph(body: str, weights: str = "") -> str:
    return f"""
        net (float[2, 3, 4, 5] x, int64[2] i) => (float[] y)
        <float[6, 3, 1, 1] w, float[6] b = {{0, 2.5, 0.5, 1, 2, 3}}, float[6, 3, 1, 1] w6, {DECLARED} {weights}>
        {{ r = Conv(x, w, b)  x6 = Conv(x, w6)  {body} }}
    """


@pytest.mark.parametrize("case", CASES)
def test_an_operator(build: Build, case: str) -> None:
    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w", 0): [0, 1, 2]})
        for weight in model.graph.initializer:
            if weight.name == "point":  # filter 3 reads channels 0 and 2 alone
                array = onnx.numpy_helper.to_array(weight).copy()
                array[3, [1, 3, 4, 5]] = 0
                weight.CopyFrom(onnx.numpy_helper.from_array(array, "point"))
        if "to = 11" in case:
            model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    path = build(graph(f"y = {case}"), opset=17 if "axes = [" in case else 18, edit=edit)
    facts = check_facts(path)
    assert int(facts["r"].known.sum()) == 3
    assert (int(facts["y"].known.sum()) if "y" in facts else 0) == CASES[case]


# The same for a few nodes, `y` last.
CHAINS = {
    "p, q = Split<axis = 1>(r, parts)  y = Concat<axis = 1>(q, p)": 3,
    "p, q = Split<axis = 2>(r, halves)  y = Mul(p, q)": 3,
    "g = GlobalAveragePool(r)  y = Squeeze(g, spatial)": 3,
    "m = ReduceMean<axes = [2, 3], keepdims = 0>(r)  y = MatMul(m, square)": 1,
    "m = ReduceMean<axes = [2, 3], keepdims = 0>(r)  y = Gemm<transB = 1, alpha = 2.0, beta = 3.0>(m, square, six)": 6,
    "m = ReduceMean<axes = [2, 3], keepdims = 0>(r)  c = GlobalMaxPool(x6)  d = Flatten(c)  y = Gemm(m, zeros, d)": 0,
    "t = Transpose<perm = [0, 2, 1, 3]>(r)  u = Transpose<perm = [0, 2, 3, 1]>(x6)  y = MatMul(u, t)": 0,
    "z = Mul(r, r)  t = Transpose<perm = [0, 1, 3, 2]>(x6)  y = MatMul(t, z)": 1,
    "z = Transpose<perm = [0, 1, 3, 2]>(r)  y = MatMul(x6, z)": 1,
}


@pytest.mark.parametrize("case", CHAINS)
def test_a_few_operators(build: Build, case: str) -> None:
    weights = """, int64[2] parts = {2, 4}, int64[2] halves = {2, 2}, int64[2] spatial = {2, 3},
        float[6, 6] square, float[6, 6] zeros"""

    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w", 0): [0, 1, 2], ("square", 1): [3, 4, 5] if "transB" in case else []})
        kill(model, {("zeros", 1): range(6)})
        kill(model, {("square", 1): [4]} if "MatMul(m" in case else {})

    facts = check_facts(build(graph(case, weights), edit=edit))
    assert (int(facts["y"].known.sum()) if "y" in facts else 0) == CHAINS[case]


def test_upsample(build: Build) -> None:
    path = build(
        """
        net (float[2, 3, 4, 5] x) => (float[] y)
        <float[6, 3, 1, 1] w, float[6] b, float[4] scales = {1, 1, 2, 2}>
        { r = Conv(x, w, b)  y = Upsample<mode = "linear">(r, scales) }
        """,
        opset=9,
        edit=killing({("w", 0): [0, 1, 2]}),
    )
    assert int(check_facts(path)["y"].known.sum()) == 3


def test_old_forms_with_attributes(build: Build) -> None:
    path = build(
        """
        net (float[2, 3, 4, 5] x) => (float[] y)
        <float[6, 3, 1, 1] w, float[6] b>
        {
            r = Conv(x, w, b)  s = Slice<axes = [1, 3], starts = [1, 1], ends = [5, 4]>(r)
            p, q = Split<axis = 1, split = [3, 1]>(s)  u = Unsqueeze<axes = [0]>(p)  v = Squeeze<axes = [0]>(u)
            c = Clip<min = 0.0>(v)  d, e = Dropout<ratio = 0.3>(c)
            y = Pad<pads = [0, 1, 0, 0, 0, 0, 0, 0], value = 3.0>(d)
        }
        """,
        opset=9,
        edit=killing({("w", 0): [0, 1, 2]}),
    )
    facts = check_facts(path)
    assert {name: int(fact.known.sum()) for name, fact in facts.items()} == {
        "r": 3, "s": 2, "p": 2, "u": 2, "v": 2, "c": 2, "d": 2, "y": 3,
    }  # fmt: skip


def test_a_dynamic_axis_tells_nothing_apart(build: Build) -> None:
    """What is constant for a batch of one size need not be for another: batch * heads, tokens before a sequence."""
    path = build(
        """
        net (float[batch, tokens, 3] x) => (float[batch, rest, 6] y)
        <float[3, 6] w, float[1, 2, 6] first, int64[2] both = {-1, 3}, int64[3] back = {0, -1, 6}, float[6, 6] v>
        {
            a = MatMul(x, w)  s = Shape<start = 0, end = 1>(x)  o = Constant<value_ints = [1, 1]>()
            t = Concat<axis = 0>(s, o)  e = Expand(first, t)
            c = Concat<axis = 1>(e, a)  h = Reshape(c, both)  b = Reshape(h, shape_of)  y = MatMul(b, v)
        }
        """.replace("b = Reshape(h, shape_of)", "z = Shape(c)  b = Reshape(h, z)"),
        edit=killing({("w", 1): [0, 4], ("first", 2): [0]}),
    )
    facts = check_facts(path)
    assert {name: int(fact.known.sum()) for name, fact in facts.items() if name in "acb"} == {"a": 2, "c": 1}


FUSED = {
    "Gelu(r)": 3,
    "BiasGelu(r, five)": 15,
    "FastGelu(r)": 3,
    "FastGelu(r, five)": 15,
    "QuickGelu(r)": 3,
    "QuickGelu<alpha = 1.0>(r)": 3,
    'FusedConv<activation = "Relu">(r, point, six)': 1,
    'FusedConv<activation = "HardSigmoid", activation_params = [0.2, 0.5]>(r, point, six)': 0,
    'FusedConv<activation = "Relu">(r, point, six, x6)': 0,
    'FusedGemm<activation = "Tanh", alpha = 2.0>(m, square, six)': 1,
    "FusedMatMul<alpha = 3.0>(m, square)": 1,
    "FusedMatMul<alpha = 3.0, transB = 1>(m, turned)": 1,
    "FusedMatMul<transA = 1>(m, rows)": 0,
}


@pytest.mark.parametrize("case", FUSED)
def test_operators_of_onnx_runtime(build: Build, case: str) -> None:
    weights = ", float[5] five, float[6, 6] square, float[6, 6] turned, float[2, 6] rows"

    def edit(model: onnx.ModelProto) -> None:
        kill(model, {("w", 0): [0, 1, 2], ("point", 0): [3], ("square", 1): [4], ("turned", 0): [4]})

    body = f"m = ReduceMean<axes = [2, 3], keepdims = 0>(r)  y = com.microsoft.{case}"
    path = build(graph(body, weights), opsets={"com.microsoft": 1}, edit=edit)
    facts = check_facts(path)
    assert (int(facts["y"].known.sum()) if "y" in facts else 0) == FUSED[case]


def test_every_rule_has_a_case() -> None:
    named = {case.partition("(")[0].partition("<")[0] for case in CASES}
    named |= {"Split", "Squeeze", "MatMul", "Gemm", "Upsample"}  # in the tests above
    named |= {"DequantizeLinear"}  # of weights: see test_quantized.py
    named |= {"LSTM", "GRU", "RNN"}  # see test_liveness.py
    assert {name for domain, name in RULES if domain == ""} <= named
    assert {name for domain, name in RULES if domain} <= {case.partition("(")[0].partition("<")[0] for case in FUSED}
