"""The common ground of everything that chooses weights: criteria, allocations, and what they may look at.

@weight_criterion("magnitude", source="...")
def magnitude(scoring):
    return {name: np.abs(array) for name, array in scoring.arrays().items()}

@sparsity_allocation("uniform")
def uniform(sharing):
    return dict.fromkeys(sharing.scores, sharing.sparsity)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.weight_matrices import WeightMatrix
from onnxprune.dims import Mask
from onnxprune.errors import UsageError
from onnxprune.ops.base import Array
from onnxprune.steps.base import Context
from onnxprune.support.extras import check_torch
from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from onnxprune.statistics.weight_gradients import WeightGradients

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WeightScoring:
    """The data that a criterion may look at.

    Attributes:
        analysis: the model.
        matrices: the weights to score.
        context: samples, devices, seed.
        kept: per initializer, entries that may be other than zero: bool, of its shape.
        names: of every weight; the position of one seeds what is drawn for it.
    """

    analysis: Analysis
    matrices: Sequence[WeightMatrix]
    context: Context
    kept: Mapping[str, Mask] = field(default_factory=dict)

    def arrays(self) -> dict[str, Array]:
        """The weights by the names of their initializers, as they are stored: float64, zero where they are masked."""
        found = {each.stored: each.array() for each in self.matrices}
        return {name: array * self.kept[name] if name in self.kept else array for name, array in found.items()}

    def spread(self, of: Callable[[WeightMatrix], Scores]) -> dict[str, Scores]:
        """Scores in the form of matrices [groups, features, outputs], brought into that of the initializers."""
        found: dict[str, Scores] = {}
        for each in self.matrices:
            scores = found.setdefault(each.stored, np.zeros(each.stored_shape))
            each.put(scores, of(each))
        return found

    @cached_property
    def gradients(self) -> WeightGradients:
        """Gradients by single weights, on samples. Raises MissingExtraError without torch."""
        check_torch()
        from onnxprune.statistics.weight_gradients import WeightGradients

        context = self.context
        return WeightGradients(
            self.analysis,
            context.samples,
            [each.stored for each in self.matrices],
            kept=self.kept,
            loss=context.loss,
            seed=context.seed,
            device=context.device,
            progress=context.progress,
        )


Score = Callable[[WeightScoring], Mapping[str, Scores]]


@dataclass(frozen=True)
class WeightCriterion:
    """A registered criterion: of a scoring, per initializer one finite float for each weight; the higher, the more it
    matters.

    Attributes:
        name: how it is asked for.
        score: the function.
        on_data: it looks at samples.
        comparable: its scores are on one scale in all layers, so sparsity is shared out by them.
        rounds: it scores anew so many times, on what is left.
        updates: the weights that stay change to make up for those that go, while it chooses.
        by_output: it compares weights of one output with each other.
        source: paper and equation.
    """

    name: str
    score: Score
    on_data: bool
    comparable: bool
    rounds: int
    updates: bool
    by_output: bool
    source: str

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.score)

    def __call__(self, scoring: WeightScoring) -> Mapping[str, Scores]:
        """Score the weights. Raises UsageError where it needs samples and there are none."""
        if self.on_data and scoring.context.samples is None:
            raise UsageError(f"the criterion {self.name} looks at samples: give --data")
        return self.score(scoring)


WEIGHT_CRITERIA: Registry[str, WeightCriterion] = Registry(
    "weight criterion", "onnxprune.steps.sparsify.criteria", "onnxprune.weight_criteria"
)


def weight_criterion(
    name: str,
    *,
    source: str,
    on_data: bool = False,
    comparable: bool = False,
    rounds: int = 1,
    updates: bool = False,
    by_output: bool = False,
) -> Callable[[Score], Score]:
    """Decorator: make a criterion of single weights known by a name; see WeightCriterion.

    Raises ValueError when the name is taken.
    """

    def add(score: Score) -> Score:
        found = WeightCriterion(name, score, on_data, comparable, rounds, updates, by_output, source)
        WEIGHT_CRITERIA.register(name)(found)
        return score

    return add


@dataclass(frozen=True)
class Sharing:
    """A sparsity that is to be shared out.

    Attributes:
        matrices: the weights by key.
        scores: of each weight that is left, flat, by key; empty where an allocation looks at shapes alone.
        sparsity: the share of all of them that is to be zero, in [0, 1).
    """

    matrices: Mapping[str, WeightMatrix]
    scores: Mapping[str, Any]
    sparsity: float

    def size(self, key: str) -> int:
        """How many weights a matrix has."""
        return int(self.matrices[key].places().size)


Share = Callable[[Sharing], Mapping[str, float]]


@dataclass(frozen=True)
class SparsityAllocation:
    """A registered allocation: of a sharing, per key the share of the matrix that becomes zero."""

    name: str
    share: Share
    by_scores: bool

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.share)


ALLOCATIONS: Registry[str, SparsityAllocation] = Registry(
    "allocation of sparsity", "onnxprune.steps.sparsify.allocation", "onnxprune.sparsity_allocations"
)


def sparsity_allocation(name: str, *, by_scores: bool = False) -> Callable[[Share], Share]:
    """Decorator: make an allocation known by a name; `by_scores`: it reads scores. Raises ValueError when taken."""

    def add(share: Share) -> Share:
        ALLOCATIONS.register(name)(SparsityAllocation(name, share, by_scores))
        return share

    return add
