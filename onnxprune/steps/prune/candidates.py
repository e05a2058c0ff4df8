"""Cuts that are made and measured, because what they do cannot be computed: time, and the drop of a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Group
from onnxprune.analysis.input_values import values_of
from onnxprune.dims import Atom, Mask
from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation.metrics import Array, Metric, chosen_output, evaluate, is_probability, metric, outputs_of
from onnxprune.model.signature import ports_of
from onnxprune.runtime.latency import Latency, measure_latency
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.prune.allocation.base import Curve, Scores, weakest
from onnxprune.steps.prune.shipped import Shipped
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State
from onnxprune.support.progress import Counted

# Seconds of measuring per model and candidate.
_SECONDS = 1.0
_SECONDS_OF_LEVEL = 0.3
# Levels that are timed: kept shares of a group's units, rounded up to a multiple of the first of these that fits.
_KEPT = (0.75, 0.5, 0.25)
_MULTIPLES = (16, 8, 4, 2, 1)
# Of the power of an output, the share that has to vary over the samples.
_VARIES = 1e-9
# So many made-up inputs of a kind say something by themselves.
_KIND = 8

Masks = Mapping[Atom, Mask]


@dataclass
class Candidates:
    """Makes cuts of a state in memory, and measures them.

    Attributes:
        state: what is cut.
        context: with what a cut is recovered and measured.
        recover: the recovery that follows the cut in the recipe, if there is one.
    """

    state: State
    context: Context
    recover: Recover | None = None
    _last: tuple[object, State] | None = field(default=None, repr=False)
    _best: tuple[object, State] | None = field(default=None, repr=False)

    def latency(self, left: Masks) -> tuple[float, float]:
        """Median seconds of the original and of a cut, measured side by side."""
        return self._compare(*self._ends(self.state.cut(left)))

    @property
    def seconds(self) -> float:
        """Median seconds of the original."""
        return self._compare(self.state.model)[0]

    @cached_property
    def shipped(self) -> Shipped | None:
        """What a quantization that follows makes of a cut: that is timed. None where none follows."""
        return Shipped.of(self.context)

    def _ends(self, state: State) -> Sequence[ir.Model]:
        """The models that a cut may end as, of which the fastest is taken."""
        return [state.model] if self.shipped is None else self.shipped.ends(state)

    def _compare(self, *models: ir.Model) -> tuple[float, float]:
        found = measure_latency([self.state.source, *models], self.context.setting, seconds=_SECONDS, **self._inputs)
        before, *after = (float(np.median(_seconds(each))) for each in found)
        return before, min(after)

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        """Sizes and values of the inputs that time is measured on: those of the analysis, but for the batch."""
        original = self.state.original
        batch = {port.batch_symbol for port in ports_of(original.model)}
        sizes = {symbol: size for symbol, size in original.shapes.bindings.items() if symbol not in batch}
        return {"sizes": sizes, "values": values_of(original)}

    def seconds_saved(self, groups: Mapping[str, Group], scores: Mapping[str, Scores]) -> dict[str, Curve]:
        """The savings of losing units of each group alone, at kept counts that hardware likes, measured side by side.

        Args:
            groups: of the model as it is now, by the ids of the original's groups.
            scores: by the same ids, float64 [units].
        """
        here, curves = State.of(self.state.analysis), {}
        for number, (name, group) in enumerate(groups.items(), 1):
            said = f"timing group {number} of {len(groups)}: {name}"
            self.context.progress(Counted(said, number - 1, len(groups)))
            counts = sorted({group.units - kept for kept in _kept_counts(group.units)})
            cuts = [here.cut({group.atom: weakest(scores[name], lost)}) for lost in counts]
            whole, *times = measure_latency(
                [self._ends(each)[0] for each in (here, *cuts)],
                self.context.setting,
                seconds=_SECONDS_OF_LEVEL,
                **self._inputs,
            )
            saved = [float(np.median(np.subtract(_seconds(whole), _seconds(time)))) for time in times]
            curves[name] = Curve((0, *counts), (0.0, *saved))
        return curves

    def drop(self, left: Masks) -> float:
        """How much worse a cut is than the original, in the metric; never less than 0.

        Raises UsageError for a drop without data, or of a metric that has no bounds.
        """
        if self.context.measured is None:
            raise UsageError("a target for drop needs data to measure the metric on: give --data, and --labels or none")
        sign = 1 if self._metric.higher_is_better else -1
        worse = sign * (self._before - self._value(self.made(left).model))
        return inf if isnan(worse) else max(0.0, worse)

    def damage(self, left: Masks) -> float:
        """Share of the variance of the original's output that a cut gets wrong: 0 for the original, 1 for a constant.

        The output is the one that metrics look at, the samples are kept apart where there are enough, the variance is
        over the samples; where outputs differ in size or do not vary, their power takes its place. It predicts accuracy
        better than agreement does: it counts every sample, and made-up inputs rarely fall into a class clearly. Of
        made-up inputs the kind counts that shows most, drawn or distilled, see `made_up_samples`: real ones are of
        neither, and where one kind gives much larger outputs than the other it would hide what happens to that.

        Raises UsageError without samples, and where the model has no output of numbers.
        """
        if self.context.measured is None:
            raise UsageError("a target for damage needs samples to measure it on: give --data")
        made = self.made(left).model
        given = list(outputs_of(made, self.context.measured, providers=self.context.execution))
        due = self._outputs
        kinds = [] if self.context.data is not None or min(map(len, due)) < _KIND else zip(due, given, strict=True)
        return max(_unexplained(due, given), *(_unexplained([one], [other]) for one, other in kinds), 0.0)

    def made(self, left: Masks) -> State:
        """A cut, recovered where the recipe does that next."""
        known = self.known(left)
        if known is not None:
            return known
        self.context.progress("trying a cut")
        made = self.state.cut(left)
        if self.recover is not None:
            # Layers are not counted: it is the cuts that make up the search.
            quietly = replace(self.context, progress=lambda said: self.context.progress(str(said)))
            made = self.recover(made, quietly)
        self._last = (_key(left), made)
        return made

    def known(self, left: Masks) -> State | None:
        """A cut that was made and is still at hand."""
        found = (each[1] for each in (self._last, self._best) if each is not None and each[0] == _key(left))
        return next(found, None)

    def keep(self, left: Masks) -> None:
        """Hold on to a cut that was made last: it is the best so far."""
        if self._last is not None and self._last[0] == _key(left):
            self._best = self._last

    def notes(self, kind: str) -> tuple[str, ...]:
        """What a person should know of how harm of a kind was measured."""
        apart = self.context.apart
        if apart is None:
            return ()
        damage = "the damage is the share of the output's variance that comes out wrong"
        measure = damage if kind == "damage" else f"the drop is of {self._metric.name}"
        samples = "sample" if self.context.data is not None else "made-up input"
        samples += "" if apart.samples == 1 else "s"
        what = "kept apart" if apart.apart else "that recovery was fitted to as well, which flatters: give more"
        return (f"{measure}, on {apart.samples} {samples} {what}",)

    def _value(self, model: Path | ir.Model) -> float:
        data = self.context.measured
        assert data is not None
        return evaluate(model, data, self._metric, self._reference, providers=self.context.execution)

    @cached_property
    def _metric(self) -> Metric:
        data = self.context.measured
        assert data is not None
        output = chosen_output(Session(self.state.source, self.context.execution).outputs)
        binary = is_probability(self.state.original.model, output)
        found = metric(self.context.metric, data.labelled, output, binary=binary)
        if found.perfect == float("inf"):
            raise UsageError(
                f"metric '{found.name}' of the original is infinite, so nothing can be a drop from it: "
                "say how much of the output may come out wrong, like --target damage=0.03"
            )
        return found

    @cached_property
    def _reference(self) -> list[Array]:
        data = self.context.measured
        assert data is not None
        if not self._metric.needs_reference:
            return []
        return list(outputs_of(self.state.source, data, providers=self.context.execution))

    @cached_property
    def _outputs(self) -> list[Array]:
        data = self.context.measured
        assert data is not None
        return list(outputs_of(self.state.source, data, providers=self.context.execution))

    @cached_property
    def _before(self) -> float:
        before = self._value(self.state.source) if self._metric.perfect is None else self._metric.perfect
        if isnan(before):
            raise DataError(
                f"metric '{self._metric.name}' of the original is not a number, so nothing can drop from it"
            )
        return before


def _unexplained(due: Sequence[Array], given: Sequence[Array]) -> float:
    """Power of the difference over the variance over the samples; both batch by batch, samples along axis 0."""
    if any(one.dtype.kind not in "fiu" for one in due):
        raise UsageError("damage is measured on numbers, and the output of the model has none")
    wanted, found = ([array.astype(np.float64) for array in arrays] for arrays in (due, given))
    noise = sum(float(np.square(one - other).sum()) for one, other in zip(wanted, found, strict=True))
    power = variance = sum(float(np.square(array).sum()) for array in wanted)
    if len({array.shape[1:] for array in wanted}) == 1:
        sums, count = np.sum([array.sum(axis=0) for array in wanted], axis=0), sum(map(len, wanted))
        spread = power - float(np.square(sums).sum()) / count
        variance = spread if spread > _VARIES * power else power
    return inf if isnan(noise) else noise / max(variance, 1e-30)


def _key(left: Masks) -> object:
    """What is left, for comparison."""
    return tuple((id(atom), mask.tobytes()) for atom, mask in left.items() if not mask.all())


def _seconds(latency: Latency) -> tuple[float, ...]:
    """On the processor where that tells, which other programs on the machine change least; else by the clock."""
    return latency.processor_seconds or latency.seconds


def _kept_counts(units: int) -> set[int]:
    """Counts to keep: about the shares of _KEPT, at multiples that leave several levels."""
    multiple = next((each for each in _MULTIPLES if units >= 4 * each), 1)
    return {min(units, multiple * max(1, round(share * units / multiple))) for share in _KEPT} - {units}
