"""The step `checkpoint`: give the state a name, to go back to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.steps.state import State

ORIGINAL = "original"


@step("checkpoint")
@dataclass(frozen=True)
class Checkpoint(Step):
    """Give the state a name, which `rewind` goes back to."""

    called: str = option("checkpoint", "The name; of two states with one name the later one counts.")

    def check(self) -> None:
        """Raises UsageError for the name that the original has."""
        if not self.called or self.called == ORIGINAL:
            raise UsageError(f"a checkpoint cannot be called '{self.called}'; choose another name")

    def __call__(self, state: State, context: Context) -> State:  # noqa: ARG002
        """The same state, which remembers itself."""
        kept = replace(state, checkpoints={})
        return replace(state, checkpoints={**state.checkpoints, self.called: kept}).noted(self.record())
