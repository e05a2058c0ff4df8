"""`onnxprune to-torch`: from ONNX back to a plain torch module."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.base import JSON, MODEL, QUIET, VERBOSITY, Presentation, examples, option_group


@click.command(
    "to-torch", epilog=examples("onnxprune to-torch model.onnx -o net", "onnxprune to-torch model.onnx -o net --json")
)
@MODEL
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="The folder to write model.py and model.safetensors to.",
)
@option_group(JSON, QUIET, VERBOSITY)
def command(model: Path, output: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Write MODEL as a torch module: a Python file to read, change and train, and its weights.

    The file needs torch and safetensors, nothing of onnxprune. Its outputs are compared with those of ONNX Runtime
    before the folder takes its place. An operator that torch has nothing for is refused, with the name of its node.
    """
    shown = Presentation(None, None, as_json, quiet, verbose)
    with shown.progress() as progress:
        from onnxprune.conversion.to_torch.file import to_torch

        code = to_torch(model, output, progress=progress)

    from onnxprune.report import exporting

    shown.tell(exporting.of_torch_code(code, model, output), lambda: exporting.show_torch_code(code, output))
