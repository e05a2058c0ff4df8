"""Objectives and how one is written: `drop`, `latency:cuda:16`, `accuracy`, `macs<=0.5`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation.metrics import METRICS
from onnxprune.support.quantities import split_quantity
from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from onnxprune.pipeline.search.workbench import Made

Show = Callable[[float], str]
# Amounts of the original and of the candidate.
Measure = Callable[..., tuple[float, float]]


@dataclass(frozen=True)
class SearchObjective:
    """A registered objective.

    Attributes:
        name: what the command line calls it.
        measure: from a candidate, and the texts behind the colons, to the amounts of the original and of the candidate.
        relative: its value is the share of the original's amount.
        early: it is known once the last units are removed, before any recovery.
        units: what a bound may be written in.
        show: an amount for people.
    """

    name: str
    measure: Measure
    relative: bool = True
    early: bool = False
    units: Mapping[str, Decimal] | None = None
    show: Show = "{:.4g}".format

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.measure)


objectives: Registry[str, SearchObjective] = Registry("objective", __package__, "onnxprune.objectives")


def objective(
    name: str,
    *,
    relative: bool = True,
    early: bool = False,
    units: Mapping[str, Decimal] | None = None,
    show: Show = "{:.4g}".format,
) -> Callable[[Measure], Measure]:
    """Decorator: make a function known as an objective, see SearchObjective. ValueError when the name is taken."""

    def add(measure: Measure) -> Measure:
        objectives.register(name)(SearchObjective(name, measure, relative, early, units, show))
        return measure

    return add


@dataclass(frozen=True)
class Reading:
    """An objective of a candidate: its value, and the amounts of the original and of the candidate."""

    value: float
    before: float
    after: float


@dataclass(frozen=True)
class Aim:
    """An objective as it was written, with what comes after its colons.

    Attributes:
        text: as it was written; it names the objective in tables and documents.
        maximize: more is better.
    """

    text: str
    maximize: bool = False

    def __post_init__(self) -> None:
        self.objective  # noqa: B018 (an unknown name is refused before any work)

    @cached_property
    def objective(self) -> SearchObjective:
        """The objective. Raises UsageError for one that is not there."""
        name, *_ = self.text.split(":")
        if name in objectives:
            return objectives[name]
        if name in METRICS or ":" in self.text:
            return objectives["metric"]
        raise UsageError(f"{objectives.unknown(name)}, a metric (onnxprune list metrics), or module:function")

    @property
    def is_metric(self) -> bool:
        """A metric of the candidate alone; some are better when they are small."""
        return self.objective.name == "metric"

    def __call__(self, made: Made) -> Reading:
        """Measure a candidate. Raises DataError for what is not a finite number."""
        arguments = [self.text] if self.is_metric else self.text.split(":")[1:]
        before, after = self.objective.measure(made, *arguments)
        value = after / before if self.objective.relative and before else after
        if not abs(value) < inf:
            raise DataError(f"{self.text} of the candidate is not a finite number")
        return Reading(value, before, after)

    def cost(self, value: float) -> float:
        """The value, so that less is better."""
        return -value if self.maximize else value


_LIMIT = re.compile(r"\s*(\S+?)\s*(<=|>=)\s*(.+?)\s*")


@dataclass(frozen=True)
class Requirement:
    """A bound on an objective: `drop<=0.01`, `macs<=0.5`, `size<=2MB`, `accuracy>=0.9`.

    Attributes:
        aim: of what.
        upper: the value may be no larger.
        bound: a share of the original for relative objectives, unless `amount`; else a value.
        amount: the bound is an amount, like 2 MB.
        text: as it was written.
    """

    aim: Aim
    upper: bool
    bound: float
    amount: bool
    text: str

    @staticmethod
    def parse(text: str) -> Requirement:
        """Raises UsageError for a text that is not a bound."""
        found = _LIMIT.fullmatch(text)
        if found is None:
            raise UsageError(f"'{text}' is not a limit; write macs<=0.5, drop<=0.01 or accuracy>=0.9")
        aim = Aim(found[1])
        try:
            number, unit = split_quantity(found[3])
        except ValueError:
            raise UsageError(f"limit '{text}': '{found[3]}' is not an amount") from None
        number, unit = (number / 100, "") if unit == "%" else (number, unit)
        units = aim.objective.units
        amount = bool(unit) or (units is not None and "" in units and number > 1)
        if amount and (units is None or unit not in units):
            known = f"there are: {', '.join(each for each in units if each)}" if units else "write a plain number"
            raise UsageError(f"limit '{text}': unknown unit '{unit}'; {known}")
        factor = units[unit] if amount and units is not None else Decimal(1)
        return Requirement(aim, found[2] == "<=", float(number * factor), amount, text.strip())

    def excess(self, found: Reading) -> float:
        """By how much a candidate misses the bound; 0 or less where it holds."""
        over = (found.after if self.amount else found.value) - self.bound
        return over if self.upper else -over


def aims_of(minimize: Sequence[str], maximize: Sequence[str]) -> tuple[Aim, ...]:
    """The objectives of a search; MACs and the drop where nothing is said. Raises UsageError for one named twice."""
    if not minimize and not maximize:
        minimize = ("macs", "drop")
    aims = (*(Aim(text) for text in minimize), *(Aim(text, maximize=True) for text in maximize))
    texts = [aim.text for aim in aims]
    for text in texts:
        if texts.count(text) > 1:
            raise UsageError(f"{text} is to be made small or large twice; name it once")
    return aims
