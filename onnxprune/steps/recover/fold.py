"""Without any data: let the units that stay take over what the removed ones gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, bias_of, layers, matrix_of, read
from onnxprune.dims import Atom, Mask, atoms, units_of
from onnxprune.ops.traits import moves, rectifies
from onnxprune.passes.base import PassResult
from onnxprune.passes.write_back import set_matrix
from onnxprune.steps.recover.base import recovery
from onnxprune.steps.recover.layerwise import LayerError
from onnxprune.steps.recover.pairing import Pairing

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

# What is added to the diagonal of the kernel, as a share of its mean.
_RIDGE = 1e-3
# The cosine from which on two units are taken for multiples of each other: what float32 leaves of one.
_SAME = 1 - 1e-10


@recovery("fold", on_data=False, compensates=True)
@dataclass(frozen=True)
class FoldUnits:
    """Add the weights that read a removed unit to those that read similar units, in the best proportions.

    Before:  Conv(w1) ── Relu ── Conv(w2)        unit 3 of w1 is about unit 0, or about a mixture of others
    After:   Conv(w1) ── Relu ── Conv(w2')       w2'[:, k] = w2[:, k] + sum over r of c[k, r] * w2[:, r]

    c are the coefficients with which the units k that stay come nearest to a unit r that goes, if the layer in
    front saw white noise: then the product of two units has the mean |v||v'| (sin t + (pi - t) cos t) / 2 pi, where
    v and v' are their weights with bias and t is the angle between those (Cho & Saul 2009, "Kernel Methods for Deep
    Learning", equation 6). With one k per r this is the merging of Chen et al. 2023, "Going Beyond Neural Network
    Feature Similarity" (IFM); with all of them it is nearer. A unit that gives a multiple of another's output is taken
    over by that one, exactly. What comes out is weaker than it was, so every output
    is scaled to the mean square that it had (Jordan et al. 2023, "REPAIR", by the same model instead of data).
    Behind a BatchNormalization the statistics in the file give each unit its true spread.

    Works on the pruned model, with the weights of the original. Units that several layers add to (a residual stream),
    or that go through anything but Relu, pooling and rearrangement, go as they are, and a note says so. Without
    data there are no errors to tell.
    """

    pairing: Pairing
    errors: list[LayerError] = field(default_factory=list)

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place; a second time changes nothing."""
        pairing = self.pairing
        if model is not pairing.pruned.model:
            raise ValueError("the model is not the pruned one of the pairing")
        matrices: dict[str, Matrix] = {}
        notes = []
        found = [layer for layer in layers(pairing.original) if layer.readers == 1]
        for group in pairing.original.groups:
            keep = pairing.keep.get(group.atom)
            if keep is None or keep.all():
                continue
            readers = list(_readers(group.atom, pairing.original, found))
            notes += [] if readers else [f"{group.id}: nothing of the removed units could be folded into others"]
            for reader in readers:
                key = reader.reader.weight
                matrices[key] = reader.folded(matrices.get(key, matrix_of(reader.reader)), keep)
        modified = [
            _write(pairing, ours, counterpart, matrices[counterpart.weight])
            for ours, counterpart in _pairs(pairing, matrices)
        ]
        return PassResult(model, any(modified), notes)


def _pairs(pairing: Pairing, matrices: dict[str, Matrix]) -> list[tuple[Layer, Layer]]:
    return [(ours, counterpart) for ours, counterpart in pairing.pairs() if counterpart.weight in matrices]


def _write(pairing: Pairing, ours: Layer, counterpart: Layer, matrix: Matrix) -> bool:
    """Give a layer of the pruned model what is left of the original's matrix [1, features, outputs]."""
    inputs, outputs = (
        pairing.kept(counterpart.x, counterpart.form.axis),
        pairing.kept(counterpart.y, counterpart.form.out_axis),
    )
    features = inputs[counterpart.feature_channels(len(inputs))[0]]
    before = read(ours.stored)
    set_matrix(pairing.pruned.model, ours, matrix[:, features][:, :, outputs], pairing.pruned)
    return not np.array_equal(before, read(ours.stored))


@dataclass(frozen=True)
class _Reader:
    """A layer that reads the units of a group, and the one that makes them.

    Attributes:
        members: the features of each unit, in the same order for all: [units, features of one unit].
        rectified: is there a Relu between the two?
    """

    maker: Layer
    reader: Layer
    members: npt.NDArray[np.int64]
    rectified: bool

    def folded(self, matrix: Matrix, keep: Mask) -> Matrix:
        """The reader's matrix with what read removed units added to what reads the others."""
        kernel = _kernel(_vectors(self.maker), rectified=self.rectified)
        stay, go = np.flatnonzero(keep), np.flatnonzero(~keep)
        system = kernel[np.ix_(stay, stay)] + _RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(stay))
        coefficients = np.linalg.solve(system, kernel[np.ix_(stay, go)])
        copies, originals, factors = _multiples(self.maker, stay, go)
        coefficients[:, copies] = 0.0
        coefficients[originals, copies] = factors
        weights = matrix[0, self.members]
        folded = weights[stay] + np.einsum("sg,gfo->sfo", coefficients, weights[go])
        before, after = self._power(kernel, weights), self._power(kernel[np.ix_(stay, stay)], folded)
        gain = np.sqrt(before / np.where(after > 0, after, 1.0), where=after > 0, out=np.ones(len(after)))
        matrix = matrix.copy()
        matrix[0, self.members[stay]] = folded * gain
        return matrix

    def _power(self, kernel: Matrix, weights: Matrix) -> Vector:
        """The mean square of each output, for a unit that is the same under all taps of a window."""
        smooth = weights.reshape(len(weights), -1, self.reader.form.taps, weights.shape[2]).sum(axis=2)
        power: Vector = np.einsum("ueo,uv,veo->o", smooth, kernel, smooth)
        return power


