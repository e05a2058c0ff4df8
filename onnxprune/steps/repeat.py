"""The step `repeat`: other steps again and again, each round a part of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.steps.base import Context, Loop, Step, step
from onnxprune.support.options import option
from onnxprune.support.progress import Progress, within

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

    def needs(self, context: Context) -> None:
        """Raises UsageError where a step inside needs something that is not there."""
        for each in self.steps:
            each.needs(context)

    def __call__(self, state: State, context: Context) -> State:
        """The state after the last round."""
        for number in range(1, self.times + 1):
            where = f"round {number} of {self.times}"
            inside = replace(context, loop=Loop(number, self.times, self.schedule))
            if self.times > 1:
                inside = replace(inside, progress=_inside(context, where))
            for at, each in enumerate(self.steps):
                state = each(state, replace(inside, following=self.steps[at + 1 :]))
        return state


def _inside(context: Context, where: str) -> Progress:
    return lambda said: context.progress(within(where, said))
