"""The main job, from a file to a smaller file, and the read-only half of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnxprune.analysis import cost
from onnxprune.analysis.constants import Constants
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.inspect import blaming, inspect
from onnxprune.analysis.select import select
from onnxprune.data.base import Data
from onnxprune.errors import NothingToPruneError
from onnxprune.model.file import estimated_bytes, file_bytes
from onnxprune.model.signature import ports_of
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.share_initializers import ShareInitializers
from onnxprune.pipeline.details import details_of
from onnxprune.pipeline.result import GroupReport, Report, Result, remove_units
from onnxprune.runtime.latency import Setting
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.steps.base import NONE, Context
from onnxprune.steps.clean import check_cleaners
from onnxprune.steps.plan import Plan
from onnxprune.steps.prune import iterative as iterate
from onnxprune.steps.prune import sensitivity as measuring
from onnxprune.steps.prune.candidates import Trials
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.prune.criteria.expression import resolve
from onnxprune.steps.prune.lossless import plan_lossless
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.score import check_data, score_model
from onnxprune.steps.recover import methods as recovering
from onnxprune.steps.recover.infer_plan import check_fit, find_plan
from onnxprune.steps.recover.methods import Recovery
from onnxprune.support.progress import Progress, silent


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
    steps: int = 1,
    schedule: str = "cubic",
    providers: Sequence[str] = CPU_ONLY,
    loss: str = "auto",
    device: str = "cpu",
    metric: str | None = None,
    setting: Setting | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    clean: Sequence[str] = (),
    keep_metadata: bool = False,
    progress: Progress = silent,
) -> Result:
    """Remove the weakest units of a model; nothing is written before `Result.save`.

    Args:
        path: the ONNX file.
        criterion: name of the score, like "l1", or a combination like "l2*0.7+random*0.3"; None: "obs" with data,
            else "l1".
        ratio: share of the units that go, in [0, 1).
        data: calibration data, see `load_data`; with recovery and a target for drop, every third sample is kept apart
            to measure that on.
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
        steps: cut in so many: each scores what the one before left, recovered, and ends at the schedule's part of the
            whole; the last ends at what a single step comes to, see `iterate`.
        schedule: how the cut is spread over the steps, see `schedule.SCHEDULES`.
        providers: execution providers of ONNX Runtime for the runs on data.
        loss: what gradients are of, for criteria that take some.
        device: where torch computes those.
        metric: what a target for drop is about, see `metrics`; None: accuracy with labels, else agreement.
        setting: provider, batch and threads of a target for latency; one sample on one thread of the CPU by default.
        jobs: processes for the measurements of scope "sensitivity".
        cache: folder to keep those in (None: nowhere).
        clean: clean-ups of the file that is written, see `cleaning.CLEANERS`.
        keep_metadata: keep what the exporter wrote about its author's machine.
        progress: told what is being done.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, TargetError
    when a target cannot be met, and NothingToPruneError when every dimension is frozen or excluded.
    """
    request = PruneOptions(
        criterion or ("l1" if data is None else "obs"),
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
        steps,
        schedule,
    )
    method = recover or (NONE if data is None else recovering.BEST)
    context = Context(data, method, seed, providers, loss, device, metric, setting or Setting(), jobs, cache, progress)
    request.check()
    recovering.check_method(method)
    check_cleaners(clean)
    check_data(resolve(request.criterion), data)
    path = Path(path)
    with blaming(path):
        progress("analysing")
        analysis = inspect(path)
        groups = _selected(path, analysis, only, skip)
        if any(each.kind == "drop" for each in request.targets):
            context = recovering.keep_apart(context, ports_of(analysis.model))
        with Trials(path, context) as trials:
            plan, outcome, scores = iterate.make_plan(analysis, groups, request, trials)
        progress("removing")
        mend = functools.partial(recovering.recover_cut, context, path, plan)
        shown = scores if steps == 1 else None
        return remove_units(path, analysis, plan, keep_metadata, outcome.notes, mend, shown, clean)


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
    with blaming(path):
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
    recover: str = NONE,
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
        recover: how every cut is recovered before it is measured, see `recover.METHODS`; the samples that it is
            measured on are then every third, which recovery does not see.
        only: kinds or name patterns to measure (empty: all).
        skip: kinds or name patterns to leave out.
        jobs: processes.
        cache: folder for what was measured already (None: nothing is kept).
        seed: of everything random.
        progress: told what is being done.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, and
    NothingToPruneError when no group is left.
    """
    recovering.check_method(recover)
    check_data(resolve(criterion), data)
    with blaming(path):
        analysis = inspect(path)
        groups = _selected(path, analysis, only, skip)
        scores = score_model(analysis, groups, criterion, data, seed=seed, progress=progress)
        context = Context(data, recover, seed, metric=metric, jobs=jobs, cache=cache, progress=progress)
        return groups, measuring.measure(Path(path), groups, scores, context, ratios)


