"""`onnxprune apply`: replay a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, OUTPUT, Presentation, examples, presentation_options
from onnxprune.cli.options import fields, given, tell_missing
from onnxprune.steps.base import Context
from onnxprune.steps.clean import Clean
from onnxprune.support.progress import parts


@click.command(
    "apply",
    epilog=examples(
        "onnxprune compress model.onnx --plan plan.json", "onnxprune apply model.onnx plan.json -o again.onnx"
    ),
)
@MODEL
@click.argument("plan", type=click.Path(path_type=Path))
@OUTPUT
@fields(Clean, "keep_metadata", section="")
@fields(Context, "input_shape", "providers", "custom_ops", "unverified", section="")
@presentation_options()
def command(
    model: Path,
    plan: Path,
    output: Path | None,
    keep_metadata: bool,
    shown: Presentation,
    **options: Any,
) -> None:
    """Remove from MODEL what PLAN says, as written by `onnxprune compress --plan`.

    Without recovery the file comes out byte for byte as the one that was written with the plan.
    """
    with shown.progress() as progress:
        working, writing = parts(progress, [20, 1])
        from onnxprune.pipeline import run as pipeline
        from onnxprune.pipeline.result import output_path
        from onnxprune.steps.plan import Plan

        target = output_path(model, output)
        shown.check([model, plan], target)
        settings = given(options, Context)
        tell_missing(settings)
        result = pipeline.apply(model, Plan.read(plan), keep_metadata=keep_metadata, progress=working, **settings)
        result.save(target, progress=writing)
    shown.tell_result(result, model, target)
