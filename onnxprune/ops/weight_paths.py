"""From an initializer to the operator that reads it as a weight: what the graph does to it on the way, and back.

Exporters store a weight with its axes in another order, in another type, as integers with scales, as a part of a larger
one or times a constant. Each node between the two is a link; what a link does to an array can be undone, so a weight
that was fitted is stored as the file had it. Adding one is a function here:

    @link("Cast")
    def cast(node, slot, shape_of):
        return Link(node, slot, ahead, back)        # or None for a form that cannot be undone
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.weights import reading
from onnxprune.ops.base import Array, Key, attribute, key_of
from onnxprune.ops.dequantize import dequantized, scale_slot
from onnxprune.ops.requantize import requantized
from onnxprune.support.registry import Registry

ShapeOf = Callable[[ir.Value], tuple[int, ...] | None]
# Inputs of nodes that change along with a weight: node, slot and what they become.
Beside = list[tuple[ir.Node, int, Array]]


@dataclass(frozen=True)
class Link:
    """A node between an initializer and the operator that reads it as a weight.

    Attributes:
        node, slot: the node, and the input that holds the weight.
        ahead: from the weight in front of the node to that behind it.
        back: from a new weight behind it and the old one in front to the new one in front, and what changes beside it.
        part: is what comes out a part of what goes in?
        scale: the node and slot of the scale, where it makes real numbers of integers.
    """

    node: ir.Node
    slot: int
    ahead: Callable[[Array], Array]
    back: Callable[[Array, Array], tuple[Array, Beside]]
    part: bool = False
    scale: tuple[ir.Node, int] | None = None


MakeLink = Callable[[ir.Node, int, ShapeOf], Link | None]
LINKS: Registry[Key, MakeLink] = Registry("link of a weight", "onnxprune.ops", "onnxprune.ops")
_NAMES: Key = ("", "Identity")
_ORDERS: Key = ("", "Transpose")


def link(*names: str, domain: str = "") -> Callable[[MakeLink], MakeLink]:
    """Decorator: this is how a weight passes through the operators `names`."""
    return LINKS.register(*((domain, name) for name in names))


@dataclass(frozen=True)
class WeightPath:
    """An initializer and the links from it to the operator that reads it.

    Attributes:
        value: the initializer.
        links: in the order of the graph; empty where the operator reads the initializer itself.
    """

    value: ir.Value
    links: tuple[Link, ...] = ()

    @property
    def quantized(self) -> Link | None:
        """The link that makes real numbers of integers."""
        return next((each for each in self.links if each.scale is not None), None)

    @property
    def is_exact(self) -> bool:
        """Is every number stored as the operator sees it?"""
        return all(key_of(each.node) in (_NAMES, _ORDERS) for each in self.links)

    def read(self) -> Array:
        """The weight as the operator sees it. Raises ValueError where it is not a constant."""
        return self._stages()[-1]

    def back(self, array: Array) -> tuple[Array, Beside]:
        """From a weight as the operator sees it to what is stored, and the other inputs of links that change."""
        changes: Beside = []
        for each, before in zip(reversed(self.links), reversed(self._stages()[:-1]), strict=True):
            array, beside = each.back(array, before)
            changes += beside
        return array, changes

    def _stages(self) -> list[Array]:
        """The weight as stored, and behind each link."""
        tensor = self.value.const_value
        if tensor is None:
            raise ValueError("not a constant")
        with reading(tensor) as array:
            found = [np.array(array)]
        for each in self.links:
            found.append(each.ahead(found[-1]))
        return found


def weight_path(value: ir.Value | None, shape_of: ShapeOf | None = None) -> WeightPath | None:
    """How a value comes from an initializer; None where it does not.

    Without shapes, only links that need none are followed.
    """
    node = None if value is None else value.producer()
    if value is None or (node is None and value.const_value is None):
        return None
    if node is None:
        return WeightPath(value)
    for slot, given in enumerate(node.inputs):
        found = None if given is None else find_link(node, slot, shape_of)
        inner = None if found is None else weight_path(given, shape_of)
        if found is not None and inner is not None:
            return WeightPath(inner.value, (*inner.links, found))
    return None


def find_link(node: ir.Node, slot: int, shape_of: ShapeOf | None) -> Link | None:
    """How a weight at this input passes through a node; None where it does not, or cannot be led back."""
    make = LINKS.get(key_of(node))
    return None if make is None else make(node, slot, shape_of or (lambda _: None))


def readers_of(value: ir.Value, shape_of: ShapeOf | None = None) -> Iterator[tuple[ir.Node, int]]:
    """The nodes and slots that read an initializer, also behind links."""
    for node, slot in value.uses():
        if find_link(node, slot, shape_of) is None:
            yield node, slot
        else:
            yield from readers_of(node.outputs[0], shape_of)


def constant(value: ir.Value | None) -> Array:
    """The array of a constant, also behind links that need no shapes. Raises ValueError where it is none."""
    found = weight_path(value)
    if found is None:
        raise ValueError("not a constant")
    return found.read()


def _same(array: Array, _: Array) -> tuple[Array, Beside]:
    return array, []


@link("Identity")
def identity(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link:
    """The same under another name."""
    del shape_of
    return Link(node, slot, lambda array: array, _same)


@link("Transpose")
def transpose(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link:
    """The axes in another order."""
    del shape_of
    perm = attribute(node, "perm")

    def back(array: Array, _: Array) -> tuple[Array, Beside]:
        return array.transpose(None if perm is None else np.argsort(perm)), []

    return Link(node, slot, lambda array: array.transpose(perm), back)


@link("Cast")
def cast(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link | None:
    """Another type of floating-point numbers; what is stored is rounded to its own type in the end."""
    del shape_of
    given, to = node.inputs[slot], ir.DataType(attribute(node, "to"))
    if given is None or given.dtype is None or not (given.dtype.is_floating_point() and to.is_floating_point()):
        return None
    return Link(node, slot, lambda array: array.astype(to.numpy()), _same)


@link("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def reshape(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link | None:
    """The same numbers in another shape."""
    shape = shape_of(node.outputs[0]) or _target(node)
    if slot or shape is None:
        return None
    return Link(node, 0, lambda array: array.reshape(shape), lambda array, old: (array.reshape(old.shape), []))


def _target(node: ir.Node) -> tuple[int, ...] | None:
    """The shape that a Reshape asks for, where it is a constant that keeps no axis as it comes."""
    value = node.inputs[1] if node.op_type == "Reshape" and len(node.inputs) > 1 else None
    const = None if value is None else value.const_value
    return None if const is None or 0 in const.numpy() else tuple(const.numpy().tolist())


@link("Mul", "Div")
def scaled(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link | None:
    """Times a constant, or divided by one, that does not depend on the weight; what meets a zero stays as it is."""
    divides = node.op_type == "Div"
    weight, other = node.inputs[slot], node.inputs[1 - slot]
    path = weight_path(other, shape_of)
    shape = None if weight is None else shape_of(weight)
    if (divides and slot) or path is None or path.quantized or shape is None or shape != shape_of(node.outputs[0]):
        return None
    inner = weight_path(weight, shape_of)
    if inner is None or inner.value is path.value:  # a product with itself
        return None
    if slot and other is not None and shape_of(other) == shape:  # of two alike the first is the weight
        return None

    def factor() -> Array:
        array = path.read().astype(np.float64)
        return 1 / array if divides else array

    def back(array: Array, old: Array) -> tuple[Array, Beside]:
        by = np.broadcast_to(factor(), array.shape)
        return np.where(by == 0, old, array / np.where(by == 0, 1, by)), []

    return Link(node, slot, lambda array: np.asarray(array * factor(), array.dtype), back)


@link("Gather")
def gather(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link | None:
    """The entries at constant positions, each once."""
    path = weight_path(node.inputs[1], shape_of) if slot == 0 else None
    given = node.inputs[0]
    shape = None if path is None or given is None else shape_of(given)
    if path is None or not shape:
        return None
    axis = int(attribute(node, "axis", 0)) % len(shape)
    size = shape[axis]
    at = path.read()
    at = np.where(at < 0, at + size, at)
    if len(np.unique(at)) < at.size:
        return None

    def back(array: Array, old: Array) -> tuple[Array, Beside]:
        new = np.array(old, np.float64)
        moved = np.moveaxis(new, axis, 0)
        front = array.reshape(*old.shape[:axis], -1, *old.shape[axis + 1 :])
        moved[at.ravel()] = np.moveaxis(front, axis, 0)
        return new, []

    return Link(node, 0, lambda array: array.take(at, axis), back, part=at.size < size)


@link("DequantizeLinear")
@link("DequantizeLinear", domain="com.microsoft")
def dequantize(node: ir.Node, slot: int, shape_of: ShapeOf) -> Link | None:
    """Real numbers of integers."""
    del shape_of
    return integers(node, slot) if slot == 0 else None


def integers(node: ir.Node, slot: int) -> Link | None:
    """The numbers that the integers at an input of a node represent, see `dequantize.integer_weights`."""
    at = scale_slot(node, slot)
    if at is None:
        return None

    def ahead(array: Array) -> Array:
        found = dequantized(node, slot, array)
        if found is None:
            raise ValueError("not quantized as its operator says")
        return found

    def back(array: Array, old: Array) -> tuple[Array, Beside]:
        stored, scale = requantized(node, slot, array, old)
        return stored, [(node, at, scale)]

    return Link(node, slot, ahead, back, scale=(node, at))
