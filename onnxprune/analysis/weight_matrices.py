"""The weights that can be made sparse, each as the matrix of the product that it takes part in.

    y[group, row, o] = sum over f of rows[group, row, f] * matrix[group, f, o]

Those of affine layers are seen through the form of their operator (see `analysis.layers`): Conv, Gemm, MatMul, fused
attention and the input weights of recurrent cells. The recurrent weights of a cell multiply the state that the cell
made one step before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, layers
from onnxprune.dims import Mask
from onnxprune.errors import UsageError
from onnxprune.model.weights import reading
from onnxprune.ops.base import Array
from onnxprune.ops.learned import RECURRENT, learned
from onnxprune.ops.recurrent import states_before
from onnxprune.support.messages import did_you_mean

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WeightMatrix:
    """A weight as the matrix of a product.

    Attributes:
        name: of its layer, as a person calls it.
        key: of the weight as layers know it, see `Layer.weight`; of recurrent weights the initializer's name.
        value: the initializer.
        view: from an array of the initializer's shape to [groups, features, outputs].
        taps: how many features each input channel gives: channel by channel, tap by tap.
        x: the value that the rows come from; empty where the graph does not give it.
        rows: from that value to [groups, rows, features].
        layer: the affine layer; None for recurrent weights.
    """

    name: str
    key: str
    value: ir.Value
    view: Callable[[Array], Array]
    taps: int
    x: str
    rows: Callable[[Array], Array]
    layer: Layer | None = None

    @property
    def stored(self) -> str:
        """The initializer's name."""
        return self.value.name or ""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The initializer's shape."""
        assert self.value.const_value is not None
        return tuple(self.value.const_value.shape.numpy())

    def array(self) -> Array:
        """The weight as it is stored: float64."""
        assert self.value.const_value is not None
        with reading(self.value.const_value) as array:
            return array.astype(np.float64)

    def places(self) -> Places:
        """Which entry of the flat initializer each entry of the matrix is: int64, [groups, features, outputs]."""
        shape = self.stored_shape
        found: Places = self.view(np.arange(int(np.prod(shape))).reshape(shape)).astype(np.int64)
        return found

    def of(self, array: Array) -> Array:
        """The entries of an array of the initializer's shape that belong to the matrix."""
        found: Array = array.reshape(-1)[self.places()]
        return found

    def put(self, array: Array, matrix: Array) -> None:
        """Write a matrix into an array of the initializer's shape, in place."""
        array.reshape(-1)[self.places()] = matrix


def weight_matrices(analysis: Analysis) -> tuple[list[WeightMatrix], dict[str, str]]:
    """The weights of a model that can be made sparse, in topological order; and why others of its layers cannot be.

    Several layers that read the same entries of a weight count once.
    """
    found: dict[str, WeightMatrix] = {}
    left: dict[str, str] = {}
    for layer in layers(analysis, hidden=True):
        if layer.path.quantized:
            left[layer.name] = "its weight is stored as integers; sparsify first, quantize then"
        elif not _moves_only(layer):
            left[layer.name] = "its weight is computed with before it is read"
        elif layer.weight not in found:
            found[layer.weight] = _of_layer(layer)
    for each in _recurrent(analysis):
        found.setdefault(each.key, each)
    order = {node: at for at, (_, node) in enumerate(analysis.operators)}
    matrices = sorted(found.values(), key=lambda each: order[_node_of(each)])
    return matrices, left


def chosen_matrices(matrices: Sequence[WeightMatrix], only: Sequence[str], skip: Sequence[str]) -> list[WeightMatrix]:
    """Those whose layers are named. Raises UsageError for a name or pattern that fits none."""
    names = [each.name for each in matrices]
    for pattern in (*only, *skip):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no layer with weights to sparsify is called '{pattern}'{did_you_mean(pattern, names)}")

    def fits(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return [each for each in matrices if (not only or fits(each.name, only)) and not fits(each.name, skip)]


def full_mask(matrix: WeightMatrix) -> Mask:
    """All entries of the initializer may be other than zero."""
    return np.ones(matrix.stored_shape, np.bool_)


def _node_of(matrix: WeightMatrix) -> ir.Node:
    return matrix.layer.node if matrix.layer is not None else next(iter(matrix.value.uses()))[0]


def _moves_only(layer: Layer) -> bool:
    """Does the graph only move the entries of the weight on their way, so that a zero stays where it is?"""
    if not layer.path.links or layer.stored.const_value is None:
        return True
    shape = tuple(layer.stored.const_value.shape.numpy())
    seen = np.arange(prod(shape), dtype=np.float64).reshape(shape)
    for each in layer.path.links:
        seen = each.ahead(seen)
    flat = np.sort(seen.ravel().astype(np.float64))
    inside = not flat.size or bool(flat[0] >= 0 and flat[-1] < prod(shape))
    return inside and bool((flat == np.rint(flat)).all() and (np.diff(flat) > 0).all())


def _of_layer(layer: Layer) -> WeightMatrix:
    def view(array: Array) -> Array:
        for each in layer.path.links:
            array = each.ahead(array)
        return layer.form.matrix(array)

    return WeightMatrix(
        layer.name,
        layer.weight,
        layer.stored,
        view,
        layer.form.taps,
        layer.x,
        lambda value: layer.form.rows(value, None),
        layer,
    )


def _recurrent(analysis: Analysis) -> Iterator[WeightMatrix]:
    """The weights [directions, gates * units, units] that recurrent cells multiply their states with."""
    names = {layer.node: layer.name for layer in layers(analysis, hidden=True)}
    for name, node in analysis.operators:
        slots = [slot for slot, role in learned(node).roles.items() if role == RECURRENT]
        value = node.inputs[slots[0]] if slots and len(node.inputs) > slots[0] else None
        const = None if value is None else value.const_value
        if value is None or const is None or not const.dtype.is_floating_point() or len(list(value.uses())) > 1:
            continue
        states = node.outputs[0].name or ""
        called = f"{names.get(node, name)}.recurrent"
        yield WeightMatrix(
            called, value.name or "", value, lambda array: array.transpose(0, 2, 1), 1, states, states_before(node)
        )
