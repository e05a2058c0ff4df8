"""From a model to a result: run a recipe, replay a plan, recover a file; and the read-only half of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.inspect import blaming, inspect
from onnxprune.analysis.select import select_groups
from onnxprune.data.base import Data
from onnxprune.data.given import as_data
from onnxprune.data.options import DataOptions
from onnxprune.errors import NothingToPruneError
from onnxprune.model.file import name_of, runnable
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.result import Result
from onnxprune.steps.base import Context, Step
from onnxprune.steps.clean import Clean
from onnxprune.steps.plan import Plan
from onnxprune.steps.prune import sensitivity as measuring
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.prune.criteria.expression import resolve_criterion
from onnxprune.steps.prune.score import check_data, score_with
from onnxprune.steps.prune.step import Prune, nothing_to_prune
from onnxprune.steps.recover.infer_plan import check_fit, find_plan
from onnxprune.steps.recover.step import BEST, Recover, keep_apart
from onnxprune.steps.state import Current, State
from onnxprune.support.progress import Progress, silent


def samples_of(data: Any, model: ir.Model, seed: int) -> Data | None:
    """Samples as they were given, checked against the inputs of the model; see `load_data`."""
    if data is None or isinstance(data, Data):
        return data
    if isinstance(data, DataOptions):
        return data.open(lambda: model, seed)
    return as_data(data, ports_of(model), seed=seed)


@dataclass(frozen=True)
class Given:
    """A model as it was given: what runs where the original is to be run, and its analysis."""

    source: Path | ir.Model
    analysis: Analysis


def open_and_inspect(model: Any, progress: Progress = silent) -> Given:
    """Open a model and find what can be pruned.

    Args:
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is never changed.
        progress: is called with what is being done.
    """
    progress("analysing")
    source = runnable(model)
    return Given(source, inspect(source))


def run(recipe: Recipe, model: Any, *, data: Any = None, progress: Progress = silent, **settings: Any) -> Result:
    """Run the steps of a recipe on a model; nothing is written before `Result.save`.

    Args:
        recipe: the steps.
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is never changed.
        data: calibration data, see `load_data`; where recovery is fitted and a drop is measured, every third sample is
            kept apart for that.
        progress: is called with what is being done.
        settings: of the context, like seed; they decide over those of the recipe.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, TargetError
    when a target cannot be met, and NothingToPruneError when every dimension is frozen or excluded.
    """
    recipe = recipe.changed(settings)
    with blaming(model):
        given = open_and_inspect(model, progress)
        context = Context(**recipe.settings, progress=progress)
        context = replace(context, data=samples_of(data, given.analysis.model, context.seed))
        for step in recipe.steps:
            step.needs(context)
        context = _keeping_apart(recipe, context, given.analysis)
        state = run_steps(recipe.steps, State.of(given.analysis, given.source), context)
    return Result(state, recipe.document(), given.source, given.analysis, context.seed)


def run_steps(steps: Sequence[Step], state: State, context: Context) -> State:
    """One step after the other; each knows those that follow."""
    for at, step in enumerate(steps):
        state = step(state, replace(context, following=tuple(steps[at + 1 :])))
    return state


def _keeping_apart(recipe: Recipe, context: Context, analysis: Analysis) -> Context:
    """Samples are kept apart where a drop is to be measured on what nothing was fitted to."""
    prunes = [step for step in recipe.every() if isinstance(step, Prune)]
    if not any(target.kind == "drop" for step in prunes for target in step.targets):
        return context
    recover = next((step for step in recipe.every() if isinstance(step, Recover)), None)
    return keep_apart(context, recover, ports_of(analysis.model))


def compress(model: Any, *, data: Any = None, progress: Progress = silent, **options: Any) -> Result:
    """Remove the weakest units of a model, recover and clean up: the short way to a recipe.

        compress("m.onnx", ratio=0.5, data="samples.npz")

    Args:
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is never changed.
        data: calibration data: a path, an array, a dict of arrays, an iterable of batches, a torch DataLoader.
        progress: is called with what is being done.
        options: those of the steps `Prune`, `Recover`, `Repeat` (as `steps` and `schedule`) and `Clean`, and of
            `Context`, by their names; `recover` is the method.

    Raises as `run`.
    """
    recipe = Recipe.of_options(options)
    return run(recipe, model, data=data, progress=progress)


def score(
    model: Any,
    criterion: Any = None,
    data: Any = None,
    *,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Scores]:
    """Score the units of a model: per group id float64, shape [units]; the higher, the more a unit matters.

    Args:
        model: as for `compress`; it is only read.
        criterion: name of the score, like "l1", a combination like "l2*0.7+random*0.3", or a function; None: the one
            that `compress` takes, obs with data and l1 without.
        data: calibration data, for criteria that need more than the weights.
        only: kinds or name patterns to score (empty: all).
        skip: kinds or name patterns to leave out.
        progress: is called with what is being done.
        settings: of the context, like seed.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on.
    """
    options = Prune(criterion=criterion, only=only, skip=skip)  # type: ignore[arg-type]
    chosen = options.scored_by(data=data is not None)
    if data is None:
        check_data(chosen, None)  # before any work
    with blaming(model):
        given = open_and_inspect(model, progress)
        progress("scoring")
        groups = select_groups(given.analysis, options.only, options.skip)
        context = Context(**settings, progress=progress)
        context = replace(context, data=samples_of(data, given.analysis.model, context.seed))
        return score_with(context, given.analysis, groups, chosen)


def sensitivity(
    model: Any,
    data: Any,
    *,
    ratios: Sequence[float] = measuring.RATIOS,
    criterion: Any = "l1",
    recover: str | None = None,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    progress: Progress = silent,
    **settings: Any,
) -> tuple[list[Group], measuring.Sensitivity]:
    """Cut every group alone and measure what that does: the groups, and the curve of each.

    Args:
        model: as for `compress`; it is only read.
        data: what to measure on.
        ratios: shares of the units of each group.
        criterion: which units of a group go first.
        recover: how every cut is recovered before it is measured; the samples that it is measured on are then every
            third, which recovery does not see.
        only: kinds or name patterns to measure (empty: all).
        skip: kinds or name patterns to leave out.
        progress: is called with what is being done.
        settings: of the context: metric, jobs, cache, seed.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, and
    NothingToPruneError when no group is left.
    """
    options = Prune(criterion=criterion, only=only, skip=skip)  # type: ignore[arg-type]
    recovery = None if recover in (None, "none") else Recover(recover)
    with blaming(model):
        given = open_and_inspect(model, progress)
        groups = select_groups(given.analysis, options.only, options.skip)
        if not groups:
            raise NothingToPruneError(nothing_to_prune(given.analysis, name_of(given.source)))
        context = Context(**settings, progress=progress)
        context = replace(context, data=samples_of(data, given.analysis.model, context.seed))
        scores = score_with(context, given.analysis, groups, resolve_criterion(criterion))
        state = State.of(given.analysis, given.source)
        return groups, measuring.measure_sensitivity(state, groups, scores, context, recover=recovery, ratios=ratios)


def apply(model: Any, plan: Plan, *, keep_metadata: bool = False, progress: Progress = silent) -> Result:
    """Replay a plan. Raises PlanError when it does not fit the model, ModelError as `compress`."""
    with blaming(model):
        given = open_and_inspect(model, progress)
        progress("removing")
        state = State.of(given.analysis, given.source).cut(plan.keep(given.analysis), fold=plan.folds)
        state = Clean(keep_metadata=keep_metadata)(state, Context())
    return Result(state, plan.recipe, given.source, given.analysis)


def recover(
    pruned: Any,
    original: Any,
    *,
    plan: Plan | None = None,
    data: Any = None,
    method: str = BEST,
    progress: Progress = silent,
    **settings: Any,
) -> Result:
    """Change the weights of a pruned model so that its layers do what those of the original do; no training.

    Args:
        pruned: the model to recover, as for `compress`; it is only read.
        original: the model that it was made from.
        plan: what was removed; None: it is found from the weights, which must not have changed since.
        data: calibration data, no labels needed; None: inputs are made up.
        method: see `steps.recover.methods.METHODS`.
        progress: is called with what is being done.
        settings: of the context, like seed.

    Raises UsageError for an unknown method, ModelError for files that cannot be worked on, PlanError when one is not
    cut from the other, or not by this plan, DataError for data that does not fit.
    """
    step = Recover(method)
    whole, given = open_and_inspect(original, progress), open_and_inspect(pruned, progress)
    with blaming(pruned):
        progress("comparing")
        plan = find_plan(whole.analysis, given.analysis) if plan is None else plan
        keep = plan.keep(whole.analysis)
        check_fit(whole.analysis, given.analysis, keep)
        context = Context(**settings, progress=progress)
        context = replace(context, data=samples_of(data, given.analysis.model, context.seed))
        current = Current(given.analysis.model, parts={}, analysis=given.analysis)
        state = step(State(whole.source, whole.analysis, current, keep), context)
        state = Clean(keep_metadata=True)(state, context)
    return Result(state, Recipe((step,), settings).document(), given.source, given.analysis, context.seed)


__all__ = ["apply", "compress", "inspect", "recover", "run", "score", "sensitivity"]
