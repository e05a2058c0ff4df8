"""One model under the gate, measured as far as somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import inspect
from onnxprune.data.base import Data
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.evaluation import metrics
from onnxprune.evaluation.benchmark.suite import sizes_for
from onnxprune.evaluation.gate.baseline import BaselineEntry, LatencyEntry, MetricEntry
from onnxprune.evaluation.gate.request import GateRequest
from onnxprune.evaluation.metrics import METRICS, Metric
from onnxprune.evaluation.one_by_one import as_taken
from onnxprune.model.file import digest, file_bytes, open_model
from onnxprune.model.signature import ports_of, sizes_of
from onnxprune.ops.base import key_of
from onnxprune.runtime.latency import Latency, Setting, measure_latency
from onnxprune.runtime.providers import choose_providers
from onnxprune.runtime.session import Session
from onnxprune.support.progress import within

Progress = Callable[[str], None]


class Subject:
    """A model; what is asked of it is measured once. Each property raises OnnxpruneError where it cannot be measured.

    Args:
        path: the file.
        request: how to measure.
        baseline: the model or the numbers to compare with, where there are any.
        progress: is called with what is being done.
    """

    def __init__(
        self,
        path: Path,
        request: GateRequest,
        baseline: Subject | BaselineEntry | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self.path = path
        self.request = request
        self.baseline = baseline
        self._progress = progress

    @cached_property
    def model(self) -> ir.Model:
        """The opened file, with the batch axes that were named."""
        model = open_model(self.path)
        self.request.name_axes(model)
        return model

    @cached_property
    def size(self) -> int:
        """Bytes on disk, with external data."""
        return file_bytes(self.model)

    @cached_property
    def sha256(self) -> str:
        """Of the file, then of its external data files in the order of their names."""
        return digest(self.model)

    @cached_property
    def parameters(self) -> int:
        """Entries of all weights, as stored."""
        return cost.stored_cost(self.model).parameters

    @cached_property
    def analysis(self) -> Analysis:
        """At the sizes that were asked for, else at those of the data."""
        self._progress(f"{self.path.name}: counting")
        ports, sizes = ports_of(self.model), self.request.sizes(self.model)
        if self.request.data is not None:
            measured = sizes_of(next(self.data.batches()).feed, ports)
            batch = {port.batch_symbol for port in ports}
            sizes = {**{name: size for name, size in measured.items() if name not in batch}, **sizes}
        return inspect(self.path, sizes)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates per sample, at `macs_at`."""
        return cost.before(self.analysis).macs

    @property
    def macs_at(self) -> str:
        """The sizes of dynamic axes that MACs are counted at, for people; empty where there are none."""
        return ", ".join(f"{name}={size}" for name, size in cost.sizes_of_sample(self.analysis).items())

    @cached_property
    def operators(self) -> list[str]:
        """The operators in it: `Conv`, or `com.microsoft:FusedConv` outside of the standard domain; sorted."""
        return sorted({f"{domain}:{name}" if domain else name for domain, name in map(key_of, self._nodes())})

    def _nodes(self) -> Iterator[ir.Node]:
        """All nodes but the calls of the model's own functions, whose bodies count instead."""
        bodies: list[ir.Graph | ir.Function] = [self.model.graph, *self.model.functions.values()]
        for body in bodies:
            for node in ir.traversal.RecursiveGraphIterator(body):
                if node.op_identifier() not in self.model.functions:
                    yield node

    @cached_property
    def opset(self) -> int:
        """The version of the standard operators."""
        version = self.model.graph.opset_imports.get("")
        if version is None:
            raise ModelError(f"{self.path} uses no standard operators, so it has no opset")
        return version

    @cached_property
    def latencies(self) -> list[Latency]:
        """Its own, and that of the baseline where that is a model, in turns."""
        paths = [self.path]
        if isinstance(self.baseline, Subject) and "max-latency-ratio" in self.request.budgets:
            paths.append(self.baseline.path)
        (provider,) = _providers(self.request.providers[:1])
        sizes, values, _ = sizes_for(self.path, ports_of(self.model), self.request.input_shape, None)
        setting = Setting(provider, batch=self.request.latency_batch, threads=self.request.threads)
        return measure_latency(
            paths,
            setting,
            seconds=self.request.latency_seconds,
            seed=self.request.seed,
            sizes=sizes,
            values=values,
            progress=lambda said: self._progress(within(self.path.name, said)),
        )

    @cached_property
    def data(self) -> Data:
        """The samples that metrics are taken on. Raises UsageError where none is given."""
        data = self.request.data_of(self.model)
        if data is None:
            raise UsageError("a metric needs samples: give --data (synthetic is enough for agreement)")
        return as_taken(self.session, data)[0]

    @cached_property
    def metric(self) -> Metric:
        """The one that was asked for, or the default."""
        output = metrics.chosen_output(self.session.outputs, self.request.output_name)
        binary = metrics.is_probability(self.model, output)
        return metrics.metric(self.request.metric, self.data.labelled, output, binary=binary)

    @cached_property
    def session(self) -> Session:
        """The model in ONNX Runtime, for metrics."""
        return Session(self.path, _providers(self.request.providers), optimized=True)

    @cached_property
    def metric_value(self) -> float:
        """The value of `metric`."""
        return self._evaluated(self.metric)

    @cached_property
    def agreement(self) -> float:
        """Share of equal arg-maxes with the model that is the baseline."""
        return self._evaluated(METRICS["agreement"])

    def _evaluated(self, metric: Metric) -> float:
        self._progress(f"{self.path.name}: {metric.name}")
        output, reference = self.request.output_name, None
        if metric.needs_reference:
            if not isinstance(self.baseline, Subject):
                raise UsageError(f"{metric.name} compares with the original: give it with --baseline ORIGINAL.onnx")
            reference = metrics.outputs_of(self.baseline.session, self.data, output=output)
        return metrics.evaluate(self.session, self.data, metric, reference, output=output)

    @property
    def measured_on(self) -> dict[str, Any]:
        """Everything that a metric depends on beside the model, for comparisons with a file of numbers."""
        return self.request.measured_on

    def entry(self, before: BaselineEntry | None = None) -> BaselineEntry:
        """All numbers that the request asks for, for a baseline file.

        Args:
            before: the model's entry so far; where it is about the same bytes, what is not asked for now is kept.
        """
        same = before if before is not None and before.sha256 == self.sha256 else None
        request = self.request
        timed = not {"max-latency", "max-latency-ratio"}.isdisjoint(request.budgets)
        scored = request.data is not None and not self.metric.needs_reference
        return BaselineEntry(
            sha256=self.sha256,
            size=self.size,
            parameters=self.parameters,
            macs=self._macs_if_known(),
            latency=self._latency_entry() if timed else same.latency if same else None,
            metric=self._metric_entry() if scored else same.metric if same else None,
        )

    def _macs_if_known(self) -> int | None:
        try:
            return self.macs
        except ModelError:
            return None

    def _latency_entry(self) -> LatencyEntry:
        own = self.latencies[0]
        how = own.setting
        sizes = dict(own.sizes)
        return LatencyEntry(
            seconds=own.median, provider=how.provider, threads=how.threads, batch=how.batch, sizes=sizes
        )

    def _metric_entry(self) -> MetricEntry:
        if not isfinite(self.metric_value):
            raise DataError(f"{self.metric.name} is {self.metric_value}, with which nothing can be compared")
        return MetricEntry(name=self.metric.name, value=self.metric_value, on=self.measured_on)


def _providers(names: Sequence[str]) -> list[str]:
    """Full names. Raises UsageError where the CPU would have to do though nobody named it."""
    providers, missing = choose_providers(names)
    if missing and "cpu" not in names:
        raise UsageError(f"that would not be what was asked for: {missing[0]}")
    return providers
