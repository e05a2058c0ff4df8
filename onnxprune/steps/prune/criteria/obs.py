"""Structured Optimal Brain Surgeon: units in the order in which a layer can best do without them.

For every layer that reads the units, H is the covariance of its rows and W its matrix. Removing the features S of a
unit and letting the other weights make up for it costs, in mean squared error of the layer's output,

    tr(W_S^T (H^-1_SS)^-1 W_S)

(Hassibi et al. 1993, "Optimal Brain Surgeon", equation 5, for blocks and several outputs as in Frantar & Alistarh 2022,
"Optimal Brain Compression", section 3, and Kurtic et al. 2023, "ZipLM", equation 2). The cheapest unit goes, the other
weights and H^-1 are updated, and so on: of two units that explain each other one goes, and the other then costs what it
gives. passes.Reconstruct makes the update for the units that go in the end, on what the pruned layers in front give.

Of a convolution with more than 1152 features only the covariance between channels and that between the taps of its
window are kept, and H is taken as their product (see Windows): on ResNet-20 at 2.11 times fewer MACs, with all windows
taken so, accuracy after recovery is the same within the spread of seeds.

H gets a ridge of a thousandth of its mean diagonal, since features that never vary have no inverse; the ridge draws
weights towards what they were. It is estimated from at most 1500 rows of a batch in each layer: of a convolution, from
places drawn with the seed. Another seed gives other rows, so scores of two seeds differ by sampling noise: on 256
samples of the digits ResNet their ranks correlate within a group by .95 on average, .72 at the least.

Exchanging removed and kept units afterwards (Meng et al. 2024, "OSSCAR") is left out: on ResNet-20 and ResNet-56 it
lowers the error by about 0.2% at most, and from units drawn at random it leads to the same error (benchmarks/swaps.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from copy import copy

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Group
from onnxprune.analysis.layers import matrix_of
from onnxprune.dims import atoms, units_of
from onnxprune.statistics.accumulators import Summary, axis_columns
from onnxprune.statistics.sites import SitePlace
from onnxprune.steps.prune.criteria._observed import Observations, Observed, factored
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, by_size, criterion

Matrix = npt.NDArray[np.float64]

# What is added to the diagonal of H, as a share of its mean: features that never vary have no inverse.
_RIDGE = 1e-3
# All errors of a group are computed about this many times: after every removal in small groups, after a few in large
# ones. Which few is decided one by one, see _greedy.
_ROUNDS = 64
# Rows of H^-1 that are updated together, and the share of features left at which those that are removed are forgotten.
_UPDATE_ROWS, _COMPACT = 128, 0.8


@criterion(
    "obs",
    needs=("activations",),
    cost="one pass over the data, an inverse per layer and an update per unit",
    source="Hassibi et al. 1993, Optimal Brain Surgeon, equation 5; structured as in ZipLM (Kurtic et al. 2023)",
    comparable=True,
)
def obs(group: Group, context: ScoringContext) -> Scores:
    """Error of the layers behind when a unit goes and the weights left make up for it.

    The error is relative to the variance of the layer's output, or of the residual stream that it is added to: what is
    read behind it. The scores are those of a greedy order: each unit's is the error that its removal adds after all
    weaker ones were removed. Where activations are multiplied with each other (queries with keys), a unit costs its
    share of the product's mean square, its terms taken as uncorrelated. In layers that read more than 4096 channels,
    and in those that recovery cannot or will not fit, no weights make up for others. Where what reads the units is no
    such layer (a recurrent state, an operator of integers that has no form) a unit costs its share of the variance that
    is read there. Units that are never read as activations (the inside of a fused attention) are scored by the size of
    their weights, brought to the mean of the others, and a note says so.
    """
    observations = context.activations.once("surgeon", lambda: Observations(context))
    found = observations.of(group)
    problems = [problem for observed in found for problem in problems_of(observed, group, context)]
    shares = sum((_own_errors(each, group, context) for each in found), _product_shares(group, context))
    shares = shares + _variance_shares(group, context, observations.nodes)
    if not problems and not shares.any():
        return by_size(group, context)
    return _greedy(problems, shares)


class SurgeonProblem:
    """One product that reads units of a group: H^-1, W, and which features belong to which unit."""

    def __init__(
        self, covariance: Matrix, matrix: Matrix, unit_of: npt.NDArray[np.int64], units: int, variance: float
    ) -> None:
        features = len(covariance)
        self.scale = 1.0 / max(variance, 1e-30)
        ridge = _RIDGE * max(float(np.trace(covariance)) / features, 1e-30)
        ridged = covariance.copy()
        ridged[np.diag_indices(features)] += ridge
        self.inverse = np.linalg.inv(ridged)
        matrix = matrix.astype(ridged.dtype, copy=False)
        # Errors need W W^T only, of which the triangle of a QR has few columns.
        wide = matrix.shape[1] > features
        self.matrix = np.asarray(np.linalg.qr(matrix.T, mode="r")).T if wide else matrix.copy()
        order = np.argsort(unit_of, kind="stable")
        self.members = order[unit_of[order] >= 0].reshape(units, -1)
        self.left = np.ones(features, np.bool_)

    def part(self, units: npt.NDArray[np.int64]) -> SurgeonProblem:
        """The problem of some units as it is now, numbered anew: removal inside it costs and does the same as here."""
        part = copy(self)
        members = self.members[units].ravel()
        part.inverse, part.matrix = self.inverse[np.ix_(members, members)], self.matrix[members]
        part.members = np.arange(len(members)).reshape(len(units), -1)
        part.left = np.ones(len(members), np.bool_)
        return part

    def errors(self, units: npt.NDArray[np.int64]) -> Scores:
        """What the removal of each of these units alone costs, relative to the variance of the output."""
        members = self.members[units]
        costs: Scores
        if members.shape[1] == 1:
            members = members[:, 0]
            costs = np.square(self.matrix).sum(axis=1)[members] / np.diagonal(self.inverse)[members]
        else:
            blocks = self.inverse[members[:, :, None], members[:, None, :]]
            weights = self.matrix[members]
            products = np.matmul(weights, weights.transpose(0, 2, 1))  # tr(W^T B^-1 W) = tr(B^-1 W W^T): fewer columns
            costs = np.trace(np.linalg.solve(blocks, products), axis1=1, axis2=2)
        return np.maximum(costs.astype(np.float64), 0.0) * self.scale

    def remove(self, units: npt.NDArray[np.int64]) -> None:
        """Take the units out: the other weights make up for them, and H^-1 is that of the features left."""
        gone = self.members[units].ravel()
        columns = self.inverse[:, gone]
        step = np.linalg.solve(self.inverse[np.ix_(gone, gone)], np.hstack([self.matrix[gone], columns.T]))
        outputs = self.matrix.shape[1]
        self.matrix -= columns @ step[:, :outputs]
        for start in range(0, len(columns), _UPDATE_ROWS):  # parts that stay in the cache
            rows = slice(start, start + _UPDATE_ROWS)
            self.inverse[rows] -= columns[rows] @ step[:, outputs:]
        # What is removed must not come back by rounding.
        self.matrix[gone] = 0.0
        self.inverse[gone] = 0.0
        self.inverse[:, gone] = 0.0
        self.left[gone] = False
        if self.left.sum() <= _COMPACT * len(self.left):
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Keep the features only that are left: a step takes the square of their number."""
        self.inverse, self.matrix = self.inverse[np.ix_(self.left, self.left)], self.matrix[self.left]
        self.members = (np.cumsum(self.left) - 1)[self.members]
        self.left = self.left[self.left]


