"""`onnxprune recover`: win back the accuracy of a pruned file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, Presentation, examples, output_option, presentation_options
from onnxprune.cli.options import SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.steps.base import Context
from onnxprune.support.progress import parts


@click.command(
    "recover",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune recover model.onnx --like whole.onnx --data samples.npz --samples 500",
        "onnxprune recover model.onnx --like whole.onnx --plan plan.json --data samples.npz -o better.onnx",
        "onnxprune recover model.onnx --like whole.onnx --data images/ --method batchnorm",
    ),
)
@MODEL
@click.option("--like", required=True, type=click.Path(path_type=Path), help="The model that MODEL was made from.")
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="What was removed, as written by compress --plan; without it that is found from the weights.",
)
@click.option(
    "--method",
    default="reconstruct",
    show_default=True,
    metavar="NAME",
    help="See: onnxprune list recovery; fold needs no data.",
)
@output_option("recovered")
@fields(DataOptions, "data")
@fields(Context, "seed")
@presentation_options()
@fields(DataOptions, but=("data",))
@fields(Context, "input_shape", "batch_axis", "carry", "memory", "providers", "custom_ops", "unverified")
def command(
    model: Path,
    like: Path,
    plan: Path | None,
    method: str,
    output: Path | None,
    shown: Presentation,
    **options: Any,
) -> None:
    """Change the weights of the pruned MODEL so that its layers do what those of the model it was made from do.

    Needs a few hundred samples without labels, and no training. Shapes stay; a bias is added where there was none.
    Without --data, inputs are made up from the model's signature, which is worth much less.
    """
    with shown.progress() as progress:
        working, writing = parts(progress, [20, 1])
        from onnxprune.pipeline.beside import recover
        from onnxprune.pipeline.result import output_path
        from onnxprune.steps.plan import Plan
        from onnxprune.steps.recover.step import Recover
        from onnxprune.support.files import check_targets

        target = output_path(model, output, "recovered")
        check_targets([model, like, *filter(None, (plan,))], target)
        shown.check([model, like], target)
        Recover(method)
        settings = given(options, Context)
        tell_missing(settings)
        data = DataOptions.from_command(options)
        data.check_alone()
        result = recover(
            model,
            like,
            plan=None if plan is None else Plan.read(plan),
            data=data if data.data else None,
            method=method,
            progress=working,
            **settings,
        )
        result.save(target, progress=writing)
    shown.tell_result(result, model, target, verbose=True)
