"""`onnxprune quantize`: fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, Presentation, examples, output_option, presentation_options
from onnxprune.cli.one_step import run_one_step
from onnxprune.cli.options import EVALUATION, SectionCommand, fields, given
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
@output_option("quantized")
@fields(DataOptions, "data")
@fields(Quantize, alone=True, called={"type": "to"})
@fields(Context, "seed")
@presentation_options()
@fields(Evaluate)
@fields(DataOptions, but=("data",))
@fields(Context, "metric", "threads", "latency_batch")
@EVALUATION
@fields(Context, "input_shape", "batch_axis", "carry", "memory", "providers", "custom_ops", "unverified")
def command(
    model: Path, output: Path | None, to: str, evaluation: str | None, shown: Presentation, **options: Any
) -> None:
    """Store the weights of MODEL in fewer bits, and run it on integers where that is faster.

    A few hundred samples without labels say how large values get, and layers are fitted to what they give in float;
    there is no training. What the integers are depends on the processor: this one, or that of --providers.
    """
    settings = {"to": to, **given(options, Quantize)}
    run_one_step("quantize", model, (output, "quantized"), shown, options, settings, evaluation)
