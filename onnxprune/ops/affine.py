"""The operators that multiply an activation with a weight, each as a product of rows and a matrix.

See `layers` for what that is good for. The form of an operator stands beside its axis rule: one function there.

    @affine("MatMul")
    def matmul_form(node, x_shape, w_shape):
        return Form(...)        # or None for a way of using the operator that is no such product
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.model import reading
from onnxprune.ops.base import Array, Key, adder, key_of

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
        bias_factor: the attribute that the node multiplies the bias with, where it has one.
        even: every place sees all taps of the window: there is no padding.
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
    bias_factor: str = ""
    even: bool = True
    hidden: bool = False


_ALIAS: Key = ("", "Identity")
MakeForm = Callable[[ir.Node, tuple[int, ...], tuple[int, ...]], "Form | None"]
FORMS: dict[Key, MakeForm] = {}


def affine(*names: str, domain: str = "") -> Callable[[MakeForm], MakeForm]:
    """Decorator: this is the form of the operators `names`, given the node and the shapes of input and weight."""
    return adder(FORMS, names, domain)


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of an Identity of one, as exporters write equal parameters."""
    node = None if value is None else value.producer()
    if node is not None and key_of(node) == _ALIAS:
        return constant_of(node.inputs[0])
    return None if value is None else value.const_value


def read(value: ir.Value | None) -> Array:
    """The array of a constant. Raises ValueError when it is none."""
    tensor = constant_of(value)
    if tensor is None:
        raise ValueError("not a constant")
    with reading(tensor) as array:
        return np.array(array)


def by_sample(x: Array, positions: Positions | None) -> Array:
    """[N, ..., F] as rows [N * positions, F]; positions index what lies between."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    if positions is not None:
        flat = flat[:, positions]
    return flat.reshape(-1, x.shape[-1])
