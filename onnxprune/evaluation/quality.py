"""The cost of a change of a model: metrics of its outputs before and after, beside the outputs of the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan

import numpy as np

from onnxprune.data.base import Data
from onnxprune.data.base import length_of as samples_in
from onnxprune.errors import DataError
from onnxprune.evaluation.benchmark.comparison import Comparison
from onnxprune.evaluation.metrics import METRICS, Answer, Array, Metric, chosen_output, metric
from onnxprune.evaluation.metrics.base import FLOATS, Runs, run_batch
from onnxprune.model.signature import Port

# Where samples come from, for people.
APART, SEEN, GIVEN, MADE_UP = "samples kept apart", "samples that it was fitted to", "samples", "made-up inputs"
# An output of which no more than this share of its power varies is a constant.
_VARIES = 1e-9
# Where channels vary by less than this share of what all entries do, they differ more than they vary; their means are
# known where each has so many entries.
_DIFFERENT = 0.5
_KNOWN = 30

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class QualityScore:
    """One metric of the model before and after; NaN where it could not be found.

    Attributes:
        metric: its name.
        before, after: its values.
        unit: "%" for shares, "dB", or nothing.
        higher_is_better: whether more is better.
        labels: it compares with labels, not with the original.
        output: of the model, where it has several.
    """

    metric: str
    before: float
    after: float
    unit: str = ""
    higher_is_better: bool = True
    labels: bool = False
    output: str = ""

    @property
    def name(self) -> str:
        """As people call it, with the output that it is of where there are several."""
        name = {"agreement": "top-1 agreement", "snr": "SNR"}.get(self.metric, self.metric)
        return f"{name} of {self.output}" if self.output else name

    def shown(self, value: float) -> str:
        """`98.7%`, `14.2 dB`, `0.0312`; a dash for the SNR of the original itself and for what could not be found."""
        if isnan(value) or value == inf:
            return "-"
        return f"{value:.1%}" if self.unit == "%" else f"{value:.1f} dB" if self.unit == "dB" else f"{value:.4g}"


@dataclass(frozen=True)
class LatencyChange:
    """Median seconds of a run before and after, measured in turns, and the comparison of both with its interval.

    The seconds are of the clock that they are compared by: the processor's for one thread on the CPU.
    """

    before: float
    after: float
    comparison: Comparison


@dataclass(frozen=True)
class Quality:
    """The cost of a change of a model.

    Attributes:
        scores: metrics with labels first, then those against the original.
        explained: share of the variance of the original's output that the model's output explains, 1 at most; a
            constant explains 0. Of several outputs that of the worst; where channels differ more than they vary, as
            background and rare others do, the variance is about their means. NaN where that could not be found.
        samples: how many it was measured on.
        inputs: where they come from: kept apart, fitted to as well, given for this, or made up.
        latency: where it was asked for.
        damage: says in one sentence that the model fell apart; empty where it did not.
        notes: why something could not be measured.
    """

    scores: tuple[QualityScore, ...] = ()
    explained: float = nan
    samples: int = 0
    inputs: str = MADE_UP
    latency: LatencyChange | None = None
    damage: str = ""
    notes: tuple[str, ...] = ()

    @property
    def on(self) -> str:
        """The inputs that it was measured on: `64 samples kept apart`, `1 made-up input`."""
        inputs = self.inputs
        if self.samples == 1:
            inputs = inputs.replace("samples", "sample").replace("inputs", "input")
        return f"{self.samples:,} {inputs}"


def compare_quality(
    original: Runs,
    before: Runs,
    after: Runs,
    data: Data,
    *,
    inputs: str = GIVEN,
    name: str | None = None,
    most: int | None = None,
) -> Quality:
    """Metrics of a model before and after a change, in one pass over the data.

    Args:
        original: what outputs are compared with; it may be the same object as `before`.
        before: the model before.
        after: the model after.
        data: samples.
        inputs: where they come from, see `Quality`.
        name: the metric that comes first (None: accuracy where there are labels).
        most: no batch is begun after so many samples.

    Raises DataError for outputs that do not fit each other, and for a metric that was asked for and does not fit;
    ModelError when a model cannot be run.
    """
    columns = _columns(original.outputs, name, labelled=data.labelled)
    variances = [_Variance(column.output) for column in columns if column.metric is METRICS["snr"]]
    wanted, samples = list(dict.fromkeys(column.output for column in columns)), 0
    for batch in data.batches():
        due = run_batch(original, batch, wanted)
        old = due if before is original else run_batch(before, batch, wanted)
        new = run_batch(after, batch, wanted)
        for column in columns:
            column.add(old, new, due, batch.labels)
        for variance in variances:
            variance.add(new, due)
        samples += samples_in(batch)
        if most is not None and samples >= most:
            break
    explained = min((each.explained for each in variances if not isnan(each.explained)), default=nan)
    notes = tuple(f"{column.metric.name} was not measured: {column.failed}" for column in columns if column.failed)
    if variances and samples and all(each.idle for each in variances):
        notes = (
            *notes,
            f"on these {inputs} the original gives nothing, or always the same: they say nothing of a change",
        )
    return Quality(_scores(columns), explained, samples, inputs, notes=notes)


def drop_between(before: Runs, after: Runs, data: Data, *, name: str | None = None, most: int | None = None) -> float:
    """By how much the first metric is worse after a change: accuracy with labels, else agreement; see above."""
    score = compare_quality(before, before, after, data, name=name, most=most).scores[0]
    fell = score.before - score.after
    return fell if score.higher_is_better else -fell


@dataclass
class _MetricColumn:
    """A metric of one output, summed up over the batches; `asked`: somebody named it, so it has to fit."""

    metric: Metric
    output: str
    asked: bool = False
    failed: str = ""
    sums: Array = field(default_factory=lambda: np.zeros((2, 2)))

    def add(self, old: Outputs, new: Outputs, due: Outputs, labels: Array | None) -> None:
        for at, outputs in enumerate((old, new)):
            try:
                self.metric.check(outputs[self.output], due[self.output], self.output)
                answer = Answer(outputs[self.output], labels, due[self.output], outputs)
                self.sums[at] += self.metric.score(answer)
            except DataError as error:
                if self.asked:
                    raise
                self.failed = str(error)

    def score(self, *, alone: bool) -> QualityScore:
        """`alone`: the model has no other output that is looked at."""
        before, after = (self._value(*pair) for pair in self.sums.tolist())
        output = "" if alone else self.output
        kind = self.metric
        return QualityScore(kind.name, before, after, kind.unit, kind.higher_is_better, kind.needs_labels, output)

    def _value(self, above: float, below: float) -> float:
        try:
            return self.metric.finish(above, below)
        except ZeroDivisionError:
            return nan


class _Variance:
    """How much of the variance of an output, over all of its entries and samples, the model explains.

    In a detector's scores, the background is near 1 and each class near 0, with few exceptions: those are all that
    matters, and little beside the distance of the two. There the variance is that of channels about their means.
    Channels are the shortest axis behind the first, of those with more than one entry.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._sums = np.zeros(4)
        self._axis: int | None = None
        self._channels = np.zeros((2, 0))

    def add(self, new: Outputs, due: Outputs) -> None:
        given, wanted = (outputs[self._output].astype(np.float64) for outputs in (new, due))
        if given.shape != wanted.shape:  # other numbers of boxes, say: no entry corresponds to any other
            self._sums[:] = nan
            return
        self._sums += wanted.size, wanted.sum(), np.square(wanted).sum(), np.square(given - wanted).sum()
        self._add_channels(wanted)

    def _add_channels(self, wanted: Array) -> None:
        """How many entries each channel has, and their sum; of none where they are others than before."""
        if self._axis is None:
            several = [(size, axis) for axis, size in enumerate(wanted.shape) if axis and size > 1]
            self._axis = min(several)[1] if several else -1
            self._channels = np.zeros((2, wanted.shape[self._axis] if several else 0))
        if self._axis < 0 or self._axis >= wanted.ndim or wanted.shape[self._axis] != self._channels.shape[1]:
            self._axis, self._channels = -1, np.zeros((2, 0))
            return
        rows = np.moveaxis(wanted, self._axis, -1).reshape(-1, self._channels.shape[1])
        self._channels += np.stack([np.full(rows.shape[1], len(rows)), rows.sum(0)])

    @property
    def idle(self) -> bool:
        """Does the original give nothing, or always the same?"""
        entries, total, power, _ = self._sums.tolist()
        return entries == 0 or bool(power - total**2 / entries <= _VARIES * power)

    @property
    def explained(self) -> float:
        """1 for the original, 0 for a constant; NaN where nothing varies, nothing came out or sizes differ."""
        entries, total, power, noise = self._sums.tolist()
        if not entries or isnan(entries):
            return nan
        variance = power - total**2 / entries
        if isnan(noise):
            return -inf
        counts, totals = self._channels
        if counts.size and counts.min() >= _KNOWN:
            inside = power - float(np.sum(totals**2 / counts))
            variance = inside if _VARIES * power < inside < _DIFFERENT * variance else variance
        return 1 - noise / variance if variance > _VARIES * power else nan


def _columns(outputs: Sequence[Port], name: str | None, *, labelled: bool) -> list[_MetricColumn]:
    """The metric that was asked for, or that for labels; that which fits the output; and the SNR of all outputs."""
    first = chosen_output(outputs)
    floats = [port.name for port in outputs if port.type in FLOATS]
    found = [_MetricColumn(metric(name, labelled, first), first.name, name is not None)] if name or labelled else []
    found.append(_MetricColumn(metric(None, False, first) if floats else METRICS["agreement"], first.name))
    found += [_MetricColumn(METRICS["snr"], output) for output in floats]
    return list({(column.metric.name, column.output): column for column in reversed(found)}.values())[::-1]


def _scores(columns: Sequence[_MetricColumn]) -> tuple[QualityScore, ...]:
    """Of several outputs, the SNR of that which is the worst afterwards."""
    alone = len({column.output for column in columns}) == 1
    scores = [column.score(alone=alone) for column in columns if not column.failed]
    ratios = [score for score in scores if score.metric == "snr"]
    worst = min(ratios, key=lambda score: (not isnan(score.after), score.after), default=None)
    return tuple(score for score in scores if score.metric != "snr" or score is worst)
