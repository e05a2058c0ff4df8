"""How a cut is spread over several steps: after step k of n, which part of it has been made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from onnxprune.errors import UsageError
from onnxprune.registry import did_you_mean
from onnxprune.targets import Target

# The share of units (or of MACs, ...) that is left, by what is to be left in the end and how far the steps are.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "linear": lambda left, done: 1 - (1 - left) * done,
    # Zhu and Gupta 2017, "To prune, or not to prune", equation 1: much at first, little at the end.
    "cubic": lambda left, done: left + (1 - left) * (1 - done) ** 3,
    # The same share of what is there in every step.
    "geometric": lambda left, done: left**done,
}


def check(steps: int, schedule: str) -> None:
    """Raises UsageError for a number of steps or a schedule that makes no sense."""
    if steps < 1:
        raise UsageError(f"steps {steps} makes no sense: give 1 or more")
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule '{schedule}'{did_you_mean(schedule, SCHEDULES)}")


def ratios(ratio: float, steps: int, schedule: str) -> list[float]:
    """Per step the share of what is there then, such that `ratio` of the whole has gone in the end."""
    left = [SCHEDULES[schedule](1 - ratio, step / steps) for step in range(steps + 1)]
    return [1 - after / before for before, after in pairwise(left)]


def limits(targets: Sequence[Target], whole: Mapping[str, float], steps: int, schedule: str) -> list[list[str]]:
    """Per step the targets on the way to their own, as `targets.parse` reads them.

    Amounts are told in the quantity's own units, so that they do not depend on what is there in a step; a latency is
    told as a share of the step before. `whole` is what the original has of params, macs and size.

    Raises UsageError for a target that cannot be split: a drop, and a latency in seconds.
    """
    found: list[list[str]] = [[] for _ in range(steps)]
    for target in targets:
        if target.kind == "drop" or (target.kind == "latency" and not target.relative):
            raise UsageError(f"target '{target.text}' cannot be reached in steps; leave out --steps")
        share = target.limit if target.relative else min(1.0, target.limit / whole[target.kind])
        left = [SCHEDULES[schedule](share, step / steps) for step in range(steps + 1)]
        for step, (before, now) in enumerate(pairwise(left)):
            if target.kind == "latency":
                found[step].append(f"latency={now / before!r}")
            else:
                found[step].append(f"{target.kind}={max(2, int(now * whole[target.kind] + 1e-6))}")
    return found
