"""As sparse as an allowed drop permits."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.errors import TargetError, UsageError
from onnxprune.evaluation.quality import drop_between
from onnxprune.runtime.session import Session
from onnxprune.steps.sparsify.run import Sparse, SparsifyJob, at, sparsify_once

# The sparsity is found to within 1/64 of what was asked for; samples that the drop is measured on.
_STEPS, _MOST = 6, 512


def sparsest(job: SparsifyJob, allowed: float) -> Sparse:
    """The sparsest model whose metric is no more than `allowed` worse than before, by bisection.

    Raises UsageError where there is nothing to measure on, TargetError where even the least sparsity tried drops more.
    """
    context = job.context
    if context.measured is None:
        raise UsageError("--sparsity-drop is measured on samples: give --data")
    before = Session(job.state.model, context.execution, optimized=True)

    def drop(found: Sparse) -> float:
        after = Session(found.analysis.model, context.execution, optimized=True)
        return drop_between(before, after, context.measured, name=context.metric, most=_MOST)  # type: ignore[arg-type]

    most, best, least = job.sparsity, sparsify_once(job), 0.0
    reached = drop(best)
    if not reached <= allowed:  # nor where it is not a number
        found = None
        for _ in range(_STEPS):
            middle = (least + most) / 2
            tried = sparsify_once(at(job, middle))
            fell = drop(tried)
            if fell <= allowed:
                found, least, reached = tried, middle, fell
            else:
                most = middle
        if found is None:
            raise TargetError(f"the metric drops by more than {allowed:g} even at {most:.1%} zeros; allow more")
        best = found
    return replace(best, numbers={**best.numbers, "drop": reached})
