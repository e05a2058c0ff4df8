"""The budgets, one function each: does a model keep it?

A function gets the limit and the model, and raises OnnxpruneError where it cannot tell; that is never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isinf
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.evaluation.benchmark.comparison import compare
from onnxprune.evaluation.gate.baseline import Entry
from onnxprune.evaluation.gate.limits import Limit, Opsets
from onnxprune.evaluation.gate.subject import Subject
from onnxprune.support.quantities import show_seconds

# Differences of two shares round: 0.995 - 0.985 is a little more than 0.01.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Finding:
    """What a budget found.

    Attributes:
        holds: whether the model keeps it.
        found: the number, or the operators that are not allowed.
        shown: the same for people.
        limit: what was allowed, for people.
        note: what else is worth knowing.
    """

    holds: bool
    found: float | list[str]
    shown: str
    limit: str
    note: str = ""


Check = Callable[[Any, Subject], Finding]
CHECKS: dict[str, Check] = {}


class NoBaselineError(UsageError):
    """There is nothing to compare with; --update-baseline is about to change that."""


def budget(name: str) -> Callable[[Check], Check]:
    """Decorator: the function checks the budget that option `--name` sets."""

    def add(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return add


def _baseline(model: Subject) -> Subject | Entry:
    if model.baseline is None:
        raise NoBaselineError("there is nothing to compare with: give --baseline, a model or a file of numbers")
    return model.baseline


def _at_most(limit: Limit, found: int, unit: str, baseline: Callable[[], int | None]) -> Finding:
    reference = baseline() if limit.relative else 0
    if reference is None:
        raise NoBaselineError("the baseline does not have this number: measure it with --update-baseline")
    allowed = f"{limit.amount / 100 * reference:,.0f}" if limit.relative else f"{limit.amount:,.0f}"
    remark = f"{limit.text} of the baseline's {reference:,}" if limit.relative else ""
    return Finding(limit.allows(found, reference), found, f"{found:,}{unit}", f"at most {allowed}{unit}", remark)


@budget("max-size")
def max_size(limit: Limit, model: Subject) -> Finding:
    """Bytes on disk, with external data."""
    return _at_most(limit, model.size, " bytes", lambda: _baseline(model).size)


@budget("max-params")
def max_params(limit: Limit, model: Subject) -> Finding:
    """Entries of all weights."""
    return _at_most(limit, model.parameters, "", lambda: _baseline(model).parameters)


@budget("max-macs")
def max_macs(limit: Limit, model: Subject) -> Finding:
    """Multiply-accumulates per sample."""
    return _at_most(limit, model.macs, "", lambda: _baseline(model).macs)


@budget("max-latency")
def max_latency(limit: float, model: Subject) -> Finding:
    """The median of the runs."""
    median = model.latencies[0].median
    return Finding(median <= limit, median, show_seconds(median), f"at most {show_seconds(limit)}")


@budget("max-latency-ratio")
def max_latency_ratio(limit: float, model: Subject) -> Finding:
    """Time over the baseline's time."""
    baseline, note = _baseline(model), ""
    own = model.latencies[0]
    if isinstance(baseline, Subject):
        comparison = compare(model.latencies[1], own)
        ratio, note = comparison.ratio, comparison.words
    else:
        entry = baseline.latency
        if entry is None:
            raise NoBaselineError("the baseline has no latency: measure it with --update-baseline")
        now = (own.setting.provider, own.setting.threads, own.setting.batch, dict(own.sizes))
        if now != (entry.provider, entry.threads, entry.batch, entry.sizes):
            raise UsageError("the baseline's latency was measured with other settings; update it, or use the same")
        ratio, note = own.median / entry.seconds, f"{show_seconds(own.median)}, was {show_seconds(entry.seconds)}"
    return Finding(ratio <= limit, ratio, f"{ratio:.3f}", f"at most {limit:g}", note)


@budget("min-metric")
def min_metric(limit: float, model: Subject) -> Finding:
    """The metric's value."""
    metric = model.metric
    if not metric.higher_is_better:
        raise UsageError(f"of {metric.name} less is better: limit it with --max-drop")
    value = model.metric_value
    return Finding(value >= limit, value, f"{metric.name} {value:.6g}", f"at least {limit:g}")


@budget("max-drop")
def max_drop(limit: float, model: Subject) -> Finding:
    """How much worse the metric is than the baseline's."""
    metric, baseline = model.metric, _baseline(model)
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


def _recorded(entry: Entry, model: Subject) -> float:
    if entry.metric is None:
        raise NoBaselineError("the baseline has no metric: measure it with --update-baseline")
    if (entry.metric.name, entry.metric.on) != (model.metric.name, model.measured_on):
        raise UsageError(f"the baseline's {entry.metric.name} is of other data or options; update it, or use the same")
    return entry.metric.value


@budget("min-agreement")
def min_agreement(limit: float, model: Subject) -> Finding:
    """Share of the samples with the same arg-max as the model that is the baseline."""
    value = model.agreement
    return Finding(value >= limit, value, f"{value:.6g}", f"at least {limit:g}")


@budget("allowed-ops")
def allowed_ops(patterns: Sequence[str], model: Subject) -> Finding:
    """Operators that no pattern allows; `com.microsoft:*` allows a domain."""
    refused = [name for name in model.operators if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    limit = ", ".join(patterns)
    return Finding(not refused, refused, f"also {', '.join(refused)}" if refused else "none else", f"only {limit}")


@budget("opset")
def opset(versions: Opsets, model: Subject) -> Finding:
    """The version of the standard operators."""
    return Finding(model.opset in versions, model.opset, str(model.opset), versions.text)
