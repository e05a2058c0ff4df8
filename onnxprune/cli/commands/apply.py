"""`onnxprune apply`: replay a plan."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.base import (
    JSON,
    KEEP_METADATA,
    MARKDOWN,
    MODEL,
    OUTPUT,
    QUIET,
    REPORT,
    VERBOSITY,
    check_reports,
    examples,
    print_result,
    shared,
)


@click.command(
    "apply",
    epilog=examples(
        "onnxprune compress model.onnx --plan plan.json", "onnxprune apply model.onnx plan.json -o again.onnx"
    ),
)
@MODEL
@click.argument("plan", type=click.Path(path_type=Path))
@shared(OUTPUT, KEEP_METADATA, REPORT, MARKDOWN, JSON, QUIET, VERBOSITY)
def command(
    model: Path,
    plan: Path,
    output: Path | None,
    keep_metadata: bool,
    report: Path | None,
    markdown: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Remove from MODEL what PLAN says, as written by `onnxprune compress --plan`.

    Without recovery the file comes out byte for byte as the one that was written with the plan.
    """
    from onnxprune.report.progress import progress as reporting

    with reporting(quiet=quiet) as progress:
        from onnxprune import pipeline
        from onnxprune.plan import Plan
        from onnxprune.result import default_output

        target = output or default_output(model)
        check_reports([model, plan], target, report=report, markdown=markdown)
        result = pipeline.apply(model, Plan.read(plan), keep_metadata=keep_metadata, progress=progress)
        result.save(target, progress=progress)
    print_result(result, model, target, as_json=as_json, quiet=quiet, verbose=verbose, report=report, markdown=markdown)
