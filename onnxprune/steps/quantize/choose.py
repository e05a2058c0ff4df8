"""What integers cost and gain, measured: which layers stay in float for it, and whether they are faster at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isnan

import onnx_ir as ir

from onnxprune.errors import OnnxpruneError, TargetError, UsageError
from onnxprune.evaluation.benchmark.comparison import Comparison, compare
from onnxprune.evaluation.quality import drop_between
from onnxprune.runtime.latency import measure_latency
from onnxprune.runtime.session import Session
from onnxprune.steps.quantize.base import TYPES, Quantized, QuantizeJob

# What a model becomes that integers do not make faster: half the file at the speed of float.
NO_SLOWER = "fp16-weights"
# Of timing, per model.
_SECONDS = 1.0
# Of samples, so many are measured on at most.
_MOST = 512


def quantize_chosen(job: QuantizeJob, name: str) -> Quantized:
    """Quantize to a type; with an allowed drop, layers stay in float until it is kept.

    Raises TargetError where it cannot be kept, UsageError where there is nothing to measure it on.
    """
    make, allowed = TYPES[name].make, job.options.allowed_drop
    if allowed is None:
        return make(job)
    if job.context.measured is None:
        raise UsageError("--allowed-drop is measured on samples: give --data")
    return keep_within(job, make, lambda found: drop_of(job, found.model), allowed)


def keep_within(
    job: QuantizeJob, make: Callable[[QuantizeJob], Quantized], drop: Callable[[Quantized], float], allowed: float
) -> Quantized:
    """As few layers in float as keep a drop within what is allowed: the noisiest first, by bisection.

    Raises TargetError where it is not kept however many stay in float.
    """
    found = make(job)
    noisiest = sorted((layer for layer in found.layers if layer.bits), key=lambda layer: layer.snr)
    if drop(found) <= allowed:
        return found
    least, most, best = 1, len(noisiest) - 1, None
    while least <= most:
        middle = (least + most) // 2
        kept = {layer.layer: f"to keep within the drop: {layer.snr:.1f} dB" for layer in noisiest[:middle]}
        found = make(replace(job, noisy=kept))
        if drop(found) <= allowed:
            best, most = found, middle - 1
        else:
            least = middle + 1
    if best is None:
        raise TargetError(
            f"the metric drops by more than {allowed:g} as long as any layer is quantized; allow more, or quantize "
            "weights alone"
        )
    return best


def drop_of(job: QuantizeJob, model: ir.Model) -> float:
    """By how much the metric is worse than that of the float model: accuracy with labels, else agreement with it."""
    context = job.context
    assert context.measured is not None
    before, after = (Session(each, context.execution, optimized=True) for each in (job.float_model.model, model))
    return drop_between(before, after, context.measured, name=context.metric, most=_MOST)


def quantize_best(job: QuantizeJob) -> tuple[str, Quantized]:
    """The type that suits model and processor: int8, unless it is slower than float here; never slower.

    Raises TargetError where an allowed drop cannot be kept.
    """
    try:
        found = quantize_chosen(job, "int8")
    except UsageError as none:
        return NO_SLOWER, _noted(TYPES[NO_SLOWER].make(job), f"not in int8: {none}")
    try:
        timed = time_beside_float(job, found.model)
    except OnnxpruneError as error:
        return "int8", _noted(found, f"int8 was not timed beside float: {error}")
    if isnan(timed.ratio) or timed.ratio <= 1:
        return "int8", _noted(found, f"int8 takes {timed.ratio:.2f} times as long as float on {job.processor.name}")
    slower = f"int8 takes {timed.ratio:.2f} times as long as float on {job.processor.name}: weights alone are quantized"
    return NO_SLOWER, _noted(TYPES[NO_SLOWER].make(job), slower)


def time_beside_float(job: QuantizeJob, model: ir.Model) -> Comparison:
    """Seconds of a quantized model over those of the float one, measured in turns. Raises ModelError as it runs."""
    context = job.context
    old, new = measure_latency(
        [job.state.model, model], context.setting, seconds=_SECONDS, seed=context.seed, progress=context.progress
    )
    return compare(old, new)


def _noted(found: Quantized, note: str) -> Quantized:
    return replace(found, notes=(*found.notes, note))
