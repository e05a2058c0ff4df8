"""Cuts that are made and measured, because what they do cannot be computed: time, and loss of a metric."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.inspect import inspect
from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation.metrics import Array, Metric, chosen_output, evaluate, metric, outputs_of
from onnxprune.model.file import save
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.runtime.latency import Latency, measure
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.plan import Plan, plan_from_masks
from onnxprune.steps.prune.allocation.base import Curve, Scores, weakest
from onnxprune.steps.recover.methods import recover_cut
from onnxprune.support.progress import Counted

# Seconds of measuring per model and trial.
_SECONDS = 1.0
_SECONDS_OF_LEVEL = 0.3
# Levels that are timed: kept shares of a group's units, rounded up to a multiple of the first of these that fits.
_KEPT = (0.75, 0.5, 0.25)
_MULTIPLES = (16, 8, 4, 2, 1)


@dataclass
class Trials(AbstractContextManager["Trials"]):
    """Builds cuts of one model in a folder of its own, which goes when the block ends.

    Attributes:
        path: the model.
        context: with what a cut is recovered and measured.
    """

    path: Path
    context: Context = field(default_factory=Context)
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="onnxprune-")
    )
    _built: object = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def __call__(self, plan: Plan, kind: str) -> tuple[float, float]:
        """What the original has and what a cut has: seconds for "latency"; for "drop" 0 and the loss of the metric.

        Raises UsageError for a drop without data, or of a metric that has no bounds.
        """
        return self.latency(plan) if kind == "latency" else (0.0, self.drop(plan))

    def latency(self, plan: Plan) -> tuple[float, float]:
        """Median seconds of the original and of a cut, measured side by side."""
        return self.compare(self.built(plan, mended=False))

    def compare(self, file: Path) -> tuple[float, float]:
        """Median seconds of the original and of a file, measured side by side."""
        before, after = measure([self.path, file], self.context.setting, seconds=_SECONDS)
        return float(np.median(_seconds(before))), float(np.median(_seconds(after)))

    def seconds_saved(self, path: Path, groups: Sequence[Group], scores: Mapping[str, Scores]) -> dict[str, Curve]:
        """What losing units of each group alone saves, at kept counts that hardware likes, measured side by side.

        Args:
            path: the model, or what an earlier step has left of it.
            groups: of that.
            scores: per group id, float64 [units].
        """
        curves = {}
        for number, group in enumerate(groups, 1):
            self.context.progress(
                Counted(f"timing group {number} of {len(groups)}: {group.id}", number - 1, len(groups))
            )
            counts = sorted({group.units - kept for kept in _kept_counts(group.units)})
            files = []
            for lost in counts:
                plan = plan_from_masks([(group, weakest(scores[group.id], lost))], {})
                files.append(Path(self._folder.name) / f"level{lost}.onnx")
                save(build(inspect(path), plan), files[-1])
            whole, *cuts = measure([path, *files], self.context.setting, seconds=_SECONDS_OF_LEVEL)
            saved = [float(np.median(np.subtract(_seconds(whole), _seconds(cut)))) for cut in cuts]
            curves[group.id] = Curve((0, *counts), (0.0, *saved))
            for file in files:
                file.unlink()
        return curves

    def drop(self, plan: Plan) -> float:
        """How much worse a cut is than the original, in the metric; never less than 0."""
        if self.context.measured is None:
            raise UsageError("a target for drop needs data to measure the metric on: give --data, and --labels or none")
        sign = 1 if self._metric.higher_is_better else -1
        worse = sign * (self._before - self.value(self.built(plan, mended=True)))
        return inf if isnan(worse) else max(0.0, worse)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the loss of the metric was measured."""
        apart = self.context.apart
        if apart is None:
            return ()
        what = "kept apart" if apart.apart else "that recovery was fitted to as well, which flatters: give more"
        samples = "sample" if apart.samples == 1 else "samples"
        return (f"the drop is of {self._metric.name}, on {apart.samples} {samples} {what}",)

    def value(self, path: Path) -> float:
        """The metric of a file."""
        data = self.context.measured
        assert data is not None
        return evaluate(path, data, self._metric, self._reference, providers=self.context.providers)

    @cached_property
    def _metric(self) -> Metric:
        data = self.context.measured
        assert data is not None
        output = chosen_output(Session(self.path, self.context.providers).outputs)
        found = metric(self.context.metric, data.labelled, output)
        if found.perfect == float("inf"):
            raise UsageError(f"metric '{found.name}' of the original is infinite, so nothing can be a drop from it")
        return found

    @cached_property
    def _reference(self) -> list[Array]:
        data = self.context.measured
        assert data is not None
        return (
            list(outputs_of(self.path, data, providers=self.context.providers)) if self._metric.needs_reference else []
        )

    @cached_property
    def _before(self) -> float:
        before = self.value(self.path) if self._metric.perfect is None else self._metric.perfect
        if isnan(before):
            raise DataError(
                f"metric '{self._metric.name}' of the original is not a number, so nothing can drop from it"
            )
        return before

    def built(self, plan: Plan, *, mended: bool) -> Path:
        """The file of a cut, recovered if asked for; the last one is kept."""
        key = (plan.removals, mended)
        if self._built != key:
            self.context.progress("trying a cut")
            self._build(plan, mended, "cut")
            self._built = key
        return self._file("cut")

    def step(self, plan: Plan, number: int) -> Path:
        """The file of the cut that a step has made, recovered; it is kept, for the next one to start from."""
        return self._build(plan, True, f"step{number}")

    def _build(self, plan: Plan, mended: bool, name: str) -> Path:
        model = build(inspect(self.path), plan)
        if mended:
            recover_cut(self.context, self.path, plan, model)
        file = self._file(name)
        file.unlink(missing_ok=True)
        save(model, file)
        return file

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.onnx"


def _seconds(latency: Latency) -> tuple[float, ...]:
    """On the processor where that tells, which other programs on the machine change least; else by the clock."""
    return latency.processor_seconds or latency.seconds


def _kept_counts(units: int) -> set[int]:
    """Counts to keep: about the shares of _KEPT, at multiples that leave several levels."""
    multiple = next((each for each in _MULTIPLES if units >= 4 * each), 1)
    return {min(units, multiple * max(1, round(share * units / multiple))) for share in _KEPT} - {units}


def build(analysis: Analysis, plan: Plan) -> ir.Model:
    """The model of an analysis without what a plan removes; it is changed in place."""
    RemoveUnits(analysis, plan.keep(analysis))(analysis.model)
    RemoveDead()(analysis.model)
    return analysis.model
