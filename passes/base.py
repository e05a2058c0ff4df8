"""What every pass has in common: `Model -> PassResult`, and the same thing again changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir

from onnxprune.ops.base import Array
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.layerwise import LayerError, Mend, Progress, walk


@dataclass(frozen=True)
class PassResult:
    """What a pass did. `model` is the object that was given, changed in place; `modified=False` means it is equal."""

    model: ir.Model
    modified: bool
    notes: list[str] = field(default_factory=list)


class Pass(Protocol):
    """A frozen dataclass whose fields are its options."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply the pass in place."""


@dataclass(frozen=True)
class Mending(ABC):
    """A pass that mends a pruned model layer after layer, on what the layers in front of each now give.

    Layers in front of a Relu are mended `rounds` more times with negative targets set free. `errors` tells how far each
    layer is off, before and after, once it has run.
    """

    pairing: Pairing
    feeds: Iterable[dict[str, Array]]
    seed: int = 0
    providers: Sequence[str] = ("CPUExecutionProvider",)
    progress: Progress = lambda _: None
    errors: list[LayerError] = field(default_factory=list)
    rounds: int = 0

    @abstractmethod
    def mend(self) -> Mend:
        """What is done to each layer."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place. Raises ModelError where a model cannot be run."""
        if model is not self.pairing.pruned.model:
            raise ValueError("the model is not the pruned one of the pairing")
        left = self.pairing.left()
        self.errors[:] = walk(
            self.pairing,
            self.feeds,
            self.mend(),
            rounds=self.rounds,
            seed=self.seed,
            providers=self.providers,
            progress=self.progress,
        )
        counts = ", ".join(f"{operator} {count}" for operator, count in left.most_common())
        notes = [f"layers with weights that recovery left as they are: {counts}"] if left else []
        return PassResult(model, bool(self.errors), notes)
