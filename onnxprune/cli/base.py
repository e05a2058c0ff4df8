"""Options, examples in help and printing, which the commands share."""

from __future__ import annotations

import functools
import logging
import shlex
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxprune.support.processes import is_first_process

if TYPE_CHECKING:
    from onnxprune.evaluation.quality import Quality
    from onnxprune.pipeline.result import Result

VERBOSE = "onnxprune.verbose"
ARGUMENTS = "onnxprune.arguments"

Command = TypeVar("Command", bound=Callable[..., Any])


def _remember_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """For the error handler: tracebacks, and what libraries have to say, are printed only on request."""
    from onnxprune.errors import DamageWarning

    ctx.meta[VERBOSE] = value
    warnings.simplefilter("ignore", DamageWarning)  # commands say it themselves
    if not value:
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    return value


MODEL = click.argument("model", type=click.Path(path_type=Path))
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File or folder to write to; by default MODEL's name with .pruned.onnx.",
)


def output_option(done: str) -> Callable[[Command], Command]:
    """The option -o of a command whose results are called `model.<done>.onnx`."""
    said = f"Where to write; default: MODEL's name with .{done}.onnx."
    return click.option("-o", "--output", type=click.Path(path_type=Path), help=said)


JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, no tables.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
VERBOSITY = click.option(
    "-v", "--verbose", is_flag=True, callback=_remember_verbose, help="Print every group; tracebacks of bugs."
)
REPORT = click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Also write a report, one HTML file: report.html."
)
MARKDOWN = click.option(
    "--markdown",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Also write it as Markdown, for pull requests; -: on standard output, no tables.",
)
STDOUT = Path("-")


def option_group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order by --help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def examples(*lines: str) -> str:
    """The end of a command's help; click leaves the line ends of a paragraph that begins with a backspace alone."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


@dataclass(frozen=True)
class Presentation:
    """How a command tells what came out: what --report, --markdown, --json, -q and -v say."""

    report: Path | None
    markdown: Path | None
    as_json: bool
    quiet: bool
    verbose: bool

    def progress(self) -> AbstractContextManager[Callable[[str], None]]:
        """Shows what is being done, on standard error, as long as the block lasts."""
        from onnxprune.report.progress import progress

        return progress(quiet=self.quiet or not is_first_process())

    def check(self, sources: Sequence[Path], *targets: Path | None) -> None:
        """Can the reports be written, beside the other targets? For before the work.

        Raises UsageError for a place where they cannot, MissingExtraError where a package is missing.
        """
        from onnxprune.errors import UsageError
        from onnxprune.support.files import check_targets

        if self.markdown == STDOUT and self.as_json:
            raise UsageError(
                "--json and --markdown - both want standard output; name a file for one: --markdown report.md"
            )
        check_targets(sources, *targets, self.report, None if self.markdown == STDOUT else self.markdown)
        if self.report is not None:
            from onnxprune.report.html import check_installed

            check_installed()

    def tell(self, document: dict[str, Any], show: Callable[[], object]) -> None:
        """Write the reports; then the document on standard output with --json, else what `show` prints."""
        if not is_first_process():
            return
        write_reports(document, self.report, self.markdown)
        if self.as_json:
            print_json(document)
        elif not self.quiet and self.markdown != STDOUT:
            show()

    def tell_result(self, result: Result, model: Path, output: Path | None, *, verbose: bool = False) -> None:
        """The same for what was removed from a model."""
        from onnxprune.report import data

        def show() -> None:
            from onnxprune.report import terminal

            terminal.show_result(result.report, model, output, verbose=verbose or self.verbose)

        self.tell(data.of_result(result, model, output), show)
        tell_damage(result.report.quality)


def tell_several(shown: Presentation, document: dict[str, Any], *, interrupted: bool) -> None:
    """The same for several models, one failure after the other on standard error; ends with 1 where there was one."""

    def show() -> None:
        from onnxprune.report.several import show_several

        show_several(document)

    shown.tell(document, show)
    for each in document["models"]:
        damage = each["result"] and each["result"]["quality"] and each["result"]["quality"]["damage"]
        said = each["error"] or (f"warning: {damage}; --allow-damage if this is meant" if damage else "")
        if said:
            click.echo(f"onnxprune: {each['model']}: {said}", err=True)
    if interrupted:
        raise KeyboardInterrupt("interrupted; what was written stays")
    if document["failed"]:
        click.get_current_context().exit(1)


def tell_damage(quality: Quality | None) -> None:
    """Say on standard error that a model fell apart, whatever else is printed."""
    if quality is not None and quality.damage:
        click.echo(f"onnxprune: warning: {quality.damage}; --allow-damage if this is meant", err=True)


def presentation_options(
    *others: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: add the options of Presentation, which the command gets as `shown`, and `others` in their middle."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def shown(
            report: Path | None, markdown: Path | None, as_json: bool, quiet: bool, verbose: bool, **rest: Any
        ) -> Any:
            return command(shown=Presentation(report, markdown, as_json, quiet, verbose), **rest)

        add: Callable[[Callable[..., Any]], Callable[..., Any]] = option_group(
            REPORT, MARKDOWN, *others, JSON, QUIET, VERBOSITY
        )
        return add(shown)

    return decorate


def write_reports(document: dict[str, Any], report: Path | None, markdown: Path | None) -> None:
    """Write what `--report` and `--markdown` ask for, from the document that `--json` prints; atomic."""
    if report is None and markdown is None:
        return
    from onnxprune.report.html import html
    from onnxprune.report.markdown import markdown as to_markdown
    from onnxprune.report.pages import Origin
    from onnxprune.support.files import staged_text
    from onnxprune.support.versions import versions

    context = click.get_current_context()
    command = shlex.join(["onnxprune", *context.meta.get(ARGUMENTS, ())])
    origin = Origin(command, versions(), context.params.get("seed"))
    if report is not None:
        with staged_text(html(document, origin), report):
            pass
    if markdown == STDOUT:
        click.echo(to_markdown(document, origin), nl=False)
    elif markdown is not None:
        with staged_text(to_markdown(document, origin), markdown):
            pass


def print_json(document: dict[str, Any]) -> None:
    """One document on standard output."""
    from onnxprune.report.data import to_json

    click.echo(to_json(document))
