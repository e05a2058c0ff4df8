"""`onnxprune compress`: the main job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import OUTPUT, Presentation, examples, presentation_options, tell_several
from onnxprune.cli.options import (
    CALIBRATION,
    EVALUATION,
    RUNNING,
    SectionCommand,
    check_timed,
    fields,
    given,
    tell_missing,
)
from onnxprune.cli.several import Job, Named, all_of, compress_each, named, named_pair, targets
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.steps.base import Context
from onnxprune.steps.clean import Clean
from onnxprune.steps.evaluate import Evaluate
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.quantize.step import Quantize
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.rewind import Rewind
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.train.step import Train
from onnxprune.support.progress import Progress, parts

if TYPE_CHECKING:
    from onnxprune.pipeline.result import Result

_KINDS = (Prune, Rewind, Recover, Train, Repeat, Sparsify, Quantize, Clean, Evaluate, Context)


@click.command(
    "compress",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune compress model.onnx --data samples.npz --samples 500",
        "onnxprune compress model.onnx small.onnx --data samples.npz --measure",
        "onnxprune compress model.onnx --ratio 0.5 --data samples.npz",
        "onnxprune compress model.onnx --only neurons --only 'layer3*' --dry-run -v",
        "onnxprune compress model.onnx -o small.onnx --round-to 8 --plan plan.json",
        "onnxprune compress model.onnx --target macs=0.4 --target size=5MB",
        "onnxprune compress model.onnx --target latency=0.6 --threads 2",
        "onnxprune compress model.onnx --target macs=0.3 --steps 4 --data samples.npz",
        "onnxprune compress model.onnx --target drop=0.01 --data samples.npz --labels y",
        "onnxprune compress model.onnx --data samples.npz --train 2",
        "onnxprune compress model.onnx --data samples.npz --quantize int8",
        "onnxprune compress model.onnx --recipe recipe.toml",
        "onnxprune compress '*.onnx' -o small/ --ratio 0.3 --jobs 2",
        "onnxprune compress encoder.onnx decoder.onnx --tie hidden=memory --data samples.npz -o small/",
        "onnxprune compress model.onnx --lossless",
    ),
)
@click.argument("model", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="MODEL... [OUTPUT]")
@OUTPUT
@fields(DataOptions, "data")
@fields(Prune, "ratio", "target", "criterion")
@fields(Recover)
@fields(Train, "epochs", section="", optional=True)
@fields(Quantize, "type", optional=True)
@click.option("--recipe", metavar="FILE", help="Steps and options as TOML, or the name of a recipe that is shipped.")
@click.option(
    "--tie",
    metavar="OUT=IN",
    multiple=True,
    help="Of two models, ENCODER DECODER: this output of the first goes into that input of the second, so both are "
    "compressed as one model and written as two.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Also write what was removed, for: onnxprune apply.")
@click.option("--dry-run", is_flag=True, help="Print the tables, write no model.")
@fields(Context, "seed")
@presentation_options()
@fields(Evaluate)
@fields(
    Prune,
    "scope",
    "ratios",
    "tilt",
    "tilts",
    "max_ratio",
    "min_units",
    "round_to",
    "low_rank",
    "no_guard",
    "lossless",
)
@fields(Repeat)
@fields(Prune, "only", "skip")
@fields(DataOptions, but=("data",))
@fields(Context, "metric", "loss", "threads", "latency_batch")
@fields(Train, but=("epochs",), section="Training")
@fields(Rewind, section="Training")
@fields(Sparsify, section="Sparsity", optional=True)
@fields(Quantize, but=("type",))
@EVALUATION
@CALIBRATION
@fields(Context, *RUNNING, "cache", "resume", "save_every")
@fields(Clean)
def command(
    model: tuple[Path, ...],
    output: Path | None,
    recipe: str | None,
    tie: tuple[str, ...],
    plan: Path | None,
    dry_run: bool,
    calibration: str | None,
    evaluation: str | None,
    shown: Presentation,
    **options: Any,
) -> None:
    """Remove the weakest units of MODEL and write what is left.

    Whole channels, neurons, heads and hidden units go, everywhere at once, so the result is a smaller dense model with
    the same inputs and outputs. It is checked in ONNX Runtime before it takes its place; MODEL is never touched.

    Several models, or a pattern like '*.onnx', go into a folder, --jobs of them at once; one that fails stops no other.
    With -o every name is a model, without it the last of several is the output.
    """
    with shown.progress() as progress:
        found = named_pair(model, output) if tie else named(model, output)
        steps = _recipe(recipe, given(options, *_KINDS))
        check_timed(
            steps.settings, any(_is_timed(step) for step in steps.every()), "--measure, or --target latency=0.8"
        )
        data = DataOptions.from_command(options)
        data.check_alone()
        tell_missing(steps.settings)
        here = {**_here(steps.settings), **({"unverified": True} if dry_run else {})}  # nothing to prove then
        samples = {
            "data": data if data.data else None,
            "calibration": data.beside(calibration),
            "evaluation": data.beside(evaluation),
        }
        job = Job(found.models[0], None, steps, samples, here)
        if tie:
            result, target = _pair(found, tie, plan, dry_run, job, shown, progress)
        elif found.several:
            document, interrupted = _each(found, plan, dry_run, job, shown, progress)
        else:
            result, target = _one(found, plan, dry_run, job, shown, progress)
    if found.several:
        tell_several(shown, document, interrupted=interrupted)
    else:
        shown.tell_result(result, all_of(found.models), target)


def _pair(
    found: Named,
    tie: tuple[str, ...],
    plan: Path | None,
    dry_run: bool,
    job: Job,
    shown: Presentation,
    progress: Progress,
) -> tuple[Result, Path | None]:
    """Compress two models as one; what came of both, and where they were written."""
    from onnxprune.pipeline.pair import run_pair
    from onnxprune.pipeline.result import output_path

    if plan is not None:
        raise UsageError("--plan says what was removed from one model, and two are compressed as one; drop it")
    folder = found.output
    if folder is not None and not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    goals = [output_path(model, folder) for model in found.models]
    for goal in goals:
        shown.check(found.models, None if dry_run else goal)
    working, writing = parts(progress, [20, 1])
    first, second = found.models
    pair = run_pair(job.recipe, first, second, tie, progress=working, **job.samples, **job.settings)
    if dry_run:
        return pair.result, None
    pair.save(goals[0], goals[1], progress=writing)
    return pair.result, all_of(goals)


def _one(
    found: Named, plan: Path | None, dry_run: bool, job: Job, shown: Presentation, progress: Progress
) -> tuple[Result, Path | None]:
    """Compress one model; what came of it, and where it was written."""
    from onnxprune.pipeline.result import output_path
    from onnxprune.pipeline.run import run

    target = None if dry_run else output_path(job.model, found.output)
    shown.check([job.model], target, plan)
    working, writing = parts(progress, [20, 1])
    result = run(job.recipe, job.model, progress=working, **job.samples, **job.settings)
    if target is not None:
        result.save(target, plan=plan, progress=writing)
    elif plan is not None:
        result.plan.save(plan)
    return result, target


def _each(
    found: Named, plan: Path | None, dry_run: bool, pattern: Job, shown: Presentation, progress: Progress
) -> tuple[dict[str, Any], bool]:
    """Compress several models; the document of all, and whether it was interrupted."""
    if plan is not None:
        raise UsageError("--plan says what was removed from one model, and several are to be compressed; drop it")
    if found.output is None and not dry_run:
        raise UsageError("say which folder takes the small models: -o small/")
    shown.check(found.models)
    goals = [None] * len(found.models) if dry_run or found.output is None else targets(found.models, found.output)
    at_once = pattern.recipe.settings.get("jobs", 1)
    alone = replace(pattern, settings={**pattern.settings, "jobs": 1})
    jobs = [replace(alone, model=model, target=goal) for model, goal in zip(found.models, goals, strict=True)]
    return compress_each(jobs, at_once, progress)


def _recipe(name: str | None, options: dict[str, Any]) -> Any:
    """The recipe that the command line represents. Raises UsageError for options that exclude each other."""
    from onnxprune.pipeline.recipe import Recipe

    if "ratio" in options and "target" in options:
        raise UsageError("--ratio and --target both say how much to remove; drop one of them")
    return Recipe.of_options(options) if name is None else Recipe.read(name).changed(options)


def _is_timed(step: Any) -> bool:
    if isinstance(step, Evaluate):
        return step.measure
    return isinstance(step, Prune) and (step.scope == "latency" or any("latency" in each for each in step.target))


def _here(settings: Any) -> dict[str, Any]:
    """Settings of this machine, which belong to no recipe."""
    from onnxprune.support.cache import default_cache

    return {} if "cache" in settings else {"cache": default_cache()}
