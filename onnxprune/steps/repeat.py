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
    """Repeat other steps; what they remove is spread over the rounds, and the last round ends at the whole of it.

    With `best` the rounds are tries of the whole instead, each with a seed of its own, of which one is kept.
    """

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
    best: bool = option(
        False,
        "Begin every round where the first began, with another seed, and keep the round that is best by the metric.",
        section=_SECTION,
        flag="best-of-steps",
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
        """Raises UsageError where a step inside needs something that is not there, or rounds cannot be compared."""
        if self.best and context.measured is None:
            raise UsageError("the best of several rounds is found on samples: give --data")
        for each in self.steps:
            each.needs(context)

    def __call__(self, state: State, context: Context) -> State:
        """The state after the last round."""
        context = replace(context, beyond=(*context.following, *context.beyond))
        if self.best:
            return self._best(state, context)
        for number, part in enumerate(parts(context.progress, [1.0] * self.times), 1):
            loop = Loop(number, self.times, self.schedule)
            progress = _named(part, f"round {number} of {self.times}") if self.times > 1 else part
            state = run_steps(self.steps, state, replace(context, loop=loop, progress=progress))
        return state

    def _best(self, state: State, context: Context) -> State:
        """The state after the round whose metric is highest, or lowest where that is better; of equals the first."""
        from onnxprune.evaluation.quality import drop_between
        from onnxprune.runtime.session import Session

        assert context.measured is not None
        before, drops, kept = Session(state.original.model, context.execution), list[float](), state
        for number, part in enumerate(parts(context.progress, [1.0] * self.times), 1):
            progress = _named(part, f"round {number} of {self.times}")
            made = run_steps(self.steps, state, replace(context, seed=context.seed + number - 1, progress=progress))
            after = Session(made.model, context.execution)
            drops.append(drop_between(before, after, context.measured, name=context.metric))
            if drops[-1] == min(drops) and drops.index(drops[-1]) == number - 1:
                kept = made
        return kept.noted(self.record({"drops": drops, "kept": drops.index(min(drops)) + 1}))


def _named(progress: Progress, where: str) -> Progress:
    return lambda said: progress(within(where, said))
