"""The step `clean`: clean-ups of the file that is written, which change weights and nodes, not what comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.steps.state import State

_SECTION = "The file"


def _names() -> list[str]:
    from onnxprune.passes.base import CLEAN_UPS

    names: list[str] = CLEAN_UPS.names()
    return names


@step("clean")
@dataclass(frozen=True)
class Clean(Step):
    """Clean the file up: merge equal weights, drop the exporter's notes, and more where it is asked for by name."""

    passes: tuple[str, ...] = option(
        (),
        "Also these clean-ups, which leave the outputs as they are, see: onnxprune list clean-ups.",
        choices=_names,
        metavar="NAME",
        flag="clean",
        called="clean-up",
        section=_SECTION,
    )
    keep_metadata: bool = option(
        False, "Keep the exporter's notes on nodes, like stack traces with local paths.", section=_SECTION
    )

    def __call__(self, state: State, context: Context) -> State:  # noqa: ARG002
        """The same model, tidier."""
        from onnxprune.analysis.copy import copy_model
        from onnxprune.passes.base import in_order
        from onnxprune.passes.share_initializers import ShareInitializers
        from onnxprune.passes.strip_metadata import StripMetadata

        model, found = copy_model(state.model), in_order(set(self.passes))
        notes = [f"{each.name}: nothing to do" for each in found if not each.make()(model).modified]
        ShareInitializers()(model)
        if not self.keep_metadata:
            StripMetadata()(model)
        return replace(state, current=state.current.rebuilt(model)).noted(self.record(notes=notes))
