"""Least squares for what recurrent cells multiply their states with, over all steps of the original's sequences.

    Before:  the gates of a step lack what the removed units of the step before added
    After:   min |h left R new + c - h R|^2 + ridge |R new - R sliced|^2

h are the original's states of the step before (the given ones at first), h left those of the units that stay; c goes to
the bias. That the states come from the original and not from the pruned cell is teacher forcing (Williams and Zipser
1989, "A Learning Algorithm for Continually Running Fully Recurrent Neural Networks"): errors of one step do not spoil
the evidence of the next. The candidate gate of a GRU that resets its states before it multiplies them reads other
values and stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.layers import Array, Layer, choose_positions
from onnxprune.ops.learned import RECURRENT, learned
from onnxprune.ops.recurrent import gates_of_states, states_before
from onnxprune.ops.weight_paths import constant
from onnxprune.passes.write_back import set_recurrence
from onnxprune.steps.recover.evidence import Evidence, LayerFit
from onnxprune.steps.recover.least_squares import Matrix, Moments, merged
from onnxprune.steps.recover.pairing import Pairing

# Steps of all samples that a fit is made to: where there are more, they are drawn at random.
_ROWS = 20_000
# Every fifth batch is held out to choose the ridge.
_HELD_OUT = 5
_BIAS, _FIRST_STATE = 3, 5


@dataclass(frozen=True)
class Recurrence:
    """The product of a cell with its states, in the pruned model and in the original.

    Attributes:
        pairing: the two models.
        layer, counterpart: the cell's product with its input.
        slot: the input that holds the weights [directions, gates * units, units].
    """

    pairing: Pairing
    layer: Layer
    counterpart: Layer
    slot: int

    @classmethod
    def of(cls, pairing: Pairing, layer: Layer, counterpart: Layer) -> Recurrence | None:
        """That of a cell which lost units; None for other layers, in bodies, and where others read its weights, too."""
        node = layer.node
        slot = next((slot for slot, role in learned(node).roles.items() if role == RECURRENT), None)
        weight = None if slot is None or slot >= len(node.inputs) else node.inputs[slot]
        if node.graph is not pairing.pruned.model.graph:  # the states inside of a loop are no values of the graph
            return None
        if slot is None or weight is None or weight.const_value is None or len(list(weight.uses())) > 1:
            return None
        if not weight.const_value.dtype.is_floating_point() or pairing.kept(counterpart.y, -1).all():
            return None
        return cls(pairing, layer, counterpart, slot)

    @property
    def theirs(self) -> list[str]:
        """The values of the original that are needed: all states, and those before the first step."""
        first = self._first
        return [self.counterpart.y, *([first] if first else [])]

    @property
    def _first(self) -> str:
        inputs = self.counterpart.node.inputs
        value = inputs[_FIRST_STATE] if len(inputs) > _FIRST_STATE else None
        return "" if value is None or value.is_initializer() else value.name or ""

    def fit(
        self, batches: Iterable[tuple[Array, ...]], fit: LayerFit, seed: Sequence[int]
    ) -> tuple[float, float] | None:
        """Fit in place to `theirs`, batch by batch; the errors before and after, as shares of the target's variance.

        None where nothing was changed: a bias alone, on states that the pruned cell does not have, does harm.
        """
        evidence = self._evidence(list(batches), np.random.default_rng(seed))
        fitted = fit(evidence) if evidence else None
        if evidence is None or fitted is None or fitted[0] is evidence.matrix:
            return None
        (matrix, bias), outputs = _product(self.layer.node, self.slot), evidence.matrix.shape[2]
        matrix[:, :, :outputs], bias[:, :outputs] = fitted
        set_recurrence(self.pairing.pruned.model, self.layer, self.slot, matrix, bias, self.pairing.pruned)
        scale = max(float(evidence.everything.target_variance().sum()), 1e-30)
        before, after = (evidence.everything.error(*each) for each in ((evidence.matrix, evidence.bias), fitted))
        return before / scale, after / scale

    def _evidence(self, batches: Sequence[tuple[Array, ...]], rng: np.random.Generator) -> Evidence | None:
        """States that are left, and what all of them add to the gates that are fitted."""
        node = self.counterpart.node
        left = self.pairing.kept(self.counterpart.y, -1)
        matrix, bias = _product(node, self.slot)
        fitted = int(left.sum()) * gates_of_states(node)
        outputs = np.flatnonzero(np.tile(left, matrix.shape[2] // len(left)))[:fitted]
        whole, shift = matrix[:, :, outputs].astype(np.float32), bias[:, None, outputs].astype(np.float32)
        given = node.inputs[_FIRST_STATE] if len(node.inputs) > _FIRST_STATE and not self._first else None
        first = None if given is None else constant(given)
        moments = (Moments(), Moments())
        for number, (states, *start) in enumerate(batches):
            rows = states_before(node)(states, start[0] if start else first)
            drawn = choose_positions(rows.shape[1], -(-_ROWS // len(batches)), rng)
            rows = rows if drawn is None else rows[:, drawn]
            moments[number % _HELD_OUT == 1].update(rows[:, :, left], np.matmul(rows, whole) + shift)
        train, held_out = (each.known() for each in moments)
        if not (train.is_finite() and held_out.is_finite()):
            return None
        now, now_bias = _product(self.layer.node, self.slot)
        layer = replace(self.layer, name=f"{self.layer.name}.recurrent")
        both = merged(train, held_out)
        return Evidence(layer, now[:, :, :fitted], now_bias[:, :fitted], train, held_out, both)


def _product(node: ir.Node, slot: int) -> tuple[Matrix, Matrix]:
    """What a cell multiplies states with [directions, units, gates * units], and adds [directions, gates * units]."""
    matrix = constant(node.inputs[slot]).astype(np.float64).transpose(0, 2, 1)
    held = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    bias = np.zeros((len(matrix), matrix.shape[2])) if held is None else np.split(constant(held), 2, axis=1)[1]
    return matrix.copy(), bias.astype(np.float64)
