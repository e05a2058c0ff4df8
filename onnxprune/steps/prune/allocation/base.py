"""Allocations: families of cuts, from nothing to everything that may go, enumerated by one number.

A strategy is a file beside this one with a function under `@allocation(name)`. It gets a `Problem` and returns a
function of the strength t in [0, 1] that says how many units each group loses; a higher t never makes the model
larger. `--ratio r` is t = r, see the help of the option; a target is met by bisection over t. What may go at all is in
`Problem.most`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxprune.analysis.cost import Cost
from onnxprune.analysis.cost_model import CostTerms
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.dims import Atom, Mask
from onnxprune.model.weights import is_weight
from onnxprune.steps.prune.allocation._nesting import seniors
from onnxprune.support.registry import Registry, summary

Scores = npt.NDArray[np.float64]
Lost = dict[str, int]
Family = Callable[[float], Lost]
# "size" is the mean of the shares of parameters and of MACs.
RESOURCES = ("macs", "parameters", "weight_bytes", "size")

# A ratio of 0.3 of 10 units is 3, although 0.3 * 10 is less than 3 in floating point.
_EPSILON = 1e-9
# Of predicted and of measured harm, less is noise of rounding.
_LEAST_HARM = 1e-5


@dataclass(frozen=True)
class Curve:
    """The measured effect of losing units of one group alone.

    Attributes:
        lost: how many units, ascending from 0.
        values: at each of them, the damage (0 at the start) or the seconds saved.
    """

    lost: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class AllocationProblem:
    """The problem that an allocation decides on.

    Attributes:
        analysis: the model.
        groups: those that may lose units.
        scores: per group id, float64 [units]; the weakest units of a group go first.
        most: per group id, the most units that may go; one less than all of them, or fewer.
        fixed: what is kept of groups that were decided otherwise, by their atoms.
        comparable: scores of different groups are on one scale.
        resource: what is to be saved, one of RESOURCES.
        damages: measured damage of losing units, per group id; for `sensitivity`.
        seconds: measured seconds saved by losing units, per group id; for `latency`.
        removed: per group id, bool [units]: which units an earlier step has removed. They stay removed at any strength,
            their scores do not count, and what is lost is counted from the whole group.
        trials: per group id, how many units were removed in a trial and the harm that was measured.
    """

    analysis: Analysis
    groups: Sequence[Group]
    scores: Mapping[str, Scores]
    most: Mapping[str, int]
    fixed: Mapping[Atom, int] = field(default_factory=dict)
    comparable: bool = False
    resource: str = "size"
    damages: Mapping[str, Curve] = field(default_factory=dict)
    seconds: Mapping[str, Curve] = field(default_factory=dict)
    removed: Mapping[str, Mask] = field(default_factory=dict)
    trials: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    @cached_property
    def already(self) -> Lost:
        """Per group id, how many units earlier steps have removed."""
        return {group.id: int(self.removed[group.id].sum()) if self.removed else 0 for group in self.groups}

    def there(self, group: Group) -> Scores:
        """The scores of the units that are left of a group, ascending."""
        scores = self.scores[group.id]
        return np.sort(scores[~self.removed[group.id]] if self.removed else scores)

    def uniform(self, t: float) -> Lost:
        """The share t of the units of every group: what several strategies measure their strength by.

        Of groups that are nested in each other the largest loses the share; once it can lose no more, the next.
        """
        lost: Lost = {}
        for group in sorted(self.groups, key=lambda group: -group.units):
            left = 1 - t
            for senior in self._seniors[group.id]:
                units = self._units[senior]
                left *= units / (units - lost[senior]) if lost[senior] == self.most[senior] else 1 / max(left, _EPSILON)
            lost[group.id] = min(share(max(1 - left, 0.0), group.units), self.most[group.id])
        return {group.id: lost[group.id] for group in self.groups}

    @cached_property
    def _seniors(self) -> dict[str, list[str]]:
        return seniors(self.groups)

    @cached_property
    def _units(self) -> dict[str, int]:
        return {group.id: group.units for group in self.groups}

    def weakest_first(self, group: Group) -> list[float]:
        """The scores of the units that may go, ascending, on one scale for all groups: over the mean of the group's."""
        scores = self.there(group)
        scale = 1.0 if self.comparable else float(np.abs(scores).mean()) or 1.0
        return [float(score) / scale for score in scores[: self.most[group.id] - self.already[group.id]]]

    @cached_property
    def costs(self) -> CostTerms:
        """Exact costs of any cut."""
        return CostTerms(self.analysis)

    def kept(self, lost: Mapping[str, int]) -> dict[Atom, int]:
        """How many units of each atom are left."""
        return {**self.fixed, **{group.atom: group.units - lost.get(group.id, 0) for group in self.groups}}

    def cost(self, lost: Mapping[str, int]) -> Cost:
        """The exact cost of what is left."""
        return self.costs.measure(self.kept(lost))

    @cached_property
    def _prices(self) -> tuple[float, float, float]:
        """The weight of a parameter, a MAC and a byte."""
        whole = self.costs.measure({})
        macs, parameters = 1 / max(whole.macs, 1), 1 / max(whole.parameters, 1)
        by_name = {"macs": (0.0, 1.0, 0.0), "parameters": (1.0, 0.0, 0.0), "weight_bytes": (0.0, 0.0, 1.0)}
        return by_name.get(self.resource, (parameters / 2, macs / 2, 0.0))

    def amount(self, lost: Mapping[str, int]) -> float:
        """How much of the resource is left."""
        left = self.cost(lost)
        return self._price((left.parameters, left.macs, left.weight_bytes))

    def saved(self, kept: Mapping[Atom, int], group: Group, count: int) -> float:
        """How much of the resource goes when `group` comes down to `count` units and all else stays as in `kept`."""
        return self._price(self.costs.saved(kept, group.atom, count))

    def _price(self, amounts: tuple[int, int, int]) -> float:
        return sum(price * each for price, each in zip(self._prices, amounts, strict=True))

    @cached_property
    def layers(self) -> dict[str, int]:
        """Per group id, how many weights of two axes or more its units are in: what removing one of them touches."""
        initializers = self.analysis.model.graph.initializers
        counts = {}
        for group in self.groups:
            shapes = {
                place.tensor: initializers[place.tensor].const_value.shape.numpy()  # type: ignore[union-attr]
                for place in group.occurrences
                if is_weight(initializers[place.tensor])
            }
            counts[group.id] = max(1, sum(sum(size > 1 for size in shape) > 1 for shape in shapes.values()))
        return counts

    @cached_property
    def damage(self) -> dict[str, Scores]:
        """Per group id, float64 [units]: what losing the weakest 0, 1, ... all but one of its units does.

        It is the share of the group's scores that is removed over the share that is left, noise to signal, once for
        every layer that the group is in. Few units count their scores over the mean; a group that is nearly empty costs
        much more. Where scores are comparable between groups, a group weighs the sum of its scores in place of its
        layers. What was removed earlier did its damage already. Where trials were made, all of that is scaled, so that
        it is what was measured for as many units; groups that were not tried are scaled as the median of the others.
        """
        found = {}
        for group in self.groups:
            already, scores = self.already[group.id], self.there(group)
            left = np.cumsum((scores - min(0.0, scores[0]))[::-1])[::-1]
            weight = left[0] if self.comparable else float(self.layers[group.id])
            harm = weight * (left[0] - left) / np.maximum(left, 1e-12 * left[0]) if left[0] else 0.0 * left
            found[group.id] = np.concatenate([np.zeros(already), harm])
        return self._as_tried(found)

    def _as_tried(self, damage: Mapping[str, Scores]) -> dict[str, Scores]:
        """Predicted damage, brought to the scale of trials where there are some."""
        factors = {
            name: max(harm, _LEAST_HARM) / max(float(damage[name][count]), _LEAST_HARM)
            for name, (count, harm) in self.trials.items()
            if name in damage
        }
        if not factors:
            return dict(damage)
        middle = float(np.median(list(factors.values())))
        return {name: factors.get(name, middle) * each for name, each in damage.items()}


