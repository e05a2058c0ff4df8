"""`onnxprune quantize`: fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, Presentation, examples, presentation_options
from onnxprune.cli.options import EVALUATION, SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import Evaluate
from onnxprune.steps.quantize.step import Quantize


@click.command(
    "quantize",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune quantize model.onnx --data samples.npz",
        "onnxprune quantize model.onnx --to int8 --data samples.npz --measure -o small.onnx",
        "onnxprune quantize model.onnx --data samples.npz --keep-float stem.0 -v",
        "onnxprune quantize model.onnx --to int8-weights -o small.onnx",
        "onnxprune quantize small.onnx --to float",
    ),
)
@MODEL
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write; default: MODEL's name with .quantized.onnx.",
)
@fields(DataOptions, "data")
@fields(Quantize, alone=True, called={"type": "to"})
@fields(Context, "seed")
@presentation_options()
@fields(Evaluate)
@fields(DataOptions, but=("data",))
@fields(Context, "metric", "threads", "latency_batch")
@EVALUATION
@fields(Context, "input_shape", "batch_axis", "carry", "providers", "custom_ops", "unverified")
def command(
    model: Path, output: Path | None, to: str, evaluation: str | None, shown: Presentation, **options: Any
) -> None:
    """Store the weights of MODEL in fewer bits, and run it on integers where that is faster.

    A few hundred samples without labels say how large values get, and layers are fitted to what they give in float;
    there is no training. What the integers are depends on the processor: this one, or that of --providers.
    """
    with shown.progress() as progress:
        from onnxprune.pipeline.result import output_path
        from onnxprune.pipeline.run import quantize
        from onnxprune.support.files import check_targets

        target = output_path(model, output, "quantized")
        check_targets([model], target)
        shown.check([model], target)
        settings = given(options, Quantize, Evaluate, Context)
        tell_missing(settings)
        data = DataOptions.from_command(options)
        data.check_alone()
        result = quantize(
            model,
            to,
            data=data if data.data else None,
            evaluation=data.beside(evaluation),
            progress=progress,
            **settings,
        )
        result.save(target, progress=progress)
    shown.tell_result(result, model, target)
