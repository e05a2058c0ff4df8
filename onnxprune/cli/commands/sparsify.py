"""`onnxprune sparsify`: zeros in place of weights."""

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
from onnxprune.steps.sparsify.step import Sparsify


@click.command(
    "sparsify",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune sparsify model.onnx --data samples.npz",
        "onnxprune sparsify model.onnx --sparsity 0.8 --data samples.npz -o sparse.onnx",
        "onnxprune sparsify model.onnx --pattern 2:4 --data samples.npz",
        "onnxprune sparsify model.onnx --sparsity-drop 0.01 --sparsity 0.9 --data samples.npz --labels y",
        "onnxprune sparsify model.onnx --weight-criterion lamp --keep-dense head -v",
    ),
)
@MODEL
@output_option("sparse")
@fields(DataOptions, "data")
@fields(Sparsify, alone=True)
@fields(Context, "seed")
@presentation_options()
@fields(Evaluate)
@fields(DataOptions, but=("data",))
@fields(Context, "metric", "loss", "device", "threads", "latency_batch")
@EVALUATION
@fields(Context, "input_shape", "batch_axis", "carry", "memory", "providers", "custom_ops", "unverified")
def command(model: Path, output: Path | None, evaluation: str | None, shown: Presentation, **options: Any) -> None:
    """Set the weights of MODEL to zero that matter least; shapes and operators stay.

    A few hundred samples without labels are enough: the weights that stay are fitted to what each layer gave before;
    there is no training. Zeros make a file smaller once it is zipped; few runtimes are faster for them.
    """
    run_one_step("sparsify", model, (output, "sparse"), shown, options, given(options, Sparsify), evaluation)
