"""How a cut is spread over several steps: after step k of n, which part of it has been made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnxprune.errors import UsageError
from onnxprune.steps.prune.targets import HARM, Target
from onnxprune.support.registry import Registry

# The share of units (or of MACs, ...) that is left, by what is to be left in the end and how far the steps are, both in
# (0, 1].
Schedule = Callable[[float, float], float]
SCHEDULES: Registry[str, Schedule] = Registry("schedule", f"{__package__}.schedules", "onnxprune.schedules")


def schedule(name: str) -> Callable[[Schedule], Schedule]:
    """Decorator: make a function known as schedule `name`. Raises ValueError when the name is taken."""
    return SCHEDULES.register(name)


def check_schedule_targets(targets: Sequence[Target]) -> None:
    """Raises UsageError for targets that say nothing about how large the steps are."""
    if targets and all(target.kind in HARM for target in targets):
        raise UsageError(
            f"target '{targets[0].text}' alone does not say how far the steps go: give another one beside it, like "
            "macs=0.5, or leave out --steps"
        )


def ratio(whole: float, done: float, schedule: str) -> float:
    """The share that is removed when the steps are `done`, of them all, on the way to `whole`; exact at the end."""
    return whole if done >= 1 else 1 - SCHEDULES[schedule](1 - whole, done)


def on_the_way(targets: Sequence[Target], original: Mapping[str, float], done: float, schedule: str) -> list[str]:
    """The targets when the steps are `done`, of them all, as `targets.parse` reads them; at the end the very same.

    Args:
        targets: those of the end. A drop counts there only.
        original: what the original has, per kind of the targets that are absolute.
        done: in (0, 1].
        schedule: one of SCHEDULES.
    """
    if done >= 1:
        return [target.text for target in targets]
    found = []
    for target in targets:
        if target.kind not in HARM:
            end = target.limit if target.relative else min(1.0, target.limit / original[target.kind])
            found.append(f"{target.kind}={SCHEDULES[schedule](end, done)!r}")
    return found
