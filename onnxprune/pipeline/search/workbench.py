"""Shared by all trials of a search: the model, analysed once; samples, parted once; outputs of the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.input_values import values_of
from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.evaluation import verify
from onnxprune.evaluation.metrics import Metric, chosen_output, evaluate, is_probability, metric, outputs_of
from onnxprune.model.file import digest
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.opening import Given, open_and_inspect
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.result import Result
from onnxprune.pipeline.samples import Sources
from onnxprune.pipeline.search.shared import Shared, SharedScores
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.state import State
from onnxprune.support.progress import Progress, silent


@dataclass
class Workbench:
    """A model with its samples, ready for trials.

    Attributes:
        given: the model as it was given, analysed.
        original: what results are verified against.
        context: for every trial: samples to fit to, and those to measure on.
        shared: arrays for all processes.
        digests: of the model's files, and of the samples that are fitted to and measured on.
    """

    given: Given
    original: verify.Original
    context: Context
    shared: Shared
    digests: Mapping[str, str]
    _known: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def open(
        model: Any, sources: Sources, recipe: Recipe, folder: Path, progress: Progress = silent, **settings: Any
    ) -> Workbench:
        """Open a model with its samples.

        Args:
            model: as for `compress`.
            sources: samples as they were given; those for evaluation measure the candidates, else some of the data.
            recipe: with every step that a trial may have: it says which samples are kept apart.
            folder: for what is shared between processes.
            progress: is called with what is being done.
            settings: of the context.

        Raises UsageError without samples, and as `run`.
        """
        if sources.data is None:
            raise UsageError("a search needs samples to fit to and to measure on: give --data")
        context = Context(**{**recipe.settings, **settings}, progress=progress)
        given = open_and_inspect(model, context, sources.data)
        original, given = given.started(context)
        context = replace(sources, data=given.data).into(context, recipe, given.analysis.model, given.sizes)
        for step in recipe.steps:
            step.needs(context)
        shared, of_model = Shared(folder), digest(given.analysis.model)
        progress("keeping the samples for all trials")
        context, digests = _shared_samples(context, shared)
        scores = SharedScores(shared, f"{of_model} {digests['fitted']} {context.seed} {context.loss}")
        context = replace(context, scores=scores, progress=silent)
        return Workbench(given, original, context, shared, {"model": of_model, **digests})

    @property
    def analysis(self) -> Analysis:
        """Of the original."""
        return self.given.analysis

    def state(self) -> State:
        """The state before the first step of a trial."""
        return State.of(self.analysis, self.given.source)

    def metric(self, name: str | None) -> Metric:
        """A metric by name; None: that of --metric, else the one for the output. UsageError where it is unknown."""
        output = chosen_output(self._session.outputs)
        binary = is_probability(self.analysis.model, output)
        return metric(name or self.context.metric, self.measured.labelled, output, binary=binary)

    @property
    def measured(self) -> Data:
        """The samples that candidates are measured on."""
        assert self.context.measured is not None
        return self.context.measured

    def of_original(self, name: str, measure: Callable[[], Any]) -> Any:
        """An amount of the original, measured once."""
        if name not in self._known:
            self._known[name] = measure()
        return self._known[name]

    def metric_of_original(self, found: Metric) -> float:
        """The value of a metric of the original."""
        if found.perfect is not None:
            return found.perfect
        return float(self.of_original(found.name, lambda: self.value(self.given.source, found)))

    def value(self, model: Path | ir.Model, found: Metric) -> float:
        """The value of a metric of a model, beside what the original gives."""
        reference = self.reference if found.needs_reference else None
        return evaluate(model, self.measured, found, reference, providers=self.context.execution)

    @cached_property
    def reference(self) -> list[npt.NDArray[Any]]:
        """The outputs of the original for the samples that are measured on, batch by batch."""
        key = f"outputs {self.digests['model']} {self.digests['measured']} {self.context.execution}"
        return self.shared.arrays(key, lambda: (list(outputs_of(self._session, self.measured)), None))[0]

    @cached_property
    def _session(self) -> Session:
        return Session(self.given.source, self.context.execution, optimized=True)

    @cached_property
    def input_values(self) -> dict[str, Any]:
        """Sizes and values of the inputs that time and memory are measured on."""
        batch = {port.batch_symbol for port in ports_of(self.analysis.model)}
        sizes = {symbol: size for symbol, size in self.analysis.shapes.bindings.items() if symbol not in batch}
        return {"sizes": sizes, "values": values_of(self.analysis)}


@dataclass
class Made:
    """A candidate: the model that a recipe has made, or has come to so far."""

    bench: Workbench
    recipe: Recipe
    state: State
    _values: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> ir.Model:
        """The model in memory."""
        return self.state.model

    @cached_property
    def result(self) -> Result:
        """Its numbers, and how it gets into a file."""
        return Result(self.state, self.recipe.document(), self.bench.original, self.bench.analysis)

    def value(self, found: Metric) -> float:
        """The value of a metric, measured once."""
        if found.name not in self._values:
            self._values[found.name] = self.bench.value(self.model, found)
        return self._values[found.name]


def _shared_samples(context: Context, shared: Shared) -> tuple[Context, dict[str, str]]:
    """The context with its samples in the shared folder, and their digests."""
    assert context.data is not None
    data, fitted = shared.data(context.data)
    measuring = context.measured
    assert measuring is not None
    measured_data, measured = shared.data(measuring)
    apart = None if context.apart is None else replace(context.apart, fitting=data, measuring=measured_data)
    context = replace(context, data=data, apart=apart)
    if context.training is not None:
        training, trained = shared.data(context.training)
        return replace(context, training=training), {"fitted": fitted, "measured": measured, "trained": trained}
    return context, {"fitted": fitted, "measured": measured}
