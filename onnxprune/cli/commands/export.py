"""`onnxprune export`: from torch, Keras, TensorFlow and scikit-learn to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import JSON, QUIET, VERBOSITY, Presentation, examples, option_group
from onnxprune.cli.options import fields, given
from onnxprune.conversion.base import ExportOptions


@click.command(
    "export",
    epilog=examples(
        "onnxprune export package.net:make -o net.onnx",
        "onnxprune export package.net:make --example images:2x3x224x224 --dynamic images:0=batch,2=h,3=w -o net.onnx",
        "onnxprune export package.net:make --weights best.pth --keep-batchnorm -o net.onnx",
        "onnxprune export net.pt2 -o net.onnx",
        "onnxprune export net.keras -o net.onnx",
    ),
)
@click.argument("source")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The ONNX file to write.", metavar="FILE"
)
@fields(ExportOptions)
@option_group(JSON, QUIET, VERBOSITY)
def command(source: str, output: Path, as_json: bool, quiet: bool, verbose: bool, **options: Any) -> None:
    """Write SOURCE as ONNX: a network of torch, Keras, TensorFlow or scikit-learn.

    SOURCE is package.module:function, a function that returns the network, or it and example inputs; or a file: .pt2,
    .keras, .h5, .tflite; or a folder: a SavedModel, a model of transformers or timm. The outputs of both are compared,
    at two sizes where axes are dynamic, before the file takes its place.
    """
    shown = Presentation(None, None, as_json, quiet, verbose)
    with shown.progress() as progress:
        from onnxprune.conversion.export import export

        shown.check([Path(source)], output)
        exported = export(source, progress=progress, **given(options, ExportOptions))
        exported.save(output)

    from onnxprune.report import exporting

    shown.tell(exporting.of_export(exported, source, output), lambda: exporting.show_export(exported, output))
