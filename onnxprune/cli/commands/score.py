"""`onnxprune score`: how much each unit matters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import JSON, MODEL, ONLY, QUIET, SEED, SKIP, VERBOSITY, examples, print_json, shared
from onnxprune.cli.complete import criterion_names
from onnxprune.cli.data_options import DEVICE, LOSS, PROVIDERS, data_options
from onnxprune.data.options import data_from
from onnxprune.errors import UsageError

_FORMATS = (".csv", ".json")


@click.command(
    "score",
    epilog=examples(
        "onnxprune score model.onnx --criterion l2 --plot scores.svg",
        "onnxprune score model.onnx --criterion 'l2*0.7+cosine*0.3' -o scores.csv",
        "onnxprune score model.onnx --criterion obs --data samples.npz --samples 256 --json",
    ),
)
@MODEL
@click.option(
    "--criterion",
    default="l1",
    show_default=True,
    shell_complete=criterion_names,
    help="A name, or like l2*0.7+random*0.3.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write every score here: .csv, or .json.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write how they are spread in each group here: .svg.")
@shared(ONLY, SKIP, SEED)
@click.option("--csv", "as_csv", is_flag=True, help="Every score as CSV on standard output, no table.")
@data_options
@shared(PROVIDERS, LOSS, DEVICE, JSON, QUIET, VERBOSITY)
def command(
    model: Path,
    criterion: str,
    output: Path | None,
    plot: Path | None,
    as_csv: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,  # noqa: ARG001 (-v prints tracebacks)
    **options: Any,
) -> None:
    """Score the units of MODEL, to see what compress would take first; the higher, the more a unit matters.

    `onnxprune criteria` lists what to score by.
    """
    from onnxprune.report.progress import progress as reporting

    _check(output, plot, both=as_csv and as_json)
    with reporting(quiet=quiet) as progress:
        from onnxprune.report import scores
        from onnxprune.support.files import check_targets

        check_targets([model], output, plot)
        found, notes = _score(model, criterion, options, progress)
        _write(found, output, plot)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(found)
    elif as_csv:
        click.echo(scores.as_csv(found), nl=False)
    elif not quiet:
        scores.show_scores(found)
        for path in filter(None, (output, plot)):
            click.echo(f"wrote {path}")


def _score(
    model: Path, criterion: str, options: dict[str, Any], progress: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """The document with the scores, and what a person should be told."""
    from onnxprune.analysis.select import select
    from onnxprune.pipeline import run as pipeline
    from onnxprune.report.scores import of_scores
    from onnxprune.runtime.providers import choose
    from onnxprune.steps.prune import score as scoring
    from onnxprune.steps.prune.criteria.expression import resolve

    chosen = resolve(criterion)
    if options["data"] is None:
        scoring.check_data(chosen, None)  # before any work
    progress("analysing")
    analysis = pipeline.inspect(model)
    groups = select(analysis, options["only"], options["skip"])
    data = data_from(options, analysis.model, options["seed"])
    providers, notes = choose(options["providers"].split(",")) if data is not None else ([], [])
    progress("scoring")
    how = {name: options[name] for name in ("seed", "loss", "device")}
    scores = scoring.score_model(analysis, groups, criterion, data, providers=providers, progress=progress, **how)
    source = None if data is None else data.source
    return of_scores(scores, groups, chosen, model, data=source, seed=options["seed"]), notes


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
