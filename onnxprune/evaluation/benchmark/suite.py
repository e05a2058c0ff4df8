"""The whole benchmark: every model at every setting, each compared with the first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxprune.analysis.input_values import values_of
from onnxprune.analysis.inspect import inspect
from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.evaluation import metrics
from onnxprune.evaluation.benchmark.comparison import Comparison, compare
from onnxprune.evaluation.benchmark.drift import Drift, drift
from onnxprune.evaluation.benchmark.memory import PeakMemory, peak_memory
from onnxprune.evaluation.benchmark.profile import Profile, profile
from onnxprune.evaluation.benchmark.request import BenchmarkRequest as BenchmarkRequest
from onnxprune.evaluation.one_by_one import as_taken
from onnxprune.model.file import Given, file_bytes, name_of, open_model, runnable
from onnxprune.model.signature import Feed, Port, Values, given_sizes, name_axes, ports_of
from onnxprune.runtime.latency import Latency, Setting, made_inputs, measure_latency
from onnxprune.runtime.providers import choose_providers, short
from onnxprune.runtime.session import Runnable, Session
from onnxprune.support.progress import parts, within

# Batches of made-up inputs on which outputs are compared where there is no data.
_MADE = 16
# Above this, wall-clock figures of one thread say more of the other programs than of the model.
_BUSY = 1.2
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class Measured:
    """One model at one setting; `comparison` is with the first model, and None for that one itself."""

    latency: Latency
    memory: PeakMemory | None
    comparison: Comparison | None


@dataclass(frozen=True)
class MetricValue:
    """The metric of one model on the data."""

    model: str
    metric: str
    value: float


@dataclass(frozen=True)
class BenchmarkResult:
    """The findings of a benchmark.

    Attributes:
        models: paths as given; the first is what the others are compared with.
        file_bytes: of each, with its external data.
        measured: by setting, then by model.
        drift: of every model but the first, by output.
        drift_inputs: what the outputs were compared on.
        quality: of every model, where the data has labels or a metric was asked for.
        profiles: of every model at the first setting, where asked for.
        notes: what a person should know besides.
    """

    models: tuple[str, ...]
    file_bytes: tuple[int, ...]
    measured: tuple[tuple[Measured, ...], ...]
    drift: tuple[Drift, ...]
    drift_inputs: str
    quality: tuple[MetricValue, ...]
    profiles: tuple[Profile, ...]
    notes: tuple[str, ...]


def benchmark(
    models: Sequence[Given],
    request: BenchmarkRequest = BenchmarkRequest(),
    *,
    data: Data | None = None,
    metric: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> BenchmarkResult:
    """Measure models side by side; what was given is only read.

    Args:
        models: the model that the others are compared with, then those; see `as_model`.
        request: what to measure.
        data: samples to run on (None: made up from the first model's inputs).
        metric: name of a metric for the data; accuracy where it has labels.
        progress: is called with what is being done.

    Raises UsageError for options and models that do not fit together, ModelError for a model that does not run.
    """
    files = [runnable(model) for model in models]
    if not files:
        raise UsageError("no model is given: give the path of at least one")
    if metric is not None and data is None:
        raise UsageError(f"metric '{metric}' is computed on data, which is not there; add --data")
    providers, notes = choose_providers(request.providers)
    if data is not None:
        data, said = as_taken(Session(files[0], providers), data)
        notes += [said] if said else []
    opened = [open_model(model) if isinstance(model, Path) else model for model in files]
    name_axes(opened[0], request.batch_axes)
    ports = ports_of(opened[0])
    sizes, values, chosen = sizes_for(files[0], ports, request.input_shapes, data)
    inputs = Inputs(tuple(ports), sizes, data, request.seed, values)
    settings = [
        Setting(provider, batch, threads, request.warmup)
        for provider, batch, threads in itertools.product(providers, request.batches, request.threads)
    ]
    *timing, comparing = parts(progress, [1.0] * len(settings) + [0.5])
    measured = tuple(
        _measure(files, setting, inputs, request, part) for setting, part in zip(settings, timing, strict=True)
    )
    notes += [*chosen, *itertools.chain(*map(_remarks, settings, measured))]
    first = measured[0][0].latency.setting
    comparing("comparing outputs")
    apart = drift(files, inputs.feeds(first.batch), [first.provider]) if len(files) > 1 else []
    quality = _quality(files, data, metric, first.provider, comparing)
    comparing("profiling" if request.profile else "done")
    return BenchmarkResult(
        models=tuple(map(name_of, files)),
        file_bytes=tuple(map(file_bytes, opened)),
        measured=measured,
        drift=tuple(apart),
        drift_inputs=inputs.source,
        quality=tuple(quality),
        profiles=tuple(profile(files, first, inputs.feed(first.batch)) if request.profile else ()),
        notes=tuple(dict.fromkeys(notes)),
    )


def _measure(
    files: Sequence[Runnable],
    setting: Setting,
    inputs: Inputs,
    request: BenchmarkRequest,
    progress: Callable[[str], None],
) -> tuple[Measured, ...]:
    feed, at = (
        inputs.feed(setting.batch),
        f"{short(setting.provider)}, batch {setting.batch}, {setting.threads} threads",
    )
    latencies = measure_latency(
        files,
        setting,
        rounds=request.rounds,
        seconds=request.seconds,
        feed=feed,
        seed=request.seed,
        progress=lambda what: progress(within(at, what)),
    )
    progress(f"{at}: measuring memory")
    return tuple(
        Measured(latency, peak_memory(path, latency.setting, feed), compare(latencies[0], latency) if index else None)
        for index, (path, latency) in enumerate(zip(files, latencies, strict=True))
    )


def _remarks(setting: Setting, measured: tuple[Measured, ...]) -> Iterator[str]:
    """Where a provider did not start, and where the machine had other things to do."""
    used = measured[0].latency.setting.provider
    if used != setting.provider:
        yield f"{setting.provider} did not start here, so ONNX Runtime used {used} instead; see: onnxprune doctor"
    waits = [
        latency.median / float(np.median(latency.processor_seconds))
        for latency in (each.latency for each in measured)
        if latency.processor_seconds
    ]
    if waits and max(waits) > _BUSY:
        yield (
            f"the machine was busy: runs took up to {max(waits):.1f} times their processor time; the comparison goes "
            "by processor time and holds, the times shown are too long"
        )


def _quality(
    files: Sequence[Runnable], data: Data | None, name: str | None, provider: str, progress: Callable[[str], None]
) -> Iterator[MetricValue]:
    """The metric of every model; those that compare with the original take the first model for it."""
    if data is None or (name is None and not data.labelled):
        return
    chosen = metrics.metric(name, data.labelled)
    reference = list(metrics.outputs_of(files[0], data)) if chosen.needs_reference else None
    for model in files:
        progress(f"{chosen.name} of {Path(name_of(model)).name}")
        yield MetricValue(
            name_of(model), chosen.name, metrics.evaluate(model, data, chosen, reference, providers=[provider])
        )


def sizes_for(
    model: Runnable, ports: Sequence[Port], shapes: Sequence[str], data: Data | None
) -> tuple[dict[str, int], Values, list[str]]:
    """Sizes of dynamic axes but the batch: as given, as in the data, else such that the model runs.

    Returns them, what inputs may hold at those sizes, and a word on what was chosen.
    """
    given = given_sizes(shapes, ports)
    open_axes = {
        port.symbol(axis)
        for port in ports
        for axis, size in enumerate(port.shape)
        if axis != port.batch_axis and not isinstance(size, int) and port.symbol(axis) not in given
    }
    indexed = any(port.type not in _FLOATS for port in ports)
    if data is not None or not (open_axes or indexed):
        return given, {}, []
    analysis = inspect(model, given)
    found, values = analysis.shapes.bindings, values_of(analysis)
    if not open_axes:
        return given, values, []
    chosen = {name: found[name] for name in sorted(open_axes & found.keys())}
    listed = ", ".join(f"{name}={size}" for name, size in chosen.items())
    said = f"dynamic axes were given sizes that run ({listed}); choose them with --input-shape"
    return {**chosen, **given}, values, [said]


@dataclass(frozen=True)
class Inputs:
    """The inputs of the runs: samples of the data, or made up."""

    ports: tuple[Port, ...]
    sizes: Mapping[str, int]
    data: Data | None
    seed: int
    values: Values = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where they come from, for reports."""
        return "made-up inputs" if self.data is None else self.data.source

    def feed(self, batch: int) -> Feed:
        """One batch to be timed on; samples of the data are repeated where there are fewer."""
        made = made_inputs(self.ports, batch, self.sizes, self.seed, self.values)
        if self.data is None:
            return made
        samples = next(self.data.batches())
        feed = dict(samples.feed)
        for name, length in samples.lengths.items():
            axis = samples.axis(name) or 0
            feed[name] = np.take(feed[name], np.arange(made[name].shape[axis]) % length, axis)
        return feed

    def feeds(self, batch: int) -> Iterator[Feed]:
        """The inputs that outputs are compared on."""
        if self.data is not None:
            return (each.feed for each in self.data.batches())
        return (made_inputs(self.ports, batch, self.sizes, self.seed + turn, self.values) for turn in range(_MADE))
