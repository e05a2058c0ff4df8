"""What a model has to come down to: parameters, MACs, size, latency, loss of a metric; and the cut that does it.

`params=0.5`, `macs=20M`, `size=5MB`, `latency=2ms`, `drop=0.01` and `damage=0.05` are limits on what comes out. The
first four ask for less of something, and the least cut that meets them is searched by bisection over the strength of
the allocation, on exact costs and on models that were really built and timed. `drop` and `damage` limit the harm: alone
they ask for the largest cut within them, beside others they have to hold for the cut that those need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from onnxprune.errors import UsageError
from onnxprune.support.messages import did_you_mean
from onnxprune.support.quantities import BYTES, COUNTS, SECONDS, show_bytes, show_count, show_seconds, split_quantity

KINDS = ("params", "macs", "size", "latency", "drop", "damage")
# Limits on harm, which is measured on samples.
HARM = ("drop", "damage")
CHEAP = ("params", "macs", "size")

_UNITS = {"params": COUNTS, "macs": COUNTS, "size": BYTES, "latency": SECONDS}
_SHOW: Mapping[str, Callable[[float], str]] = {
    "params": show_count,
    "macs": show_count,
    "size": show_bytes,
    "latency": lambda seconds: show_seconds(seconds, digits=4),
    "drop": "{:.4f}".format,
    "damage": "{:.4f}".format,
}
_EXAMPLES = "params=0.5, macs=20M, size=5MB, latency=0.6, latency=2ms, drop=0.01 or damage=0.05"


@dataclass(frozen=True)
class Target:
    """A limit on one quantity of what comes out.

    Attributes:
        kind: one of KINDS.
        limit: a share of the original's, or in parameters, MACs, bytes, seconds; for drop a difference of the metric,
            for damage a share of the variance of the output, see `Candidates.damage`.
        relative: it is a share.
        text: as it was given.
    """

    kind: str
    limit: float
    relative: bool
    text: str


@dataclass(frozen=True)
class Met:
    """The value that a target asked for and the one that came out, both in units of the quantity."""

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
        share = "" if kind in HARM or not self.before else f" ({self.reached / self.before:.3f} of the original)"
        reached, limit = format_quantity(kind, self.reached), format_quantity(kind, self.limit)
        return f"{self.target.text}: {reached} of {limit} allowed{share}"


@dataclass(frozen=True)
class Outcome:
    """The cut that was found, at which strength, and what it makes of each target."""

    lost: Mapping[str, int]
    strength: float
    met: tuple[Met, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """For the report: by how much each target is met, and what else is to be said."""
        return (*(f"target met, {each}" for each in self.met), *self.remarks)


def parse_target(text: str) -> Target:
    """`macs=0.4` as a Target. Raises UsageError with one line for what is none."""
    kind, _, value = (part.strip() for part in text.partition("="))
    kind = {"parameters": "params"}.get(kind, kind)
    if kind not in KINDS:
        raise UsageError(f"target '{text}': unknown quantity '{kind}'{did_you_mean(kind, KINDS)}; write {_EXAMPLES}")
    try:
        number, unit = split_quantity(value)
    except ValueError:
        raise UsageError(f"target '{text}': '{value}' is not an amount; write {_EXAMPLES}") from None
    if unit == "%":
        number, unit = number / 100, ""
    if kind in HARM:
        if unit or number >= 1:
            what = "a drop is a difference of the metric" if kind == "drop" else "damage is a share of a variance"
            raise UsageError(f"target '{text}': {what}, like 0.01 or 1%")
        return Target(kind, float(number), False, text.strip())
    relative = not unit and (number <= 1 or "%" in value or kind == "latency")
    if number <= 0 or (relative and number > 1):
        raise UsageError(f"target '{text}': give a share in (0, 1] or an amount; write {_EXAMPLES}")
    limit = number if relative else number * _factor(kind, unit, text)
    return Target(kind, float(limit), relative, text.strip())


def _factor(kind: str, unit: str, text: str) -> Decimal:
    """What a unit represents. Raises UsageError for one that the quantity does not have."""
    units = _UNITS[kind]
    if unit not in units:
        known = ", ".join(name.upper() if kind != "latency" else name for name in units if name)
        raise UsageError(f"target '{text}': unknown unit '{unit}' for {kind}; there are: {known}")
    return units[unit]


def format_quantity(kind: str, value: float) -> str:
    """A quantity for people: `15.9M`, `4.98 MB`, `1.234 ms`."""
    return _SHOW[kind](value)
