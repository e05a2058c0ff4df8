"""`onnxprune recover`: win back the accuracy of a pruned file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import (
    JSON,
    MARKDOWN,
    MODEL,
    QUIET,
    REPORT,
    VERBOSITY,
    check_reports,
    examples,
    print_result,
    shared,
)
from onnxprune.cli.data_options import PROVIDERS, data_from, data_options


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
@shared(PROVIDERS)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything random.")
@shared(REPORT, MARKDOWN, JSON, QUIET, VERBOSITY)
def command(
    model: Path,
    like: Path,
    plan: Path | None,
    method: str,
    output: Path | None,
    report: Path | None,
    markdown: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,  # noqa: ARG001 (-v prints tracebacks)
    **options: Any,
) -> None:
    """Change the weights of the pruned MODEL so that its layers do what those of the model it was made from do.

    Needs a few hundred samples without labels, and no training. Shapes stay; a bias is added where there was none.
    Without --data, inputs are made up from the model's signature, which is worth much less.
    """
    from onnxprune.report.progress import progress as reporting

    with reporting(quiet=quiet) as progress:
        from onnxprune import pipeline
        from onnxprune.model import open_model
        from onnxprune.plan import Plan
        from onnxprune.recover import check_method
        from onnxprune.result import check_targets
        from onnxprune.runtime.providers import choose

        target = output or model.with_name(f"{model.stem}.recovered.onnx")
        check_targets([model, like, *filter(None, (plan,))], target)
        check_reports([model, like], target, report=report, markdown=markdown)
        check_method(method)
        seed = options["seed"]
        data = data_from(options, None if options["data"] is None else open_model(model), seed)
        providers, notes = choose(options["providers"].split(","))
        for note in notes:
            click.echo(f"note: {note}", err=True)
        result = pipeline.recover(
            model,
            like,
            plan=None if plan is None else Plan.read(plan),
            data=data,
            method=method,
            seed=seed,
            providers=providers,
            progress=progress,
        )
        result.save(target, seed=seed, progress=progress)
    print_result(result, model, target, as_json=as_json, quiet=quiet, verbose=True, report=report, markdown=markdown)
