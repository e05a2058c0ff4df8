"""The operators that multiply an activation with a weight, each as a product of rows and a matrix.

See `layers` for what that is good for. Adding an operator is one function here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.model import reading
from onnxprune.ops.base import Key, attribute, key_of

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """How one node is a matrix product.

    Attributes:
        axis: the axis of the input that holds the channels which are summed over.
        out_axis: the axis of the output that holds the results.
        taps: how many features each input channel gives (the size of a convolution's window).
        groups: how many independent products lie side by side.
        rows: input, positions -> [groups, samples * positions, features].
        matrix: weight -> [groups, features, outputs].
        weight: the inverse of `matrix`.
        bias: the input slot that a bias goes to; None: an Add behind the node.
        hidden: the result goes into gates inside the node and is no value of the graph; the outputs lie along axis 1
            of the weight [directions, outputs, features], and the first half of the bias is the layer's.
    """

    axis: int
    out_axis: int
    taps: int
    groups: int
    rows: Callable[[Array, Positions | None], Array]
    matrix: Callable[[Array], Array]
    weight: Callable[[Array], Array]
    bias: int | None = None
    hidden: bool = False


MakeForm = Callable[[ir.Node, tuple[int, ...], tuple[int, ...]], "Form | None"]
FORMS: dict[Key, MakeForm] = {}
RECURRENT = {("", "LSTM"), ("", "GRU"), ("", "RNN")}


def _form(*names: str, domain: str = "") -> Callable[[MakeForm], MakeForm]:
    def add(function: MakeForm) -> MakeForm:
        FORMS.update({(domain, name): function for name in names})
        return function

    return add


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of an Identity of one, as exporters write equal parameters."""
    node = None if value is None else value.producer()
    if node is not None and key_of(node) == ("", "Identity"):
        return constant_of(node.inputs[0])
    return None if value is None else value.const_value


def read(value: ir.Value | None) -> Array:
    """The array of a constant. Raises ValueError when it is none."""
    tensor = constant_of(value)
    if tensor is None:
        raise ValueError("not a constant")
    with reading(tensor) as array:
        return np.array(array)


def is_batch_norm(node: ir.Node) -> bool:
    """One that runs on constant statistics?"""
    return (
        key_of(node) == ("", "BatchNormalization")
        and not attribute(node, "training_mode", 0)
        and all(constant_of(value) is not None for value in node.inputs[1:5])
    )


def norm_scale(norm: ir.Node) -> npt.NDArray[np.float64]:
    """What a BatchNormalization multiplies each channel with."""
    return read(norm.inputs[1]).astype(np.float64) / norm_deviation(norm)


def norm_deviation(norm: ir.Node) -> npt.NDArray[np.float64]:
    """What a BatchNormalization divides each channel by."""
    variance = read(norm.inputs[4]).astype(np.float64)
    deviation: npt.NDArray[np.float64] = np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
    return deviation


def by_sample(x: Array, positions: Positions | None) -> Array:
    """[N, ..., F] as rows [N * positions, F]; positions index what lies between."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    if positions is not None:
        flat = flat[:, positions]
    return flat.reshape(-1, x.shape[-1])


@_form("Conv")
def _conv(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form:
    """Input [N, G*I, ...], weight [G*O, I, window]; features are (input channel, tap)."""
    groups, window = int(attribute(node, "group", 1)), w[2:]
    taps, rank = prod(window), len(window)
    strides, dilations, _ = _steps(node, rank)

    def rows(array: Array, positions: Positions | None) -> Array:
        pads = _pads(node, array.shape[2:], window, strides, dilations)
        seen = _windows(np.pad(array, [(0, 0), (0, 0), *pads]), window, strides, dilations)
        return _grouped(seen, groups, rank, positions)

    def matrix(weight: Array) -> Array:
        return weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)

    def back(matrix: Array) -> Array:
        outputs = matrix.shape[0] * matrix.shape[2]
        return matrix.transpose(0, 2, 1).reshape(outputs, -1, *window)

    return Form(1, 1, taps, groups, rows, matrix, back, bias=2)


@_form("ConvTranspose")
def _conv_transpose(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [N, G*I, ...], weight [G*I, O, window]: a Conv with the window turned round over the input spread out."""
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or attribute(node, "output_shape", None):
        return None
    groups, window = int(attribute(node, "group", 1)), w[2:]
    taps, rank = prod(window), len(window)
    strides, dilations, pads = _steps(node, rank)
    extra = attribute(node, "output_padding", None) or [0] * rank
    reach = [(size - 1) * dilation for size, dilation in zip(window, dilations, strict=True)]
    around = [(r - a, r - b + e) for r, (a, b), e in zip(reach, pads, extra, strict=True)]

    def rows(array: Array, positions: Positions | None) -> Array:
        sizes = [(size - 1) * stride + 1 for size, stride in zip(array.shape[2:], strides, strict=True)]
        spread = np.zeros((*array.shape[:2], *sizes), array.dtype)
        steps: Any = tuple(slice(None, None, stride) for stride in strides)
        spread[(slice(None), slice(None), *steps)] = array
        padded = np.pad(spread, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in around)])
        inside: Any = tuple(
            slice(max(-a, 0), size - max(-b, 0)) for (a, b), size in zip(around, padded.shape[2:], strict=True)
        )
        return _grouped(
            _windows(padded[(slice(None), slice(None), *inside)], window, (1,) * rank, dilations),
            groups,
            rank,
            positions,
        )

    def matrix(weight: Array) -> Array:
        turned = np.flip(weight, tuple(range(2, weight.ndim))).reshape(groups, -1, w[1], taps)
        return turned.transpose(0, 1, 3, 2).reshape(groups, -1, w[1])

    def back(matrix: Array) -> Array:
        turned = matrix.reshape(groups, -1, taps, w[1]).transpose(0, 1, 3, 2).reshape(-1, w[1], *window)
        return np.flip(turned, tuple(range(2, turned.ndim)))

    return Form(1, 1, taps, groups, rows, matrix, back, bias=2)


