"""How long a run may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.evaluation.gate.budgets.base import Finding, NoBaselineError, baseline_of, budget
from onnxprune.evaluation.gate.limits import number_reader, time_limit
from onnxprune.support.quantities import show_seconds

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.subject import Subject


@budget("max-latency", time_limit, written="10ms, 1.5s", sample=("10s", "1us"))
def max_latency(limit: float, model: Subject) -> Finding:
    """The median run in ONNX Runtime."""
    median = model.latencies[0].median
    return Finding(median <= limit, median, show_seconds(median), f"at most {show_seconds(limit)}")


@budget("max-latency-ratio", number_reader(above=0), plain=True, written="0.8", sample=(1000, 0.0001))
def max_latency_ratio(limit: float, model: Subject) -> Finding:
    """Time of a run over that of --baseline."""
    from onnxprune.evaluation.benchmark.comparison import compare
    from onnxprune.evaluation.gate.subject import Subject

    baseline, note = baseline_of(model), ""
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
