"""Recipes: what a random graph may be made of, a node or a small pattern of nodes each; see graph_strategies."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx

from tests.graph_net import INT64_MAX, LOCAL, MAX_RANK, MICROSOFT, Net, Tensor, UnfitError, info, recipe

# -- linear layers


@recipe("MatMul", "Add", weight=6)
def dense(net: Net) -> None:
    """A linear layer on the last axis."""
    x = net.pick()
    k, n = x.shape[net.static_axis(x) if x.rank == 1 else -1], net.size()
    if x.varies[-1]:
        raise UnfitError
    batch = (x.shape[-3],) if x.rank > 2 and not x.varies[-3] and net.coin(5) else ()
    y = net.node("MatMul", x, net.weight(*batch, k, n, fan_in=k), pooled=False)
    if net.coin():
        terms = net.shuffled([y, net.vector(n)])
        y = net.node("Add", *terms, pooled=False)
    net.node(net.among("Relu", "Identity", "Sigmoid", "Tanh"), y)


@recipe("MatMul", weight=2)
def mixing(net: Net) -> None:
    """A weight on the left: sums over the second to last axis."""
    x = net.pick(lambda x: not x.varies[-2], at_least=2)
    k, n = x.shape[-2], net.size()
    net.node("MatMul", net.weight(n, k, fan_in=k), x)


@recipe("Gemm", weight=3)
def gemm(net: Net) -> None:
    """All the transposes and shapes of the addend."""
    x = net.pick(lambda x: x.rank == 2)
    trans_a, trans_b = int(net.coin(4)), int(net.coin())
    k, m = x.shape[::-1] if not trans_a else x.shape
    if x.varies[0 if trans_a else 1]:
        raise UnfitError
    n = net.size()
    w = net.weight(*((n, k) if trans_b else (k, n)), fan_in=k)
    shapes = [(n,), (1, n), (1,), *([] if any(x.varies) else [(m, n), (m, 1)])]
    c = net.weight(*net.among(*shapes)) if net.opset >= 11 and net.coin() else net.vector(n)
    alpha, beta = net.among((1.0, 1.0), (0.5, 1.5))
    net.node("Gemm", x, w, c, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b)


@recipe("MatMul", "Transpose", weight=2)
def products(net: Net) -> None:
    """A product of two activations that come from the same value."""
    x = net.pick(at_least=2)
    k = x.shape[-1]
    if x.varies[-1]:
        raise UnfitError
    n = net.size()
    a = net.node("MatMul", x, net.weight(k, n, fan_in=k * n), pooled=False)
    b = net.node("MatMul", x, net.weight(k, n, fan_in=k), pooled=False)
    swapped = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    if net.coin():
        net.node("MatMul", a, net.node("Transpose", b, perm=swapped, pooled=False))
    else:
        net.node("MatMul", net.node("Transpose", a, perm=swapped, pooled=False), b)


@recipe("MatMul")
def meeting(net: Net) -> None:
    """A product of two values that happen to fit."""
    a = net.pick(at_least=2)
    b = net.pick(lambda b: b.shape[-2] == a.shape[-1] and a is not b, at_least=2)
    net.node("MatMul", net.node("Tanh", a, pooled=False), b)


@recipe("Einsum", weight=2)
def einsum(net: Net) -> None:
    """A weight or another value that shares some letters; the result has some of both in any order."""
    if net.opset < 12:
        raise UnfitError
    x = net.pick()
    letters = "abcdefgh"[: x.rank]
    shared = net.subset([letter for letter, varies in zip(letters, x.varies, strict=True) if not varies])
    sizes = dict(zip(letters, x.shape, strict=True)) | {"z": net.size()}
    other = "".join(net.shuffled([*shared, "z"]))
    gone = set(net.subset(shared))
    out = "".join(net.shuffled([letter for letter in (*letters, "z") if letter not in gone]))
    w = net.weight(*[sizes[letter] for letter in other], fan_in=prod(sizes[letter] for letter in gone))
    terms = net.shuffled([(letters, x), (other, w)])
    net.node("Einsum", *[value for _, value in terms], equation=", ".join(term for term, _ in terms) + f" -> {out}")


@recipe("Einsum", "Gather")
def einsum_of_two(net: Net) -> None:
    """Products of activations: rows with rows, summed over the last axis, or an outer product."""
    if net.opset < 12:
        raise UnfitError
    x = net.pick(lambda x: not x.varies[-1], at_least=2)
    batch = "abcdef"[: x.rank - 2]
    y = net.node("MatMul", x, net.weight(x.shape[-1], x.shape[-1], fan_in=x.shape[-1] ** 2), pooled=False)
    out = net.among("ij", "ji", "i", "j", "")
    if x.rank > 2 and net.coin(3):  # the rows of the first are those of all
        y = net.node("Gather", y, net.ints([0]), axis=x.rank - 3, pooled=False)
    net.node("Einsum", x, y, equation=f"{batch}ik,{batch}jk->{batch}{out}")


@recipe("FusedMatMul", weight=1)
def fused_matmul(net: Net) -> None:
    """MatMul of ONNX Runtime's own domain, with transposes inside."""
    x = net.pick(lambda x: not x.varies[-1], at_least=2)
    k, n = x.shape[-1], net.size()
    y = net.node("MatMul", x, net.weight(k, n, fan_in=k * n), pooled=False)
    net.node("FusedMatMul", y, x, transA=1, alpha=0.5, domain=MICROSOFT)


# -- convolutions, pooling


def image(net: Net) -> Tensor:
    """Something with batch, channels and space."""
    return net.pick(lambda x: not any(x.varies[1:]) and max(x.shape[2:]) > 1, at_least=3)


