"""A pruned model in memory: how units are taken out of an analysed one, and how it gets into a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.cost import Cost
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import blaming
from onnxprune.evaluation import verify
from onnxprune.model.file import estimated_bytes, file_bytes, staged
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.passes.share_initializers import ShareInitializers
from onnxprune.passes.strip_metadata import StripMetadata
from onnxprune.pipeline.details import Details, details_of
from onnxprune.steps.clean import clean
from onnxprune.steps.plan import Plan
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.recover.methods import Recovery
from onnxprune.support.files import check_targets
from onnxprune.support.progress import Progress, silent


@dataclass
class Result:
    """A pruned model, the plan that made it, and the numbers. `save` checks and writes it."""

    model: ir.Model
    plan: Plan
    report: Report
    _source: Path = field(repr=False)
    _bindings: dict[str, int] = field(repr=False)

    def save(
        self,
        path: str | Path,
        *,
        external: bool | None = None,
        plan: str | Path | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Report:
        """Write to `path` after checker, shape inference and one ONNX Runtime run on both files; atomic.

        Args:
            path: where to; never the file that was read.
            external: weights in `<path>.data` (True), in the file (False), or as they were read (None).
            plan: where to write the plan; both files appear, or none.
            seed: of the inputs of the trial run.
            progress: told what is being done.

        Raises VerificationError when a check fails, ModelError when the original cannot be run or the file not be
        written, UsageError when `path` is no place for a file. In all cases nothing is left behind.
        """
        check_targets([self._source], path, plan)
        progress("running the original")
        original = verify.run_original(self._source, self._bindings, seed)
        progress("writing and checking")
        plan_written = contextlib.nullcontext() if plan is None else self.plan.staged(plan)
        with blaming(self._source), plan_written, staged(self.model, path, external=external) as written:
            notes = verify.verify(written, original)
            size = sum(file.stat().st_size for file in written.parent.iterdir())
        self.report = replace(
            self.report,
            file_bytes=(self.report.file_bytes[0], size),
            estimated=False,
            notes=(*self.report.notes, *notes),
        )
        return self.report


def default_output(source: Path) -> Path:
    """`model.onnx` becomes `model.pruned.onnx`, beside it."""
    return source.parent / f"{source.stem}.pruned.onnx"


def remove_units(
    path: Path,
    analysis: Analysis,
    plan: Plan,
    keep_metadata: bool,
    notes: Sequence[str] = (),
    mend: Callable[[ir.Model], Recovery] | None = None,
    scores: Mapping[str, Scores] | None = None,
    cleaners: Sequence[str] = (),
) -> Result:
    """Take out what a plan says, recover if there is a way to, clean up, and count what is left.

    Args:
        path: where the model was read from.
        analysis: of the model, which is changed.
        plan: what goes.
        keep_metadata: keep what the exporter wrote about its author's machine.
        notes: what a person should know besides.
        mend: changes the weights that are left.
        scores: what the plan was made from, for reports.
        cleaners: see `cleaning.CLEANERS`.
    """
    model = analysis.model
    details = details_of(analysis, plan, scores)
    kept = {atom: int(mask.sum()) for atom, mask in plan.keep(analysis).items()}
    before = cost.before(analysis)
    batch, sizes = cost.batch_size(analysis), cost.sizes_of_sample(analysis)
    macs = cost.measure(analysis, kept).macs // batch
    RemoveUnits(analysis, plan.keep(analysis))(model)
    RemoveDead()(model)
    recovery = mend(model) if mend else Recovery()
    notes = (*notes, *clean(model, cleaners))
    ShareInitializers()(model)
    if not keep_metadata:
        StripMetadata()(model)
    groups = tuple(GroupReport(g.id, g.kind, g.units, kept.get(g.atom, g.units), g.statistics) for g in analysis.groups)
    report = Report(
        before=before,
        after=replace(cost.stored(model), macs=macs),
        sizes=sizes,
        file_bytes=(file_bytes(model), estimated_bytes(model)),
        estimated=True,
        groups=groups,
        unruled=dict(analysis.unruled),
        notes=(*notes, *recovery.notes, *(() if plan.removed_units else (_nothing_removed(plan),))),
        recovery=recovery,
        details=details,
    )
    return Result(model, plan, report, path, analysis.shapes.bindings)


def _nothing_removed(plan: Plan) -> str:
    request = plan.request
    if not request:
        return "the plan removes nothing"
    if request.get("lossless"):
        return "no unit can go without a trace: nothing was removed"
    if request.get("target"):
        return f"{', '.join(request['target'])}: met without removing anything"
    rounding = f" with round-to {request['round_to']}" if request.get("round_to", 1) > 1 else ""
    return f"ratio {request.get('ratio', 0):g}{rounding} leaves every group whole: nothing was removed"


@dataclass(frozen=True)
class GroupReport:
    """One group before and after."""

    id: str
    kind: str
    units: int
    kept: int
    statistics: bool


@dataclass(frozen=True)
class Report:
    """What a run did, in numbers.

    Attributes:
        before: what the model cost, as it was in the file.
        after: what is left.
        sizes: the size of each dynamic axis that the MACs are counted at.
        file_bytes: on disk, before and after, external data included.
        estimated: nothing was written yet, the second figure of `file_bytes` is the sum of the parts.
        groups: every group of the model, in topological order.
        unruled: operators without a rule and their counts: the dimensions they touch were left alone.
        notes: what a person should know besides.
        recovery: how the accuracy was won back, and the error of each layer before and after.
        details: the model by stages, scores, what is frozen.
    """

    before: Cost
    after: Cost
    sizes: dict[str, int]
    file_bytes: tuple[int, int]
    estimated: bool
    groups: tuple[GroupReport, ...]
    unruled: dict[str, int]
    notes: tuple[str, ...] = ()
    recovery: Recovery = field(default_factory=Recovery)
    details: Details = field(default_factory=Details)