def _grouped(seen: Array, groups: int, rank: int, positions: Positions | None) -> Array:
    """What is seen at each place [N, C, places..., window...] as rows [groups, N * places, channels * taps]."""
    n, channels, *places = seen.shape[: 2 + rank]
    if positions is not None:
        at: tuple[Any, ...] = np.unravel_index(positions, places)
        seen = seen[(slice(None), slice(None), *at)]
    taps = prod(seen.shape[-rank:])
    chosen = seen.reshape(n, groups, channels // groups, -1, taps)
    return np.ascontiguousarray(chosen.transpose(1, 0, 3, 2, 4)).reshape(groups, -1, channels // groups * taps)


Steps = tuple[int, ...]


def _steps(node: ir.Node, rank: int) -> tuple[Steps, Steps, list[tuple[int, int]]]:
    """Strides, dilations and the pads that are given, per spatial axis."""
    strides = tuple(attribute(node, "strides", None) or [1] * rank)
    dilations = tuple(attribute(node, "dilations", None) or [1] * rank)
    flat = list(attribute(node, "pads", None) or [0] * 2 * rank)
    return strides, dilations, list(zip(flat[:rank], flat[rank:], strict=True))


def _windows(x: Array, window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Array:
    """What each place of a convolution sees: a view [N, C, places..., window...]."""
    axes = tuple(range(2, x.ndim))
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    places = tuple(slice(None, None, stride) for stride in strides)
    inside = tuple(slice(None, None, dilation) for dilation in dilations)
    return seen[(slice(None), slice(None), *places, *inside)]


def _pads(
    node: ir.Node, sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis (ONNX Conv, attributes auto_pad and pads)."""
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, taps, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return pads
    return _steps(node, len(window))[2] if auto != "VALID" else [(0, 0)] * len(window)


@_form("Gemm")
def _gemm(node: ir.Node, _x: tuple[int, ...], _w: tuple[int, ...]) -> Form | None:
    """Input [N, I], weight [I, O] or its transpose."""
    if attribute(node, "transA", 0) or float(attribute(node, "beta", 1.0)) == 0:
        return None
    turned, alpha = bool(attribute(node, "transB", 0)), float(attribute(node, "alpha", 1.0))
    return Form(
        1,
        1,
        1,
        1,
        lambda array, _: array[None],
        lambda weight: alpha * (weight.T if turned else weight)[None],
        lambda matrix: (matrix[0].T if turned else matrix[0]) / alpha,
        bias=2,
    )


@_form("MatMul")
def _matmul(_node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [..., I], weight [I, O]; the first axis enumerates samples."""
    if len(w) != 2 or len(x) < 2:
        return None
    last = len(x) - 1
    return Form(
        last,
        last,
        1,
        1,
        lambda array, positions: by_sample(array, positions)[None],
        lambda weight: weight[None],
        lambda matrix: matrix[0],
    )


@_form("BatchNormalization")
def _batch_norm(node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [N, C, ...], scale [C]: a product of its own per channel. Its rows are taken relative to the mean."""
    if not is_batch_norm(node):
        return None

    def rows(array: Array, positions: Positions | None) -> Array:
        mean = read(node.inputs[3]).astype(array.dtype)
        centered: Array = by_sample(np.moveaxis(array, 1, -1), positions) - mean
        return centered.T[:, :, None]

    return Form(
        1,
        1,
        1,
        w[0],
        rows,
        lambda scale: (scale / norm_deviation(node))[:, None, None],
        lambda matrix: matrix[:, 0, 0] * norm_deviation(node),
        bias=2,
    )


def recurrent(_node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form:
    """What a recurrent cell makes of its inputs [sequence, batch, I] with W [directions, gates*H, I]."""
    directions, outputs, features = w
    return Form(
        2,
        3,
        1,
        1,
        lambda array, positions: by_sample(array, positions)[None],
        lambda weight: weight.reshape(-1, features).T[None],
        lambda matrix: matrix[0].T.reshape(directions, outputs, features),
        bias=3,
        hidden=True,
    )
