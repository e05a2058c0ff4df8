"""What the commands share: options, examples in their help, printing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from onnxprune.pipeline import Result

VERBOSE = "onnxprune.verbose"

Command = TypeVar("Command", bound=Callable[..., Any])


def _remember_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """For the error handler: tracebacks, and what libraries have to say, are printed only on request."""
    ctx.meta[VERBOSE] = value
    if not value:
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    return value


MODEL = click.argument("model", type=click.Path(path_type=Path))
OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write; default: MODEL's name with .pruned.onnx."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, no tables.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
VERBOSITY = click.option(
    "-v", "--verbose", is_flag=True, callback=_remember_verbose, help="Print every group; tracebacks of bugs."
)
KEEP_METADATA = click.option(
    "--keep-metadata", is_flag=True, help="Keep the exporter's notes on nodes, like stack traces with local paths."
)


def shared(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order by --help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def examples(*lines: str) -> str:
    """The end of a command's help; click leaves the line ends of a paragraph that begins with a backspace alone."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


def print_result(
    result: Result, model: Path, output: Path | None, *, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Tables, or one JSON document, for what was removed."""
    from onnxprune.report import data, terminal

    if as_json:
        print_json(data.of_result(result.report, result.plan, model, output))
    elif not quiet:
        terminal.show_result(result.report, model, output, verbose=verbose)


def print_json(document: dict[str, Any]) -> None:
    """One document on standard output."""
    import json

    click.echo(json.dumps(document, indent=2))