def problems_of(observed: Observed, group: Group, context: ScoringContext) -> Iterator[SurgeonProblem]:
    """The products of a layer that read units of the group."""
    rows, variance = observed.rows, observed.variance
    if isinstance(rows, Summary):
        return
    for number, unit_of, matrix in _readings(observed, group, context):
        between, over_taps = factored(rows, number, matrix)
        yield SurgeonProblem(between, over_taps, unit_of[:: len(matrix) // len(between)], group.units, variance)


def _own_errors(observed: Observed, group: Group, context: ScoringContext) -> Scores:
    """What the removal of each unit costs in a layer where no other makes up for it."""
    total = np.zeros(group.units)
    if isinstance(observed.rows, Summary):
        variance = observed.variance
        for number, unit_of, matrix in _readings(observed, group, context):
            errors = observed.rows.variance[number] * np.square(matrix).sum(axis=1) / variance
            total += np.bincount(unit_of[unit_of >= 0], errors[unit_of >= 0], group.units)
    return total


def _readings(
    observed: Observed, group: Group, context: ScoringContext
) -> Iterator[tuple[int, npt.NDArray[np.int64], Matrix]]:
    """The products of a layer that read units of the group: number, unit of each feature (-1: none), and matrix.

    None where a unit's outputs go with its inputs.
    """
    analysis, layer = context.analysis, observed.layer
    x, hidden = analysis.dims[layer.x][layer.form.axis], layer.form.hidden
    y = (
        analysis.dims[layer.y][layer.form.out_axis]
        if hidden is None
        else analysis.dims[layer.operand.name or ""][hidden]
    )
    if group.atom not in set(atoms(x)) or group.atom in set(atoms(y)) or not observed.rows.count:
        return
    units = units_of(x, group.atom)[layer.feature_channels(x.size)]
    for number, (unit_of, matrix) in enumerate(zip(units, matrix_of(layer), strict=True)):
        counts = np.bincount(unit_of[unit_of >= 0], minlength=group.units)
        if counts.min() == counts.max() > 0:  # every unit is read alike
            yield number, unit_of, matrix


def _greedy(problems: list[SurgeonProblem], fixed: Scores) -> Scores:
    """Remove the unit that costs least, update, and again; its cost at that time, made monotone, is its score.

    In large groups the few that cost least are taken out of the others' sight one by one, each removal with its effect
    on the rest of the few, for as long as the next costs less than any outside has cost: of two units that explain each
    other the second waits. Then all are updated.
    """
    units = len(fixed)
    scores = np.zeros(units)
    alive = np.arange(units)
    at_once = -(-units // _ROUNDS)
    highest = 0.0
    while len(alive):
        errors = fixed[alive] + sum(problem.errors(alive) for problem in problems)
        order = np.argsort(errors, kind="stable")
        few = alive[order[: 2 * at_once]] if at_once > 1 else alive[order[:1]]
        outside = float(errors[order[len(few)]]) if len(few) < len(alive) else np.inf
        gone: list[int] = []
        for unit, error in _one_by_one([problem.part(few) for problem in problems], fixed[few]):
            if gone and (error > outside or len(gone) == 2 * at_once):
                break
            highest = max(highest * (1 + 1e-12), error)
            scores[few[unit]] = highest
            gone.append(few[unit])
        alive = np.setdiff1d(alive, gone)
        if len(alive):
            for problem in problems:
                problem.remove(np.array(gone))
    return scores


def _one_by_one(problems: list[SurgeonProblem], fixed: Scores) -> Iterator[tuple[int, float]]:
    """The units in the order of their removal, with what each costs at that time."""
    alive = np.arange(len(fixed))
    while len(alive):
        errors = fixed[alive] + sum(problem.errors(alive) for problem in problems)
        first = int(np.argmin(errors))
        yield int(alive[first]), float(errors[first])
        for problem in problems:
            problem.remove(alive[[first]])
        alive = np.delete(alive, first)


def _variance_shares(group: Group, context: ScoringContext, known: Set[ir.Node]) -> Scores:
    """Each unit's share of the variance of every value that only a node reads of which no more is known."""
    shares = np.zeros(group.units)
    reads = context.activations.reads(group)
    several = Counter(read.node for _, read in reads)
    places = {place for place, read in reads if read.node not in known and several[read.node] == 1}
    summaries = context.activations.per_place("summary", lambda place: Summary(axis_columns(place))) if places else {}
    for place in places:
        variances = _sums(summaries[place].variance[0], place, group)
        shares += variances / max(float(variances.sum()), 1e-30)
    return shares


def _product_shares(group: Group, context: ScoringContext) -> Scores:
    """Each unit's share of the mean square of every product of activations that sums over the units, added up."""
    analysis, shares = context.analysis, np.zeros(group.units)
    squares = context.activations.per_place("summary", lambda place: Summary(axis_columns(place)))
    factors: dict[ir.Node, list[SitePlace]] = {}
    for place in context.activations.places(group):
        for contraction in analysis.findings.contractions:
            slot, axis = contraction.operand
            if (contraction.node.inputs[slot].name, axis) == (place.value, place.axis):  # type: ignore[union-attr]
                factors.setdefault(contraction.node, []).append(place)
    for places in factors.values():
        if len(places) > 1:
            terms = np.prod([_sums(squares[place].mean_square[0], place, group) for place in places], axis=0)
            shares += terms / max(float(terms.sum()), 1e-30)
    return shares


def _sums(entries: Matrix, place: SitePlace, group: Group) -> Scores:
    """What belongs to each unit, added up."""
    units = units_of(place.dim, group.atom)
    return np.bincount(units[units >= 0], weights=entries[units >= 0], minlength=group.units).astype(np.float64)
