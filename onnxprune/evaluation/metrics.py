"""How well a model does on data: with labels, or beside the outputs of the original.

A metric is a function under `@register(...)` that scores one batch as a pair of sums; its value over all of the data is
mostly the first sum divided by the second. All sums are float64, and only one batch is held at a time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxprune.data.base import Batch, Data
from onnxprune.errors import DataError, UsageError
from onnxprune.model.signature import Port
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.session import Session
from onnxprune.support.messages import did_you_mean, one_line
from onnxprune.support.registry import imported_function

Array = npt.NDArray[Any]
# Labels of this value are left out, as torch and the tools around it do.
IGNORED = -100
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)")


class Runs(Protocol):
    """What a model is to a metric; a `runtime.ort.Session` is one."""

    outputs: list[Port]

    def run(self, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all or those in `names`."""


@dataclass(frozen=True)
class Answer:
    """What a model says to one batch.

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
    """

    name: str
    score: Score
    needs_labels: bool = False
    needs_reference: bool = False
    higher_is_better: bool = True
    perfect: float | None = None
    finish: Callable[[float, float], float] = operator.truediv
    all_outputs: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return next(iter((self.score.__doc__ or "").strip().splitlines()), "")


METRICS: dict[str, Metric] = {}


def register(name: str, **properties: Any) -> Callable[[Score], Score]:
    """Decorator: make a function known as metric `name`; see Metric for the properties."""

    def add(score: Score) -> Score:
        METRICS[name] = Metric(name, score, **properties)
        return score

    return add


def metric(name: str | None, labelled: bool, output: Port | None = None) -> Metric:
    """The metric of that name, or `module:function`.

    Without a name: accuracy where the data has labels, else agreement where `output` is that of a classifier (two
    axes of floats), else snr.

    A function of the user is called with the outputs of a batch, by name, and its labels or None. It returns one score
    per sample, or one number for the batch; their mean over the samples is the value, and more is better.

    Raises UsageError for an unknown name, a function that is not there, and missing labels.
    """
    if name is None:
        classifier = output is not None and output.type in _FLOATS and len(output.shape) == 2 and output.shape[1] != 1
        name = "accuracy" if labelled else "agreement" if classifier else "snr"
    if ":" in name:
        return Metric(name, _user_score(name, imported_function(name)), all_outputs=True)
    if name not in METRICS:
        raise UsageError(f"unknown metric '{name}'{did_you_mean(name, METRICS)}, or module:function")
    found = METRICS[name]
    if found.needs_labels and not labelled:
        raise UsageError(f"metric '{name}' needs labels, but the data has none: give --labels, or use agreement")
    return found


def evaluate(
    model: Path | Runs,
    data: Data,
    metric: Metric,
    reference: Iterable[Array] | None = None,
    *,
    output: str | None = None,
    providers: Sequence[str] = CPU_ONLY,
) -> float:
    """The value of a metric over all of the data.

    Args:
        model: a file, or a session that is loaded already.
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
    session = _session(model, providers)
    name = chosen_output(session.outputs, output).name
    originals = iter(reference) if reference is not None and metric.needs_reference else None
    numerator = denominator = 0.0
    for batch in data.batches():
        outputs = _outputs(session, batch, None if metric.all_outputs else [name])
        original = None if originals is None else next(originals, None)
        if originals is not None:
            _check_reference(outputs[name], original, name)
        above, below = metric.score(Answer(outputs[name], batch.labels, original, outputs))
        numerator, denominator = numerator + above, denominator + below
    if metric.needs_labels and not denominator:
        raise DataError(f"{data.source}: every label is {IGNORED}, which means to ignore it")
    return metric.finish(numerator, denominator)


def outputs_of(
    model: Path | Runs, data: Data, *, output: str | None = None, providers: Sequence[str] = CPU_ONLY
) -> Iterator[Array]:
    """One output of a model, batch by batch, as a reference for others; `list` it to use it for many of them.

    Args and errors as for `evaluate`.
    """
    session = _session(model, providers)
    name = chosen_output(session.outputs, output).name
    return (_outputs(session, batch, [name])[name] for batch in data.batches())


def chosen_output(outputs: Sequence[Port], name: str | None = None) -> Port:
    """The output that metrics look at: the one of that name, else the first of floats, else the first.

    Raises UsageError for a name that is not there.
    """
    if name is None:
        return next((port for port in outputs if port.type in _FLOATS), outputs[0])
    known = {port.name: port for port in outputs}
    if name not in known:
        raise UsageError(f"the model has no output '{name}'{did_you_mean(name, known)}")
    return known[name]


def _session(model: Path | Runs, providers: Sequence[str]) -> Runs:
    return Session(model, providers, optimized=True) if isinstance(model, Path) else model


def _outputs(session: Runs, batch: Batch, names: Sequence[str] | None) -> dict[str, Array]:
    outputs = session.run(batch.feed, names)
    for name, value in outputs.items():
        if not isinstance(value, np.ndarray):
            raise DataError(f"output '{name}' is a {type(value).__name__}, not a tensor: name another one")
    return {name: np.atleast_1d(value) for name, value in outputs.items()}


def _check_reference(output: Array, original: Array | None, name: str) -> None:
    if original is None:
        raise DataError("the reference has fewer batches than the data: make it from the same data")
    if original.shape != output.shape:
        shapes = " and ".join("x".join(map(str, array.shape)) for array in (original, output))
        raise DataError(f"output '{name}' of the original and of the model have different shapes: {shapes}")


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


# -- with labels


@register("accuracy", needs_labels=True)
def accuracy(answer: Answer) -> tuple[float, float]:
    """Share of the labels that the model gives."""
    assert answer.labels is not None
    if answer.output.dtype.kind in "iub" and answer.output.shape == answer.labels.shape:  # classes, not their scores
        counted = answer.labels != IGNORED
        return float(np.count_nonzero((answer.output == answer.labels) & counted)), float(np.count_nonzero(counted))
    return _hits(answer, 1)


@register("top5", needs_labels=True)
def top5(answer: Answer) -> tuple[float, float]:
    """Share of the labels that are among the model's first five."""
    return _hits(answer, 5)


