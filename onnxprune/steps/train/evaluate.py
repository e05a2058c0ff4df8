"""How a model in training does on samples that it does not see: the loss, and a metric that people know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxprune.evaluation.metrics import Answer, Metric
from onnxprune.steps.train.losses import Objective
from onnxprune.steps.train.samples import Portion

Run = Callable[[Portion], tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None, Tensor | None]]


@dataclass(frozen=True)
class Evaluated:
    """The results.

    Attributes:
        step: how many updates the weights have seen.
        loss: the objective without augmentation, mean over samples.
        metric: the value of the metric; None where there is none.
    """

    step: int
    loss: float
    metric: float | None = None

    @property
    def finite(self) -> bool:
        """Is it a number at all?"""
        return bool(np.isfinite(self.loss))


@dataclass(frozen=True)
class Evaluation:
    """The samples of an evaluation.

    Attributes:
        portions: the samples.
        objective: gives the loss.
        metric: what is reported beside it.
        output: the name of the output that the metric looks at.
        by_metric: weights are better where the metric is, and with equal ones where the loss is; else by loss alone.
    """

    portions: Sequence[Portion]
    objective: Objective
    metric: Metric | None
    output: str
    by_metric: bool

    def __call__(self, run: Run, step: int) -> Evaluated:
        """The weights as they are now; `run` gives outputs, the teacher's values and labels of a portion."""
        total = above = below = 0.0
        samples = 0
        for portion in self.portions:
            found, targets, labels = run(portion)
            total += float(self.objective(found, labels, targets)) * len(portion)
            samples += len(portion)
            if self.metric is not None:
                more, of = self.metric.score(self._answer(portion, found, targets))
                above, below = above + more, below + of
        value = self.metric.finish(above, below) if self.metric is not None and (below or above) else None
        return Evaluated(step, total / max(samples, 1), value)

    def _answer(self, portion: Portion, found: Mapping[str, Tensor], targets: Mapping[str, Tensor] | None) -> Answer:
        outputs = {name: _array(value) for name, value in found.items() if name in self.objective.outputs}
        reference = None if targets is None else _array(targets[self.output])
        return Answer(outputs[self.output], portion.batch.labels, reference, outputs)

    def better(self, one: Evaluated, other: Evaluated) -> bool:
        """Is the first better than the second?"""
        if one.finite != other.finite:
            return one.finite
        compared = self.by_metric and self.metric is not None and one.metric is not None and other.metric is not None
        if compared and one.metric != other.metric:
            assert self.metric is not None
            return bool((one.metric or 0.0) > (other.metric or 0.0)) == self.metric.higher_is_better
        return one.loss < other.loss


def _array(value: Any) -> np.ndarray:
    array: np.ndarray = value.detach().float().cpu().numpy() if torch.is_floating_point(value) else value.cpu().numpy()
    return np.atleast_1d(array)
