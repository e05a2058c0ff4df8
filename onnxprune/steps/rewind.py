"""The step `rewind`: weights of an earlier time, for the units that are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.steps.base import Context, Step, step
from onnxprune.steps.checkpoint import ORIGINAL
from onnxprune.support.extras import check_torch
from onnxprune.support.messages import did_you_mean
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.dims import Atom, Mask
    from onnxprune.steps.state import State


@step("rewind")
@dataclass(frozen=True)
class Rewind(Step):
    """Put the weights back to those of an earlier time; units and weights that were removed stay removed.

    Weight rewinding of Renda, Frankle and Carbin 2020; with it the learning rate starts again too, for every training
    has a schedule of its own. The rate alone is rewound by the option `rate_rewind` of `train`.
    """

    to: str = option(
        ORIGINAL,
        "Where the weights come from: a named checkpoint of the recipe, original, or a file.",
        flag="rewind-to",
        metavar="NAME",
    )

    def needs(self, context: Context) -> None:  # noqa: ARG002
        """Raises MissingExtraError where there is no torch."""
        check_torch()

    def __call__(self, state: State, context: Context) -> State:
        """The same units with their earlier weights.

        Raises UsageError for a name that is neither a checkpoint nor a file, ModelError where no weight fits.
        """
        from onnxprune.analysis.copy import copy_analysis
        from onnxprune.steps.train.rewind import left_of, rewind

        context.progress(f"rewinding to {self.to}")
        weights, then = self._earlier(state)
        analysis = copy_analysis(state.analysis)
        found = rewind(analysis.model, weights, left_of(state.original, state.left, then), state.zeros)
        notes = [f"{len(found.kept)} weights stay as they are: {self.to} has none that fit"] if found.kept else []
        numbers = {"to": self.to, "changed": len(found.written.changed), "kept": list(found.kept)}
        return replace(state.with_weights(analysis), recovered=None).noted(self.record(numbers, notes))

    def _earlier(self, state: State) -> tuple[Mapping[str, Any], Mapping[Atom, Mask]]:
        """The weights by name, and the units that were left at that time."""
        from onnxprune.analysis.inspect import inspect
        from onnxprune.steps.train.rewind import read_weights, weights_of

        if self.to == ORIGINAL:
            return weights_of(state.original.model), {}
        if self.to in state.checkpoints:
            then = state.checkpoints[self.to]
            return weights_of(then.model), then.left
        path = Path(self.to)
        if not path.exists():
            known = [ORIGINAL, *state.checkpoints]
            raise UsageError(f"there is no checkpoint and no file '{self.to}'{did_you_mean(self.to, known)}")
        # Canonical, as the original is, so that weights have the same names.
        return (read_weights(path) if path.suffix == ".safetensors" else weights_of(inspect(path).model)), {}