def _hits(answer: Answer, places: int) -> tuple[float, float]:
    """Labels within the first `places`, of equal scores those first that come first; a sample with NaN has no hit."""
    scores, labels = _scores_and_labels(answer)
    classes = scores.shape[-1]
    if classes <= places:
        raise DataError(f"an output of {classes} classes is always right within {places}: use another metric")
    counted = labels != IGNORED
    scores, labels = scores[counted], labels[counted]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(f"labels go from {labels.min()} to {labels.max()}, but the output has {classes} classes")
    own = np.take_along_axis(scores, labels[:, None], axis=-1)
    before = (scores == own) & (np.arange(classes) < labels[:, None])
    rank = ((scores > own) | before).sum(axis=-1)
    hits = (rank < places) & ~np.isnan(scores).any(axis=-1)
    return float(np.count_nonzero(hits)), float(len(labels))


def _scores_and_labels(answer: Answer) -> tuple[Array, npt.NDArray[np.int64]]:
    """Scores [..., classes] and labels [...]. Raises DataError where they do not fit."""
    output, labels = answer.output, answer.labels
    assert labels is not None
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise DataError("labels are fractions, not classes: use a metric of your own, module:function")
    if output.dtype.kind == "f" and whole.shape == output.shape[:-1]:
        return output, whole
    if output.dtype.kind == "f" and whole.shape == (*output.shape[:1], *output.shape[2:]):
        return np.moveaxis(output, 1, -1), whole
    raise DataError(f"labels of shape {whole.shape} do not fit an output {output.dtype.name} of shape {output.shape}")


# -- beside the original


@register("agreement", needs_reference=True, perfect=1.0)
def agreement(answer: Answer) -> tuple[float, float]:
    """Share of the samples with the same arg-max as the original; of outputs that are no floats, of equal entries.

    Classes lie along the last axis, from four axes on (segmentation) along axis 1. A sample with NaN does not agree.
    """
    output, original = answer.output, _original(answer)
    if output.dtype.kind == "f":
        output, original = _classes_last(output), _classes_last(original)
        same = output.argmax(axis=-1) == original.argmax(axis=-1)
        same &= ~(np.isnan(output).any(axis=-1) | np.isnan(original).any(axis=-1))
    else:
        same = np.asarray(output == original)
    return float(np.count_nonzero(same)), float(same.size)


@register("kl", needs_reference=True, higher_is_better=False, perfect=0.0)
def kl(answer: Answer) -> tuple[float, float]:
    """Mean Kullback-Leibler divergence of the softmax from that of the original, in nats; less is better.

    Classes lie as for agreement. Where the original's outputs are probabilities already, both are taken as they are.
    """
    output, original = map(_classes_last, _floats(answer))
    ready = bool((original >= 0).all() and np.allclose(original.sum(axis=-1), 1.0, atol=1e-3))
    log_p, log_q = (_log_probabilities(scores, ready) for scores in (original, output))
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
    return float(terms.sum()), float(np.prod(output.shape[:-1]))


def _log_probabilities(scores: npt.NDArray[np.float64], ready: bool) -> npt.NDArray[np.float64]:
    if ready:
        with np.errstate(invalid="ignore"):  # what underflowed to 0 in float32 is as small as float32 gets
            return np.log(np.where(np.isnan(scores), scores, np.maximum(scores, np.finfo(np.float32).tiny)))
    shifted = scores - scores.max(axis=-1, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


@register("cosine", needs_reference=True, perfect=1.0)
def cosine(answer: Answer) -> tuple[float, float]:
    """Mean cosine between the outputs for a sample and those of the original."""
    output, original = (array.reshape(len(array), -1) for array in _floats(answer))
    norms = np.linalg.norm(output, axis=1) * np.linalg.norm(original, axis=1)
    products = (output * original).sum(axis=1)
    both_zero = ~output.any(axis=1) & ~original.any(axis=1)
    cosines = np.where(both_zero, 1.0, products / np.where(norms == 0, 1.0, norms))
    return float(cosines.sum()), float(len(cosines))


def _decibel(signal: float, noise: float) -> float:
    if not noise:
        return float("inf")
    return 10 * log10(signal / noise) if signal else float("-inf")


@register("snr", needs_reference=True, perfect=float("inf"), finish=_decibel)
def snr(answer: Answer) -> tuple[float, float]:
    """Signal to noise in dB: the original's power over that of the difference from it, of all samples together."""
    output, original = _floats(answer)
    return float(np.square(original).sum()), float(np.square(output - original).sum())


def _classes_last(scores: Array) -> Array:
    """Scores with their classes on the last axis. Raises DataError where there are none."""
    if scores.ndim > 3:
        scores = np.moveaxis(scores, 1, -1)
    if scores.ndim < 2 or scores.shape[-1] < 2:
        raise DataError(f"an output of shape {scores.shape} has no classes to compare: use metric snr or cosine")
    return scores


def _original(answer: Answer) -> Array:
    assert answer.reference is not None
    return answer.reference


def _floats(answer: Answer) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Output and reference in float64. Raises DataError for texts."""
    if answer.output.dtype.kind not in "fiub":
        raise DataError("the output is not of numbers: use metric agreement, or name another output")
    return answer.output.astype(np.float64), _original(answer).astype(np.float64)
