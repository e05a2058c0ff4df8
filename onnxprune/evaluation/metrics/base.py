"""How well a model does on data: with labels, or beside the outputs of the original.

A metric is a function under `@register(...)` that scores one batch as a pair of sums; its value over all of the data is
mostly the first sum divided by the second. All sums are float64, and only one batch is held at a time.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data.base import Batch, Data
from onnxprune.errors import DataError, UsageError
from onnxprune.model.signature import Port
from onnxprune.ops.traits import repeats, squashes
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.session import Runnable, Session
from onnxprune.support.messages import did_you_mean, one_line
from onnxprune.support.registry import Registry, imported_function, summary

Array = npt.NDArray[Any]
# Labels of this value are left out, as torch and the tools around it do.
IGNORED = -100
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)")


class Runs(Protocol):
    """A model as a metric sees it; a `runtime.session.Session` is one."""

    outputs: list[Port]

    def run(self, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all or those in `names`."""


@dataclass(frozen=True)
class Answer:
    """The outputs of a model for one batch.

    Attributes:
        output: the output that is looked at, samples along axis 0.
        labels: what the data says is right, where it says so.
        reference: the same output of the original, for metrics that need it.
        outputs: all outputs by name, for metrics that look at all of them.
    """

    output: Array
    labels: Array | None = None
    reference: Array | None = None
    outputs: Mapping[str, Array] = field(default_factory=dict)


Score = Callable[[Answer], tuple[float, float]]


@dataclass(frozen=True)
class MetricSample:
    """One case with a known value, for the contract tests.

    Attributes:
        output: what a model says, samples along axis 0.
        value: of the metric.
        labels: where it needs them.
        reference: the outputs of the original, where it needs them.
    """

    output: Sequence[Any]
    value: float
    labels: Sequence[Any] | None = None
    reference: Sequence[Any] | None = None


@dataclass(frozen=True)
class Metric:
    """A registered metric, or a function of the user.

    Attributes:
        name: what the command line calls it.
        score: one batch as a numerator and a denominator; over batches both are added up.
        needs_labels: the data has to have labels.
        needs_reference: the outputs of the original are needed.
        higher_is_better: whether more is better.
        perfect: the value of the original itself, where it does not depend on the data.
        finish: makes the value from both sums.
        all_outputs: looks at every output of the model rather than at one.
        unit: "%" for a share, which people read as such, or "dB".
        together: scores all samples at once, since no sums over batches give its value.
        any_sizes: an output may have other sizes than the original's, as lists of what was found have.
        sample: a case with a known value.
    """

    name: str
    score: Score
    needs_labels: bool = False
    needs_reference: bool = False
    higher_is_better: bool = True
    perfect: float | None = None
    finish: Callable[[float, float], float] = operator.truediv
    all_outputs: bool = False
    unit: str = ""
    together: bool = False
    any_sizes: bool = False
    sample: MetricSample | None = None

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.score)

    def check(self, output: Array, original: Array | None, name: str) -> None:
        """Raises DataError where an output cannot be compared with that of the original."""
        if original is None:
            raise DataError("the reference has fewer batches than the data: make it from the same data")
        if original.shape != output.shape and not self.any_sizes:
            shapes = " and ".join("x".join(map(str, array.shape)) for array in (original, output))
            raise DataError(
                f"output '{name}' of the original and of the model have different shapes: {shapes}; metric box-f1 "
                "compares boxes that were found"
            )


METRICS: Registry[str, Metric] = Registry("metric", __package__, "onnxprune.metrics")


def register(name: str, **properties: Any) -> Callable[[Score], Score]:
    """Decorator: make a function known as metric `name`; see Metric for the properties.

    Raises ValueError when the name is taken.
    """

    def add(score: Score) -> Score:
        METRICS.register(name)(Metric(name, score, **properties))
        return score

    return add


