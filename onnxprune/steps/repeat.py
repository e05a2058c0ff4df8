"""The step `repeat`: other steps again and again, each round a part of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.steps.base import Context, Loop, Step, run_steps, step
from onnxprune.support.options import option
from onnxprune.support.progress import Progress, parts, within

if TYPE_CHECKING:
    from onnxprune.steps.state import State

_SECTION = "How much"


def _schedules() -> list[str]:
    from onnxprune.steps.prune.schedule import SCHEDULES

    return list(SCHEDULES)


@step("repeat")
@dataclass(frozen=True)
class Repeat(Step):
    """Repeat other steps; what they remove is spread over the rounds, and the last round ends at the whole of it."""

    times: int = option(
        1,
        "Remove in so many rounds: score, cut, recover, repeat.",
        low=1,
        high=1000,
        flag="steps",
        section=_SECTION,
        search=(1, 8),
    )
    schedule: str = option(
        "cubic",
        "How the rounds share the cut, see: onnxprune list schedules.",
        choices=_schedules,
        metavar="NAME",
        section=_SECTION,
    )
    steps: tuple[Step, ...] = ()

    @classmethod
    def sample(cls) -> tuple[Step, ...]:
        """Two rounds of a step that has nothing to ask for."""
        from onnxprune.steps.clean import Clean

        return (cls(times=2, steps=(Clean(),)),)

    def check(self) -> None:
        """Raises UsageError for a loop around nothing, or one inside another."""
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise UsageError("repeat needs steps to repeat, like Repeat(times=3, steps=[Prune(), Recover()])")
        for each in self.steps:
            if not isinstance(each, Step):
                raise UsageError(f"repeat takes steps, not {each!r}")
            if isinstance(each, Repeat):
                raise UsageError("a repeat inside a repeat is not supported: multiply the rounds instead")

    @property
    def effort(self) -> float:
        """That of all rounds."""
        return self.times * sum(each.effort for each in self.steps)

    def needs(self, context: Context) -> None:
        """Raises UsageError where a step inside needs something that is not there."""
        for each in self.steps:
            each.needs(context)

    def __call__(self, state: State, context: Context) -> State:
        """The state after the last round."""
        for number, part in enumerate(parts(context.progress, [1.0] * self.times), 1):
            loop = Loop(number, self.times, self.schedule)
            progress = _named(part, f"round {number} of {self.times}") if self.times > 1 else part
            state = run_steps(self.steps, state, replace(context, loop=loop, progress=progress))
        return state


def _named(progress: Progress, where: str) -> Progress:
    return lambda said: progress(within(where, said))
