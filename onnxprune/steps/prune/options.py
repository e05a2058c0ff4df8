"""The options of the step `prune`: how much to remove, where, and what to keep to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.steps.prune.targets import Target, parse_target
from onnxprune.support.options import check_options, option

if TYPE_CHECKING:
    from onnxprune.analysis.groups import Group
    from onnxprune.steps.prune.criteria.base import Criterion

_HOW_MUCH, _CHOICE = "How much", "Which units"
CRITERION, CRITERION_ON_DATA = "group-l2", "obs"


def _criteria() -> list[str]:
    from onnxprune.steps.prune.criteria.base import criteria

    return criteria.names()


def _scopes() -> list[str]:
    from onnxprune.steps.prune.allocation.base import allocations

    return allocations.names()


@dataclass(frozen=True)
class PruneOptions:
    """The options of the step `prune`."""

    criterion: str | Callable[..., Any] | None = option(
        None,
        "Score of a unit, see: onnxprune list criteria; obs, or group-l2 where inputs cannot be made up.",
        metavar="NAME",
        function=True,
        offers=_criteria,
    )
    ratio: float = option(
        0.5,
        "Share of all units to remove, in [0, 1); of nested groups, like those of a grouped convolution, of the axis "
        "that they make up. How scopes use it: onnxprune list scopes. By default compress takes --target damage=0.03.",
        low=0,
        high=1,
        below=True,
        search=(0.0, 0.9),
    )
    target: tuple[str, ...] = option(
        (),
        "Come down to this, in place of --ratio: params=0.5, macs=20M, size=5MB, latency=0.6, drop=0.01, "
        "or damage=0.03: as deep as the output keeps 97% of its variance.",
        metavar="WHAT=LIMIT",
    )
    scope: str = option(
        "auto",
        "How the cut is spread over the groups, see: onnxprune list scopes.",
        choices=_scopes,
        metavar="NAME",
        section=_HOW_MUCH,
    )
    ratios: tuple[tuple[str, float], ...] = option(
        (),
        "Share of its units that a group loses, by kind or pattern; of several that name a group, the last decides.",
        low=0,
        high=1,
        below=True,
        metavar="PATTERN=RATIO",
        flag="group-ratio",
        section=_HOW_MUCH,
    )
    tilt: tuple[float, ...] = option(
        (),
        "Cut more (above 0) or less (below) by depth: numbers for the first group, the last, and those between; "
        "1 squares the share that a group would keep, -1 takes its root.",
        low=-4,
        high=4,
        metavar="NUMBER",
        section=_HOW_MUCH,
        search=(-1.5, 1.5),
    )
    tilts: tuple[tuple[str, float], ...] = option(
        (),
        "The same for a kind or pattern, beside the depth; of several that name a group, the last decides.",
        low=-4,
        high=4,
        metavar="PATTERN=NUMBER",
        flag="group-tilt",
        section=_HOW_MUCH,
        search=(-1.5, 1.5),
    )
    max_ratio: float = option(
        1.0, "No group loses more than this share of its units.", low=0, high=1, section=_HOW_MUCH, search=(0.3, 1.0)
    )
    min_units: int = option(1, "No group is left with fewer units than this.", low=1, section=_HOW_MUCH)
    round_to: int | None = option(
        None,
        "Make axis sizes multiples of this where they can be; channels are multiples of 8, which kernels like, where "
        "neither this nor a scope decides.",
        low=1,
        section=_HOW_MUCH,
        search=(1, 16),
    )
    low_rank: float = option(
        0.03,
        "Split layers into two thinner ones where that leaves out no more than this share of a layer's output and "
        "takes less, if it does less harm than removing units for the same target, measured on --data; 0: never.",
        low=0,
        high=1,
        below=True,
        section=_HOW_MUCH,
    )
    no_guard: bool = option(
        False,
        "Take the cut that is predicted to be best; else a few cuts that meet the same target are tried on --data, "
        "in which groups get units back at the expense of others.",
        section=_HOW_MUCH,
    )
    lossless: bool = option(
        False,
        "Remove what changes nothing, units that are constant or not read, and no more.",
        section=_HOW_MUCH,
    )
    only: tuple[str, ...] = option(
        (), "Only these: a kind, or a pattern for group, tensor or node.", metavar="PATTERN", section=_CHOICE
    )
    skip: tuple[str, ...] = option(
        (), "Not these: a kind or a pattern, as for --only.", metavar="PATTERN", section=_CHOICE
    )

    def __post_init__(self) -> None:
        check_options(self)
        self.check()

    def check(self) -> None:
        """Raises UsageError for values that go with no others, before any file is opened."""
        if self.criterion is not None:
            self.scored_by(data=True)
        kinds = [target.kind for target in self.targets]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise UsageError(f"there are two targets for {kind}; give one")

    def scored_by(self, *, data: bool) -> Criterion:
        """The criterion, with or without data at hand. Raises UsageError where it cannot be read."""
        from onnxprune.steps.prune.criteria.expression import resolve_criterion

        return resolve_criterion(self.criterion or (CRITERION_ON_DATA if data else CRITERION))

    @property
    def targets(self) -> list[Target]:
        """The targets as such. Raises UsageError for one that cannot be read."""
        return [parse_target(text) for text in self.target]

    @property
    def resource(self) -> str:
        """The resource that allocations that look at costs save: what the first target is about; see `Problem`."""
        resources = {"params": "parameters", "size": "weight_bytes"}
        return next((resources.get(target.kind, "macs") for target in self.targets), "size")

    def most(self, group: Group) -> int:
        """The most units that a group may lose."""
        from onnxprune.steps.prune.allocation.base import share

        return max(0, min(share(self.max_ratio, group.units), group.units - self.min_units))
