"""`onnxprune score`: how much each unit matters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import JSON, MODEL, QUIET, VERBOSITY, examples, option_group, print_json
from onnxprune.cli.options import SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.steps.base import Context
from onnxprune.steps.prune.step import Prune

_FORMATS = (".csv", ".json")


@click.command(
    "score",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune score model.onnx --criterion group-l2 --plot scores.svg",
        "onnxprune score model.onnx --criterion 'group-l2*0.7+cosine*0.3' -o scores.csv",
        "onnxprune score model.onnx --criterion obs --data samples.npz --samples 256 --json",
    ),
)
@MODEL
@fields(Prune, "criterion")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write every score here: .csv, or .json.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write how they are spread in each group here: .svg.")
@click.option("--csv", "as_csv", is_flag=True, help="Every score as CSV on standard output, no table.")
@fields(DataOptions, "data")
@fields(Context, "seed")
@option_group(JSON, QUIET, VERBOSITY)
@fields(Prune, "only", "skip")
@fields(DataOptions, but=("data",))
@fields(Context, "loss", "input_shape", "batch_axis", "carry", "memory", "providers", "custom_ops", "device")
def command(
    model: Path,
    criterion: str | None,
    output: Path | None,
    plot: Path | None,
    as_csv: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,  # noqa: ARG001 (-v prints tracebacks)
    only: tuple[str, ...],
    skip: tuple[str, ...],
    **options: Any,
) -> None:
    """Score the units of MODEL, to see what compress would take first; the higher, the more a unit matters.

    `onnxprune list criteria` lists what to score by; with --data it is what compress takes by default. Without, it is
    group-l2: compress makes up inputs then, and scores on those.
    """
    from onnxprune.report.progress import progress as reporting

    _check(output, plot, both=as_csv and as_json)
    with reporting(quiet=quiet) as progress:
        from onnxprune.report import scores
        from onnxprune.support.files import check_targets

        check_targets([model], output, plot)
        chosen = Prune(criterion=criterion, only=only, skip=skip)
        settings = given(options, Context)
        tell_missing(settings)
        found = _score(model, chosen, DataOptions.from_command(options), settings, progress)
        _write(found, output, plot)
    if as_json:
        print_json(found)
    elif as_csv:
        click.echo(scores.as_csv(found), nl=False)
    elif not quiet:
        scores.show_scores(found)
        for path in filter(None, (output, plot)):
            click.echo(f"wrote {path}")


def _score(
    model: Path, options: Prune, data: DataOptions, settings: dict[str, Any], progress: Callable[[str], None]
) -> dict[str, Any]:
    """The document with the scores."""
    from onnxprune.analysis.select import select_groups
    from onnxprune.pipeline.opening import open_and_inspect
    from onnxprune.report.scores import of_scores
    from onnxprune.steps.prune.score import check_data, score_with

    criterion = options.scored_by(data=data.data is not None)
    if data.data is None:
        data.check_alone()
        check_data(criterion, None)  # before any work
    context = Context(**settings, progress=progress)
    found = open_and_inspect(model, context, data if data.data else None)
    found = found if data.data is None else found.fed(context)
    groups = select_groups(found.analysis, options.only, options.skip)
    progress("scoring")
    scores = score_with(replace(context, data=found.data), found.analysis, groups, criterion)
    source = None if found.data is None else found.data.source
    return of_scores(scores, groups, criterion, model, data=source, seed=context.seed)


def _check(output: Path | None, plot: Path | None, *, both: bool) -> None:
    """Raises UsageError for options that contradict each other and for files of another format."""
    if both:
        raise UsageError("--csv and --json both want standard output; drop one of them, or use -o for a file")
    if output is not None and output.suffix.lower() not in _FORMATS:
        raise UsageError(f"scores are written as {' or '.join(_FORMATS)}, not '{output.suffix}': {output}")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise UsageError(f"the plot is written as .svg, not '{plot.suffix}': {plot}")


def _write(found: dict[str, Any], output: Path | None, plot: Path | None) -> None:
    """Both files appear, or none."""
    from onnxprune.report.data import to_json
    from onnxprune.report.score_plot import plot as drawn
    from onnxprune.report.scores import as_csv
    from onnxprune.support.files import staged_text

    with contextlib.ExitStack() as stack:
        if output is not None:
            text = as_csv(found) if output.suffix.lower() == ".csv" else to_json(found) + "\n"
            stack.enter_context(staged_text(text, output))
        if plot is not None:
            stack.enter_context(staged_text(drawn(found), plot))
