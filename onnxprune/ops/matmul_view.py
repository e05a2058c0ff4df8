"""The operators that multiply an activation with a weight, each as a product of rows and a matrix.

See `layers` for what that is good for. The form of an operator is beside its axis rule: one function there.

    @affine("MatMul")
    def matmul_form(node, x_shape, w_shape):
        return Form(...)        # or None for a way of using the operator that is not such a product
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.model.weights import reading
from onnxprune.ops.base import Array, Key, key_of, keys
from onnxprune.support.registry import Registry

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
        stack: the axis of input and output that the products lie along; None: they lie along the channels.
        bias: the input slot that a bias goes to; None: an Add behind the node.
        bias_factor: the attribute that the node multiplies the bias with, where it has one.
        even: every place sees all taps of the window: there is no padding.
        hidden: the axis of the weight that the results lie along, where they are not a value of the graph: what follows
            (gates, heads, an activation) is inside the node. None: the output is the result.
        rectified: of what is hidden: a Relu comes next.
        bias_parts: of so many equal parts along the last axis of the bias, the first is the layer's.
        behind: how many axes of the output come behind the results, where a bias is added behind the node.
        drawn: may the rows be those of places drawn at random?
    """

    axis: int
    out_axis: int
    taps: int
    groups: int
    rows: Callable[[Array, Positions | None], Array]
    matrix: Callable[[Array], Array]
    weight: Callable[[Array], Array]
    stack: int | None = None
    bias: int | None = None
    bias_factor: str = ""
    even: bool = True
    hidden: int | None = None
    rectified: bool = False
    bias_parts: int = 1
    behind: int = 0
    drawn: bool = True


MakeForm = Callable[[ir.Node, tuple[int, ...], tuple[int, ...]], "Form | None"]
FORMS: Registry[Key, MakeForm] = Registry("matrix form", "onnxprune.ops", "onnxprune.ops")


_WEIGHTS: dict[Key, int] = {}


def affine(*names: str, domain: str = "", weight: int = 1) -> Callable[[MakeForm], MakeForm]:
    """Decorator: this is the form of the operators `names`, given the node and the shapes of input and weight.

    The input is slot 0, the weight slot `weight`.
    """
    _WEIGHTS.update(dict.fromkeys(keys(names, domain), weight))
    return FORMS.register(*keys(names, domain))


def weight_slot(node: ir.Node) -> int:
    """The input that holds the weight of an operator with a form."""
    return _WEIGHTS[key_of(node)]


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of an Identity of one, as exporters write equal parameters."""
    node = None if value is None else value.producer()
    if node is not None and key_of(node) == ("", "Identity"):
        return constant_of(node.inputs[0])
    return None if value is None else value.const_value


def reordered(form: Form, order: list[int]) -> Form:
    """The form for a weight that is stored with its axes in another order: axis i of it is axis order[i] as stored."""
    back = np.argsort(order)
    return replace(
        form,
        matrix=lambda weight: form.matrix(weight.transpose(order)),
        weight=lambda matrix: form.weight(matrix).transpose(back),
    )


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


def by_product(x: Array, stack: int, positions: Positions | None) -> Array:
    """[N, ..., B, ..., F] with B at axis `stack` as rows [B, N * positions, F]; of one sample where B comes first."""
    apart = np.moveaxis(x, stack, 0)
    return np.stack([by_sample(each if stack else each[None], positions) for each in apart])


def of_integers(form: Form, node: ir.Node, *, result_zero: int, hidden: int, bias: int | None) -> Form:
    """The form of a product of integers: input, scale and zero point are slots 0 to 2; the result is rounded inside.

    Args:
        form: that of the product of real numbers.
        node: the operator.
        result_zero: the slot of the zero point of the result; with none below it, what is negative is cut off.
        hidden: the axis of the weight that the results lie along.
        bias: the slot of the bias, if there may be one.
    """

    def rows(array: Array, positions: Positions | None) -> Array:
        scale, zero = (read(value).astype(np.float32) for value in node.inputs[1:3])
        return form.rows((array.astype(np.float32) - zero) * scale, positions)

    zero = constant_of(node.inputs[result_zero]) if result_zero < len(node.inputs) else None
    least = None if zero is None else zero.numpy()
    rectified = least is not None and bool((least == np.iinfo(least.dtype).min).all())
    return replace(form, rows=rows, hidden=hidden, rectified=rectified, bias=bias, bias_factor="")
