"""What integers cost and gain, measured: which layers stay in float for it, and whether they are faster at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data.base import Batch
from onnxprune.errors import OnnxpruneError, TargetError, UsageError
from onnxprune.evaluation.benchmark.comparison import Comparison, compare
from onnxprune.evaluation.quality import drop_between
from onnxprune.model.file import estimated_bytes
from onnxprune.runtime.latency import measure_latency
from onnxprune.runtime.session import Session
from onnxprune.steps.quantize.base import TYPES, Quantized, QuantizeJob
from onnxprune.steps.quantize.fit import LayerNoise
from onnxprune.steps.quantize.prepare import can_be_equalized

Array = npt.NDArray[Any]

# What a model becomes that integers do not make faster: half the file at the speed of float.
NO_SLOWER = "fp16-weights"
# Of timing, per model.
_SECONDS = 1.0
# Of samples, so many are measured on at most.
_MOST = 512
# Equalization is tried on so many batches, and has to take this much of the error away.
_FEW_BATCHES, _CLEARLY = 4, 0.9


def quantize_chosen(job: QuantizeJob, name: str) -> Quantized:
    """Quantize to a type; where a drop, a size or a latency is allowed, layers stay in float for it.

    Raises TargetError where it cannot be kept, UsageError where there is nothing to measure it on.
    """
    make, options = TYPES[name].make, job.options
    if name == "int8":
        job = equalized_if_better(job, make)
    limits = list(_limits(job))
    if options.allowed_drop is None:
        return keep_while(job, make, limits) if limits else make(job)
    if job.context.measured is None:
        raise UsageError("--allowed-drop is measured on samples: give --data")
    found = keep_within(job, make, lambda found: drop_of(job, found.model), options.allowed_drop)
    for limit in limits:
        if not limit.holds(found):
            raise TargetError(f"{limit.said}, which the layers that stay in float for --allowed-drop do not leave")
    return found


@dataclass(frozen=True)
class Allowed:
    """A limit on what comes out: `value` of it, and the most that is allowed, as shares of the float model."""

    kind: str
    most: float
    value: Callable[[Quantized], float]

    def holds(self, found: Quantized) -> bool:
        """Is it kept?"""
        return self.value(found) <= self.most

    @property
    def said(self) -> str:
        """For people."""
        return f"the {self.kind} may be {self.most:g} of the float model's"


def _limits(job: QuantizeJob) -> Iterator[Allowed]:
    options, whole = job.options, estimated_bytes(job.state.model)
    if options.allowed_size is not None:
        yield Allowed("size", options.allowed_size, lambda found: estimated_bytes(found.model) / whole)
    if options.allowed_latency is not None:
        yield Allowed("latency", options.allowed_latency, lambda found: time_beside_float(job, found.model).ratio)


def keep_while(job: QuantizeJob, make: Callable[[QuantizeJob], Quantized], limits: Sequence[Allowed]) -> Quantized:
    """As many layers in float as the limits allow: the noisiest first, by bisection.

    Raises TargetError where not even all layers on integers keep them.
    """
    best = make(job)
    for limit in limits:
        if not limit.holds(best):
            raise TargetError(f"{limit.said}, and with every layer on integers it is {limit.value(best):.3f}")
    noisiest = _noisiest(best)
    least, most = 1, len(noisiest) - 1
    kinds = " and ".join(limit.kind for limit in limits)
    while least <= most:
        middle = (least + most) // 2
        kept = {layer.layer: f"{layer.snr:.1f} dB, and the {kinds} allows it" for layer in noisiest[:middle]}
        found = make(replace(job, noisy=kept))
        if all(limit.holds(found) for limit in limits):
            best, least = found, middle + 1
        else:
            most = middle - 1
    return best


def equalized_if_better(job: QuantizeJob, make: Callable[[QuantizeJob], Quantized]) -> QuantizeJob:
    """The same, with equalization where that is asked for, or where a quick quantization comes out nearer to float.

    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
    """
    wanted = job.options.equalize
    data = job.context.measured or job.samples
    if wanted != "auto" or data is None:
        return replace(job, equalized=wanted == "always")
    if job.state.zeros or not can_be_equalized(job.state.model):
        return job
    quick = replace(job, options=replace(job.options, rounding="nearest", ranges="minmax"))
    few = list(islice(data.batches(), _FEW_BATCHES))
    due = _first_outputs(job, job.state.model, few)
    errors = [
        sum(float(np.square(a - b).sum()) for a, b in zip(due, _first_outputs(job, made.model, few), strict=True))
        for made in (make(replace(quick, equalized=each)) for each in (False, True))
    ]
    return replace(job, equalized=errors[1] < _CLEARLY * errors[0])


def _first_outputs(job: QuantizeJob, model: ir.Model, batches: Sequence[Batch]) -> list[Array]:
    session = Session(model, job.context.execution, optimized=True)
    return [np.asarray(next(iter(session.run(batch.feed).values())), np.float64) for batch in batches]


def _noisiest(found: Quantized) -> list[LayerNoise]:
    return sorted((layer for layer in found.layers if layer.bits), key=lambda layer: layer.snr)


def keep_within(
    job: QuantizeJob, make: Callable[[QuantizeJob], Quantized], drop: Callable[[Quantized], float], allowed: float
) -> Quantized:
    """As few layers in float as keep a drop within what is allowed: the noisiest first, by bisection.

    Raises TargetError where it is not kept however many stay in float.
    """
    found = make(job)
    noisiest = _noisiest(found)
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
