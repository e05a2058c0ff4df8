"""`onnxprune train`: fine-tune or distil a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, Presentation, examples, output_option, presentation_options
from onnxprune.cli.options import EVALUATION, SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.steps.base import Context
from onnxprune.steps.train.step import Train
from onnxprune.support.progress import parts

_FIRST = ("epochs", "learning_rate", "batch_size")


@click.command(
    "train",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune train model.onnx --teacher whole.onnx --data samples.npz",
        "onnxprune train model.onnx --data samples.npz --labels labels --epochs 2 -o tuned.onnx",
        "onnxprune train model.onnx --teacher whole.onnx --data samples.npz --minutes 0.1 --resume checkpoints",
        "onnxprune train model.onnx --data samples.npz --labels labels --optimizer sgd --learning-rate 0.01",
    ),
)
@MODEL
@click.option(
    "--teacher", type=click.Path(path_type=Path), help="The model that MODEL was made from; it needs no labels."
)
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="What was removed from the teacher, as written by compress --plan; else found from equal weights.",
)
@output_option("trained")
@fields(DataOptions, "data", "labels", section="")
@fields(Train, *_FIRST, alone=True)
@fields(Context, "seed")
@presentation_options()
@fields(Train, but=_FIRST, alone=True)
@fields(DataOptions, but=("data", "labels", "batch"))
@EVALUATION
@fields(Context, "loss", "metric")
@fields(
    Context,
    "input_shape",
    "batch_axis",
    "carry",
    "memory",
    "providers",
    "custom_ops",
    "unverified",
    "device",
    "jobs",
    "resume",
    "save_every",
)
def command(
    model: Path,
    teacher: Path | None,
    plan: Path | None,
    output: Path | None,
    evaluation: str | None,
    shown: Presentation,
    **options: Any,
) -> None:
    """Train MODEL: fine-tune it on labels, distil it from the model that it was made from, or both.

    The weights go back into the same graph, with their names, types and shapes. Some of the samples are kept apart to
    evaluate on, and the result is never worse on those than MODEL.
    """
    with shown.progress() as progress:
        working, writing = parts(progress, [20, 1])
        from onnxprune.pipeline.beside import train
        from onnxprune.steps.plan import Plan
        from onnxprune.support.files import check_targets

        target = output or model.with_name(f"{model.stem}.trained.onnx")
        sources = [model, *filter(None, (teacher, plan))]
        check_targets(sources, target)
        shown.check(sources, target)
        if plan is not None and teacher is None:
            raise UsageError("--plan says what was removed from a teacher; add --teacher")
        settings = given(options, Train, Context)
        Train(**given(options, Train))
        tell_missing(settings)
        data = DataOptions.from_command(options)
        data.check_alone()
        result = train(
            model,
            data=data if data.data else None,
            teacher=teacher,
            plan=None if plan is None else Plan.read(plan),
            evaluation=data.beside(evaluation),
            progress=working,
            **settings,
        )
        result.save(target, progress=writing)
    shown.tell_result(result, model, target)
