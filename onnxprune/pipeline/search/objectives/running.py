"""The cost of running a candidate, measured on this machine: time, in turns with the original, and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxprune.errors import DataError, UsageError
from onnxprune.pipeline.search.objectives.base import objective
from onnxprune.support.quantities import BYTES, SECONDS, show_bytes, show_seconds

if TYPE_CHECKING:
    from onnxprune.pipeline.search.workbench import Made
    from onnxprune.runtime.session import Runnable

# Of measuring, per model.
_SECONDS = 1.0


@objective("latency", units=SECONDS, show=show_seconds)
def time_of_run(made: Made, provider: str = "", batch: str = "") -> tuple[float, float]:
    """Median time of a run; latency:PROVIDER:BATCH for another than those of --providers and --latency-batch."""
    import numpy as np

    from onnxprune.runtime.latency import measure_latency
    from onnxprune.runtime.providers import choose_providers

    bench, setting = made.bench, made.bench.context.setting
    if provider:
        setting = replace(setting, provider=choose_providers((provider,))[0][0])
    if batch:
        if not batch.isdigit() or not int(batch):
            raise UsageError(f"latency:{provider}:{batch}: the batch is a whole number above 0")
        setting = replace(setting, batch=int(batch))
    old, new = measure_latency(
        [bench.given.source, made.model], setting, seconds=_SECONDS, seed=bench.context.seed, **bench.input_values
    )
    times = [float(np.median(each.processor_seconds or each.seconds)) for each in (old, new)]
    return times[0], times[1]


@objective("memory", units=BYTES, show=show_bytes)
def memory(made: Made) -> tuple[float, float]:
    """Bytes that loading and running it adds to a process, at their peak."""
    from onnxprune.evaluation.benchmark.memory import peak_memory
    from onnxprune.model.signature import ports_of
    from onnxprune.runtime.latency import made_inputs

    bench, setting = made.bench, made.bench.context.setting
    feed = made_inputs(ports_of(bench.analysis.model), setting.batch, seed=bench.context.seed, **bench.input_values)

    def added(model: Runnable) -> float:
        found = peak_memory(model, setting, feed)
        if found is None:
            raise DataError("the memory of the model cannot be measured here")
        return float(found.added)

    return bench.of_original("memory", lambda: added(bench.given.source)), added(made.model)
