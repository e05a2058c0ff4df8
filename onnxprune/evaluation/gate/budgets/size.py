"""How large a model may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxprune.evaluation.gate.budgets.base import Finding, NoBaselineError, baseline_of, budget
from onnxprune.evaluation.gate.limits import Limit, byte_limit, count_limit

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.subject import Subject


@budget("max-size", byte_limit, written="5MB, 5MiB, 101% of --baseline", sample=("5MB", "1kB"))
def max_size(limit: Limit, model: Subject) -> Finding:
    """Bytes on disk, with external data."""
    return _at_most(limit, model.size, " bytes", lambda: baseline_of(model).size)


@budget("max-params", count_limit, written="1.2M, 101% of --baseline", sample=("10M", "1k"))
def max_params(limit: Limit, model: Subject) -> Finding:
    """Entries of all weights, as stored."""
    return _at_most(limit, model.parameters, "", lambda: baseline_of(model).parameters)


@budget("max-macs", count_limit, written="3G, 101% of --baseline", sample=("1G", "1k"))
def max_macs(limit: Limit, model: Subject) -> Finding:
    """Multiply-accumulates per sample."""
    finding = _at_most(limit, model.macs, "", lambda: baseline_of(model).macs)
    return replace(finding, shown=f"{finding.shown} at {model.macs_at}") if model.macs_at else finding


def _at_most(limit: Limit, found: int, unit: str, baseline: Callable[[], int | None]) -> Finding:
    reference = baseline() if limit.relative else 0
    if reference is None:
        raise NoBaselineError("the baseline does not have this number: measure it with --update-baseline")
    allowed = f"{limit.amount / 100 * reference:,.0f}" if limit.relative else f"{limit.amount:,.0f}"
    remark = f"{limit.text} of the baseline's {reference:,}" if limit.relative else ""
    return Finding(limit.allows(found, reference), found, f"{found:,}{unit}", f"at most {allowed}{unit}", remark)
