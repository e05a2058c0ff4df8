"""Open a model with its data: analysed at the sizes of the data, and run once before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.input_values import size_of
from onnxprune.analysis.inspect import analyze_model, blaming, opened
from onnxprune.analysis.live import live_bytes
from onnxprune.data.base import Data
from onnxprune.data.carry import carried_states
from onnxprune.data.options import DataOptions
from onnxprune.data.sources.synthetic import hints_of
from onnxprune.data.split import in_batches_of
from onnxprune.errors import ModelError
from onnxprune.evaluation import verify
from onnxprune.evaluation.one_by_one import ONE_BY_ONE
from onnxprune.evaluation.trial_inputs import TrialMaker
from onnxprune.model.file import runnable
from onnxprune.model.signature import TAKES_ONE, given_sizes, ports_of, sizes_of
from onnxprune.passes.resize_states import ResizeStates
from onnxprune.pipeline.samples import samples_of
from onnxprune.runtime.custom_ops import use_libraries
from onnxprune.statistics.sites import samples_at_once
from onnxprune.steps.base import Context
from onnxprune.support.memory import bytes_for, set_bound


@dataclass(frozen=True)
class Given:
    """A model as it was given, analysed.

    Attributes:
        source: what runs where the original is to be run.
        analysis: at the sizes of the data, else at those that were asked for.
        data: the samples, where there are some.
        sizes: of dynamic axes, as the user named them.
    """

    source: Path | ir.Model
    analysis: Analysis
    data: Data | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def started(self, context: Context) -> tuple[verify.Original, Given]:
        """The original on inputs that it takes, see `verify.run_original`; and the same with data that it takes.

        Raises ModelError where it does not run, unless the context allows results that were not run.
        """
        context.progress("running the original")
        maker = TrialMaker(self.analysis, self.data, self.sizes, context.seed)
        try:
            original = verify.run_original(self.source, maker, context.execution)
        except ModelError as refused:
            if not context.unverified:
                raise
            return verify.Original(self.source, unverified=str(refused.__cause__ or refused)), self
        if not original.one_by_one:
            return original, self
        meta = self.analysis.model.meta
        meta.update({TAKES_ONE: True, "notes": [*meta.get("notes", ()), ONE_BY_ONE]})
        return original, self if self.data is None else replace(self, data=in_batches_of(self.data, 1))

    def fed(self, context: Context) -> Given:
        """The same with data that the original takes, one sample at a time where it takes no more."""
        return self.started(replace(context, unverified=True))[1]


def open_and_inspect(model: Any, context: Context, data: Any = None) -> Given:
    """Open a model and its data, and find what can be pruned, at the sizes of the data.

    Args:
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is never changed.
        context: the sizes that the user names, the seed, and what is called with progress.
        data: samples as they were given.
    """
    context.progress("analysing")
    use_libraries(context.custom_ops)
    set_bound(context.memory)
    source = runnable(model)
    file = source if isinstance(source, Path) else None
    with blaming(source):
        found = opened(source)
        context.name_axes(found)
        ports = ports_of(found)
        sizes = given_sizes(context.input_shape, ports)
        made_up = data == "synthetic" if isinstance(data, str) else isinstance(data, DataOptions) and data.made_up
        samples = None if made_up else samples_of(data, found, context, sizes, source=file)
        measured = {} if samples is None else sizes_of(next(samples.batches()).feed, ports)
        batch = {port.batch_symbol for port in ports}  # samples in a batch say nothing of the model
        wanted = {**{name: size for name, size in measured.items() if name not in batch}, **sizes}
        found.meta["sizes"] = wanted
        if context.resize_states:
            outputs = [value.name or "" for value in found.graph.outputs]
            ResizeStates(carried_states(context.resize_states, ports, outputs, "resize-states"))(found)
        analysis = analyze_model(found)
        if made_up:
            hints = hints_of(analysis.model, size_of(analysis))
            samples = samples_of(data, analysis.model, context, sizes, hints, file)
    if samples is not None and not (isinstance(data, DataOptions) and data.batch):
        samples = _within_memory(samples, analysis)
    return Given(source, analysis, samples, sizes)


def _within_memory(samples: Data, analysis: Analysis) -> Data:
    """The same samples, in batches that take no more than the bound allows while the model runs."""
    if any(isinstance(port.batch_size, int) for port in ports_of(analysis.model)):
        return samples
    most = max(1, bytes_for("values") * samples_at_once(analysis) // max(1, live_bytes(analysis)))
    return in_batches_of(samples, most)