def compress_lossless(
    path: str | Path,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    clean: Sequence[str] = (),
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
        clean: clean-ups of the file that is written, see `cleaning.CLEANERS`.
        keep_metadata: keep what the exporter wrote about its author's machine.
        progress: told what is being done.

    Raises UsageError for a pattern that matches nothing, ModelError for a file that cannot be worked on.
    """
    check_cleaners(clean)
    with blaming(path):
        progress("analysing")
        analysis = inspect(path)
        groups = select(analysis, only, skip)
        progress("looking for constants")
        constants = Constants(analysis)
        request = {"lossless": True, "only": tuple(only), "skip": tuple(skip)}
        plan, notes = plan_lossless(constants, groups, request)
        progress("removing")
        FoldConstants(constants, plan.keep(constants.analysis))(analysis.model)
        return remove_units(Path(path), analysis, plan, keep_metadata, notes, cleaners=clean)


def apply(path: str | Path, plan: Plan, *, keep_metadata: bool = False, progress: Progress = silent) -> Result:
    """Replay a plan. Raises PlanError when it does not fit the model, ModelError as `compress`."""
    with blaming(path):
        progress("analysing")
        analysis = inspect(path)
        progress("removing")
        if plan.request.get("lossless"):
            FoldConstants(Constants(analysis), plan.keep(analysis))(analysis.model)
        return remove_units(Path(path), analysis, plan, keep_metadata)


def recover(
    pruned: str | Path,
    original: str | Path,
    *,
    plan: Plan | None = None,
    data: Data | None = None,
    method: str = recovering.BEST,
    seed: int = 0,
    providers: Sequence[str] = CPU_ONLY,
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
    with blaming(pruned):
        progress("comparing")
        plan = find_plan(whole, analysis) if plan is None else plan
        keep = plan.keep(whole)
        check_fit(whole, analysis, keep)
        model, nothing = analysis.model, Plan()
        details, before = details_of(analysis, nothing, None), cost.before(analysis)
        if method == NONE:
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


def _selected(path: str | Path, analysis: Analysis, only: Sequence[str], skip: Sequence[str]) -> list[Group]:
    """See `select`. Raises NothingToPruneError when no group is left."""
    groups = select(analysis, only, skip)
    if not groups:
        raise NothingToPruneError(_nothing(path, analysis))
    return groups


def _nothing(path: str | Path, analysis: Analysis) -> str:
    if analysis.groups:
        return f"{path}: all {len(analysis.groups)} groups are excluded by --only / --skip; loosen them"
    reasons = {str(frozen.reason) for frozen in analysis.frozen}
    first = f"; for example: {sorted(reasons)[0]}" if reasons else ""
    return f"{path}: nothing can be pruned, every dimension is frozen{first}; see: onnxprune inspect {path}"


__all__ = [
    "PruneOptions",
    "Report",
    "Result",
    "apply",
    "compress",
    "compress_lossless",
    "inspect",
    "recover",
    "score",
    "sensitivity",
]
