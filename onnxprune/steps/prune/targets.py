"""What a model has to come down to: parameters, MACs, size, latency, loss of a metric; and the cut that does it.

`params=0.5`, `macs=20M`, `size=5MB`, `latency=2ms` and `drop=0.01` are limits on what comes out. The first four ask for
less of something, and the least cut that meets them is searched by bisection over the strength of the allocation, on
exact costs and on models that were really built and timed. `drop` is a limit on the damage: alone it asks for the
largest cut within it, beside others it has to hold for the cut that they need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnxprune.steps.prune.allocation.base import Lost
from onnxprune.errors import TargetError, UsageError
from onnxprune.support.registry import did_you_mean

# Two careful measurements of the same pair of models differ by about this share.
_SCATTER = 0.02
KINDS = ("params", "macs", "size", "latency", "drop")
CHEAP = ("params", "macs", "size")

_ABSOLUTE: dict[str, dict[str, float]] = {
    "params": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "size": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
}
_VALUE = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)", re.IGNORECASE)
_EXAMPLES = "params=0.5, macs=20M, size=5MB, latency=0.6, latency=2ms or drop=0.01"

# Strengths are told apart to this; where models are built and run for each, after so many steps.
_STEPS = 20
_COSTLY_STEPS = 7


@dataclass(frozen=True)
class Target:
    """A limit on one quantity of what comes out.

    Attributes:
        kind: one of KINDS.
        limit: a share of the original's, or in parameters, MACs, bytes, seconds; for drop a difference of the metric.
        relative: it is a share.
        text: as it was given.
    """

    kind: str
    limit: float
    relative: bool
    text: str


@dataclass(frozen=True)
class Met:
    """What a target asked for and what came out, both in units of the quantity."""

    target: Target
    before: float
    limit: float
    reached: float

    @property
    def holds(self) -> bool:
        """Is it met?"""
        return self.reached <= self.limit * (1 + 1e-12)

    def __str__(self) -> str:
        """`macs=0.4: 15.9M of 16.4M allowed (0.389 of the original)`."""
        kind = self.target.kind
        share = "" if kind == "drop" or not self.before else f" ({self.reached / self.before:.3f} of the original)"
        return f"{self.target.text}: {amount(kind, self.reached)} of {amount(kind, self.limit)} allowed{share}"


def _is_safe(met: Met) -> bool:
    """Will it still be met when somebody measures again? Latencies scatter, so a search stops a little below."""
    if met.target.kind == "latency" and met.limit < met.before:
        return met.reached <= met.limit * (1 - _SCATTER)
    return met.holds


@dataclass(frozen=True)
class Outcome:
    """The cut that was found, at which strength, and what it makes of each target."""

    lost: Lost
    strength: float
    met: tuple[Met, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """For the report: by how much each target is met, and what else is to be said."""
        return (*(f"target met, {each}" for each in self.met), *self.remarks)


def parse(text: str) -> Target:
    """`macs=0.4` as a Target. Raises UsageError with one line for what is none."""
    kind, _, value = (part.strip() for part in text.partition("="))
    kind = {"parameters": "params"}.get(kind, kind)
    if kind not in KINDS:
        raise UsageError(f"target '{text}': unknown quantity '{kind}'{did_you_mean(kind, KINDS)}; write {_EXAMPLES}")
    match = _VALUE.fullmatch(value)
    if match is None:
        raise UsageError(f"target '{text}': '{value}' is no amount; write {_EXAMPLES}")
    number, unit = float(match[1]), match[2].lower()
    if unit == "%":
        number, unit = number / 100, ""
    if kind == "drop":
        if unit or number >= 1:
            raise UsageError(f"target '{text}': a drop is a difference of the metric, like 0.01 or 1%")
        return Target(kind, number, False, text.strip())
    relative = not unit and (number <= 1 or "%" in value or kind == "latency")
    if number <= 0 or (relative and number > 1):
        raise UsageError(f"target '{text}': give a share in (0, 1] or an amount; write {_EXAMPLES}")
    return Target(kind, number if relative else number * _unit(kind, unit, text), relative, text.strip())


def _unit(kind: str, unit: str, text: str) -> float:
    units = _ABSOLUTE[kind]
    if unit not in units:
        known = ", ".join(name.upper() if kind != "latency" else name for name in units if name)
        raise UsageError(f"target '{text}': unknown unit '{unit}' for {kind}; there are: {known}")
    return units[unit]


def amount(kind: str, value: float) -> str:
    """A quantity for people: `15.9M`, `4.98 MB`, `1.23 ms`."""
    if kind == "drop":
        return f"{value:.4f}"
    if kind == "latency":
        return f"{value * 1e3:.3f} ms"
    suffix = " B" if kind == "size" else ""
    for scale, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{' ' if suffix else ''}{name}{suffix.strip()}"
    return f"{value:.0f}{suffix}"


@dataclass
class Search:
    """Looks for the cut that meets targets in a family of cuts.

    Attributes:
        lost: the family: what every group loses at strength t.
        before: what the original has of the CHEAP kinds.
        cheap: what a cut leaves of them, computed.
        costly: for "latency" and "drop", what the original has, and what a cut has, by building it; 0 for a drop.
        frozen: says in words what stands in the way, for the message of a failure.
        progress: told what is being tried.
    """

    lost: Callable[[float], Lost]
    before: Mapping[str, float]
    cheap: Callable[[Lost], Mapping[str, float]]
    costly: Callable[[Lost, str], tuple[float, float]]
    frozen: Callable[[], str] = lambda: ""
    progress: Callable[[str], None] = lambda _: None
    _known: dict[tuple[object, ...], tuple[float, float]] = field(default_factory=dict)

    def meet(self, targets: Sequence[Target]) -> Outcome:
        """The least cut that meets all targets, or the largest within `drop` where that is all that is asked for.

        Raises TargetError, saying how far it gets and what is frozen, where there is none.
        """
        cheap = [target for target in targets if target.kind in CHEAP]
        latency = [target for target in targets if target.kind == "latency"]
        drop = [target for target in targets if target.kind == "drop"]
        t = self._least(cheap, 0.0, _STEPS) if cheap else 0.0
        if latency:
            t = self._confirmed(latency, self._least(latency, t, _COSTLY_STEPS))
        if drop and not cheap and not latency:
            t = self._most(drop)
        lost = self.lost(t)
        met = tuple(self.met(target, lost) for target in targets)
        for each in met:
            if not each.holds:
                raise TargetError(
                    f"{each}: the cut that meets the other targets does more damage than that; recover with --data, "
                    "allow a larger drop, or ask for less"
                )
        return Outcome(lost, t, met)

    def met(self, target: Target, lost: Lost) -> Met:
        """What a cut makes of a target."""
        before, after = self._amounts(target.kind, lost)
        return Met(target, before, target.limit * before if target.relative else target.limit, after)

    def _amounts(self, kind: str, lost: Lost) -> tuple[float, float]:
        """What the original has, and what the cut leaves."""
        if kind in CHEAP:
            return self.before[kind], self.cheap(lost)[kind]
        key = (kind, *sorted(lost.items()))
        if key not in self._known:
            self._known[key] = self.costly(lost, kind)
        return self._known[key]

    def _hold(self, targets: Sequence[Target], t: float) -> bool:
        lost = self.lost(t)
        met = [self.met(target, lost) for target in targets]
        if any(target.kind not in CHEAP for target in targets):
            self.progress("tried: " + "; ".join(map(str, met)))
        return all(_is_safe(each) for each in met)

    def _least(self, targets: Sequence[Target], low: float, steps: int) -> float:
        """The least strength from `low` on at which the targets hold."""
        if self._hold(targets, low):
            return low
        high = 1.0
        if not self._hold(targets, high):
            lost = self.lost(high)
            missed = next(each for each in (self.met(target, lost) for target in targets) if not _is_safe(each))
            raise TargetError(
                f"{missed.target.text} cannot be met: with everything gone that may go "
                f"{amount(missed.target.kind, missed.reached)} are left, {amount(missed.target.kind, missed.limit)} "
                f"are allowed{self.frozen()}"
            )
        for _ in range(steps):
            middle = (low + high) / 2
            if self.lost(middle) == self.lost(low):
                low = middle
            elif self._hold(targets, middle):
                high = middle
            else:
                low = middle
        return high

    def _confirmed(self, targets: Sequence[Target], t: float) -> float:
        """A strength from `t` on that meets the targets when it is measured once more: a lucky run does not count."""
        while True:
            self._known.clear()
            if self._hold(targets, t):
                return t
            if t >= 1:
                missed = self.met(targets[0], self.lost(t))
                raise TargetError(f"{missed}: measured again it was missed, with everything gone{self.frozen()}")
            t = min(1.0, t + 1 / 2**_COSTLY_STEPS)

    def _most(self, targets: Sequence[Target]) -> float:
        """The largest strength at which the targets hold; 0 always does."""
        low, high = 0.0, 1.0
        for _ in range(_COSTLY_STEPS):
            middle = (low + high) / 2
            if self._hold(targets, middle):
                low = middle
            else:
                high = middle
        return low
