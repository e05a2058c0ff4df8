"""A pruned model beside its original: which values, and which entries of them, correspond."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.coupling import Analysis
from onnxprune.dims import Atom, Mask, keep_mask
from onnxprune.layers import Array, Layer, layers


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
        """The layers of the pruned model with those of the original that they come from, in topological order."""
        found = [(layer, self._twin(layer)) for layer in layers(self.pruned, hidden=True)]
        return [(layer, twin) for layer, twin in found if twin is not None and self.fits(layer.y)]

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
        """The results inside a recurrent cell that stay, of all directions: bool, shape [outputs]."""
        directions, outputs, _ = self.original.dims[twin.weight]
        return np.tile(keep_mask(outputs, self.keep), directions.size)

    def sliced(self, array: Array, value: str) -> Array:
        """A value of the original as the pruned model would have it."""
        for axis in range(1, array.ndim):  # axis 0 enumerates samples
            mask = self.kept(value, axis)
            if len(mask) == array.shape[axis] and not mask.all():
                array = np.compress(mask, array, axis=axis)
        return array
