"""The results of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.steps.train.evaluate import Evaluated
from onnxprune.steps.train.setup import Zeros
from onnxprune.steps.train.write import Written


@dataclass(frozen=True)
class Trained:
    """A training that has ended.

    Attributes:
        model: a copy of the model with the weights that were kept.
        start, best: how it did before, and with the weights that were kept; `best.step` says after how many updates.
        history: every evaluation, the start first.
        losses: of every update: the step, the rate and the loss.
        metric: what `Evaluated.metric` is; None where there is none.
        steps, samples, seconds: how many updates, samples trained on, and time.
        trained: how many weights were trained.
        written: what differs from the model before.
        notes: what a person should know.
        zeros: per weight that a method has made sparse, which entries may be other than zero: bool, of its shape.
        scores: what methods have learned of units, per group id: float64, shape [units].
    """

    model: ir.Model
    start: Evaluated
    best: Evaluated
    history: tuple[Evaluated, ...]
    losses: tuple[tuple[int, float, float], ...]
    metric: str | None
    steps: int
    samples: int
    seconds: float
    trained: int
    written: Written = field(default_factory=Written)
    notes: tuple[str, ...] = ()
    zeros: Zeros = field(default_factory=dict)
    scores: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
