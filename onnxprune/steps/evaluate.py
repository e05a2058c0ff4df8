"""The step `evaluate`: what the model has become costs in quality, beside the original."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import DamageError, OnnxpruneError, UsageError
from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.analysis.groups import Analysis
    from onnxprune.data.base import Data
    from onnxprune.evaluation.quality import LatencyChange, Quality
    from onnxprune.runtime.session import Runnable
    from onnxprune.steps.state import State

_SECTION = "Quality"
# Of samples that the user gave, one in so many is kept apart, and no more than so many.
EVERY, MOST = 5, 256
# Made-up inputs: as many as this much arithmetic of the original pays for, within bounds.
_MACS, _FEWEST_MADE, _MOST_MADE = 4e9, 4, 64
# For no more samples than these, ONNX Runtime takes longer to rearrange a model than to run it as it is.
_FEW = 8
_BATCH = 32
# Of measuring latency, per model.
_SECONDS = 2.0


@step("evaluate")
@dataclass(frozen=True)
class Evaluate(Step):
    """Say what the model costs in quality, on samples that nothing was fitted to, else on made-up inputs.

    Every recipe ends with this step, whether it names it or not.
    """

    measure: bool = option(False, "Time of a run before and after, measured in turns.", section=_SECTION)
    strict: bool = option(False, "Exit with 1 and write nothing where the model fell apart.", section=_SECTION)
    allow_damage: bool = option(False, "No warning where the model fell apart.", section=_SECTION)

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.strict and self.allow_damage:
            raise UsageError("--strict refuses what --allow-damage accepts; drop one of them")

    def needs(self, context: Context) -> None:
        """Raises UsageError for a metric that is not there, or that needs labels where there are none."""
        if context.metric is not None:
            from onnxprune.evaluation.metrics import metric

            metric(context.metric, context.data is not None and context.data.labelled)

    def __call__(self, state: State, context: Context) -> State:
        """The same state with a record. Raises DamageError where `strict` is set and the model fell apart."""
        found = self.compare(state.source, state.source, state.model, state.original, context)
        return state.noted(self.record({"quality": found}, found.notes))

    def compare(
        self,
        original: Runnable,
        before: Runnable,
        after: Runnable,
        analysis: Analysis,
        context: Context,
        alone: bool = False,
    ) -> Quality:
        """Compare the quality of a model before and after a change.

        Args:
            original: what outputs are compared with.
            before: the model before the change; the same object where it was the original.
            after: the model after it.
            analysis: of the original, for made-up inputs.
            context: samples and devices.
            alone: the samples were given for this alone, and all of them are used.

        Raises DamageError where `strict` is set and the model fell apart.
        """
        from onnxprune.evaluation.damage import damage_of

        context.progress("comparing with the original")
        found = _measured(original, before, after, analysis, context, alone)
        said = damage_of(found, data=context.data is not None, compared=alone)
        if said and self.strict:
            raise DamageError(f"{said}; nothing was written")
        latency = _latency(before, after, context) if self.measure else None
        return replace(found, latency=latency, damage="" if self.allow_damage else said)


def _measured(
    original: Runnable, before: Runnable, after: Runnable, analysis: Analysis, context: Context, alone: bool
) -> Quality:
    """Metrics before and after; where they cannot be taken, the reason. Only a metric that was asked for has to fit."""
    from onnxprune.evaluation.quality import Quality, compare_quality
    from onnxprune.runtime.session import Session

    try:
        data, inputs = _samples(analysis, context, alone)
        many = context.data is not None or _made_up_samples(analysis) > _FEW
        first, last = (Session(each, context.execution, optimized=many) for each in (original, after))
        other = first if before is original else Session(before, context.execution, optimized=many)
        return compare_quality(
            first, other, last, data, inputs=inputs, name=context.metric, most=None if alone else MOST
        )
    except OnnxpruneError as error:
        if context.metric is not None:
            raise
        return Quality(notes=(f"what the cut costs in quality was not measured: {error}",))


def _samples(analysis: Analysis, context: Context, alone: bool) -> tuple[Data, str]:
    """The samples to measure on, and their description for people."""
    from onnxprune.evaluation.quality import APART, GIVEN, MADE_UP, SEEN

    if context.data is None:
        return _made_up(analysis, context.seed), MADE_UP
    data = context.measured
    assert data is not None
    if data.source == "synthetic":
        return data, MADE_UP
    apart = context.apart is not None and context.apart.apart
    return data, GIVEN if alone else APART if apart else SEEN


def _made_up_samples(analysis: Analysis) -> int:
    """How many inputs are made up for a model."""
    from onnxprune.analysis import cost

    return int(min(_MOST_MADE, max(_FEWEST_MADE, _MACS // max(cost.before(analysis).macs, 1))))


def _made_up(analysis: Analysis, seed: int) -> Data:
    """Inputs that the model's signature and weights suggest; other ones than recovery makes up."""
    from onnxprune.analysis.input_values import size_of
    from onnxprune.data.base import load_data
    from onnxprune.data.sources.synthetic import hints_of
    from onnxprune.model.signature import ports_of

    ports, samples = ports_of(analysis.model), _made_up_samples(analysis)
    batches = {port.batch_symbol for port in ports}
    sizes = {name: size for name, size in analysis.shapes.bindings.items() if name not in batches}
    return load_data(
        "synthetic",
        ports,
        samples=samples,
        batch=min(samples, _BATCH),
        seed=seed + 1,
        sizes=sizes,
        hints=hints_of(analysis.model, size_of(analysis)),
    )


def _latency(before: Runnable, after: Runnable, context: Context) -> LatencyChange:
    """Both models timed in turns."""
    import numpy as np

    from onnxprune.evaluation.benchmark.comparison import compare, seconds_compared
    from onnxprune.evaluation.quality import LatencyChange
    from onnxprune.runtime.latency import measure_latency

    old, new = measure_latency(
        [before, after], context.setting, seconds=_SECONDS, seed=context.seed, progress=context.progress
    )
    # Beside a factor stand the times that it is of: on a busy machine those on the wall say something else.
    medians = [float(np.median(seconds)) for seconds in seconds_compared(old, new)]
    return LatencyChange(medians[0], medians[1], compare(old, new))