def _readers(atom: Atom, analysis: Analysis, found: list[Layer]) -> Iterator[_Reader]:
    """The layers that read the units, where that is all that is done with them."""
    dims = analysis.dims
    makers = {layer.y: layer for layer in found if atom in set(atoms(dims[layer.y][layer.form.out_axis]))}
    readers = [layer for layer in found if atom in set(atoms(dims[layer.x][layer.form.axis]))]
    for layer in readers:
        way = _way(layer, set(makers))
        units = units_of(dims[layer.x][layer.form.axis], atom)
        counts = np.bincount(units[units >= 0], minlength=atom.size)
        if way is None or len(makers) > 1 or layer.form.groups > 1 or layer.y in makers or counts.min() != counts.max():
            continue
        start, rectified = way
        if makers[start].form.groups > 1 or dims[start][makers[start].form.out_axis].size != atom.size:
            continue
        of_feature = units[layer.feature_channels(len(units))[0]]
        order = np.argsort(of_feature, kind="stable")
        yield _Reader(makers[start], layer, order[of_feature[order] >= 0].reshape(atom.size, -1), rectified)


def _way(layer: Layer, starts: set[str]) -> tuple[str, bool] | None:
    """The value that a layer's input comes from through a Relu and rearrangements, and whether there was a Relu."""
    value, rectified = layer.node.inputs[0], False
    while value is not None and value.name not in starts:
        node = value.producer()
        if node is None or not (rectifies(node) or moves(node)):
            return None
        rectified |= rectifies(node)
        value = node.inputs[0]
    return None if value is None else (value.name or "", rectified)


def _vectors(layer: Layer) -> Matrix:
    """What makes each unit: its weights and bias, [units, features + 1]."""
    weights = matrix_of(layer)[0].T
    bias = bias_of(layer, len(weights))
    if layer.norm is not None:  # the spread and mean that training has seen
        spread, bias = (read(value).astype(np.float64) for value in layer.norm.inputs[1:3])
        length = np.linalg.norm(weights, axis=1)
        weights = weights * (np.abs(spread) / np.maximum(length, 1e-30))[:, None]
    return np.hstack([weights, bias[:, None]])


def _multiples(
    layer: Layer, stay: npt.NDArray[np.intp], go: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Vector]:
    """Which of the units that go give a positive multiple of one that stays, which one's, and the factor: exact."""
    weights = matrix_of(layer)[0].T
    vectors = np.hstack([weights, bias_of(layer, len(weights))[:, None]])
    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)
    units = vectors / length[:, None]
    cosine = units[go] @ units[stay].T
    nearest = cosine.argmax(axis=1)
    copies = np.flatnonzero(cosine[np.arange(len(go)), nearest] > _SAME)
    originals = nearest[copies]
    return copies, originals, length[go[copies]] / length[stay[originals]]


def _kernel(vectors: Matrix, *, rectified: bool) -> Matrix:
    """The mean product of every two units under white noise: [units, units]."""
    products: Matrix = vectors @ vectors.T
    if not rectified:
        return products
    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)
    lengths = np.outer(length, length)
    cosine = np.clip(products / lengths, -1, 1)
    angle = np.arccos(cosine)
    kernel: Matrix = lengths * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    return kernel
