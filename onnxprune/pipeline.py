"""The main job, from a file to a smaller file, and the read-only half of it."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxprune import cost, planning, verify
from onnxprune import recover as recovering
from onnxprune import sensitivity as measuring
from onnxprune.calibration.base import Data
from onnxprune.coupling import Analysis, Group, analyze
from onnxprune.criteria.base import Scores
from onnxprune.criteria.combination import resolve
from onnxprune.errors import ModelError, NothingToPruneError, PlanError, UsageError
from onnxprune.lossless.constants import Constants
from onnxprune.lossless.liveness import plan_lossless
from onnxprune.model import check, check_references, check_target, estimated_bytes, file_bytes, open_model, staged
from onnxprune.passes.canonicalize import Canonicalize
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.passes.share_initializers import ShareInitializers
from onnxprune.passes.strip_metadata import StripMetadata
from onnxprune.plan import Plan
from onnxprune.planning import Request
from onnxprune.recover import Recovery
from onnxprune.recovery.matching import check_fit, find_plan
from onnxprune.report.data import GroupReport, Report
from onnxprune.report.details import details_of
from onnxprune.runtime.latency import Setting
from onnxprune.runtime.observe import observe
from onnxprune.scoring import check_data, score_model
from onnxprune.selection import select
from onnxprune.trials import Trials

Progress = Callable[[str], None]
CPU = ("CPUExecutionProvider",)


def silent(_: str) -> None:
    """Progress that nobody watches."""


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
        with _blaming(self._source), plan_written, staged(self.model, path, external=external) as written:
            notes = verify.verify(written, original)
            size = sum(file.stat().st_size for file in written.parent.iterdir())
        self.report = replace(
            self.report,
            file_bytes=(self.report.file_bytes[0], size),
            estimated=False,
            notes=(*self.report.notes, *notes),
        )
        return self.report


def check_targets(sources: Sequence[str | Path], *targets: str | Path | None) -> None:
    """Can all of `targets` be written? Raises UsageError, before any work, for one that cannot or that is a source."""
    given = [Path(target) for target in targets if target is not None]
    for target in given:
        check_target(target, *map(Path, sources))
    if len({target.resolve() for target in given}) < len(given):
        raise UsageError(f"{given[0]} is named for two outputs; choose different names")


def default_output(source: Path) -> Path:
    """`model.onnx` becomes `model.pruned.onnx`, beside it."""
    return source.parent / f"{source.stem}.pruned.onnx"


def inspect(path: str | Path) -> Analysis:
    """Open a model and find what can be pruned; the file is only read.

    Raises ModelError with one line when the file cannot be worked on.
    """
    with _blaming(path):
        model = open_model(path)
        model.meta["stored"] = cost.stored(model)
        return analyze_model(model)


@contextlib.contextmanager
def _blaming(path: str | Path) -> Iterator[None]:
    """Where the block fails over a file that breaks the rules of ONNX, say that; for a valid file the fault is ours."""
    try:
        yield
    except (ModelError, PlanError, UsageError):
        raise
    except Exception as error:
        try:
            check(Path(path))
            check_references(Path(path))
        except ModelError as invalid:
            raise ModelError(f"not a valid ONNX model, export it again: {invalid}") from error
        raise


def analyze_model(model: ir.Model) -> Analysis:
    """Bring an opened model into canonical form, in place, and find its groups."""
    with _garbage_kept():
        _, shapes = Canonicalize(observe).with_shapes(model)
        RemoveDead()(model)
        return analyze(model, shapes)


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    """The analysis makes many small objects and keeps them all: collecting in between halves its speed for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def compress(
    path: str | Path,
    criterion: str | None = None,
    ratio: float = 0.5,
    *,
    data: Data | None = None,
    recover: str | None = None,
    scope: str = "auto",
    round_to: int = 1,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: int = 0,
    target: Sequence[str] = (),
    max_ratio: float = 1.0,
    min_units: int = 1,
    ratios: Sequence[tuple[str, float]] = (),
    providers: Sequence[str] = CPU,
    loss: str = "auto",
    device: str = "cpu",
    metric: str | None = None,
    setting: Setting | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    keep_metadata: bool = False,
    progress: Progress = silent,
) -> Result:
    """Remove the weakest units of a model; nothing is written before `Result.save`.

    Args:
        path: the ONNX file.
        criterion: name of the score, like "l1", or a combination like "l2*0.7+random*0.3"; None: "obs" with data,
            else "l1".
        ratio: share of the units that go, in [0, 1).
        data: calibration data, see `load_data`.
        recover: how to win the accuracy back, see `recover.METHODS`; None: the best with data, else "none".
        scope: how the ratio is spread over the groups: "auto", "uniform", "global" or another of `allocation`.
        round_to: axis sizes come out as multiples of this where they can.
        only: kinds or name patterns to work on (empty: all).
        skip: kinds or name patterns to leave alone.
        seed: of everything random.
        target: what to come down to, like "macs=0.4" or "size=5MB", in place of the ratio; see `targets`.
        max_ratio: no group loses more than this share of its units.
        min_units: no group is left with fewer units than this, unless it has fewer.
        ratios: (kind or pattern, ratio) pairs; the groups that one names lose just that, by the last one that does.
        providers: execution providers of ONNX Runtime for the runs on data.
        loss: what gradients are of, for criteria that take some.
        device: where torch computes those.
        metric: what a target for drop is about, see `metrics`; None: accuracy with labels, else agreement.
        setting: provider, batch and threads of a target for latency; one sample on one thread of the CPU by default.
        jobs: processes for the measurements of scope "sensitivity".
        cache: folder to keep those in (None: nowhere).
        keep_metadata: keep what the exporter wrote about its author's machine.
        progress: told what is being done.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, TargetError
    when a target cannot be met, and NothingToPruneError when every dimension is frozen or excluded.
    """
    criterion = criterion or ("l1" if data is None else "obs")
    method = recover or (recovering.NONE if data is None else recovering.BEST)
    request = Request(
        criterion,
        ratio,
        scope,
        round_to,
        tuple(only),
        tuple(skip),
        seed,
        tuple(target),
        max_ratio,
        min_units,
        tuple(ratios),
    )
    request.check()
    recovering.check_method(method)
    check_data(resolve(criterion), data)
    with _blaming(path):
        progress("analysing")
        analysis = inspect(path)
        groups = select(analysis, request.only, request.skip)
        if not groups:
            raise NothingToPruneError(_nothing(path, analysis))
        progress("scoring")
        scores = score_model(
            analysis,
            groups,
            criterion,
            data,
            seed=seed,
            providers=providers,
            loss=loss,
            device=device,
            progress=progress,
        )

        def mend(plan: Plan, model: ir.Model) -> Recovery:
            original, pruned = inspect(path), analyze_model(model)
            keep = plan.keep(original)
            return recovering.recover(
                original, pruned, keep, method, data, seed=seed, providers=providers, progress=progress
            )

        recovers = mend if method != recovering.NONE else None
        with Trials(Path(path), inspect, data, metric, setting or Setting(), providers, recovers, progress) as trials:
            plan, outcome = planning.make_plan(
                analysis, groups, scores, request, trials, jobs=jobs, cache=cache, progress=progress
            )
        progress("removing")
        wanted = functools.partial(mend, plan) if recovers and plan.removed_units else None
        return _remove(Path(path), analysis, plan, keep_metadata, outcome.notes, wanted, scores)


