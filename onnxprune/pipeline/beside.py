"""Recover and train a model beside the one that it was made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnxprune.analysis.inspect import blaming
from onnxprune.errors import PlanError, UsageError
from onnxprune.model.file import name_of
from onnxprune.pipeline.opening import Given, open_and_inspect
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.result import Result
from onnxprune.pipeline.run import OPENING, warned
from onnxprune.pipeline.samples import Sources
from onnxprune.steps.base import Context, Record, run_steps
from onnxprune.steps.clean import Clean
from onnxprune.steps.evaluate import Evaluate
from onnxprune.steps.plan import Plan
from onnxprune.steps.recover.infer_plan import check_fit, find_plan
from onnxprune.steps.recover.step import BEST, Recover
from onnxprune.steps.state import Current, State
from onnxprune.steps.train.step import Train
from onnxprune.support.options import find_option, options_of
from onnxprune.support.progress import Progress, parts, silent


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
    context = Context(**settings, progress=progress)
    whole, given = open_and_inspect(original, context), open_and_inspect(pruned, context, data)
    with blaming(pruned):
        progress("comparing")
        plan = find_plan(whole.analysis, given.analysis) if plan is None else plan
        keep = plan.keep(whole.analysis)
        check_fit(whole.analysis, given.analysis, keep)
        started, given = given.started(context)
        context = Sources(given.data).into(context, Recipe((step,)), given.analysis.model, given.sizes)
        current = Current(given.analysis.model, parts={}, analysis=given.analysis)
        state = step(State(whole.source, whole.analysis, current, keep), context)
        state = Clean(keep_metadata=True)(state, context)
        state = _compared(state, given, context)
    return warned(Result(state, Recipe((step,), settings).document(), started, given.analysis))


def train(
    model: Any,
    *,
    data: Any,
    teacher: Any = None,
    plan: Plan | None = None,
    evaluation: Any = None,
    progress: Progress = silent,
    **options: Any,
) -> Result:
    """Train a model: fine-tune it on labels, distil it from the model that it was made from, or both.

        train("small.onnx", data="samples.npz", teacher="model.onnx", epochs=2)

    Args:
        model: the model to train, as for `compress`; it is only read.
        data: samples, with labels or, beside a teacher, without.
        teacher: the model that it was made from, or any other of the same inputs and outputs.
        plan: what was removed from the teacher, so that inner values can be compared; None: it is found from the
            weights, where they have not changed since.
        evaluation: samples to evaluate on; None: a share of `data` is kept apart.
        progress: is called with what is being done.
        options: those of the step `Train` and of `Context`.

    Raises UsageError for options that make no sense, ModelError for files that cannot be worked on, PlanError for a
    plan that does not fit, DataError for data that does not fit.
    """
    given: dict[Any, dict[str, Any]] = {Train: {}, Context: {}}
    for name, value in options.items():
        kind = Train if name.replace("-", "_") in options_of(Train) else Context
        given[kind][find_option(kind, name, options_of(Train)).name] = value
    recipe = Recipe((Train(**given[Train]),), given[Context])
    opening, running = parts(progress, [OPENING, recipe.steps[0].effort])
    context = Context(**recipe.settings, progress=opening)
    small = open_and_inspect(model, context, data)
    with blaming(model):
        original, small = small.started(context)
        state = _beside(small, teacher, plan, context)
        sources = Sources(small.data, evaluation=evaluation)
        context = sources.into(context, recipe, small.analysis.model, small.sizes)
        recipe.steps[0].needs(context)
        state = run_steps((*recipe.steps, Clean(keep_metadata=True)), state, replace(context, progress=running))
        state = _compared(state, small, replace(context, progress=running))
    return warned(Result(state, recipe.document(), original, small.analysis))


def _compared(state: State, before: Given, context: Context) -> State:
    """The same with what it costs in quality that the model that was given became this one."""
    step = Evaluate()
    found = step.compare(state.source, before.source, state.model, state.original, context)
    return state.noted(step.record({"quality": found}, found.notes))


def _beside(small: Given, teacher: Any, plan: Plan | None, context: Context) -> State:
    """A model with the one that it was made from as its original."""
    if teacher is None:
        return State.of(small.analysis, small.source)
    whole = open_and_inspect(teacher, context)
    _check_teacher(whole, small)
    current = Current(small.analysis.model, parts={}, analysis=small.analysis)
    state = State(whole.source, whole.analysis, current)
    try:
        found = plan or find_plan(whole.analysis, small.analysis)
        left = found.keep(whole.analysis)
        check_fit(whole.analysis, small.analysis, left)
        return replace(state, left=left)
    except PlanError:
        if plan is not None:
            raise
        said = "which units of the teacher are left is not known: outputs are compared, and inner values of its size"
        return state.noted(Record("teacher", notes=(said,)))


def _check_teacher(whole: Given, small: Given) -> None:
    """Raises UsageError where a model cannot learn from another since their inputs or outputs differ."""
    for word in ("input", "output"):
        theirs, ours = (
            {value.name for value in getattr(given.analysis.model.graph, f"{word}s")} - _stored(given)
            for given in (whole, small)
        )
        lacking = sorted(str(name) for name in (theirs - ours if word == "input" else ours - theirs))
        if lacking:
            where = "the model lacks" if word == "input" else "the teacher lacks"
            raise UsageError(f"{where} the {word} '{lacking[0]}', so {name_of(whole.source)} cannot be its teacher")


def _stored(given: Given) -> set[str | None]:
    """Names of initializers, which old files list among the inputs."""
    return set(given.analysis.model.graph.initializers)