def metric(name: str | None, labelled: bool, output: Port | None = None, *, binary: bool = False) -> Metric:
    """The metric of that name, or `module:function`.

    Without a name: accuracy where the data has labels, else agreement where `output` is that of a classifier (two
    axes of floats), else snr. Where the output is one probability (`binary`, see `is_probability`), binary-accuracy and
    binary-agreement.

    A function of the user is called with the outputs of a batch, by name, their samples along axis 0, and its labels or
    None. It returns one score
    per sample, or one number for the batch; their mean over the samples is the value, and more is better.

    Raises UsageError for an unknown name, a function that is not there, and missing labels.
    """
    if name is None:
        classifier = output is not None and output.type in FLOATS and len(output.shape) == 2 and output.shape[1] != 1
        name = "accuracy" if labelled else "agreement" if classifier or binary else "snr"
        name = f"binary-{name}" if binary else name
    if ":" in name:
        return Metric(name, _user_score(name, imported_function(name)), all_outputs=True)
    found = METRICS.get(name)
    if found is None:
        raise UsageError(f"{METRICS.unknown(name)}, or module:function")
    if found.needs_labels and not labelled:
        raise UsageError(f"metric '{name}' needs labels, but the data has none: give --labels, or use agreement")
    return found


def evaluate(
    model: Runnable | Runs,
    data: Data,
    metric: Metric,
    reference: Iterable[Array] | None = None,
    *,
    output: str | None = None,
    providers: Sequence[str] = CPU_ONLY,
) -> float:
    """The value of a metric over all of the data.

    Args:
        model: a file, a model in memory, or a session that is loaded already.
        data: what to run it on.
        metric: from `metric()`.
        reference: the outputs of the original on the same data, batch by batch; see `outputs_of`.
        output: which output to look at (None: see `chosen_output`).
        providers: execution providers of ONNX Runtime.

    Raises UsageError where the metric needs a reference and there is none, DataError where outputs, labels and
    reference do not fit each other, ModelError when the model cannot be run.
    """
    if metric.needs_reference and reference is None:
        raise UsageError(f"metric '{metric.name}' compares with the original, so the original has to be given too")
    session = _session(model, providers, data)
    name = chosen_output(session.outputs, output).name
    originals = iter(reference) if reference is not None and metric.needs_reference else None
    answers = _answers(session, data, metric, name, originals)
    numerator = denominator = 0.0
    for answer in [_joined(list(answers))] if metric.together else answers:
        above, below = metric.score(answer)
        numerator, denominator = numerator + above, denominator + below
    if metric.needs_labels and not denominator:
        raise DataError(f"{data.source}: every label is {IGNORED}, which means to ignore it")
    return metric.finish(numerator, denominator)


def _answers(
    session: Runs, data: Data, metric: Metric, name: str, originals: Iterator[Array] | None
) -> Iterator[Answer]:
    """The outputs of a model for each batch, with those of the original."""
    for batch in data.batches():
        outputs = run_batch(session, batch, None if metric.all_outputs else [name])
        original = None if originals is None else next(originals, None)
        if originals is not None:
            metric.check(outputs[name], original, name)
        yield Answer(outputs[name], batch.labels, original, outputs)


def _joined(answers: Sequence[Answer]) -> Answer:
    """One answer to all batches."""
    labels = [answer.labels for answer in answers if answer.labels is not None]
    originals = [answer.reference for answer in answers if answer.reference is not None]
    return Answer(
        np.concatenate([answer.output for answer in answers]),
        np.concatenate(labels) if labels else None,
        np.concatenate(originals) if originals else None,
    )


def outputs_of(
    model: Runnable | Runs, data: Data, *, output: str | None = None, providers: Sequence[str] = CPU_ONLY
) -> Iterator[Array]:
    """One output of a model, batch by batch, as a reference for others; `list` it to use it for many of them.

    Args and errors as for `evaluate`.
    """
    session = _session(model, providers, data)
    name = chosen_output(session.outputs, output).name
    return (run_batch(session, batch, [name])[name] for batch in data.batches())


