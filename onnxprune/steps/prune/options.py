"""What to remove, as the command line says it: how much, where, and what has to be kept to."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.steps.prune import schedule
from onnxprune.steps.prune.allocation.base import allocations
from onnxprune.steps.prune.criteria.expression import resolve
from onnxprune.steps.prune.planner import Constraints
from onnxprune.steps.prune.targets import Target, parse


@dataclass(frozen=True)
class PruneOptions:
    """What to remove, as the command line says it.

    Attributes:
        criterion: name of the score, or a combination like "l2*0.7+random*0.3"; see `criteria`.
        ratio: share of the units that go, in [0, 1); where there are targets, they decide.
        scope: name of the allocation, see `allocation`.
        round_to: axis sizes come out as multiples of this where they can.
        only: kinds or name patterns to work on (empty: all).
        skip: kinds or name patterns to leave alone.
        seed: of everything random.
        target: what to come down to, like "macs=0.4"; see `targets`.
        max_ratio: no group loses more than this share of its units.
        min_units: no group is left with fewer units than this.
        ratios: (kind or pattern, ratio) pairs: groups that lose just that.
        steps: how often it is scored, cut and recovered.
        schedule: how the cut is spread over the steps, one of `schedule.SCHEDULES`.
    """

    criterion: str = "l1"
    ratio: float = 0.5
    scope: str = "auto"
    round_to: int = 1
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    seed: int = 0
    target: tuple[str, ...] = ()
    max_ratio: float = 1.0
    min_units: int = 1
    ratios: tuple[tuple[str, float], ...] = ()
    steps: int = 1
    schedule: str = "cubic"

    def check(self) -> None:
        """Raises UsageError for a value that makes no sense, before any file is opened."""
        if not 0 <= self.ratio < 1:
            raise UsageError(f"ratio {self.ratio:g} is outside [0, 1): it is the share of units to remove, like 0.5")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative: give 0 or more")
        self.constraints.check()
        schedule.check(self.steps, self.schedule)
        resolve(self.criterion)
        allocations[self.scope]
        kinds = [target.kind for target in self.targets]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise UsageError(f"there are two targets for {kind}; give one")

    @property
    def constraints(self) -> Constraints:
        """What the allocation has to keep to."""
        return Constraints(self.round_to, self.max_ratio, self.min_units, self.ratios)

    @property
    def targets(self) -> list[Target]:
        """The targets as such. Raises UsageError for one that is none."""
        return [parse(text) for text in self.target]

    @property
    def resource(self) -> str:
        """What allocations that look at costs save: what the first target is about; see `Problem`."""
        resources = {"params": "parameters", "size": "weight_bytes"}
        return next((resources.get(target.kind, "macs") for target in self.targets), "size")
