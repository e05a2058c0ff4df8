"""How good the answers have to be."""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.evaluation.gate.budgets.base import Finding, NoBaselineError, baseline_of, budget
from onnxprune.evaluation.gate.limits import number_reader

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.baseline import BaselineEntry
    from onnxprune.evaluation.gate.subject import Subject

# Differences of two shares round: 0.995 - 0.985 is a little more than 0.01.
_ROUNDING = 1e-9


@budget("min-metric", number_reader(), plain=True, written="0.97", sample=(0.5, 1.0))
def min_metric(limit: float, model: Subject) -> Finding:
    """The value of --metric on --data."""
    metric = model.metric
    if not metric.higher_is_better:
        raise UsageError(f"of {metric.name} less is better: limit it with --max-drop")
    value = model.metric_value
    return Finding(value >= limit, value, f"{metric.name} {value:.6g}", f"at least {limit:g}")


@budget("max-drop", number_reader(low=0), plain=True, written="0.01", sample=(0.5, 0.001))
def max_drop(limit: float, model: Subject) -> Finding:
    """How much worse --metric is than that of --baseline."""
    from onnxprune.evaluation.gate.subject import Subject

    metric, baseline = model.metric, baseline_of(model)
    if metric.perfect is not None and isinf(metric.perfect):
        raise UsageError(f"{metric.name} of the original itself is infinite: limit it with --min-metric")
    if metric.perfect is not None:
        before = metric.perfect
    elif isinstance(baseline, Subject):
        before = baseline.metric_value
    else:
        before = _recorded(baseline, model)
    drop = (before - model.metric_value) * (1 if metric.higher_is_better else -1)
    note = f"{metric.name} {model.metric_value:.6g}, was {before:.6g}"
    return Finding(drop <= limit + _ROUNDING, drop, f"{drop:.6g}", f"at most {limit:g}", note)


def _recorded(entry: BaselineEntry, model: Subject) -> float:
    if entry.metric is None:
        raise NoBaselineError("the baseline has no metric: measure it with --update-baseline")
    if (entry.metric.name, entry.metric.on) != (model.metric.name, model.measured_on):
        raise UsageError(f"the baseline's {entry.metric.name} is of other data or options; update it, or use the same")
    return entry.metric.value


@budget("min-agreement", number_reader(above=0, high=1), plain=True, written="0.99", sample=(0.5, 1))
def min_agreement(limit: float, model: Subject) -> Finding:
    """Share of the samples with the same arg-max as --baseline, which has to be a model."""
    value = model.agreement
    return Finding(value >= limit, value, f"{value:.6g}", f"at least {limit:g}")
