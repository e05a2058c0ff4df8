"""`onnxprune evaluate`: what a smaller model costs in quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import Presentation, examples, presentation_options, tell_damage
from onnxprune.cli.options import SectionCommand, check_timed, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import Evaluate


@click.command(
    "evaluate",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune evaluate model.onnx model.pruned.onnx --data test.npz --labels labels",
        "onnxprune evaluate model.onnx model.pruned.onnx --data test.npz --measure --strict",
        "onnxprune evaluate model.onnx --data test.npz --labels labels",
    ),
)
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path), required=False, metavar="[SMALLER]")
@fields(DataOptions, "data", "labels", section="")
@fields(Context, "metric", section="")
@fields(Evaluate, section="")
@fields(Context, "seed")
@presentation_options()
@fields(DataOptions, but=("data", "labels"))
@fields(Context, "providers", "threads", "latency_batch", "input_shape", "batch_axis", "custom_ops")
def command(original: Path, model: Path | None, shown: Presentation, **options: Any) -> None:
    """Compare SMALLER with ORIGINAL: the metric on labels, how often both agree, and how far the outputs are apart.

    Give samples that neither was fitted to; without --data inputs are made up, which says much less. Of ORIGINAL alone
    the metric on labelled data is printed.
    """
    with shown.progress() as progress:
        from onnxprune.pipeline.evaluate import evaluate
        from onnxprune.report import data as documents

        shown.check([original, *filter(None, (model,))])
        if model is None and options["labels"] is None:
            raise UsageError("one model alone is judged by labels: give --data and --labels, or a second model")
        settings = given(options, Context, Evaluate)
        check_timed(settings, settings.get("measure", False), "--measure")
        tell_missing(settings)
        data = DataOptions.from_command(options)
        data.check_alone()
        found = evaluate(original, model, data=data if data.data else None, progress=progress, **settings)

    def show() -> None:
        from onnxprune.report import terminal

        terminal.show_quality(found, original, model)

    shown.tell(documents.of_evaluation(found, original, model), show)
    tell_damage(found)
