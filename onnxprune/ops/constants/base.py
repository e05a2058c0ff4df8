"""Facts about a value that hold for any input, and the table of rules on that.

A rule tells which entries of an operator's outputs are constant, from what is known of its inputs. Where there is no
rule nothing is known, and fewer units are found. All of it holds for finite values: zero times anything is zero.

    @constant("Transpose")
    def transpose(site):
        x, perm = site.x[0], site.attr("perm")
        return None if x is None else x.moved(lambda array: np.transpose(array, perm))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.dims import Mask
from onnxprune.ops.base import Array, Key, attribute, keys
from onnxprune.support.registry import Registry

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KnownEntries:
    """The entries of a value that are the same number in every run.

    Both arrays have the rank of the value; an axis is there in full, or has size 1: then what they say holds for every
    entry along it. A convolution's output [N, C, H, W] with some constant channels is [1, C, 1, 1] here.

    Attributes:
        values: the numbers, of the value's own type; anything where `known` is False.
        known: which of them are known, bool, the shape of `values`.
    """

    values: Array
    known: Mask

    @staticmethod
    def whole(array: Array) -> KnownEntries:
        """A constant: every entry is known."""
        return KnownEntries(array, np.broadcast_to(np.True_, array.shape))

    @staticmethod
    def nothing(rank: int, dtype: npt.DTypeLike = np.float32) -> KnownEntries:
        """Not a single entry is known."""
        return KnownEntries(np.zeros((1,) * rank, dtype), np.zeros((1,) * rank, np.bool_))

    @property
    def zero(self) -> Mask:
        """Which entries are known to be zero; the shape of `values`."""
        return self.known & np.equal(self.values, 0)

    def moved(self, move: Callable[[Array], Array]) -> KnownEntries:
        """The same after a rearrangement of entries."""
        return KnownEntries(move(self.values), move(self.known))

    def collapsed(self, axes: Iterable[int]) -> KnownEntries:
        """The fact that holds for all entries along the axes alike, which come out with size 1."""
        values, known = self.values, self.known
        for axis in axes:
            if values.shape[axis] != 1:
                first = values.take([0], axis)
                known = known.all(axis=axis, keepdims=True) & (values == first).all(axis=axis, keepdims=True)
                values = first
        return KnownEntries(values, known)

    def spread(self, axis: int, size: int) -> KnownEntries:
        """The same with an axis in full."""
        shape = list(self.values.shape)
        shape[axis] = size
        return self.moved(lambda array: np.broadcast_to(array, shape))

    def along(self, axis: int, size: int) -> tuple[Vector, Mask]:
        """The fact at each of the `size` positions of an axis, wherever on the other axes: both of shape [size]."""
        flat = self.collapsed(i for i in range(self.values.ndim) if i != axis)
        values, known = (np.broadcast_to(array.ravel(), size) for array in (flat.values, flat.known))
        return np.where(known, values, 0).astype(np.float64), known


def on_axis(values: Array, known: Mask, axis: int, rank: int, dtype: npt.DTypeLike) -> KnownEntries:
    """Numbers [size] that hold along one axis of a value, wherever on the others."""
    shape = [1] * rank
    shape[axis] = len(values)
    return KnownEntries(values.reshape(shape).astype(dtype), known.reshape(shape))


@dataclass(frozen=True)
class Site:
    """A node, what is known of its inputs, and its shapes.

    Attributes:
        node: the node.
        x: per input what is known of it; None for nothing, or an input that is not given.
        shapes: per input its shape; empty for one that is not given.
        y: the shapes of the outputs.
        dynamic: per input the axes whose size differs from run to run.
        dtypes: the element types of the outputs.
        opsets: the opset versions of the model by domain.
    """

    node: ir.Node
    x: list[KnownEntries | None]
    shapes: list[tuple[int, ...]]
    y: list[tuple[int, ...]]
    dynamic: list[set[int]]
    dtypes: list[npt.DTypeLike]
    opsets: dict[str, int]

    @property
    def opset(self) -> int:
        """The version of the default domain."""
        return self.opsets.get("", 1)

    def has(self, i: int) -> bool:
        """Is input `i` given?"""
        return i < len(self.node.inputs) and self.node.inputs[i] is not None

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, as plain Python."""
        return attribute(self.node, name, default)

    def axis(self, name: str = "axis", default: int = 0) -> int:
        """An axis attribute, counted from the front of the first input."""
        return int(self.attr(name, default)) % len(self.shapes[0])

    def constant(self, i: int) -> Array | None:
        """Input `i` where all of it is known, else None."""
        known = self.x[i] if i < len(self.x) else None
        if known is None or not known.known.all() or known.values.shape != self.shapes[i]:
            return None
        return known.values

    def argument(self, i: int, name: str) -> list[int] | None:
        """Integers that are an input in new opsets and an attribute in old ones; None when missing or not known."""
        if name in self.node.attributes:
            given = self.attr(name)
        else:
            array = self.constant(i)
            given = None if array is None else array.ravel()
        return None if given is None else [int(entry) for entry in np.atleast_1d(given)]


Rule = Callable[[Site], "KnownEntries | list[KnownEntries | None] | None"]
RULES: Registry[Key, Rule] = Registry("constant rule", __package__, "onnxprune.lossless")


def constant(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Decorator: this tells which entries of the outputs of the operators `names` are constant."""
    return RULES.register(*keys(names, domain))


def find_constant_rule(key: Key) -> Rule | None:
    """The rule of an operator, None when there is none."""
    return RULES.get(key)
