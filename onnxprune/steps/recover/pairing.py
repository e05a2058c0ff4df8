"""A pruned model beside its original: which values, and which entries of them, correspond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Array, Layer, fittable, layers, matrix_of
from onnxprune.dims import Atom, Mask, keep_mask
from onnxprune.ops import find_cost
from onnxprune.ops.base import key_of


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
        return {layer.node.outputs[0].name or "": layer for layer in layers(self.original, hidden=True)}

    def pairs(self) -> list[tuple[Layer, Layer]]:
        """The layers of the pruned model with those of the original that they come from, in topological order.

        Those that share a weight are there if all of them are, and read it as the same matrix.
        """
        found = [(layer, self._twin(layer)) for layer in layers(self.pruned, hidden=True)]
        fit = [(layer, twin) for layer, twin in found if twin is not None and self.fits(layer.y)]
        together = {layer.node for layer in fittable([layer for layer, _ in fit])}
        return [(layer, twin) for layer, twin in fit if layer.node in together]

    def left(self) -> Counter[str]:
        """How many nodes that multiply with weights are no part of `pairs`, by operator."""
        fitted = {layer.node for layer, _ in self.pairs()}
        nodes = (node for _, node in self.pruned.operators if node not in fitted)
        return Counter(node.op_type for node in nodes if find_cost(key_of(node)) and self._has_weight(node))

    def _has_weight(self, node: ir.Node) -> bool:
        """Is an operand of rank 2 or more the same in every run?"""
        given = [value.name or "" for value in node.inputs if value is not None]
        shapes = self.pruned.shapes.shapes
        return any(name not in self.pruned.activations and len(shapes.get(name, ())) > 1 for name in given)

    def _twin(self, layer: Layer) -> Layer | None:
        """An Add that was put behind a node of the pruned model has taken over its output's name."""
        made = [layer.node, *([layer.add[0]] if layer.add else [])]
        twins = (self.originals.get(node.outputs[0].name or "") for node in made)
        return next((twin for twin in twins if twin is not None), None)

    def kept(self, value: str, axis: int) -> Mask:
        """The entries of an axis of an original value that the pruned model still has."""
        return keep_mask(self.original.dims[value][axis], self.keep)

    def fits(self, value: str) -> bool:
        """Do the masks give the pruned model's shape of a value?"""
        dims, shape = self.original.dims.get(value), self.pruned.shapes.shapes.get(value)
        return dims is not None and shape == tuple(int(keep_mask(dim, self.keep).sum()) for dim in dims)

    def hidden_outputs(self, twin: Layer) -> Mask:
        """The results inside a node that stay, of all directions of a recurrent one: bool, shape [outputs]."""
        axis = twin.form.hidden
        assert axis is not None
        kept = self.kept(twin.operand.name or "", axis)
        return np.tile(kept, matrix_of(twin).shape[2] * twin.form.groups // len(kept))

    def sliced(self, array: Array, value: str) -> Array:
        """A value of the original as the pruned model would have it."""
        for axis in range(array.ndim):
            mask = self.kept(value, axis)
            if len(mask) == array.shape[axis] and not mask.all():
                array = np.compress(mask, array, axis=axis)
        return array