def score(
    path: str | Path,
    criterion: str = "l1",
    data: Data | None = None,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Scores]:
    """Score the units of a model: per group id float64, shape [units]; the higher, the more a unit matters.

    Args:
        path: the ONNX file; it is only read.
        criterion: name of the score, like "l1", or a combination like "l2*0.7+random*0.3".
        data: calibration data, for criteria that need more than the weights.
        only: kinds or name patterns to score (empty: all).
        skip: kinds or name patterns to leave out.
        seed: of everything random.
        progress: told what is being done.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on.
    """
    check_data(resolve(criterion), data)
    with _blaming(path):
        progress("analysing")
        analysis = inspect(path)
        progress("scoring")
        groups = select(analysis, only, skip)
        return score_model(analysis, groups, criterion, data, seed=seed, progress=progress)


def sensitivity(
    path: str | Path,
    data: Data,
    *,
    metric: str | None = None,
    ratios: Sequence[float] = measuring.RATIOS,
    criterion: str = "l1",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    jobs: int = 1,
    cache: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[list[Group], measuring.Sensitivity]:
    """Cut every group alone and measure what that does: the groups, and the curve of each.

    Args:
        path: the ONNX file; it is only read.
        data: what to measure on.
        metric: see `metrics`; None: kl for outputs with classes, else snr.
        ratios: shares of the units of each group.
        criterion: which units of a group go first.
        only: kinds or name patterns to measure (empty: all).
        skip: kinds or name patterns to leave out.
        jobs: processes.
        cache: folder for what was measured already (None: nothing is kept).
        seed: of everything random.
        progress: told what is being done.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, and
    NothingToPruneError when no group is left.
    """
    check_data(resolve(criterion), data)
    with _blaming(path):
        analysis = inspect(path)
        groups = select(analysis, only, skip)
        if not groups:
            raise NothingToPruneError(_nothing(path, analysis))
        scores = score_model(analysis, groups, criterion, data, seed=seed, progress=progress)
        found = measuring.measure(
            Path(path),
            inspect,
            groups,
            scores,
            data,
            metric_name=metric,
            ratios=ratios,
            jobs=jobs,
            cache=cache,
            progress=progress,
        )
        return groups, found


def compress_lossless(
    path: str | Path,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    keep_metadata: bool = False,
    progress: Progress = silent,
) -> Result:
    """Remove the units that change nothing, for any finite input: their output is constant, or nothing reads it.

    Constants are put into the biases of what reads them. Where there is nothing to remove the model is cleaned up all
    the same, and a note says so; constant units that have to stay are named in notes, with the reason.

    Args:
        path: the ONNX file.
        only: kinds or name patterns to work on (empty: all).
        skip: kinds or name patterns to leave alone.
        keep_metadata: keep what the exporter wrote about its author's machine.
        progress: told what is being done.

    Raises UsageError for a pattern that matches nothing, ModelError for a file that cannot be worked on.
    """
    with _blaming(path):
        progress("analysing")
        analysis = inspect(path)
        groups = select(analysis, only, skip)
        progress("looking for constants")
        constants = Constants(analysis)
        request = {"lossless": True, "only": tuple(only), "skip": tuple(skip)}
        plan, notes = plan_lossless(constants, groups, request)
        progress("removing")
        FoldConstants(constants, plan)(analysis.model)
        return _remove(Path(path), analysis, plan, keep_metadata, notes)


def apply(path: str | Path, plan: Plan, *, keep_metadata: bool = False, progress: Progress = silent) -> Result:
    """Replay a plan. Raises PlanError when it does not fit the model, ModelError as `compress`."""
    with _blaming(path):
        progress("analysing")
        analysis = inspect(path)
        progress("removing")
        if plan.request.get("lossless"):
            FoldConstants(Constants(analysis), plan)(analysis.model)
        return _remove(Path(path), analysis, plan, keep_metadata)


def recover(
    pruned: str | Path,
    original: str | Path,
    *,
    plan: Plan | None = None,
    data: Data | None = None,
    method: str = recovering.BEST,
    seed: int = 0,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> Result:
    """Change the weights of a pruned file so that its layers do what those of the original do; no training.

    Args:
        pruned: the file to mend; it is only read.
        original: the file that it was made from.
        plan: what was removed; None: it is told from the weights, which must not have changed since.
        data: calibration data, no labels needed; None: inputs are made up.
        method: see `recover.METHODS`.
        seed: of everything random.
        providers: execution providers of ONNX Runtime.
        progress: told what is being done.

    Raises UsageError for an unknown method, ModelError for files that cannot be worked on, PlanError when one is not
    cut from the other, or not by this plan, DataError for data that does not fit.
    """
    recovering.check_method(method)
    progress("analysing")
    whole, analysis = inspect(original), inspect(pruned)
    with _blaming(pruned):
        progress("comparing")
        plan = find_plan(whole, analysis) if plan is None else plan
        keep = plan.keep(whole)
        check_fit(whole, analysis, keep)
        model, nothing = analysis.model, Plan()
        details, before = details_of(analysis, nothing, None), cost.before(analysis)
        if method == recovering.NONE:
            mended = Recovery()
        else:
            mended = recovering.recover(
                whole, analysis, keep, method, data, seed=seed, providers=providers, progress=progress
            )
        ShareInitializers()(model)
        report = Report(
            before=before,
            after=replace(cost.stored(model), macs=before.macs),
            sizes=cost.sizes_of_sample(analysis),
            file_bytes=(file_bytes(model), estimated_bytes(model)),
            estimated=True,
            groups=tuple(GroupReport(g.id, g.kind, g.units, g.units, g.statistics) for g in analysis.groups),
            unruled=dict(analysis.unruled),
            notes=mended.notes,
            recovery=mended,
            details=details,
        )
        return Result(model, plan, report, Path(pruned), analysis.shapes.bindings)


def _remove(
    path: Path,
    analysis: Analysis,
    plan: Plan,
    keep_metadata: bool,
    notes: Sequence[str] = (),
    mend: Callable[[ir.Model], Recovery] | None = None,
    scores: Mapping[str, Scores] | None = None,
) -> Result:
    model = analysis.model
    details = details_of(analysis, plan, scores)
    kept = {atom: int(mask.sum()) for atom, mask in plan.keep(analysis).items()}
    before = cost.before(analysis)
    batch, sizes = cost.batch_size(analysis), cost.sizes_of_sample(analysis)
    macs = cost.measure(analysis, kept).macs // batch
    RemoveUnits(analysis, plan)(model)
    RemoveDead()(model)
    recovery = mend(model) if mend else Recovery()
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


def _nothing(path: str | Path, analysis: Analysis) -> str:
    if analysis.groups:
        return f"{path}: all {len(analysis.groups)} groups are excluded by --only / --skip; loosen them"
    reasons = {str(frozen.reason) for frozen in analysis.frozen}
    first = f"; for example: {sorted(reasons)[0]}" if reasons else ""
    return f"{path}: nothing can be pruned, every dimension is frozen{first}; see: onnxprune inspect {path}"


__all__ = [
    "Report",
    "Request",
    "Result",
    "apply",
    "compress",
    "compress_lossless",
    "inspect",
    "recover",
    "score",
    "sensitivity",
]
