"""The step `clean`: clean-ups of the file that is written, which change weights and nodes, not what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.passes.base import Pass
    from onnxprune.steps.state import State

_SECTION = "The file"


def cleaners() -> Mapping[str, Callable[[], Pass]]:
    """The clean-ups that are asked for by name, in the order in which they are applied."""
    from onnxprune.passes.equalize import Equalize
    from onnxprune.passes.fold_batchnorm import FoldBatchNorm

    return {"fold-batchnorm": FoldBatchNorm, "equalize": Equalize}


@step("clean")
@dataclass(frozen=True)
class Clean(Step):
    """Clean the file up: merge equal weights, drop the exporter's notes, and more where it is asked for by name."""

    passes: tuple[str, ...] = option(
        (),
        "Also fold-batchnorm (into the weights) or equalize (channel ranges, for quantization): outputs stay.",
        choices=lambda: cleaners(),
        metavar="NAME",
        flag="clean",
        section=_SECTION,
    )
    keep_metadata: bool = option(
        False, "Keep the exporter's notes on nodes, like stack traces with local paths.", section=_SECTION
    )

    def __call__(self, state: State, context: Context) -> State:  # noqa: ARG002
        """The same model, tidier."""
        from onnxprune.analysis.copy import copy_model
        from onnxprune.passes.share_initializers import ShareInitializers
        from onnxprune.passes.strip_metadata import StripMetadata

        model, known = copy_model(state.model), cleaners()
        chosen = [name for name in known if name in self.passes]
        notes = [f"{name}: nothing to do" for name in chosen if not known[name]()(model).modified]
        ShareInitializers()(model)
        if not self.keep_metadata:
            StripMetadata()(model)
        return replace(state, current=state.current.rebuilt(model)).noted(self.record(notes=notes))
