"""One trial: run a recipe on the model, step by step, so that a hopeless one ends after its cheap part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256

from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.search.workbench import Made, Workbench
from onnxprune.steps.base import Step
from onnxprune.steps.clean import Clean
from onnxprune.steps.evaluate import Evaluate
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.train.step import Train
from onnxprune.support.progress import Progress, parts

# Called after a step with what there is so far, and which parts are over: "cut": no later step removes units;
# "cheap": what comes next trains.
Early = Callable[[Made, str], None]


def make(bench: Workbench, recipe: Recipe, progress: Progress, early: Early = lambda _, __: None) -> Made:
    """Run the steps of a recipe on the model; `early` may raise to end it.

    Raises what the steps raise.
    """
    steps = _steps(recipe)
    state = bench.state()
    context = bench.context
    last_cut = max((at for at, step in enumerate(steps) if _has(step, Prune)), default=-1)
    first_training = next((at for at, step in enumerate(steps) if _has(step, Train)), len(steps))
    for at, (step, watcher) in enumerate(zip(steps, parts(progress, [each.effort for each in steps]), strict=True)):
        if at == first_training and at:
            early(Made(bench, recipe, state), "cheap")
        state = step(state, replace(context, following=tuple(steps[at + 1 :]), progress=watcher))
        if at == last_cut and at < len(steps) - 1:
            early(Made(bench, recipe, state), "cut")
    return Made(bench, recipe, state)


def _steps(recipe: Recipe) -> list[Step]:
    """As `compress` runs them, but for the evaluation, of which objectives take care."""
    found = [step for step in recipe.steps if not isinstance(step, Evaluate)]
    return found if any(isinstance(step, Clean) for step in found) else [*found, Clean()]


def _has(step: Step, kind: type[Step]) -> bool:
    return any(isinstance(each, kind) for each in _inside(step))


def _inside(step: Step) -> Iterator[Step]:
    yield step
    if isinstance(step, Repeat):
        yield from step.steps


def fingerprint(made: Made) -> str:
    """Of the cut, and of what its recipe does besides pruning: candidates with the same come out the same."""
    total = sha256()
    for atom, mask in made.state.left.items():
        group = next(group.id for group in made.bench.analysis.groups if group.atom is atom)
        total.update(f"{group} {mask.tobytes().hex()}".encode())
    rest = [table for table in made.recipe.document()["step"] if table["step"] != "prune"]
    total.update(repr(rest).encode())
    return total.hexdigest()[:32]
