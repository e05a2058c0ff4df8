"""The parts of an operator's file: the view of a node that a rule sees, and the tables that rules go into.

A rule states which dimensions of a node are the same, and which constants name a size. It never touches a tensor:

    @rule("Gemm")
    def gemm(op):
        a, b, y = op.x[0], op.x[1], op.y[0]
        op.contract(a[1], b[0])     # summed over
        op.same(y[0], a[0])
        op.same(y[1], b[1])

Axes that a rule does not mention are frozen by the driver, so forgetting one can never corrupt a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.dims import Atom, Dim, MisalignedError, atoms, cut, describe, factor, freeze, resolve, unify
from onnxprune.model.graph import subgraphs
from onnxprune.ops.findings import Contraction, Findings, IndexRef, Pinned, Reason, SizeRef
from onnxprune.support.registry import Registry

Dims = list[Atom]
Key = tuple[str, str]  # (domain, operator)
Array = npt.NDArray[Any]


class RefuseError(Exception):
    """Raised by a rule that cannot handle this form of the operator; all its dimensions are frozen with the message."""


class Op:
    """A node as its rule sees it.

    Attributes:
        x: per input the dimensions of its axes, outermost first; an empty list for scalars, missing or unranked inputs.
        y: the same for the outputs.
        branches: the same for the outputs of each body inside the node.
        body_inputs: the same for the inputs of each body.
        opset: version of the node's domain.
        name: the node's name in reports.
        zeros: per input that holds integers, the input with its zero point; a rule sets it before `contract`.
    """

    def __init__(
        self,
        node: ir.Node,
        name: str,
        dims: Mapping[str, Dims],
        known: Mapping[str, Array],
        activations: set[ir.Value],
        opset: int,
        findings: Findings,
    ) -> None:
        self.node = node
        self.name = name
        self.opset = opset
        self.x: list[Dims] = [dims.get(value.name or "", []) if value is not None else [] for value in node.inputs]
        self.y: list[Dims] = [dims.get(value.name or "", []) for value in node.outputs]
        self.branches: list[list[Dims]] = [
            [dims.get(value.name or "", []) for value in body.outputs] for body in subgraphs(node)
        ]
        self.body_inputs: list[list[Dims]] = [
            [dims.get(value.name or "", []) for value in body.inputs] for body in subgraphs(node)
        ]
        self._dims = dims
        self._known = known
        self._activations = activations
        self._findings = findings
        self._mentioned: set[int] = set()
        self._given = self.x
        self._places: Sequence[int] = range(len(self.x))
        self.zeros: Mapping[int, int] = {}

    # -- reading the node

    def has(self, i: int) -> bool:
        """Is input `i` given?"""
        return i < len(self._places) and self.node.inputs[self._places[i]] is not None

    def is_activation(self, i: int) -> bool:
        """Does input `i` depend on a graph input (rather than on weights alone)?"""
        return self.has(i) and self.node.inputs[self._places[i]] in self._activations

    def dims_of(self, value: ir.Value | None) -> Dims:
        """The dimensions of a value that need not be one of this node; empty where they are not known."""
        return self._dims.get(value.name or "", []) if value is not None else []

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, as plain Python."""
        return attribute(self.node, name, default)

    def const(self, slot: int | str) -> Array | None:
        """The value of an input (by index) or attribute (by name) where it is known and does not vary, else None."""
        if isinstance(slot, str):
            value = self.attr(slot)
            return None if value is None else np.asarray(value)
        if not self.has(slot):
            return None
        given = self.node.inputs[self._places[slot]]
        assert given is not None
        if given.name in self._known:
            return self._known[given.name or ""]
        return given.const_value.numpy() if given.const_value is not None else None

    def entries(self, i: int) -> list[int | None]:
        """The numbers in input `i`, a vector, one by one; None for those of a concatenation that vary."""
        known = self.const(i)
        if known is not None:
            return [int(entry) for entry in known.ravel()]
        maker = self.node.inputs[self._places[i]].producer() if self.has(i) else None  # type: ignore[union-attr]
        found: list[int | None] = []
        for piece in maker.inputs if maker is not None and maker.op_type == "Concat" else ():
            array = self._known.get("" if piece is None else piece.name or "")
            dims = self.dims_of(piece)
            found += [None] * (dims[0].size if dims else 0) if array is None else [int(each) for each in array.ravel()]
        return found

    def slot(self, i: int, name: str) -> int | str:
        """Where this opset keeps an argument: input `i`, or the attribute `name` of older opsets."""
        return name if name in self.node.attributes else i

    def axis(self, name: str = "axis", default: int = 0, rank: int | None = None) -> int:
        """An axis attribute, counted from the front."""
        axis = int(self.attr(name, default))
        return axis % (len(self.x[0]) if rank is None else rank) if axis < 0 else axis

    # -- stating facts

    def same(self, a: Dim, b: Dim) -> None:
        """Both are the same dimension."""
        self._seen(a, b)
        unify(a, b, self.reason(f"{describe(a)} and {describe(b)} do not line up"))

    def same_all(self, a: Sequence[Dim], b: Sequence[Dim]) -> None:
        """The two lists of dimensions are the same, pair by pair. Refuses where they are of different lengths."""
        if len(a) != len(b):
            raise RefuseError(f"{len(a)} axes meet {len(b)}")
        for one, other in zip(a, b, strict=True):
            self.same(one, other)

    def contract(self, i: int, axis: int, other: Dim | None = None, *, over: Dim | None = None) -> None:
        """The node sums over axis `axis` of input `i`, which is the same dimension as `other`, or its factor `over`."""
        dim = self.x[i][axis]
        self.free(dim)
        if other is not None:
            self.same(dim, other)
        place = self._places[i]
        position = next(at for at, given in enumerate(self._given[place]) if given is dim)
        self._findings.contractions.append(Contraction(self.node, (place, position), dim, self.zeros.get(place), over))

    def free(self, *dims: Dim) -> None:
        """The node does not care about the size of these."""
        self._seen(*dims)

    def freeze(self, dim: Dim, why: str) -> None:
        """The dimension must keep its size."""
        self._seen(dim)
        freeze(dim, self.reason(why))

    def names(
        self,
        slot: int | str,
        index: int | None,
        dim: Dim,
        axis: Dim | None = None,
        *,
        dropping: str = "",
        inferable: bool = False,
        singles: Sequence[Dim] = (),
    ) -> None:
        """Entry `index` of a constant (input or attribute) is the size of `dim`; see SizeRef."""
        whole = dim if axis is None else axis
        self._findings.size_refs.append(
            SizeRef(self.node, self._place(slot), index, dim, whole, dropping, inferable, tuple(singles))
        )

    def pin(self, name: str, value: float, axis: Dim) -> None:
        """Attribute `name` is not given and means `value`, which was computed from the size of `axis`."""
        self._findings.pinned.append(Pinned(self.node, name, value, axis))

    def indexes(self, slot: int, dim: Dim, picked: Sequence[Dim]) -> None:
        """The entries of a constant input are positions along `dim`; its axes are `picked`."""
        place = self._place(slot)
        assert isinstance(place, int)
        self._findings.index_refs.append(IndexRef(self.node, place, dim, tuple(picked)))

    def tag(self, tag: str, *dims: Dim) -> None:
        """Mark what a dimension is used for: labels of groups are derived from it."""
        self._findings.tags.extend((tag, dim, self.node) for dim in dims)

    def cut(self, dim: Dim, k: int) -> tuple[Dim, Dim]:
        """The first `k` entries of a dimension and the rest."""
        self._seen(dim)
        return cut(dim, k)

    def factor(self, dim: Dim, outer: int) -> tuple[Dim, Dim]:
        """The outer part of size `outer` of a dimension, and the inner part; both frozen atoms where there is none."""
        self._seen(dim)
        if outer < 1:
            raise RefuseError(f"{outer} groups")
        try:
            return factor(dim, outer)
        except MisalignedError as error:
            why = self.reason(str(error))
            freeze(dim, why)
            return Atom(outer, why), Atom(dim.size // outer, why)

    def like(
        self,
        name: str,
        inputs: Sequence[int] | None = None,
        *,
        x: Mapping[int, Dims] | None = None,
        y: Dims | None = None,
        zeros: Mapping[int, int] | None = None,
    ) -> None:
        """Apply the rule of the standard operator `name`, of which this one is a variant.

        Args:
            name: an operator of the default domain.
            inputs: its input i is input `inputs[i]` of this node; those that are not given are left out.
            x: the dimensions of its inputs where they come in another order of axes.
            y: the same for its first output.
            zeros: per input of this node that holds integers, the input with its zero point.
        """
        variant = copy(self)
        variant._places = [i for i in inputs or range(len(self.x)) if i < len(self.x)]
        variant.zeros = zeros or {}
        variant.x = [(x or {}).get(i, self.x[place]) for i, place in enumerate(variant._places)]
        variant.y = [self.y[0] if y is None else y, *self.y[1:]]
        RULES["", name](variant)

    def reason(self, text: str, tensor: str = "") -> Reason:
        """A reason that names this node."""
        return Reason(text, self.name, self.node.op_type, tensor)

    def _place(self, slot: int | str) -> int | str:
        """Where the node itself has the argument that the rule calls `slot`."""
        return self._places[slot] if isinstance(slot, int) and slot < len(self._places) else slot

    def _seen(self, *dims: Dim) -> None:
        self._mentioned.update(map(id, dims))

    def freeze_unmentioned(self, why: str) -> None:
        """Called by the driver after the rule: what was not mentioned keeps its size."""
        for dim in self.all_dims():
            if id(dim) not in self._mentioned:
                freeze(dim, self.reason(why))

    def freeze_everything(self, why: str) -> None:
        """Called by the driver when there is no rule, or when it refuses."""
        for dim in self.all_dims():
            freeze(dim, self.reason(why))

    def all_dims(self) -> list[Atom]:
        """Every axis of every input and output."""
        inner = [dims for values in (*self.branches, *self.body_inputs) for dims in values]
        return [dim for dims in (*self.x, *self.y, *inner) for dim in dims]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute of a node as plain Python (a tensor as its array)."""
    found = node.attributes.get(name)
    if found is None:
        return default
    return found.value.numpy() if found.type == ir.AttributeType.TENSOR else found.value


def is_frozen(dim: Dim) -> bool:
    """Is every atom inside frozen (or of a single unit)?"""
    return all(atom.reason is not None or atom.size < 2 for atom in atoms(resolve(dim)))


Rule = Callable[[Op], None]
Typed = tuple[tuple[int, ...], ir.DataType]  # shape and element type of a value
ShapeRule = Callable[[ir.Node, list["Typed | None"]], list["Typed | None"]]
Evaluator = Callable[..., Array]
Cost = Callable[["CostView"], int]

_PLACE = ("onnxprune.ops", "onnxprune.ops")  # every file of the package and every plug-in of the group fills all tables
RULES: Registry[Key, Rule] = Registry("axis rule", *_PLACE)
EVALUATORS: Registry[Key, Evaluator] = Registry("evaluator", *_PLACE)
COSTS: Registry[Key, Cost] = Registry("cost rule", *_PLACE)
SHAPES: Registry[Key, ShapeRule] = Registry("shape rule", *_PLACE)


@dataclass(frozen=True)
class CostView:
    """The view of a cost rule: the node and the concrete shapes of its inputs and outputs."""

    node: ir.Node
    x: list[tuple[int, ...]]
    y: list[tuple[int, ...]]


def rule(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Decorator: this is the axis rule of the operators `names`. Raises ValueError when one has a rule already."""
    return RULES.register(*keys(names, domain))


def evaluator(*names: str, domain: str = "") -> Callable[[Evaluator], Evaluator]:
    """Decorator: this computes the operators `names` on small numpy arrays, `f(node, *arrays) -> array`."""
    return EVALUATORS.register(*keys(names, domain))


def cost(*names: str, domain: str = "") -> Callable[[Cost], Cost]:
    """Decorator: this counts the multiply-accumulates of the operators `names` from their shapes."""
    return COSTS.register(*keys(names, domain))


def shape_rule(*names: str, domain: str = "") -> Callable[[ShapeRule], ShapeRule]:
    """Decorator: this tells the shapes of outputs where onnx has no schema, `f(node, inputs) -> outputs`, each
    (shape, element type) or None: not given, not known.
    """
    return SHAPES.register(*keys(names, domain))


def keys(names: Sequence[str], domain: str) -> list[Key]:
    """The operators `names` of a domain, as tables know them."""
    return [(canonical_domain(domain), name) for name in names]


def canonical_domain(domain: str) -> str:
    """The default domain has two spellings."""
    return "" if domain == "ai.onnx" else domain


def key_of(node: ir.Node) -> Key:
    """The table key of a node's operator."""
    return canonical_domain(node.domain), node.op_type
