"""`onnxprune recover`: win back the accuracy of a pruned file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, SEED, Telling, examples, shared, telling
from onnxprune.cli.data_options import PROVIDERS, data_options, providers_from
from onnxprune.data.options import data_from


@click.command(
    "recover",
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
    help="What was removed, as written by compress --plan; without it that is told from the weights.",
)
@click.option(
    "--method",
    default="reconstruct",
    show_default=True,
    metavar="NAME",
    help="reconstruct (least squares of every layer), batchnorm (mean and deviation of every channel), bias, "
    "or fold (no data needed).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write; default: MODEL's name with .recovered.onnx.",
)
@data_options
@shared(PROVIDERS, SEED)
@telling()
def command(
    model: Path,
    like: Path,
    plan: Path | None,
    method: str,
    output: Path | None,
    told: Telling,
    **options: Any,
) -> None:
    """Change the weights of the pruned MODEL so that its layers do what those of the model it was made from do.

    Needs a few hundred samples without labels, and no training. Shapes stay; a bias is added where there was none.
    Without --data, inputs are made up from the model's signature, which is worth much less.
    """
    with told.progress() as progress:
        from onnxprune.model.file import open_model
        from onnxprune.pipeline import run as pipeline
        from onnxprune.steps.plan import Plan
        from onnxprune.steps.recover.methods import check_method
        from onnxprune.support.files import check_targets

        target = output or model.with_name(f"{model.stem}.recovered.onnx")
        check_targets([model, like, *filter(None, (plan,))], target)
        told.check([model, like], target)
        check_method(method)
        seed = options["seed"]
        data = data_from(options, None if options["data"] is None else open_model(model), seed)
        result = pipeline.recover(
            model,
            like,
            plan=None if plan is None else Plan.read(plan),
            data=data,
            method=method,
            seed=seed,
            providers=providers_from(options["providers"]),
            progress=progress,
        )
        result.save(target, seed=seed, progress=progress)
    told.tell_result(result, model, target, verbose=True)