def chosen_output(outputs: Sequence[Port], name: str | None = None) -> Port:
    """The output that metrics look at: the one of that name, else the first of floats, else the first.

    Raises UsageError for a name that is not there.
    """
    if name is None:
        return next((port for port in outputs if port.type in FLOATS), outputs[0])
    known = {port.name: port for port in outputs}
    if name not in known:
        raise UsageError(f"the model has no output '{name}'{did_you_mean(name, known)}")
    return known[name]


def is_probability(model: ir.Model, output: Port) -> bool:
    """Is an output one number for each sample, between 0 and 1?"""
    value = next((each for each in model.graph.outputs if each.name == output.name), None)
    producer = None if value is None else value.producer()
    while producer is not None and repeats(producer) and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    one = len(output.shape) == 1 or (len(output.shape) == 2 and output.shape[1] == 1)
    return one and producer is not None and squashes(producer)


def _session(model: Runnable | Runs, providers: Sequence[str], data: Data) -> Runs:
    given: Any = model
    is_file_or_model = isinstance(model, str | os.PathLike | ir.Model)
    loaded: Any = Session(given, providers, optimized=True) if is_file_or_model else model
    return _Carrying(loaded, data.states) if data.states else loaded


class _Carrying:
    """A model that goes on from its own states, as it does where it is used."""

    def __init__(self, session: Runs, states: Mapping[str, str]) -> None:
        self._session = session
        self._states = states
        self._held: dict[str, Any] = {}
        self.outputs = session.outputs

    def run(self, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name; the first call begins with the states of the data."""
        wanted = [port.name for port in self.outputs] if names is None else list(names)
        found = self._session.run({**feed, **self._held}, list(dict.fromkeys([*wanted, *self._states.values()])))
        self._held = {state: found[output] for state, output in self._states.items()}
        return {name: found[name] for name in wanted}


def run_batch(session: Runs, batch: Batch, names: Sequence[str] | None) -> dict[str, Array]:
    """Outputs whose first axis enumerates the samples, whatever axis does so in the model."""
    outputs = session.run(batch.feed, names)
    for name, value in outputs.items():
        if not isinstance(value, np.ndarray):
            raise DataError(f"output '{name}' is a {type(value).__name__}, not a tensor: name another one")
    axes = {port.name: port.batch_axis or 0 for port in session.outputs}
    return {
        name: np.moveaxis(value, axes[name], 0) if axes[name] < value.ndim else np.atleast_1d(value)
        for name, value in outputs.items()
    }


def _user_score(spec: str, function: Callable[..., Any]) -> Score:
    def score(answer: Answer) -> tuple[float, float]:
        """A function of the user."""
        try:
            scores = np.asarray(function(answer.outputs, answer.labels), np.float64)
        except Exception as error:  # whatever the user's function raises
            raise DataError(f"{spec} failed: {type(error).__name__}: {one_line(error)}") from error
        samples = len(answer.output)
        if scores.ndim == 0:
            return float(scores) * samples, samples
        if scores.shape != (samples,):
            raise DataError(f"{spec} returned shape {scores.shape}: expected one number, or {samples} for the samples")
        return float(scores.sum()), samples

    return score


def classes_last(scores: Array) -> Array:
    """Scores with their classes on the last axis. Raises DataError where there are none."""
    if scores.ndim > 3:
        scores = np.moveaxis(scores, 1, -1)
    if scores.ndim < 2 or scores.shape[-1] < 2:
        raise DataError(f"an output of shape {scores.shape} has no classes to compare: use metric snr or cosine")
    return scores


def original_of(answer: Answer) -> Array:
    """The same output of the original."""
    assert answer.reference is not None
    return answer.reference


def floats(answer: Answer) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Output and reference in float64. Raises DataError for texts."""
    if answer.output.dtype.kind not in "fiub":
        raise DataError("the output is not of numbers: use metric agreement, or name another output")
    return answer.output.astype(np.float64), original_of(answer).astype(np.float64)
