"""`onnxprune gate`: hold models against budgets, for CI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import STDOUT, Telling, examples, print_json, shared, telling, write_reports
from onnxprune.cli.options import fields
from onnxprune.data.options import DataOptions
from onnxprune.errors import OnnxpruneError, UsageError

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.run import Verdict

_BUDGETS = (
    click.option("--max-size", metavar="SIZE", help="Bytes on disk with external data: 5MB, 5MiB, 101% of --baseline."),
    click.option("--max-params", metavar="NUMBER", help="Parameters: 1.2M, 101% of --baseline."),
    click.option("--max-macs", metavar="NUMBER", help="Multiply-accumulates per sample: 3G, 101% of --baseline."),
    click.option("--max-latency", metavar="TIME", help="Median of a run: 10ms, 1.5s."),
    click.option("--max-latency-ratio", type=float, help="Time of a run over that of --baseline."),
    click.option("--min-metric", type=float, help="The metric on --data."),
    click.option("--max-drop", type=float, help="How much worse than --baseline the metric may be."),
    click.option("--min-agreement", type=float, help="Share of --data with the same arg-max as the model --baseline."),
    click.option("--allowed-ops", multiple=True, metavar="PATTERNS", help="Operators: Conv,Relu,com.microsoft:*"),
    click.option("--opset", metavar="VERSIONS", help="Of the standard operators: 17, 13-21, >=13."),
)
_HOW = (
    click.option(
        "--baseline", type=click.Path(path_type=Path), help="A model, or a .json file of numbers to compare with."
    ),
    click.option("--update-baseline", is_flag=True, default=None, help="Write the numbers, if all budgets hold."),
    click.option(
        "--metric", metavar="NAME", help="accuracy, top5, agreement, kl, cosine, snr or module:function; fits the data."
    ),
    click.option("--output-name", metavar="NAME", help="The output for the metric; by default the first of floats."),
    click.option("--providers", metavar="NAMES", help="Execution providers by preference: cuda,cpu; cpu by default."),
    click.option("--threads", type=int, help="For latency: of one operator; 1 by default."),
    click.option("--latency-batch", type=int, help="For latency: samples at a time; 1 by default."),
    click.option("--latency-seconds", type=float, help="For latency: how long to measure each model; 2 by default."),
    click.option("--seed", type=int, help="Of made-up inputs; 0 by default."),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="Options as TOML; by default onnxprune.toml or pyproject.toml in the current folder.",
    ),
)
_TOLD = (
    click.option("--junit", type=click.Path(path_type=Path), help="Also write JUnit XML."),
    click.option(
        "--github",
        is_flag=True,
        envvar="GITHUB_ACTIONS",
        help="Annotations, and a step summary; by default where GitHub runs it.",
    ),
)


@click.command(
    "gate",
    epilog=examples(
        "onnxprune gate model.onnx --max-size 5MB --max-params 1.2M --opset 13-21",
        "onnxprune gate model.onnx --baseline original.onnx --min-agreement 0.99 --data samples.npz",
        "onnxprune gate 'models/*.onnx' --baseline baseline.json --max-size 101% --update-baseline",
    ),
)
@click.argument("models", nargs=-1)
@shared(*_BUDGETS, *_HOW)
@fields(DataOptions, section="Data")
@telling(*_TOLD)
def command(
    config: Path | None,
    junit: Path | None,
    github: bool,
    told: Telling,
    **given: Any,
) -> None:
    """Check that MODELS, files or globs, keep their budgets.

    Budgets are options, or keys of [tool.onnxprune.gate] in pyproject.toml or of [gate] in onnxprune.toml; options win.
    Exit code 0: all hold, 1: one is broken, 2: one could not be checked, or wrong usage.
    """
    with _never_as_broken(), told.progress() as progress:
        from onnxprune.data.options import data_from
        from onnxprune.evaluation.gate.request import load_request
        from onnxprune.evaluation.gate.run import matched, run

        given["allowed_ops"] = ",".join(given["allowed_ops"]) or None
        request = load_request(given, config)
        models = [path for _, path in matched(request.models) if path]
        told.check(models, junit)
        verdict = run(request, lambda model: data_from(request.data_options, model, request.seed), progress)
    with _never_as_broken():
        _tell(verdict, github, as_json=told.as_json, quiet=told.quiet, markdown=told.markdown == STDOUT)
        _write(verdict, told.report, told.markdown, junit)
    click.get_current_context().exit(verdict.exit_code)


@contextlib.contextmanager
def _never_as_broken() -> Iterator[None]:
    """Exit code 1 is for broken budgets; whatever else goes wrong is 2."""
    try:
        yield
    except OnnxpruneError as error:
        raise UsageError(str(error)) from error


def _write(verdict: Verdict, report: Path | None, markdown: Path | None, junit: Path | None) -> None:
    """The files that were asked for."""
    from onnxprune.report import gate_formats as formats
    from onnxprune.support.files import staged_text

    write_reports(formats.to_dict(verdict), report, None)
    texts = ((markdown, formats.to_markdown), (junit, formats.to_junit))
    for path, text_of in texts:
        if path is not None and path != STDOUT:
            with staged_text(text_of(verdict), path):
                pass


def _tell(verdict: Verdict, github: bool, *, as_json: bool, quiet: bool, markdown: bool) -> None:
    """What goes to standard output; `markdown`: as Markdown."""
    from onnxprune.report import gate_formats as formats
    from onnxprune.report.terminal import console

    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        _add_summary(Path(summary), formats.to_markdown(verdict) + "\n")
    if as_json:
        print_json(formats.to_dict(verdict))
    elif markdown:
        click.echo(formats.to_markdown(verdict))
    elif not quiet or verdict.exit_code:
        out = console()
        out.print(formats.to_table(verdict))
        out.print(f"\n{verdict.summary}", soft_wrap=True)
        if verdict.updated is not None:
            out.print(f"wrote {verdict.updated}", style="bold", soft_wrap=True)
    for line in formats.to_annotations(verdict) if github else ():
        click.echo(line, err=as_json or markdown)


def _add_summary(path: Path, text: str) -> None:
    """A summary that cannot be written (the file is outside of a container, say) must not hide the verdict."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        click.echo(f"onnxprune: no step summary, {path} cannot be written: {error.strerror or error}", err=True)
