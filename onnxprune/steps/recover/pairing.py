"""A pruned model beside its original: which values, and which entries of them, correspond."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Array, Layer, fittable, layers, matrix_of
from onnxprune.analysis.names import layer_name
from onnxprune.dims import Atom, Mask, keep_mask
from onnxprune.model.weights import is_weight
from onnxprune.ops import find_cost, find_form
from onnxprune.ops.base import key_of

INTEGERS = "integers in a form that cannot be fitted"


@dataclass(frozen=True)
class Left:
    """A layer that recovery leaves as it is: its name, its operator, and why."""

    name: str
    operator: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.operator}: {self.why})"


@dataclass
class Pairing:
    """Values of both models correspond by name; those of the pruned one hold the entries that the masks keep.

    Attributes:
        original: the analysis of the original.
        pruned: the analysis of the pruned model, which is changed.
        keep: the units that stay, by the original's atoms.
    """

    original: Analysis
    pruned: Analysis
    keep: Mapping[Atom, Mask]

    @cached_property
    def originals(self) -> dict[str, Layer]:
        """The layers of the original, by the value that their node makes."""
        return {layer.node.outputs[0].name or "": layer for layer in layers(self.original, hidden=True, bodies=True)}

    def pairs(self) -> list[tuple[Layer, Layer]]:
        """The layers of the pruned model with those of the original that they come from, in topological order.

        Those that share a weight are there if all of them are, and read it as the same matrix.
        """
        found = [(layer, self._twin(layer)) for layer in layers(self.pruned, hidden=True, bodies=True)]
        fit = [(layer, counterpart) for layer, counterpart in found if counterpart is not None and self.fits(layer.y)]
        together = {layer.node for layer in fittable([layer for layer, _ in fit])}
        return [(layer, counterpart) for layer, counterpart in fit if layer.node in together]

    def left(self) -> list[Left]:
        """The nodes that multiply with weights and are not part of `pairs`, in topological order."""
        fitted = {layer.node for layer, _ in self.pairs()}
        found = []
        for name, node in self.pruned.operators:
            why = None if node in fitted or not find_cost(key_of(node)) else self._why_left(node)
            if why is not None:
                found.append(Left(layer_name(node, self.pruned.activations) or name, node.op_type, why))
        return found

    def _why_left(self, node: ir.Node) -> str | None:
        """Why a node that multiplies is not fitted; None where it multiplies with no weight."""
        given = [value for value in node.inputs if value is not None]
        shapes, activations = self.pruned.shapes.shapes, self.pruned.activations
        wide = [value for value in given if len(shapes.get(value.name or "", ())) > 1]
        constant = [value for value in wide if value.name not in activations]
        if not constant and not any(_chosen(value) for value in wide):
            return None
        if node.graph is not self.pruned.model.graph:
            return "in a branch or a loop"
        if not constant:
            return "its weight is computed at run time"
        if any(value.dtype is not None and value.dtype.is_integer() for value in constant):
            return INTEGERS
        return "its weight is read in other ways, too" if find_form(key_of(node)) else "no form to solve for"

    def _twin(self, layer: Layer) -> Layer | None:
        """An Add that was put behind a node of the pruned model has taken over its output's name."""
        made = [layer.node, *([layer.add[0]] if layer.add else [])]
        counterparts = (self.originals.get(node.outputs[0].name or "") for node in made)
        return next((counterpart for counterpart in counterparts if counterpart is not None), None)

    def kept(self, value: str, axis: int) -> Mask:
        """The entries of an axis of an original value that the pruned model still has."""
        return keep_mask(self.original.dims[value][axis], self.keep)

    def fits(self, value: str) -> bool:
        """Do the masks give the pruned model's shape of a value?"""
        dims, shape = self.original.dims.get(value), self.pruned.shapes.shapes.get(value)
        return dims is not None and shape == tuple(int(keep_mask(dim, self.keep).sum()) for dim in dims)

    def hidden_outputs(self, counterpart: Layer) -> Mask:
        """The results inside a node that stay, of all directions of a recurrent one: bool, shape [outputs]."""
        axis = counterpart.form.hidden
        assert axis is not None
        kept = self.kept(counterpart.operand.name or "", axis)
        return np.tile(kept, matrix_of(counterpart).shape[2] * counterpart.form.groups // len(kept))

    def sliced(self, array: Array, value: str) -> Array:
        """A value of the original as the pruned model would have it."""
        for axis in range(array.ndim):
            mask = self.kept(value, axis)
            if len(mask) == array.shape[axis] and not mask.all():
                array = np.compress(mask, array, axis=axis)
        return array


def _chosen(value: ir.Value) -> bool:
    """Is an activation made of a weight that the graph chooses or scales at run time, by no product of its own?"""
    seen, waiting = set[ir.Value](), [value]
    while waiting:
        each = waiting.pop()
        node = each.producer()
        if each.const_value is not None:
            if is_weight(each) and len(each.const_value.shape.numpy()) > 1:
                return True
        elif node is not None and each not in seen and not find_cost(key_of(node)):
            seen.add(each)
            waiting += [given for given in node.inputs if given is not None]
    return False
