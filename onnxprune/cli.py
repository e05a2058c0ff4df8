"""The command line: parse, call, print. Heavy imports happen inside the commands, so that `--help` is instant.

Every failure is one line on standard error that says what to do, and an exit code: 2 for wrong usage, 130 for Ctrl-C,
1 for the rest.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from onnxprune.errors import OnnxpruneError, UsageError

if TYPE_CHECKING:
    from onnxprune.pipeline import Result

_VERBOSE = "onnxprune.verbose"
_INTERRUPTED = 130

Command = TypeVar("Command", bound=Callable[..., Any])


class _OneLineErrors(click.Group):
    """A group whose commands fail with one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Parse and run; click's own usage errors are put on one line too."""
        try:
            code = super().main(args, prog_name or self.name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as help_asked:
            if not standalone_mode:
                raise
            help_asked.show()
            code = help_asked.exit_code
        except click.UsageError as error:
            if not standalone_mode:
                raise
            command = error.ctx.command_path if error.ctx else "onnxprune"
            _print_error(f"{error.format_message().rstrip('.')} (see: {command} --help)")
            code = error.exit_code
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises becomes one line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except OnnxpruneError as error:
            _fail(ctx, str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail(ctx, "interrupted; nothing was written", _INTERRUPTED)
        except MemoryError:
            _fail(ctx, "out of memory; end other programs or use a machine with more", 1)
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has gone
        except Exception as error:
            if ctx.meta.get(_VERBOSE):
                traceback.print_exc()
            _fail(
                ctx,
                f"unexpected {type(error).__name__}: {error}; this is a bug, please report it with the traceback "
                "that the same command prints with -v",
                1,
            )


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    _print_error(message)
    ctx.exit(code)


def _print_error(message: str) -> None:
    click.echo(f"onnxprune: {' '.join(message.split())}", err=True)


def _remember_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """For the error handler: tracebacks, and what libraries have to say, are printed only on request."""
    ctx.meta[_VERBOSE] = value
    if not value:
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    return value


_MODEL = click.argument("model", type=click.Path(path_type=Path))
_OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write; default: MODEL's name with .pruned.onnx."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, no tables.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
_VERBOSITY = click.option(
    "-v", "--verbose", is_flag=True, callback=_remember_verbose, help="Print every group; tracebacks of bugs."
)
_KEEP_METADATA = click.option(
    "--keep-metadata", is_flag=True, help="Keep the exporter's notes on nodes, like stack traces with local paths."
)


def _shared(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order by --help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _examples(*lines: str) -> str:
    """The end of a command's help; click leaves the line ends of a paragraph that begins with a backspace alone."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


@click.group(
    name="onnxprune",
    cls=_OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples("onnxprune inspect model.onnx", "onnxprune compress model.onnx --criterion l1 --ratio 0.5"),
)
@click.version_option(package_name="onnxprune", prog_name="onnxprune")
def main() -> None:
    """Structured pruning of ONNX files: any ONNX file in, a smaller one with the same interface out."""


@main.command(
    epilog=_examples(
        "onnxprune compress model.onnx --ratio 0.5",
        "onnxprune compress model.onnx --only neurons --only 'layer3.*' --dry-run -v",
        "onnxprune compress model.onnx -o small.onnx --round-to 8 --plan plan.json",
        "onnxprune compress model.onnx --lossless",
    )
)
@_MODEL
@_OUTPUT
@click.option("--criterion", default="l1", show_default=True, help="Score of a unit, like l1, l2 or random.")
@click.option("--ratio", default=0.5, show_default=True, help="Share of the units to remove, in [0, 1).")
@click.option(
    "--scope", default="uniform", show_default=True, help="uniform: each group loses the ratio; global: one ranking."
)
@click.option("--round-to", default=1, show_default=True, help="Make axis sizes multiples of this where they can be.")
@click.option(
    "--lossless", is_flag=True, help="Remove what changes nothing, units that are constant or not read, and no more."
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Only these: a kind, or a pattern for group, tensor or node.",
)
@click.option("--skip", multiple=True, metavar="PATTERN", help="Not these: a kind or a pattern, as for --only.")
@click.option("--plan", type=click.Path(path_type=Path), help="Also write what was removed, for: onnxprune apply.")
@click.option("--dry-run", is_flag=True, help="Print the tables, write no model.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@_shared(_KEEP_METADATA, _JSON, _QUIET, _VERBOSITY)
def compress(
    model: Path,
    output: Path | None,
    plan: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **request: Any,
) -> None:
    """Remove the weakest units of MODEL and write what is left.

    Whole channels, neurons, heads and hidden units go, everywhere at once, so the result is a smaller dense model with
    the same inputs and outputs. It is checked in ONNX Runtime before it takes its place; MODEL is never touched.
    """
    from onnxprune.report.progress import progress as reporting

    with reporting(quiet=quiet) as progress:
        from onnxprune import pipeline

        target = None if dry_run else output or pipeline.default_output(model)
        pipeline.check_targets([model], target, plan)
        seed = request["seed"]
        if request.pop("lossless"):
            result = pipeline.compress_lossless(model, **_without_choices(request), progress=progress)
        else:
            result = pipeline.compress(model, **request, progress=progress)
        if target is not None:
            result.save(target, plan=plan, seed=seed, progress=progress)
        elif plan is not None:
            result.plan.save(plan)
    _print_result(result, model, target, as_json=as_json, quiet=quiet, verbose=verbose)


def _without_choices(request: dict[str, Any]) -> dict[str, Any]:
    """The options that mean something with --lossless. Raises UsageError when one that does not was given."""
    for name in ("criterion", "ratio", "scope", "round_to"):
        if click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} means nothing with --lossless, which leaves no choice; drop one of them")
    return {name: request[name] for name in ("only", "skip", "keep_metadata")}


@main.command(
    epilog=_examples(
        "onnxprune compress model.onnx --plan plan.json", "onnxprune apply model.onnx plan.json -o again.onnx"
    )
)
@_MODEL
@click.argument("plan", type=click.Path(path_type=Path))
@_shared(_OUTPUT, _KEEP_METADATA, _JSON, _QUIET, _VERBOSITY)
def apply(
    model: Path, plan: Path, output: Path | None, keep_metadata: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Remove from MODEL what PLAN says, as written by `onnxprune compress --plan`.

    The file comes out byte for byte as the one that was written with the plan.
    """
    from onnxprune.report.progress import progress as reporting

    with reporting(quiet=quiet) as progress:
        from onnxprune import pipeline
        from onnxprune.plan import Plan

        target = output or pipeline.default_output(model)
        pipeline.check_targets([model, plan], target)
        result = pipeline.apply(model, Plan.read(plan), keep_metadata=keep_metadata, progress=progress)
        result.save(target, progress=progress)
    _print_result(result, model, target, as_json=as_json, quiet=quiet, verbose=verbose)


@main.command(
    epilog=_examples("onnxprune inspect model.onnx", "onnxprune inspect model.onnx --frozen --graph model.graphml")
)
@_MODEL
@click.option("--graph", type=click.Path(path_type=Path), help="Also write the graph: .graphml, or .json (node-link).")
@click.option("--frozen", is_flag=True, help="Print every frozen axis, not counts by reason.")
@_shared(_JSON, _VERBOSITY)
def inspect(model: Path, graph: Path | None, frozen: bool, as_json: bool, verbose: bool) -> None:
    """Show what can be pruned in MODEL, and what cannot and why."""
    from onnxprune.report.progress import progress as reporting

    with reporting() as progress:
        from onnxprune import pipeline
        from onnxprune.report import data, graph_file, terminal

        if graph is not None:
            graph_file.check_graph_file(graph, model)
        progress("analysing")
        analysis = pipeline.inspect(model)
        if graph is not None:
            graph_file.write_graph(analysis, graph)
    if as_json:
        _print_json(data.of_analysis(analysis, model))
    else:
        terminal.show_analysis(analysis, model, every_frozen=frozen or verbose, verbose=verbose)


def _print_result(
    result: Result, model: Path, output: Path | None, *, as_json: bool, quiet: bool, verbose: bool
) -> None:
    from onnxprune.report import data, terminal

    if as_json:
        _print_json(data.of_result(result.report, result.plan, model, output))
    elif not quiet:
        terminal.show_result(result.report, model, output, verbose=verbose)


def _print_json(document: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
