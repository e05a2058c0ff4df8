"""From a model to a result: run a recipe, or replay a plan."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from onnxprune.analysis.inspect import blaming, inspect
from onnxprune.analysis.select import select_groups
from onnxprune.analysis.states import offer_of, states_that_hold
from onnxprune.conversion.base import is_network
from onnxprune.data.split import hold_out
from onnxprune.errors import DamageWarning, DataError, ModelError
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
from onnxprune.steps.prune.split import split_by_rank
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.quantize.step import Quantize
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.state import State
from onnxprune.support.options import find_option, options_of
from onnxprune.support.progress import Progress, parts, silent

# Analysing and running the original take about as long as a step.
OPENING = 2.0
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
    opening, running = parts(progress, [OPENING, sum(step.effort for step in steps)])
    context = Context(**recipe.settings, progress=opening)
    given = open_and_inspect(model, context, data)
    with blaming(model):
        original, given = given.started(context)
        _offer_states(given, context)
        context = Sources(given.data, calibration, evaluation).into(context, recipe, given.analysis.model, given.sizes)
        for step in recipe.every():
            if isinstance(step, Prune):  # a name that fits nothing is refused before any work
                select_groups(given.analysis, step.only, step.skip)
        for step in steps:
            step.needs(context)
        state, context = _with_samples(State.of(given.analysis, given.source), recipe.every(), context, given.sizes)
        state = run_steps(steps, state, replace(context, progress=running))
    return warned(Result(state, recipe.document(), original, given.analysis))


def _offer_states(given: Given, context: Context) -> None:
    """A note where much more could go if states were resized."""
    states = {} if context.resize_states else states_that_hold(given.analysis)
    if states:
        meta = given.analysis.model.meta
        meta["notes"] = [*meta.get("notes", ()), offer_of(states)]


def warned(result: Result) -> Result:
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
    opening, working = parts(progress, [_EXPORTING, OPENING + sum(step.effort for step in recipe.steps)])
    if example_inputs is not None or is_network(model):
        from onnxprune.conversion.export import export

        model, progress = export(model, example_inputs, progress=opening).model, working
    return run(recipe, model, data=data, calibration=calibration, evaluation=evaluation, progress=progress)


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
    return warned(Result(state, plan.recipe, original, given.analysis))


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


__all__ = ["apply", "compress", "inspect", "quantize", "run", "sparsify"]