@recipe("Conv", weight=5)
def conv(net: Net) -> None:
    """Plain, grouped and depthwise convolutions."""
    x = image(net)
    c, rank = x.shape[1], x.rank - 2
    groups = net.among(1, 1, *_divisors(c))
    n = net.size() if groups == 1 else groups * net.integer(1, 3)
    kernel = [net.integer(1, 3) for _ in range(rank)]
    w = net.weight(n, c // groups, *kernel, fan_in=c // groups * prod(kernel))
    b = net.vector(n) if net.coin() else None
    pads = [net.integer(0, 1) for _ in range(2 * rank)]
    strides = [net.among(1, 1, 2) for _ in range(rank)]
    y = net.node("Conv", *[x, w, b][: 2 + (b is not None)], group=groups, pads=pads, strides=strides, pooled=False)
    net.node(net.among("Relu", "Identity", "HardSigmoid", "LeakyRelu"), y)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@recipe("ConvTranspose", weight=2)
def conv_transpose(net: Net) -> None:
    """The same, upwards."""
    x = image(net)
    c, rank = x.shape[1], x.rank - 2
    groups = net.among(1, *_divisors(c))
    n = net.size() if groups == 1 else net.integer(1, 3)
    kernel = [net.integer(1, 3) for _ in range(rank)]
    w = net.weight(c, n, *kernel, fan_in=c // groups * prod(kernel))
    b = [net.vector(n * groups)] if net.coin() else []
    strides = [net.among(1, 1, 2) for _ in range(rank)]
    net.node("ConvTranspose", x, w, *b, group=groups, strides=strides)


@recipe("DeformConv")
def deform_conv(net: Net) -> None:
    """Offsets from a convolution of their own, for all channels or for blocks of them; plain and grouped."""
    if net.opset < 19:
        raise UnfitError
    x = net.pick(lambda x: x.rank == 4 and not x.varies[1])
    c = x.shape[1]
    groups, blocks = net.among(*_divisors(c)), net.among(*_divisors(c))
    n = groups * net.integer(1, 3)
    offsets = net.node("Conv", x, net.weight(8 * blocks, c, 2, 2, fan_in=c * 99), pooled=False)
    w = net.weight(n, c // groups, 2, 2, fan_in=c // groups)
    net.node("DeformConv", x, w, offsets, kernel_shape=[2, 2], group=groups, offset_group=blocks)


@recipe("DFT")
def fourier(net: Net) -> None:
    """A global filter: into frequencies along one axis, weighted, and back."""
    if net.opset < 20:
        raise UnfitError
    x = net.pick(lambda x: not any(x.varies[1:]), at_least=2)
    last, axis = net.ints([x.rank]), net.ints(net.integer(1, x.rank - 1))
    spectrum = net.node("DFT", net.node("Unsqueeze", x, last, pooled=False), None, axis, pooled=False)
    weighted = net.node("Mul", spectrum, net.weight(*x.shape[1:], 2), pooled=False)
    back = net.node("DFT", weighted, None, axis, inverse=1, pooled=False)
    net.node("Gather", back, net.ints(0), axis=-1)


@recipe("AveragePool", "MaxPool", "LpPool", weight=2)
def pool(net: Net) -> None:
    """Windows."""
    x = image(net)
    op_type = net.among("AveragePool", "MaxPool", "LpPool")
    kernel = [min(net.integer(1, 2), size) for size in x.shape[2:]]
    net.node(op_type, x, kernel_shape=kernel, strides=[net.integer(1, 2) for _ in kernel])


@recipe("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(net: Net) -> None:
    """All of space."""
    net.node(net.among("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), image(net))


@recipe("DepthToSpace", "SpaceToDepth", weight=2)
def pixel_shuffle(net: Net) -> None:
    """Both directions; made to fit by a convolution in front."""
    x = net.pick(lambda x: x.rank == 4 and not any(x.varies[1:]))
    if net.coin() and x.shape[2] % 2 == x.shape[3] % 2 == 0:
        net.node("SpaceToDepth", x, blocksize=2)
        return
    n, c = 4 * net.integer(1, 3), x.shape[1]
    y = net.node("Conv", x, net.weight(n, c, 1, 1, fan_in=c), pooled=False)
    mode = {"mode": net.among("DCR", "CRD")} if net.opset >= 11 else {}
    net.node("DepthToSpace", y, blocksize=2, **mode)


@recipe("Resize", "Upsample")
def resize(net: Net) -> None:
    """Twice as large, by scales or by sizes."""
    x = net.pick(lambda x: x.rank == 4 and not any(x.varies[1:]))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32), "s")
    if net.opset < 10:
        net.node("Upsample", x, scales, mode="nearest")
        return
    if net.opset < 11:
        raise UnfitError
    roi = None if net.opset >= 13 else net.constant(np.zeros(0, np.float32), "s")
    if x.static and net.coin():
        empty = None if net.opset >= 13 else net.constant(np.zeros(0, np.float32), "s")
        net.node("Resize", x, roi, empty, net.ints([*x.shape[:2], *(2 * size for size in x.shape[2:])]))
    else:
        net.node("Resize", x, roi, scales)


@recipe("GridSample", "MaxRoiPool", "RoiAlign")
def sampling(net: Net) -> None:
    """Space is sampled at places that do not depend on the channels."""
    x = net.pick(lambda x: x.rank == 4 and x.static)
    op_type = net.among("GridSample", "MaxRoiPool", "RoiAlign")
    if op_type == "GridSample":
        if net.opset < 16:
            raise UnfitError
        grid = net.constant(np.asarray(net.rng.uniform(-0.9, 0.9, (x.shape[0], 3, 2, 2)), np.float32), "g")
        net.node("GridSample", x, grid)
    elif op_type == "MaxRoiPool":
        rois = net.constant(np.array([[0, 0, 0, 1, 1], [1, 0, 0, 2, 2]], np.float32), "g")
        net.node("MaxRoiPool", x, rois, pooled_shape=[2, 1])
    else:
        rois = net.constant(np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 1, 1, 2]], np.float32), "g")
        net.node("RoiAlign", x, rois, net.constant(np.array([0, 1, 1]), "g"), output_height=2, output_width=2)


@recipe("MaxPool", "MaxUnpool")
def unpool(net: Net) -> None:
    """There and back."""
    x = net.pick(lambda x: x.rank == 4 and min(x.shape[2:]) > 1 and not any(x.varies[1:]))
    y, places = net.nodes_of("MaxPool", x, count=2, kernel_shape=[2, 2], strides=[2, 2], pooled=False)
    net.node("MaxUnpool", y, places, kernel_shape=[2, 2], strides=[2, 2])


# -- normalizations; a large epsilon keeps rounding errors from being blown up


@recipe("BatchNormalization", weight=2)
def batch_normalization(net: Net) -> None:
    """Statistics from training."""
    x = net.pick(lambda x: not x.varies[1], at_least=2)
    c = x.shape[1]
    parameters = [net.vector(c, "positive"), net.vector(c), net.vector(c), net.vector(c, "positive")]
    net.node("BatchNormalization", x, *parameters, epsilon=0.1)


@recipe("InstanceNormalization")
def instance_normalization(net: Net) -> None:
    """Over space."""
    x = image(net)
    net.node("InstanceNormalization", x, net.vector(x.shape[1], "positive"), net.vector(x.shape[1]), epsilon=0.1)


@recipe("LayerNormalization", "RMSNormalization", weight=3)
def layer_normalization(net: Net) -> None:
    """Over the last one or two axes."""
    x = net.pick(lambda x: not x.varies[-1] and x.shape[-1] > 1)
    axis = -2 if x.rank > 2 and not x.varies[-2] and net.coin(3) else -1
    scale = net.vector(x.shape[-1], "positive") if axis == -1 else net.weight(*x.shape[-2:])
    bias = [net.vector(x.shape[-1]) if axis == -1 else net.weight(*x.shape[-2:])] if net.coin() else []
    axis = net.among(axis, axis + x.rank)
    kind = net.integer(0, 3)
    if kind == 3 and net.opset >= 23:
        net.node("RMSNormalization", x, scale, axis=axis, epsilon=0.1)
    elif net.opset >= 17:
        net.node("LayerNormalization", x, scale, *bias, axis=axis, epsilon=0.1)
    else:
        _layer_normalization_by_hand(net, x, scale)


def _layer_normalization_by_hand(net: Net, x: Tensor, scale: Tensor) -> None:
    """As exporters of older opsets write it: means of differences and of squares."""
    centred = net.node("Sub", x, net.node("ReduceMean", x, axes=[-1], pooled=False), pooled=False)
    squares = net.node("Pow", centred, net.scalar(2.0), pooled=False)
    variance = net.node("Add", net.node("ReduceMean", squares, axes=[-1], pooled=False), net.scalar(0.1), pooled=False)
    normal = net.node("Div", centred, net.node("Sqrt", variance, pooled=False), pooled=False)
    net.node("Mul", normal, scale)


@recipe("GroupNormalization")
def group_normalization(net: Net) -> None:
    """Over the channels of a group and space."""
    if net.opset < 21:
        raise UnfitError
    x = image(net)
    c = x.shape[1]
    groups = net.among(*_divisors(c))
    net.node("GroupNormalization", x, net.vector(c, "positive"), net.vector(c), num_groups=groups, epsilon=0.1)


@recipe("LpNormalization", "MeanVarianceNormalization", "LRN")
def other_normalization(net: Net) -> None:
    """Those without parameters."""
    op_type = net.among("LpNormalization", "MeanVarianceNormalization", "LRN")
    if op_type == "LpNormalization":
        x = net.pick()
        shifted = net.node("Add", net.node("Abs", x, pooled=False), net.scalar(0.5), pooled=False)
        net.node(op_type, shifted, axis=net.static_axis(x), p=net.integer(1, 2))
    elif op_type == "LRN":
        net.node(op_type, net.pick(lambda x: x.rank == 4), size=3)
    else:
        x = net.pick(lambda x: prod(x.shape[1:]) > 4, at_least=2)
        noisy = net.node("Add", x, net.weight(*x.shape[1:]), pooled=False) if not any(x.varies[1:]) else x
        net.node(op_type, noisy, axes=list(range(1, x.rank)))


@recipe("SkipLayerNormalization")
def skip_layer_normalization(net: Net) -> None:
    """ONNX Runtime's fusion of a residual sum and its norm."""
    x = net.pick(lambda x: x.rank == 3 and not x.varies[-1] and x.shape[-1] > 1)
    h = x.shape[-1]
    y = net.node("MatMul", x, net.weight(h, h, fan_in=h), pooled=False)
    vectors = [net.vector(h, "positive"), net.vector(h), net.vector(h)]
    net.nodes_of("SkipLayerNormalization", y, x, *vectors, count=4, skip=(1, 2), epsilon=0.1, domain=MICROSOFT)


@recipe("Softmax", "LogSoftmax", "Hardmax", weight=2)
def softmax(net: Net) -> None:
    """Along any axis."""
    x = net.pick()
    axis = net.static_axis(x)
    net.node(net.among("Softmax", "LogSoftmax", "Hardmax"), x, axis=axis if net.opset < 13 else axis - x.rank)


# -- element by element

SMOOTH = (
    *("Relu", "Sigmoid", "Tanh", "Identity", "Neg", "Abs", "Erf", "Sin", "Cos", "Atan", "Elu", "Selu", "Celu"),
    *("LeakyRelu", "HardSigmoid", "Softplus", "Softsign", "ThresholdedRelu", "Shrink", "Cosh", "Sinh", "Exp", "Asinh"),
)
SINCE = {"ThresholdedRelu": 10, "Celu": 12, "HardSwish": 14, "Mish": 18, "Gelu": 20, "Swish": 24}
NEWER = ("HardSwish", "Mish", "Gelu", "Swish")
BOUNDED = ("Acos", "Asin", "Atanh", "Tan")
POSITIVE = ("Log", "Sqrt", "Reciprocal")
STEPS = ("Ceil", "Floor", "Round", "Sign")


@recipe(*SMOOTH, *NEWER, *BOUNDED, *POSITIVE, "Acosh", *STEPS, weight=4)
def unary(net: Net) -> None:
    """A function of one value, on the range where it is defined and away from its steps."""
    op_type = net.among(*SMOOTH, *NEWER, *BOUNDED, *POSITIVE, "Acosh", *STEPS)
    x = net.pick()
    if SINCE.get(op_type, 0) > net.opset or (op_type == "Round" and net.opset < 11):
        raise UnfitError
    if op_type in BOUNDED:
        x = net.node("Mul", net.node("Tanh", x, pooled=False), net.scalar(0.9), pooled=False)
    elif op_type in POSITIVE:
        x = net.node("Add", net.node("Sigmoid", x, pooled=False), net.scalar(0.5), pooled=False)
    elif op_type == "Acosh":
        x = net.node("Add", net.node("Abs", x, pooled=False), net.scalar(1.5), pooled=False)
    elif op_type in STEPS:
        x = net.node("Add", x, net.scalar(0.2931), pooled=False)
    net.node(op_type, x)


@recipe("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean", "PRelu", "Mod", weight=4)
def binary_with_weight(net: Net) -> None:
    """With a constant of fewer axes, or with axes of size 1."""
    x = net.pick()
    start = net.integer(0, x.rank)
    shape = [1 if varies or net.coin(3) else size for size, varies in zip(x.shape, x.varies, strict=True)][start:]
    op_type = net.among("Add", "Mul", "Sub", "Max", "Min", "Div", "Pow", "Sum", "Mean", "PRelu", "Mod")
    if op_type == "PRelu":
        net.node(op_type, x, net.weight(*shape))
        return
    w = net.weight(*shape)
    if op_type in ("Div", "Pow", "Mod"):
        w = net.constant(np.asarray(net.rng.random(shape) + 1.0, np.float32), "w")
    if op_type == "Pow":
        net.node(op_type, net.node("Sigmoid", x, pooled=False), w)
    elif op_type == "Mod":
        net.node(op_type, x, w, fmod=1)
    elif op_type == "Div":
        net.node(op_type, x, w)
    else:
        net.node(op_type, *net.shuffled([x, w]))


@recipe("Add", "Mul", "Sub", "Max", "Min", "Div", "Sum", "Mean", "Where", "Greater", weight=6)
def binary(net: Net) -> None:
    """Two values that broadcast."""
    x = net.pick()
    y = net.pick(lambda y: _broadcasts(x, y) and y is not x)
    op_type = net.among("Add", "Mul", "Sub", "Max", "Min", "Div", "Sum", "Mean", "Where")
    x, y = net.shuffled([x, y])
    if op_type == "Div":
        y = net.node("Add", net.node("Abs", y, pooled=False), net.scalar(1.0), pooled=False)
    elif op_type == "Mul":
        y = net.node("Tanh", y, pooled=False)
    elif op_type == "Where":
        net.node("Where", net.node("Greater", x, net.scalar(0.3729)), x, y)
        return
    net.node(op_type, x, y)


def _broadcasts(x: Tensor, y: Tensor) -> bool:
    pairs = list(zip(reversed(x.shape), reversed(y.shape), strict=False))
    return all(a == b or 1 in (a, b) for a, b in pairs)


@recipe("Add", "MatMul", weight=3)
def residual(net: Net) -> None:
    """x + f(x), through a layer of another width."""
    x = net.pick(lambda x: not x.varies[-1])
    k, n = x.shape[-1], net.size()
    h = net.node("MatMul", x, net.weight(k, n, fan_in=k), pooled=False)
    h = net.node(net.among("Relu", "Sigmoid", "Tanh"), h, pooled=False)
    h = net.node("MatMul", h, net.weight(n, k, fan_in=n), pooled=False)
    net.node("Add", *net.shuffled([x, h]))


@recipe("Conv", "Mul", "GlobalAveragePool")
def squeeze_excite(net: Net) -> None:
    """Channels gated by what all of space says."""
    x = image(net)
    c, n, ones = x.shape[1], net.size(), [1] * (x.rank - 2)
    h = net.node("GlobalAveragePool", x, pooled=False)
    h = net.node("Relu", net.node("Conv", h, net.weight(n, c, *ones, fan_in=c), pooled=False), pooled=False)
    gate = net.node("Conv", h, net.weight(c, n, *ones, fan_in=n), net.vector(c), pooled=False)
    net.node("Mul", *net.shuffled([x, net.node("Sigmoid", gate, pooled=False)]))


COMPARE = ("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual")


@recipe(*COMPARE, "And", "Or", "Xor", "Not", "Where", "IsNaN", "IsInf")
def logic(net: Net) -> None:
    """Comparisons, put together and used to choose."""
    x = net.pick()
    compare = [net.among(*COMPARE) for _ in range(2)]
    a, b = (net.node(op_type, x, net.scalar(0.3729 * (i + 1))) for i, op_type in enumerate(compare))
    both = net.node(net.among("And", "Or", "Xor"), a, b)
    kind = net.integer(0, 2)
    if kind == 1:
        both = net.node("Not", both)
    elif kind == 2:
        both = net.node("Or", both, net.node(net.among("IsNaN", "IsInf"), x))
    net.node("Where", both, x, net.among(net.scalar(0.25), net.node("Neg", x, pooled=False)))


@recipe("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "Cast")
def bits(net: Net) -> None:
    """On what is left of a value after it was rounded to small numbers."""
    x = net.node("Add", net.pick(), net.scalar(3.2931), pooled=False)
    unsigned = net.node("Cast", net.node("Abs", x, pooled=False), to=onnx.TensorProto.UINT8)
    op_type = net.among("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")
    two = net.constant(np.array(2, np.uint8), "i")
    if op_type == "BitShift":
        made = net.node(op_type, unsigned, two, direction="LEFT")
    elif op_type == "BitwiseNot":
        made = net.node(op_type, unsigned)
    else:
        made = net.node(op_type, unsigned, two)
    net.node("Mul", net.node("Cast", made, to=onnx.TensorProto.FLOAT, pooled=False), net.scalar(0.05))


@recipe("Clip", "Dropout", "CastLike", "Cast")
def harmless(net: Net) -> None:
    """What has forms of its own in several opsets."""
    op_type = net.among("Clip", "Dropout", "CastLike", "Cast")
    x = net.pick()
    if op_type == "Clip":
        bounds = (net.scalar(-1.0), net.scalar(1.5))
        net.node("Clip", x, *bounds) if net.opset >= 11 else net.node("Clip", x, min=-1.0, max=1.5)
    elif op_type == "Dropout":
        net.nodes_of("Dropout", x, count=net.integer(1, 2))
    elif op_type == "Cast":
        double = net.node("Cast", x, to=onnx.TensorProto.DOUBLE)
        net.node("Cast", net.node("Add", double, double), to=onnx.TensorProto.FLOAT)
    elif net.opset >= 15:
        net.node("CastLike", net.node("Cast", x, to=onnx.TensorProto.DOUBLE), net.pick())


@recipe("BiasGelu", "FastGelu", "QuickGelu")
def fused_activation(net: Net) -> None:
    """ONNX Runtime's own."""
    x = net.pick(lambda x: not x.varies[-1])
    op_type = net.among("BiasGelu", "FastGelu", "QuickGelu")
    bias = [net.vector(x.shape[-1])] if op_type == "BiasGelu" or (op_type == "FastGelu" and net.coin()) else []
    net.node(op_type, x, *bias, domain=MICROSOFT)


# -- axes that move


@recipe("Transpose", weight=3)
def transpose(net: Net) -> None:
    """Any order, or none said."""
    x = net.pick(at_least=2)
    order = {} if net.coin(4) else {"perm": net.shuffled(range(x.rank))}
    net.node("Transpose", x, **order)


@dataclass(frozen=True)
class Axis:
    """An axis of a Reshape's target: its size, and the axes of the input that it is the product of, if it is."""

    size: int
    sources: tuple[int, ...] | None


@recipe("Reshape", "Shape", "Gather", "Concat", weight=7)
def reshape(net: Net) -> None:
    """Axes merged and split again, by a target of constants, or one that is computed from the shape."""
    x = net.pick()
    axes = [Axis(size, (i,)) for i, size in enumerate(x.shape)]
    for _ in range(net.integer(1, 3)):
        axes = _regrouped(net, x, axes)
    if len(axes) > MAX_RANK:
        raise UnfitError
    net.node("Reshape", x, _target(net, x, axes))


def _regrouped(net: Net, x: Tensor, axes: list[Axis]) -> list[Axis]:
    """Merge two neighbours, split one, or put in an axis of size 1."""
    kind = net.integer(0, 4)
    at = net.integer(0, len(axes) - 1)
    if kind < 2 and len(axes) > 1:
        at = min(at, len(axes) - 2)
        a, b = axes[at : at + 2]
        sources = None if a.sources is None or b.sources is None else a.sources + b.sources
        return [*axes[:at], Axis(a.size * b.size, sources), *axes[at + 2 :]]
    if kind < 4:
        varies = axes[at].sources is not None and any(x.varies[i] for i in axes[at].sources or ())
        outer = net.among(*(d for d in _divisors(axes[at].size) if d > 1 or axes[at].size == 1))
        inner = Axis(axes[at].size // outer, None)
        if varies:  # split what is static off the back
            static = [i for i in axes[at].sources or () if not x.varies[i]]
            if not static or len(axes[at].sources or ()) == len(static):
                raise UnfitError
            raise UnfitError
        return [*axes[:at], Axis(outer, None), inner, *axes[at + 1 :]]
    return [*axes[:at], Axis(1, None), *axes[at:]]


def _target(net: Net, x: Tensor, axes: list[Axis]) -> Tensor:
    """The entries of the target: numbers, 0, one -1, or numbers computed from the shape of the input."""
    free = net.integer(0, 2 * len(axes))  # which one is -1, if any
    entries: list[int | tuple[int, ...]] = []
    for place, axis in enumerate(axes):
        varies = any(x.varies[i] for i in axis.sources or ())
        if place == free:
            entries.append(-1)
        elif axis.sources == (place,) and (varies or net.coin()) and net.coin(2):
            entries.append(0)
        elif axis.sources is not None and (varies or net.coin(4)):
            entries.append(axis.sources)
        else:
            entries.append(axis.size)
    if all(isinstance(entry, int) for entry in entries):
        return net.ints([entry for entry in entries if isinstance(entry, int)])
    sizes = net.node("Shape", x)
    pieces = [_entry(net, sizes, entry) for entry in entries]
    ahead = next((i for i, entry in enumerate(entries) if entry != (i,)), len(entries))
    if ahead and net.coin() and net.opset >= 10:  # the entries that are copied, in one piece
        pieces[:ahead] = [net.node("Slice", sizes, net.ints([0]), net.ints([ahead]))]
    return net.node("Concat", *pieces, axis=0)


def _entry(net: Net, sizes: Tensor, entry: int | tuple[int, ...]) -> Tensor:
    """One number as a vector: a constant, or a product of entries of a shape; divided and multiplied again, perhaps."""
    if isinstance(entry, int):
        return net.ints([entry])
    parts = [net.node("Gather", sizes, net.ints([i]), axis=0) for i in entry]
    made = parts[0]
    for part in parts[1:]:
        made = net.node("Mul", made, part)
    size = made.arrays[0].item()
    if net.coin(4) and all(array.item() % size == 0 for array in made.arrays):
        by = net.ints([net.among(*_divisors(size))])
        made = net.node("Mul", net.node("Div", made, by), by)
    return made


@recipe("Slice", "Shape", "Gather", "Add")
def position_table(net: Net) -> None:
    """The first rows of a table, as many as there are positions."""
    x = net.pick(lambda x: not x.varies[-1] and x.shape[-2] <= 12, at_least=2)
    if net.opset < 10:
        raise UnfitError
    length = net.node("Gather", net.node("Shape", x), net.ints([x.rank - 2]), axis=0)
    rows = net.node("Slice", net.weight(12, x.shape[-1]), net.ints([0]), length, net.ints([0]), pooled=False)
    net.node("Add", *net.shuffled([x, rows]))


@recipe("Resize", "Shape", "Concat")
def resize_onto(net: Net) -> None:
    """To twice the size of another value, computed, as in a feature pyramid."""
    x = net.pick(lambda x: x.rank == 4 and not any(x.varies[1:]))
    if net.opset < 13:
        raise UnfitError
    sizes = net.node("Shape", x)
    ahead = net.node("Slice", sizes, net.ints([0]), net.ints([2]))
    space = net.node("Mul", net.node("Slice", sizes, net.ints([2]), net.ints([4])), net.ints([2, 2]))
    net.node("Resize", x, None, None, net.node("Concat", ahead, space, axis=0), mode="nearest")


@recipe("Shape", "Div", "Split")
def halves(net: Net) -> None:
    """An axis cut in the middle, wherever that is: by sizes, or by bounds computed from the shape."""
    x = net.pick(lambda x: not x.varies[-1] and x.shape[-1] % 2 == 0)
    if net.opset < 13:
        raise UnfitError
    whole = net.node("Gather", net.node("Shape", x), net.ints([x.rank - 1]), axis=0)
    half = net.node("Div", whole, net.ints([2]))
    if net.coin():
        a, b = net.nodes_of("Split", x, net.node("Concat", half, half, axis=0), count=2, axis=-1)
    else:
        a = net.node("Slice", x, net.ints([0]), half, net.ints([-1]), pooled=False)
        b = net.node("Slice", x, half, whole, net.ints([-1]), pooled=False)
    net.node("Mul", net.node("Sigmoid", a, pooled=False), b)


@recipe("Flatten")
def flatten(net: Net) -> None:
    """Into two axes."""
    x = net.pick()
    net.node("Flatten", x, axis=net.integer(0, x.rank))


@recipe("Squeeze", "Unsqueeze", weight=2)
def ones(net: Net) -> None:
    """Axes of size 1 come and go."""
    x = net.pick()
    single = [axis for axis, size in enumerate(x.shape) if size == 1]
    if single and net.coin():
        if net.coin(3):
            net.node("Squeeze", x)
        else:
            net.with_ints("Squeeze", x, "axes", net.subset(single), 13)
    else:
        axes = sorted({net.integer(0, x.rank), net.integer(0, x.rank)})
        net.with_ints("Unsqueeze", x, "axes", axes, 13)


@recipe("Expand", "Unsqueeze", weight=2)
def expand(net: Net) -> None:
    """A new axis of copies, to a constant or a computed shape, as for grouped queries."""
    x = net.pick(lambda x: prod(x.shape) < 1000)
    at, n = net.integer(0, x.rank), net.integer(2, 3)
    y = net.with_ints("Unsqueeze", x, "axes", [at], 13, pooled=False)
    if x.static and net.coin():
        target = net.ints([*x.shape[:at], n, *x.shape[at:]])
    elif net.coin() or not x.static:
        target = net.ints([1] * at + [n] + [1] * (x.rank - at))
    else:
        sizes = net.node("Shape", x)
        parts = [net.node("Gather", sizes, net.ints([i]), axis=0) for i in range(x.rank)]
        target = net.node("Concat", *parts[:at], net.ints([n]), *parts[at:], axis=0)
    net.node("Expand", y, target)


@recipe("Expand", "Shape")
def expand_onto(net: Net) -> None:
    """A value with axes of size 1, to the shape of another."""
    y = net.pick()
    x = net.pick(lambda x: x is not y and x.rank <= y.rank and _broadcasts(x, y))
    net.node("Expand", x, net.node("Shape", y))


@recipe("Tile")
def tile(net: Net) -> None:
    """Copies after each other."""
    x = net.pick(lambda x: prod(x.shape) < 1000)
    net.node("Tile", x, net.ints([1 if varies else net.among(1, 1, 2, 3) for varies in x.varies]))


@recipe("ConstantOfShape", "Shape", "Add")
def filler_of_computed_shape(net: Net) -> None:
    """Ones in the shape of a value, or of some of its axes."""
    x = net.pick()
    sizes = net.node("Shape", x)
    value = onnx.numpy_helper.from_array(np.array([0.5], np.float32))
    net.node("Add", x, net.node("ConstantOfShape", sizes, value=value, pooled=False))


@recipe("Shape", "Gather", "Cast", "Sqrt", "Div")
def scale_from_shape(net: Net) -> None:
    """As attention's scale is written: a number that follows from a size."""
    x = net.pick()
    size = net.node("Gather", net.node("Shape", x), net.ints(net.integer(0, x.rank - 1)), axis=0)
    number = net.node("Cast", size, to=onnx.TensorProto.FLOAT, pooled=False)
    net.node("Div", x, net.node("Sqrt", number, pooled=False))


@recipe("Size", "Cast", "Mul")
def number_of_entries(net: Net) -> None:
    """How many there are, as a number."""
    x = net.pick()
    number = net.node("Cast", net.node("Size", x), to=onnx.TensorProto.FLOAT, pooled=False)
    net.node("Div", net.node("Mul", x, number, pooled=False), net.scalar(float(prod(x.shape))))


# -- parts of axes


@recipe("Concat", weight=4)
def concat(net: Net) -> None:
    """With a value that fits, with itself, or with a constant (a class token)."""
    x = net.pick()
    axis = net.static_axis(x)
    fitting = [y for y in net.pool if _fits_beside(x, y, axis)]
    parts = [x, net.among(*fitting)]
    if x.static and net.coin(3):
        parts[1] = net.weight(*[net.integer(1, 3) if i == axis else size for i, size in enumerate(x.shape)])
    net.node("Concat", *net.shuffled(parts), axis=net.either_sign(axis, x.rank) if net.opset >= 11 else axis)


def _fits_beside(x: Tensor, y: Tensor, axis: int) -> bool:
    return x.rank == y.rank and all(a == b or i == axis for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)))


@recipe("Split", weight=4)
def split(net: Net) -> None:
    """Into equal or unequal parts, in the forms of all opsets."""
    x = net.pick()
    axis = net.static_axis(x, lambda size: size > 1)
    size = x.shape[axis]
    equal = net.among(*_divisors(size)[1:]) if net.coin() else 0
    sizes = [size // equal] * equal if equal else _composition(net, size)
    if len(sizes) > 6:
        raise UnfitError
    axis = net.either_sign(axis, x.rank) if net.opset >= 11 else axis
    if equal and net.coin():
        count = {"num_outputs": equal} if net.opset >= 18 else {}
        net.nodes_of("Split", x, count=equal, axis=axis, **count)
    elif net.opset >= 13:
        net.nodes_of("Split", x, net.ints(sizes), count=len(sizes), axis=axis)
    else:
        net.nodes_of("Split", x, count=len(sizes), axis=axis, split=sizes)


def _composition(net: Net, size: int) -> list[int]:
    """Two or three parts."""
    first = net.integer(1, size - 1)
    rest = size - first
    if rest > 1 and net.coin():
        second = net.integer(1, rest - 1)
        return [first, second, rest - second]
    return [first, rest]


@recipe("Slice", weight=5)
def slice_(net: Net) -> None:
    """Forward, from the back, beyond the end, strided, backwards; one or two axes."""
    x = net.pick()
    axes = net.subset([axis for axis in range(x.rank) if not x.varies[axis] or net.coin(8)])[:2]
    bounds = [_bounds(net, x.shape[axis]) for axis in axes]
    starts, ends, steps = (list(numbers) for numbers in zip(*bounds, strict=True))
    if net.opset < 10:
        if any(step != 1 for step in steps):
            raise UnfitError
        net.node("Slice", x, starts=starts, ends=ends, axes=axes)
        return
    dtype = np.int32 if max(map(abs, (*starts, *ends))) < 2**31 and net.coin() else np.int64
    given = [starts, ends, [net.either_sign(axis, x.rank) for axis in axes], steps]
    if steps == [1] * len(steps) and net.coin():
        given.pop()
    net.node("Slice", x, *[net.ints(numbers, dtype) for numbers in given])


def _bounds(net: Net, size: int) -> tuple[int, int, int]:
    start, stop = net.integer(0, size - 1), net.integer(1, size)
    kind = net.integer(0, 7)
    if kind < 3 and start < stop:
        return net.among(start, start - size), net.among(stop, stop - size if stop < size else size), 1
    if kind == 3:
        return start, net.among(INT64_MAX, 2**31 - 1, size + 3), 1
    if kind == 4:
        return net.among(0, -size, -size - 5), stop, 1
    if kind == 5:
        step = net.among(*_divisors(size))
        return net.integer(0, step - 1), net.among(size, INT64_MAX), step
    if kind == 6:
        return -1, -INT64_MAX, -1
    return start, INT64_MAX, net.integer(1, 3)


@recipe("Gather", weight=4)
def gather(net: Net) -> None:
    """At constant places: one, some, some twice, in two dimensions; a permutation, as in a channel shuffle."""
    x = net.pick()
    axis = net.static_axis(x)
    size = x.shape[axis]
    kind = net.integer(0, 4)
    if kind == 0:
        places: Any = net.integer(-size, size - 1)
    elif kind == 1:
        places = [net.integer(-size, size - 1) for _ in range(net.integer(1, 4))]
    elif kind == 2:
        places = net.shuffled(range(size))
    elif kind == 3:
        places = list(range(net.integer(0, size - 1), size)) or [0]
    else:
        places = [[net.integer(0, size - 1) for _ in range(2)] for _ in range(net.integer(1, 2))]
    dtype = np.int32 if net.coin(4) else np.int64
    axis = net.either_sign(axis, x.rank) if net.opset >= 11 else axis
    net.node("Gather", x, net.ints(places, dtype), axis=axis)


@recipe("Gather", weight=2)
def embedding(net: Net) -> None:
    """Rows of a table, looked up by an input."""
    batch: int | str = "N" if net.dynamic else 2
    ids = net.input([batch, net.size()], onnx.TensorProto.INT64)
    try:
        net.node("Gather", net.weight(net.integer(2, 6), net.size()), ids)
    except UnfitError:
        net.inputs.pop()
        raise


@recipe("Pad", weight=3)
def pad(net: Net) -> None:
    """Before and after, with a value or with copies; sometimes cropping."""
    x = net.pick()
    amounts = [0 if x.varies[i % x.rank] else net.among(0, 0, 1, 2) for i in range(2 * x.rank)]
    mode = net.among("constant", "constant", "constant", "reflect", "edge")
    if mode == "constant" and net.coin(6):
        amounts[net.integer(0, x.rank - 1)] = -1
    if net.opset < 11:
        net.node("Pad", x, pads=amounts, mode=mode, value=0.5)
        return
    value = [net.scalar(0.5)] if net.coin() else []
    if net.opset >= 18 and net.coin(3):
        axis = net.static_axis(x)
        net.node("Pad", x, net.ints([1, 2]), net.scalar(0.5), net.ints([axis]), mode=mode)
    else:
        net.node("Pad", x, net.ints(amounts), *value, mode=mode)


@recipe("Pad", "Add", "Conv")
def padded_shortcut(net: Net) -> None:
    """Channels padded with zeros until they fit a wider layer."""
    x = image(net)
    c, front, back = x.shape[1], net.integer(0, 2), net.integer(1, 3)
    amounts = [0] * (2 * x.rank)
    amounts[1], amounts[x.rank + 1] = front, back
    n = front + c + back
    h = net.node("Conv", x, net.weight(n, c, *[1] * (x.rank - 2), fan_in=c), pooled=False)
    padded = net.with_ints("Pad", x, "pads", amounts, 11, pooled=False)
    net.node("Add", *net.shuffled([h, padded]))


@recipe("GatherElements", "ScatterElements", "Scatter", "GatherND", "ScatterND", "TensorScatter")
def by_position(net: Net) -> None:
    """Reads and writes at constant places."""
    x = net.pick(lambda x: x.static and x.shape[0] > 1)
    op_type = net.among("GatherElements", "ScatterElements", "GatherND", "ScatterND", "TensorScatter")
    since = {"GatherElements": 11, "ScatterElements": 9, "GatherND": 12, "ScatterND": 11, "TensorScatter": 24}
    if net.opset < since[op_type]:
        raise UnfitError
    rows = net.shuffled(range(x.shape[0]))[:2]
    if op_type in ("GatherND", "ScatterND"):
        indices = net.ints([[row] for row in rows])
        more = [net.weight(2, *x.shape[1:])] if op_type == "ScatterND" else []
        net.node(op_type, x, indices, *more)
    elif op_type == "TensorScatter":
        net.node(op_type, x, net.weight(*x.shape), net.ints([0] * x.shape[0]))
    else:
        shape = (2, *x.shape[1:])
        indices = net.constant(np.broadcast_to(np.reshape(rows, (2, *[1] * (x.rank - 1))), shape).copy(), "i")
        more = [net.weight(*shape)] if op_type == "ScatterElements" else []
        old = op_type == "ScatterElements" and net.opset < 11
        net.node("Scatter" if old else op_type, x, indices, *more, axis=0)


# -- summaries and orders

REDUCE = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd"),
    *("ReduceLogSumExp", "ReduceLogSum"),
)


@recipe(*REDUCE, weight=3)
def reduce(net: Net) -> None:
    """Over some axes, kept or not."""
    op_type = net.among(*REDUCE)
    x = net.pick()
    axes = net.subset([axis for axis, varies in enumerate(x.varies) if not varies])
    if op_type == "ReduceLogSum":
        x = net.node("Sigmoid", x, pooled=False)
    if op_type == "ReduceProd":
        x = net.node("Tanh", x, pooled=False)
    since = 13 if op_type == "ReduceSum" else 18
    signed = [net.either_sign(axis, x.rank) for axis in axes] if net.opset >= 11 else axes
    net.with_ints(op_type, x, "axes", signed, since, keepdims=net.integer(0, 1))


@recipe("ArgMax", "ArgMin", "OneHot", "Cast")
def extremes(net: Net) -> None:
    """Where the largest entry is, as a number or as a one among zeros."""
    x = net.pick()
    axis = net.static_axis(x)
    op_type = net.among("ArgMax", "ArgMin")
    keep = net.integer(0, 1)
    noisy = net.node("Add", x, net.weight(*x.shape[axis:]), pooled=False) if not any(x.varies[axis:]) else x
    found = net.node(op_type, noisy, axis=axis, keepdims=keep)
    if net.coin():
        net.node("Cast", found, to=onnx.TensorProto.FLOAT)
        return
    depth = net.constant(np.array(x.shape[axis]), "i")
    values = net.constant(np.array([0, 1], np.float32), "s")
    net.node("OneHot", found, depth, values, axis=-1)


@recipe("TopK", "CumSum", "ReverseSequence", "Trilu", "Compress")
def ordered(net: Net) -> None:
    """Where the order of the entries matters."""
    op_type = net.among("TopK", "CumSum", "ReverseSequence", "Trilu", "Compress")
    x = net.pick()
    axis = net.static_axis(x)
    size = x.shape[axis]
    if op_type == "TopK" and net.opset >= 10:
        net.nodes_of("TopK", x, net.ints([net.integer(1, size)]), count=2, axis=axis)
    elif op_type == "CumSum" and net.opset >= 11:
        net.node("CumSum", x, net.ints(axis), reverse=net.integer(0, 1))
    elif op_type == "ReverseSequence" and net.opset >= 10 and x.rank > 1 and not any(x.varies[:2]):
        lengths = net.ints([net.integer(1, x.shape[0]) for _ in range(x.shape[1])])
        net.node("ReverseSequence", x, lengths)
    elif op_type == "Trilu" and net.opset >= 14:
        net.node("Trilu", x, upper=net.integer(0, 1))
    elif op_type == "Compress":
        chosen = net.constant(np.arange(size) % 2 == 0, "b")
        net.node("Compress", x, chosen, axis=axis)


@recipe("NonZero", "EyeLike", "Range", "Det", "Unique")
def positions(net: Net) -> None:
    """Results whose size or contents are positions."""
    op_type = net.among("NonZero", "EyeLike", "Range", "Det", "Unique")
    if op_type == "NonZero":
        x = net.node("Greater", net.pick(), net.scalar(-9.0))
        number = net.node("Cast", net.node("NonZero", x), to=onnx.TensorProto.FLOAT, pooled=False)
        net.node("Mul", number, net.scalar(0.1))
    elif op_type == "EyeLike":
        x = net.pick(lambda x: x.rank == 2)
        net.node("Add", x, net.node("EyeLike", x, pooled=False))
    elif op_type == "Range":
        _add_positions(net)
    elif op_type == "Det":
        net.node("Det", net.pick(lambda x: x.shape[-1] == x.shape[-2] <= 5, at_least=2))
    elif net.opset >= 11:
        x = net.pick()
        net.node("Unique", net.node("Cast", net.node("Abs", x, pooled=False), to=onnx.TensorProto.INT64))


def _add_positions(net: Net) -> None:
    """0, 1, 2, ... along the last axis, counted from the shape."""
    x = net.pick()
    size = net.node("Gather", net.node("Shape", x), net.ints(x.rank - 1), axis=0)
    counted = net.node("Range", net.constant(np.array(0), "i"), size, net.constant(np.array(1), "i"))
    number = net.node("Cast", counted, to=onnx.TensorProto.FLOAT, pooled=False)
    net.node("Add", x, net.node("Mul", number, net.scalar(0.1), pooled=False))


# -- quantized layers


def _bytes(net: Net, *shape: int) -> Tensor:
    return net.constant(np.asarray(net.rng.integers(-64, 64, shape), np.int8), "q")


def _quantized(net: Net, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A value as bytes, their scale and zero point."""
    scale, zero = net.scalar(0.04), net.constant(np.array(128, np.uint8), "z")
    return net.node("QuantizeLinear", net.node("Tanh", x, pooled=False), scale, zero), scale, zero


@recipe("DequantizeLinear", "MatMul", weight=2)
def quantized_weight(net: Net) -> None:
    """A weight of bytes with a scale per column, or one for all."""
    x = net.pick(lambda x: not x.varies[-1])
    k, n = x.shape[-1], net.size()
    w = _bytes(net, k, n)
    if net.opset >= 13 and net.coin():
        scale = net.constant(np.asarray(net.rng.random(n) * 0.02 + 0.005, np.float32), "p")
        zero = [net.constant(np.asarray(net.rng.integers(-9, 9, n), np.int8), "z")] if net.coin() else []
        w = net.node("DequantizeLinear", w, scale, *zero, axis=1, pooled=False)
    elif net.opset >= 10:
        w = net.node("DequantizeLinear", w, net.scalar(0.01), pooled=False)
    net.node("MatMul", x, w)


@recipe("QuantizeLinear", "DequantizeLinear")
def rounded(net: Net) -> None:
    """There and back."""
    if net.opset < 10:
        raise UnfitError
    net.node("DequantizeLinear", *_quantized(net, net.pick()))


@recipe("MatMulInteger", "QLinearMatMul", "DynamicQuantizeLinear", weight=2)
def quantized_matmul(net: Net) -> None:
    """Bytes times bytes."""
    x = net.pick(lambda x: not x.varies[-1], at_least=2)
    if net.opset < 11:
        raise UnfitError
    k, n = x.shape[-1], net.size()
    kind = net.integer(0, 2)
    if kind == 2:
        q, scale, zero = net.nodes_of("DynamicQuantizeLinear", net.node("Tanh", x, pooled=False), count=3, pooled=False)
    else:
        q, scale, zero = _quantized(net, x)
    w, columns = _bytes(net, k, n), net.among((), (n,))
    w_zero = net.constant(np.asarray(net.rng.integers(-9, 9, columns), np.int8), "z")
    if kind == 1:
        w_scale = net.constant(np.asarray(net.rng.random(columns) * 0.02 + 0.005, np.float32), "p")
        y_scale, y_zero = net.scalar(0.05 * k**0.5), net.constant(np.array(120, np.uint8), "z")
        y = net.node("QLinearMatMul", q, scale, zero, w, w_scale, w_zero, y_scale, y_zero)
        net.node("DequantizeLinear", y, y_scale, y_zero)
        return
    y = net.node("MatMulInteger", q, w, zero, w_zero)
    real = net.node("Mul", net.node("Cast", y, to=onnx.TensorProto.FLOAT, pooled=False), scale, pooled=False)
    net.node("Mul", real, net.scalar(0.02 * k**-0.5))


@recipe("ConvInteger", "QLinearConv")
def quantized_conv(net: Net) -> None:
    """The same for windows."""
    x = net.pick(lambda x: x.rank == 4 and not any(x.varies[1:]))
    if net.opset < 10:
        raise UnfitError
    q, scale, zero = _quantized(net, x)
    n, c = net.size(), x.shape[1]
    w = _bytes(net, n, c, 1, 2)
    if net.coin():
        w_scale = net.constant(np.asarray(net.rng.random(n) * 0.02 + 0.005, np.float32), "p")
        w_zero = net.constant(np.zeros(n, np.int8), "z")
        y_scale, y_zero = net.scalar(0.05 * c**0.5), net.constant(np.array(120, np.uint8), "z")
        bias = [net.constant(np.asarray(net.rng.integers(-99, 99, n), np.int32), "q")] if net.coin() else []
        y = net.node("QLinearConv", q, scale, zero, w, w_scale, w_zero, y_scale, y_zero, *bias)
        net.node("DequantizeLinear", y, y_scale, y_zero)
        return
    unsigned = net.constant(np.asarray(net.rng.integers(0, 255, (n, c, 1, 2)), np.uint8), "q")
    y = net.node("ConvInteger", q, unsigned, zero, net.constant(np.array(127, np.uint8), "z"))
    real = net.node("Cast", y, to=onnx.TensorProto.FLOAT, pooled=False)
    net.node("Mul", real, net.scalar(0.0008 * c**-0.5))


# -- larger patterns


@recipe("LSTM", "GRU", "RNN", weight=2)
def recurrent(net: Net) -> None:
    """One or two directions, all outputs or the last state."""
    x = net.pick(lambda x: x.rank == 3 and not x.varies[2])
    op_type = net.among("LSTM", "GRU", "RNN")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
    directions, hidden, size = net.integer(1, 2), net.size(), x.shape[2]
    w = net.weight(directions, gates * hidden, size, fan_in=size)
    r = net.weight(directions, gates * hidden, hidden, fan_in=hidden)
    b = [net.weight(directions, 2 * gates * hidden)] if net.coin() else []
    direction = "bidirectional" if directions == 2 else net.among("forward", "reverse")
    more = {"linear_before_reset": 1} if op_type == "GRU" and net.coin() else {}
    made = net.nodes_of(op_type, x, w, r, *b, count=2, hidden_size=hidden, direction=direction, **more)
    if directions == 2 or net.coin():
        y = net.node("Transpose", made[0], perm=[0, 2, 1, 3], pooled=False)
        net.node("Reshape", y, net.ints([0, 0, -1]))
    else:
        net.with_ints("Squeeze", made[0], "axes", [1], 13)


@recipe("MatMul", "Reshape", "Transpose", "Softmax", "Split", weight=3)
def attention(net: Net) -> None:
    """Self-attention with heads; keys and values may be shared by several."""
    x = net.pick(lambda x: x.rank == 3 and not x.varies[1] and not x.varies[2] and x.shape[1] > 1)
    shared, per, width = net.integer(1, 3), net.integer(1, 2), net.size()
    heads, e = shared * per, x.shape[2]
    q, k, v = _queries_keys_values(net, x, heads, shared, width)
    q, k, v = (_as_heads(net, each, n, width) for each, n in ((q, heads), (k, shared), (v, shared)))
    if per > 1:
        k, v = (_repeated(net, each, per) for each in (k, v))
    transposed = net.node("Transpose", k, perm=[0, 1, 3, 2], pooled=False)
    scores = net.node("MatMul", q, transposed, pooled=False)
    scores = net.node("Mul", scores, net.scalar(width**-0.5), pooled=False)
    weights = net.node("Softmax", scores, axis=3, pooled=False)
    mixed = net.node("Transpose", net.node("MatMul", weights, v, pooled=False), perm=[0, 2, 1, 3], pooled=False)
    merged = net.node("Reshape", mixed, net.ints([0, 0, net.among(-1, heads * width)]), pooled=False)
    y = net.node("MatMul", merged, net.weight(heads * width, e, fan_in=heads * width))
    net.node("Add", *net.shuffled([x, y]))


def _queries_keys_values(net: Net, x: Tensor, heads: int, shared: int, width: int) -> list[Tensor]:
    """By three layers, or by one and a Split."""
    sizes, e = [heads * width, shared * width, shared * width], x.shape[2]
    if net.coin():
        return [net.node("MatMul", x, net.weight(e, n, fan_in=e), pooled=False) for n in sizes]
    fused = net.node("MatMul", x, net.weight(e, sum(sizes), fan_in=e), pooled=False)
    if net.opset < 13:
        return net.nodes_of("Split", fused, count=3, axis=2, split=sizes, pooled=False)
    return net.nodes_of("Split", fused, net.ints(sizes), count=3, axis=-1, pooled=False)


def _as_heads(net: Net, x: Tensor, heads: int, width: int) -> Tensor:
    target = net.among([0, 0, heads, width], [0, 0, heads, -1], [0, 0, -1, width], [-1, x.shape[1], heads, width])
    return net.node(
        "Transpose", net.node("Reshape", x, net.ints(target), pooled=False), perm=[0, 2, 1, 3], pooled=False
    )


def _repeated(net: Net, x: Tensor, per: int) -> Tensor:
    """Each key-value head `per` times: Expand and Reshape."""
    _, heads, length, width = x.shape
    y = net.with_ints("Unsqueeze", x, "axes", [2], 13, pooled=False)
    y = net.node("Expand", y, net.ints([1, 1, per, 1, 1]), pooled=False)
    return net.node("Reshape", y, net.ints([-1, heads * per, length, width]), pooled=False)


@recipe("Attention")
def fused_attention(net: Net) -> None:
    """The operator of opset 23."""
    if net.opset < 23:
        raise UnfitError
    x = net.pick(lambda x: x.rank == 3 and not x.varies[2] and x.shape[1] > 1)
    shared, per, width = net.integer(1, 3), net.integer(1, 2), net.size()
    sizes = [shared * per * width, shared * width, shared * width]
    q, k, v = (net.node("MatMul", x, net.weight(x.shape[2], n, fan_in=x.shape[2]), pooled=False) for n in sizes)
    net.node("Attention", q, k, v, q_num_heads=shared * per, kv_num_heads=shared)


@recipe("MultiHeadAttention")
def multi_head_attention(net: Net) -> None:
    """ONNX Runtime's own."""
    x = net.pick(lambda x: x.rank == 3 and not x.varies[2] and x.shape[1] > 1)
    heads, width = net.integer(1, 3), net.size()
    layers = [net.weight(x.shape[2], heads * width, fan_in=x.shape[2]) for _ in range(3)]
    q, k, v = (net.node("MatMul", x, w, pooled=False) for w in layers)
    net.node("MultiHeadAttention", q, k, v, num_heads=heads, domain=MICROSOFT)


@recipe("Slice", "Neg", "Concat", "Mul", "Add", weight=2)
def rotary(net: Net) -> None:
    """Both halves of the last axis turn into each other."""
    x = net.pick(lambda x: not x.varies[-1] and x.shape[-1] % 2 == 0)
    if net.opset < 10:
        raise UnfitError
    half, axis = x.shape[-1] // 2, net.ints([-1])
    first = net.node("Slice", x, net.ints([0]), net.ints([half]), axis, pooled=False)
    second = net.node("Slice", x, net.ints([half]), net.ints([INT64_MAX]), axis, pooled=False)
    turned = net.node("Concat", net.node("Neg", second, pooled=False), first, axis=x.rank - 1, pooled=False)
    cos, sin = net.weight(2 * half), net.weight(2 * half)
    net.node("Add", net.node("Mul", x, cos, pooled=False), net.node("Mul", turned, sin, pooled=False))


@recipe("RotaryEmbedding")
def fused_rotary(net: Net) -> None:
    """The operator of opset 23."""
    if net.opset < 23:
        raise UnfitError
    x = net.pick(lambda x: x.rank == 3 and not any(x.varies[1:]))
    heads, half = net.integer(1, 3), net.integer(1, 3)
    y = net.node("MatMul", x, net.weight(x.shape[2], heads * half * 2, fan_in=x.shape[2]), pooled=False)
    batch = 1 if x.varies[0] else x.shape[0]
    tables = [net.weight(batch, x.shape[1], half) for _ in range(2)]
    net.node("RotaryEmbedding", y, *tables, num_heads=heads)


@recipe("Reshape", "Transpose", weight=2)
def channel_shuffle(net: Net) -> None:
    """Groups of channels interleaved."""
    x = net.pick(lambda x: not any(x.varies[1:]) and len(_divisors(x.shape[1])) > 2, at_least=3)
    groups = net.among(*_divisors(x.shape[1])[1:-1])
    y = net.node("Reshape", x, net.ints([-1, groups, x.shape[1] // groups, *x.shape[2:]]), pooled=False)
    y = net.node("Transpose", y, perm=[0, 2, 1, *range(3, y.rank)], pooled=False)
    net.node("Reshape", y, net.ints([-1, *x.shape[1:]]))


@recipe("If")
def branches(net: Net) -> None:
    """Bodies that read values and weights from outside, or have weights of their own."""
    x = net.pick(lambda x: not x.varies[-1])
    if net.opset < 11:
        raise UnfitError
    k, n = x.shape[-1], net.size()
    outer = [net.weight(k, n, fan_in=k) for _ in range(2)]
    bodies = [_body(net, x, w, "Relu" if net.coin() else "Neg", own=net.coin(3)) for w in outer]
    condition = net.node("Less", net.node("Size", net.pick()), net.constant(np.array(40), "i"))
    net.used.add(x.name)
    net.node("If", condition, then_branch=bodies[0], else_branch=bodies[1])


def _body(net: Net, x: Tensor, w: Tensor, op_type: str, own: bool) -> onnx.GraphProto:
    """A layer."""
    name = net.name("body")
    weight = f"{name}.w" if own else w.name
    nodes = [
        onnx.helper.make_node("MatMul", [x.name, weight], [f"{name}.h"], name=f"{name}/MatMul"),
        onnx.helper.make_node(op_type, [f"{name}.h"], [name], name=name),
    ]
    inner = [onnx.numpy_helper.from_array(w.arrays[0], weight)] if own else []
    return onnx.helper.make_graph(nodes, name, [], [info(name, np.float32, [None] * x.rank)], inner)


@recipe("Loop")
def loop(net: Net) -> None:
    """A few steps on one value, which reads another from outside."""
    x = net.pick(lambda x: x.static)
    if net.opset < 13:
        raise UnfitError
    name, shape = net.name("loop"), [None] * x.rank
    nodes = [
        onnx.helper.make_node("Identity", [f"{name}.go"], [f"{name}.on"]),
        onnx.helper.make_node("Mul", [f"{name}.x", x.name], [f"{name}.y"]),
        onnx.helper.make_node("Tanh", [f"{name}.y"], [f"{name}.z"]),
    ]
    inputs = [info(f"{name}.i", np.int64, []), info(f"{name}.go", np.bool_, []), info(f"{name}.x", np.float32, shape)]
    outputs = [info(f"{name}.on", np.bool_, []), info(f"{name}.z", np.float32, shape)]
    body = onnx.helper.make_graph(nodes, name, inputs, outputs)
    steps, go = net.constant(np.array(2), "i"), net.constant(np.array(True), "b")
    net.node("Loop", steps, go, net.node("Sigmoid", x), body=body)


@recipe("Scan")
def scan(net: Net) -> None:
    """A recurrent cell with weights from outside, run along one axis."""
    x = net.pick(lambda x: x.rank == 3 and not x.varies[2])
    if net.opset < 11:
        raise UnfitError
    along, size, hidden = net.integer(0, 1), x.shape[2], net.size()
    w, u = net.weight(size, hidden, fan_in=size), net.weight(hidden, hidden, fan_in=hidden)
    first = net.node("Gather", x, net.constant(np.array(0), "i"), axis=along, pooled=False)
    start = net.node("MatMul", first, net.weight(size, hidden, fan_in=size), pooled=False)
    name = net.name("scan")
    nodes = [
        onnx.helper.make_node("MatMul", [f"{name}.x", w.name], [f"{name}.g"]),
        onnx.helper.make_node("MatMul", [f"{name}.h", u.name], [f"{name}.r"]),
        onnx.helper.make_node("Add", [f"{name}.g", f"{name}.r"], [f"{name}.s"]),
        onnx.helper.make_node("Tanh", [f"{name}.s"], [f"{name}.new"]),
        onnx.helper.make_node("Identity", [f"{name}.new"], [f"{name}.seen"]),
    ]
    inputs, outputs = (
        [info(f"{name}.{each}", np.float32, [None, None]) for each in names] for names in (("h", "x"), ("new", "seen"))
    )
    body = onnx.helper.make_graph(nodes, name, inputs, outputs)
    axes = {"scan_input_axes": [along], "scan_output_axes": [along]}
    net.used.update((w.name, u.name))
    net.nodes_of("Scan", start, x, count=2, num_scan_inputs=1, body=body, **axes)


@recipe("Layer")
def function(net: Net) -> None:
    """A local function, called perhaps several times."""
    if net.opset < 13:
        raise UnfitError
    x = net.pick(lambda x: not x.varies[-1])
    net.functions["Layer"] = onnx.helper.make_function(
        LOCAL,
        "Layer",
        ["x", "w"],
        ["y"],
        [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Tanh", ["h"], ["y"])],
        [onnx.helper.make_opsetid("", net.opset)],
    )
    net.node("Layer", x, net.weight(x.shape[-1], net.size(), fan_in=x.shape[-1]), domain=LOCAL)
