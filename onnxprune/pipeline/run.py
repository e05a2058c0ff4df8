"""From a model to a result: run a recipe, replay a plan, recover a file; and the read-only half of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnxprune.analysis.groups import Group
from onnxprune.analysis.held import nothing_to_prune
from onnxprune.analysis.inspect import blaming, inspect
from onnxprune.analysis.select import select_groups
from onnxprune.analysis.states import offer_of, states_that_hold
from onnxprune.conversion.base import is_network
from onnxprune.data.split import hold_out
from onnxprune.errors import DamageWarning, DataError, ModelError, NothingToPruneError, PlanError, UsageError
from onnxprune.model.file import name_of
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.opening import Given, open_and_inspect
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.result import Result
from onnxprune.pipeline.samples import Sources
from onnxprune.statistics.made_up import made_up_samples
from onnxprune.steps.base import Context, Record, Step, run_steps
from onnxprune.steps.clean import Clean
from onnxprune.steps.evaluate import Evaluate
from onnxprune.steps.plan import Plan
from onnxprune.steps.prune import sensitivity as measuring
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.steps.prune.criteria.expression import resolve_criterion
from onnxprune.steps.prune.options import CRITERION
from onnxprune.steps.prune.score import check_data, score_with
from onnxprune.steps.prune.split import split_by_rank
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.quantize.step import Quantize
from onnxprune.steps.recover.infer_plan import check_fit, find_plan
from onnxprune.steps.recover.step import BEST, Recover
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.state import Current, State
from onnxprune.steps.train.step import Train
from onnxprune.support.options import find_option, options_of
from onnxprune.support.progress import Progress, parts, silent

# Analysing and running the original take about as long as a step.
_OPENING = 2.0
_EXPORTING = 1.0


def run(
    recipe: Recipe,
    model: Any,
    *,
    data: Any = None,
    calibration: Any = None,
    evaluation: Any = None,
    progress: Progress = silent,
    **settings: Any,
) -> Result:
    """Run the steps of a recipe on a model; nothing is written before `Result.save`.

    Args:
        recipe: the steps.
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is never changed.
        data: samples, see `load_data`; some are kept apart to say what the cut costs, see `pipeline.samples`.
        calibration: other samples for criteria and recovery, beside `data` to train on.
        evaluation: samples that trainings, drops and the result are measured on, in place of some of `data`.
        progress: is called with what is being done.
        settings: of the context, like seed; they decide over those of the recipe.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, TargetError
    when a target cannot be met, and NothingToPruneError when every dimension is frozen or excluded.
    """
    recipe = recipe.changed(settings)
    steps = recipe.evaluated().steps
    opening, running = parts(progress, [_OPENING, sum(step.effort for step in steps)])
    context = Context(**recipe.settings, progress=opening)
    given = open_and_inspect(model, context, data)
    with blaming(model):
        original, given = given.started(context)
        _offer_states(given, context)
        context = Sources(given.data, calibration, evaluation).into(context, recipe, given.analysis.model, given.sizes)
        for step in steps:
            step.needs(context)
        state, context = _with_samples(State.of(given.analysis, given.source), recipe.every(), context, given.sizes)
        state = run_steps(steps, state, replace(context, progress=running))
    return _told(Result(state, recipe.document(), original, given.analysis))


def _offer_states(given: Given, context: Context) -> None:
    """A note where much more could go if states were resized."""
    states = {} if context.resize_states else states_that_hold(given.analysis)
    if states:
        meta = given.analysis.model.meta
        meta["notes"] = [*meta.get("notes", ()), offer_of(states)]


def _told(result: Result) -> Result:
    """The same, after a warning where the model fell apart: who never looks at the report has to know, too."""
    quality = result.report.quality
    if quality is not None and quality.damage:
        warnings.warn(f"{quality.damage}; allow_damage=True if this is meant", DamageWarning, stacklevel=3)
    return result


def _with_samples(
    state: State, steps: Iterable[Step], context: Context, sizes: Mapping[str, int]
) -> tuple[State, Context]:
    """Made-up inputs where a step fits to samples and there are none; where none can be made, a note says why."""
    found = list(steps)
    measured = any(target.kind == "damage" for step in found if isinstance(step, Prune) for target in step.targets)
    fitted = any(step.on_samples for step in found)
    if context.data is not None or not (fitted or measured):
        return state, context
    try:
        made_up = made_up_samples(state.original, sizes, seed=context.seed, progress=context.progress)
    except (DataError, ModelError) as error:
        if measured:
            raise DataError(
                f"no inputs could be made up to see what a cut does ({error}); give --data, or say how much to remove, "
                "like --ratio 0.2"
            ) from error
        note = f"no inputs could be made up, so nothing was fitted: {error}"
        return state.noted(Record("made-up inputs", notes=(note,))), context
    apart = hold_out(made_up, ports_of(state.original.model)) if measured else None
    return state, replace(context, made_up=apart.fitting if apart else made_up, apart=apart)


def compress(
    model: Any,
    *,
    example_inputs: Any = None,
    data: Any = None,
    calibration: Any = None,
    evaluation: Any = None,
    progress: Progress = silent,
    **options: Any,
) -> Result:
    """Remove the weakest units of a model, recover, train if asked to, and clean up: the short way to a recipe.

        compress("m.onnx", ratio=0.5, data="samples.npz")
        compress("m.onnx", ratio=0.5, data="samples.npz", train=2)
        compress(net, example_inputs=torch.randn(2, 3, 32, 32), ratio=0.5, data="samples.npz")

    Args:
        model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`; it is never changed. A network of torch, Keras or
            scikit-learn is exported first, see `export`.
        example_inputs: of a network that is exported first.
        data: samples: a path, an array, a dict of arrays, an iterable of batches, a torch DataLoader.
        calibration: as for `run`.
        evaluation: as for `run`.
        progress: is called with what is being done.
        options: those of the steps `Prune`, `Recover`, `Train`, `Repeat` (as `steps` and `schedule`), `Sparsify`,
            `Quantize`, `Clean` and `Evaluate`, and of `Context`, by their names; `recover` is the method, `train` the
            epochs, `quantize` the type.

    Raises as `run`.
    """
    recipe = Recipe.of_options(options)
    opening, working = parts(progress, [_EXPORTING, _OPENING + sum(step.effort for step in recipe.steps)])
    if example_inputs is not None or is_network(model):
        from onnxprune.conversion.export import export

        model, progress = export(model, example_inputs, progress=opening).model, working
    return run(recipe, model, data=data, calibration=calibration, evaluation=evaluation, progress=progress)


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
            that `compress` takes, obs with data and group-l2 without.
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
        context = Context(**settings, progress=progress)
        given = open_and_inspect(model, context, data)
        given = given if data is None else given.fed(context)
        progress("scoring")
        groups = select_groups(given.analysis, options.only, options.skip)
        return score_with(replace(context, data=given.data), given.analysis, groups, chosen)


def sensitivity(
    model: Any,
    data: Any,
    *,
    ratios: Sequence[float] = measuring.RATIOS,
    criterion: Any = CRITERION,
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
        context = Context(**settings, progress=progress)
        given = open_and_inspect(model, context, data).fed(context)
        groups = select_groups(given.analysis, options.only, options.skip)
        if not groups:
            raise NothingToPruneError(nothing_to_prune(given.analysis, name_of(given.source)))
        context = replace(context, data=given.data)
        scores = score_with(context, given.analysis, groups, resolve_criterion(criterion))
        state = State.of(given.analysis, given.source)
        return groups, measuring.measure_sensitivity(state, groups, scores, context, recover=recovery, ratios=ratios)


def apply(
    model: Any, plan: Plan, *, keep_metadata: bool = False, progress: Progress = silent, **settings: Any
) -> Result:
    """Replay a plan. Raises PlanError when it does not fit the model, ModelError as `compress`."""
    settings = {"resize_states": plan.recipe.get("resize_states", ()), **settings}
    context = Context(**settings, progress=progress)
    with blaming(model):
        given = open_and_inspect(model, context)
        state = split_by_rank(State.of(given.analysis, given.source), plan.ranks)
        keep = plan.keep(state.original)
        original, _ = given.started(context)
        progress("removing")
        state = state.cut(keep, fold=plan.folds)
        state = Clean(keep_metadata=keep_metadata)(state, context)
        state = Evaluate()(state, context)
    return _told(Result(state, plan.recipe, original, given.analysis))


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
    return _told(Result(state, Recipe((step,), settings).document(), started, given.analysis))


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
    opening, running = parts(progress, [_OPENING, recipe.steps[0].effort])
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
    return _told(Result(state, recipe.document(), original, small.analysis))


def quantize(
    model: Any,
    to: str = "auto",
    *,
    data: Any = None,
    evaluation: Any = None,
    progress: Progress = silent,
    **options: Any,
) -> Result:
    """Store weights in fewer bits, and run on integers where that is faster.

        quantize("model.onnx", "int8", data="samples.npz").save("small.onnx")

    Args:
        model: as for `compress`; it is only read.
        to: the type, see `Quantize`.
        data: calibration data, no labels needed; None: inputs are made up where the type needs some.
        evaluation: samples that the result is compared on; None: a share of `data` is kept apart.
        progress: is called with what is being done.
        options: those of the steps `Quantize` and `Evaluate`, and of `Context`.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, DataError for data
    that does not fit.
    """
    recipe = _of_one_step(Quantize, {"type": to, **options})
    return run(recipe, model, data=data, evaluation=evaluation, progress=progress)


def sparsify(
    model: Any,
    sparsity: float | None = None,
    *,
    data: Any = None,
    evaluation: Any = None,
    progress: Progress = silent,
    **options: Any,
) -> Result:
    """Set the weights to zero that matter least; shapes and operators stay.

        sparsify("model.onnx", 0.8, data="samples.npz").save("sparse.onnx")
        sparsify("model.onnx", pattern="2:4", data="samples.npz")

    Args:
        model: as for `compress`; it is only read.
        sparsity: the share of the weights that becomes zero, see `Sparsify`.
        data: samples to fit to, no labels needed for most criteria; None: weights alone are looked at.
        evaluation: samples that the result is compared on; None: a share of `data` is kept apart.
        progress: is called with what is being done.
        options: those of the steps `Sparsify` and `Evaluate`, and of `Context`.

    Raises UsageError for options that make no sense, TargetError where an allowed drop cannot be kept, ModelError for a
    file that cannot be worked on, DataError for data that does not fit.
    """
    recipe = _of_one_step(Sparsify, {"sparsity": sparsity, **options})
    return run(recipe, model, data=data, evaluation=evaluation, progress=progress)


def _of_one_step(step: type[Step], options: Mapping[str, Any]) -> Recipe:
    """A step, then clean and evaluate, of options of any of them and of the context."""
    given: dict[Any, dict[str, Any]] = {step: {}, Evaluate: {}, Context: {}}
    known = [name for kind in given for name in options_of(kind)]
    for name, value in options.items():
        kind = next((kind for kind in given if name.replace("-", "_") in options_of(kind)), Context)
        given[kind][find_option(kind, name, known).name] = value
    steps = (step(**given[step]), Clean(keep_metadata=True), Evaluate(**given[Evaluate]))
    return Recipe(steps, given[Context])


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


__all__ = ["apply", "compress", "inspect", "quantize", "recover", "run", "score", "sensitivity", "sparsify", "train"]
