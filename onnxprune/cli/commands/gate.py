"""`onnxprune gate`: hold models against budgets, for CI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import STDOUT, Presentation, examples, presentation_options, print_json, write_reports
from onnxprune.cli.options import fields, given
from onnxprune.data.options import DataOptions
from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.evaluation.gate.request import GateRequest, load_request
from onnxprune.evaluation.options import MeasureOptions

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.budgets.base import Budget
    from onnxprune.evaluation.gate.run import GateVerdict


class _Gate(click.Command):
    """The command with an option for each budget, which are looked up when they are needed only."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The budgets, then the rest."""
        from onnxprune.evaluation.gate.budgets.base import BUDGETS

        return [*(_option(BUDGETS[name]) for name in BUDGETS), *super().get_params(ctx)]


def _option(budget: Budget) -> click.Option:
    kind: dict[str, Any] = {"type": float} if budget.plain else {"metavar": "LIMIT"}
    said = f"{budget.summary.rstrip('.')}: {budget.written}"
    return click.Option([f"--{budget.name}"], multiple=budget.several, help=said, **kind)


_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Options as TOML; by default onnxprune.toml or pyproject.toml in the current folder.",
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
    cls=_Gate,
    epilog=examples(
        "onnxprune gate model.onnx --max-size 5MB --max-params 1.2M --opset 13-21",
        "onnxprune gate model.onnx --baseline original.onnx --min-agreement 0.99 --data samples.npz",
        "onnxprune gate 'models/*.onnx' --baseline baseline.json --max-size 101% --update-baseline",
    ),
)
@click.argument("models", nargs=-1)
@fields(GateRequest, "baseline", "update_baseline", "output_name", "latency_seconds")
@_CONFIG
@fields(MeasureOptions, section="")
@fields(DataOptions, section="Data")
@presentation_options(*_TOLD)
def command(
    config: Path | None,
    junit: Path | None,
    github: bool,
    shown: Presentation,
    **options: Any,
) -> None:
    """Check that MODELS, files or globs, keep their budgets.

    Budgets are options, or keys of [tool.onnxprune.gate] in pyproject.toml or of [gate] in onnxprune.toml; options win.
    Exit code 0: all hold, 1: one is broken, 2: one could not be checked, or wrong usage.
    """
    with _never_as_broken(), shown.progress() as progress:
        from onnxprune.evaluation.gate.budgets.base import BUDGETS
        from onnxprune.evaluation.gate.run import matched, run_gate
        from onnxprune.runtime.custom_ops import use_libraries

        several = [name.replace("-", "_") for name in BUDGETS if BUDGETS[name].several]
        budgets = {name.replace("-", "_"): options[name.replace("-", "_")] for name in BUDGETS}
        chosen = budgets | given(options, GateRequest) | {name: ",".join(options[name]) or None for name in several}
        request = load_request(chosen, config)
        use_libraries(request.custom_ops)
        models = [path for _, path in matched(request.models) if path]
        shown.check(models, junit)
        verdict = run_gate(request, progress)
    with _never_as_broken():
        _tell(
            verdict,
            github,
            as_json=shown.as_json,
            quiet=shown.quiet,
            markdown=shown.markdown == STDOUT,
        )
        _write(verdict, shown.report, shown.markdown, junit)
    click.get_current_context().exit(verdict.exit_code)


@contextlib.contextmanager
def _never_as_broken() -> Iterator[None]:
    """Exit code 1 is for broken budgets; whatever else goes wrong is 2."""
    try:
        yield
    except OnnxpruneError as error:
        raise UsageError(str(error)) from error


def _write(verdict: GateVerdict, report: Path | None, markdown: Path | None, junit: Path | None) -> None:
    """The files that were asked for."""
    from onnxprune.report import gate_formats as formats
    from onnxprune.support.files import staged_text

    write_reports(formats.to_dict(verdict), report, None)
    texts = ((markdown, formats.to_markdown), (junit, formats.to_junit))
    for path, text_of in texts:
        if path is not None and path != STDOUT:
            with staged_text(text_of(verdict), path):
                pass


def _tell(verdict: GateVerdict, github: bool, *, as_json: bool, quiet: bool, markdown: bool) -> None:
    """The text for standard output; `markdown`: as Markdown."""
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