@dataclass(frozen=True)
class Allocation:
    """A registered strategy; called with a problem it gives its family of cuts.

    Attributes:
        name: what the command line calls it.
        decide: the function itself.
        needs: what has to be measured beforehand, of "damages" and "seconds".
        nested: a higher strength removes as many units of every group, or more. Otherwise it removes at least as much
            of `AllocationProblem.resource` as the same strength of `uniform` does.
    """

    name: str
    decide: Callable[[AllocationProblem], Family]
    needs: tuple[str, ...] = ()
    nested: bool = True

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.decide)

    def __call__(self, problem: AllocationProblem) -> Family:
        """The family of cuts; what earlier steps have removed is in all of them."""
        family, already = self.decide(problem), problem.already
        return (lambda t: at_least(already, family(t))) if any(already.values()) else family


allocations: Registry[str, Allocation] = Registry("scope", __package__, "onnxprune.allocation")


def allocation(
    name: str, *, needs: Sequence[str] = (), nested: bool = True
) -> Callable[[Callable[[AllocationProblem], Family]], Callable[[AllocationProblem], Family]]:
    """Decorator: make a function known as strategy `name`; see Allocation. Raises ValueError when the name is taken."""

    def add(decide: Callable[[AllocationProblem], Family]) -> Callable[[AllocationProblem], Family]:
        allocations.register(name)(Allocation(name, decide, tuple(needs), nested))
        return decide

    return add


def share(ratio: float, units: int) -> int:
    """How many of `units` a ratio removes: rounded down, and never the last one."""
    return min(int(units * ratio + _EPSILON), units - 1)


def at_least(already: Mapping[str, int], lost: Mapping[str, int]) -> Lost:
    """A cut with what was removed already."""
    return {**lost, **{group: max(count, lost.get(group, 0)) for group, count in already.items()}}


def take_in_order(order: Sequence[str], total: int) -> Family:
    """The family that takes units one by one, each from the group that `order` names, up to a share of `total`."""

    def lost(t: float) -> Lost:
        counts: Lost = {}
        for group in order[: share(t, total)]:
            counts[group] = counts.get(group, 0) + 1
        return counts

    return lost


def weakest(scores: Scores, count: int, removed: Mask | None = None) -> Mask:
    """The keep-mask without `count` units: those in `removed`, then the lowest scores; of equal ones the first go."""
    order = np.argsort(scores, kind="stable")
    if removed is not None:
        order = np.concatenate([order[removed[order]], order[~removed[order]]])
    mask = np.ones(len(scores), dtype=np.bool_)
    mask[order[:count]] = False
    return mask
