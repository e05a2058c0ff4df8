"""How far apart the answers of two models are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.errors import UsageError
from onnxprune.evaluation.metrics import METRICS, Answer, Metric
from onnxprune.model.file import name_of
from onnxprune.model.signature import Feed
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.session import Runnable, Session


@dataclass(frozen=True)
class Drift:
    """One output of a model beside that of the first model, on the same inputs.

    Attributes:
        position: of the model among those given, from 1 on.
        model: its path as given.
        output: name.
        samples: how many were compared (entries of the first axis).
        cosine: mean over the samples of the cosine between both answers; None for outputs that are not floats.
        max_difference: the largest absolute difference of two entries.
        agreement: share with the same arg-max; None where the output has no classes.
    """

    position: int
    model: str
    output: str
    samples: int
    cosine: float | None
    max_difference: float
    agreement: float | None


def drift(models: Sequence[Runnable], feeds: Iterable[Feed], providers: Sequence[str] = CPU_ONLY) -> list[Drift]:
    """Every numeric output of every model but the first against the first model's.

    Args:
        models: files or models in memory, with the same interface.
        feeds: batches of inputs; one is held at a time.
        providers: execution providers of ONNX Runtime.

    Raises UsageError where an output is missing or of another shape, ModelError when a model does not run.
    """
    first, *others = (Session(model, providers, optimized=True) for model in models)
    names = [name_of(model) for model in models]
    tallies: dict[tuple[int, str], _Tally] = {}
    for feed in feeds:
        expected = {name: value for name, value in first.run(feed).items() if _is_numeric(value)}
        for position, (path, session) in enumerate(zip(names[1:], others, strict=True), 1):
            missing = expected.keys() - {port.name for port in session.outputs}
            if missing:
                raise UsageError(f"{path} has no output '{min(missing)}', which {names[0]} has: they do not compare")
            for name, value in session.run(feed, list(expected)).items():
                if value.shape != expected[name].shape:
                    shapes = f"{list(value.shape)} in {path} and {list(expected[name].shape)} in {names[0]}"
                    raise UsageError(f"output '{name}' has shape {shapes}: they do not compare")
                tallies.setdefault((position, name), _Tally()).add(value, expected[name])
    return [tally.result(position, names[position], name) for (position, name), tally in tallies.items()]


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size > 0


class _Tally:
    """Sums over batches."""

    def __init__(self) -> None:
        self._samples = 0
        self._largest = 0.0
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, value: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> None:
        answer = Answer(np.atleast_1d(value), reference=np.atleast_1d(expected))
        self._samples += len(answer.output)
        difference = np.abs(value.astype(np.float64) - expected.astype(np.float64))
        self._largest = max(self._largest, float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max()))
        for metric in _metrics(answer.output):
            sums, further = self._sums.get(metric.name, (0.0, 0.0)), metric.score(answer)
            self._sums[metric.name] = sums[0] + further[0], sums[1] + further[1]

    def result(self, position: int, model: str, output: str) -> Drift:
        means = {name: above / below for name, (above, below) in self._sums.items() if below}
        return Drift(position, model, output, self._samples, means.get("cosine"), self._largest, means.get("agreement"))


def _metrics(output: npt.NDArray[np.generic]) -> list[Metric]:
    """Cosine for floats, and agreement where there are classes to choose from."""
    if output.dtype.kind != "f":
        return []
    classes = output.shape[1] if output.ndim > 3 else output.shape[-1]
    return [METRICS["cosine"], *([METRICS["agreement"]] if output.ndim > 1 and classes > 1 else [])]
