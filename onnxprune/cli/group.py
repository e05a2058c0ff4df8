"""The command `onnxprune`: finds its commands, and turns every failure into one line and an exit code.

Every failure is one line on standard error that says what to do, and an exit code: 2 for wrong usage, 130 for Ctrl-C,
143 for a polite kill (SIGTERM), 1 for the rest. A file in `commands/` with a `command` in it is a command; nothing else
has to be changed.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from onnxprune.cli import commands
from onnxprune.cli.base import ARGUMENTS, VERBOSE, examples
from onnxprune.errors import OnnxpruneError
from onnxprune.support.messages import did_you_mean

_HELP = ["-h", "--help"]

# What is said, and the exit code, by the signal that stopped a command.
_STOPPED: dict[int, tuple[str, int]] = {
    signal.SIGINT: ("interrupted; nothing was written", 130),
    signal.SIGTERM: ("terminated; nothing was written", 143),
}


class _OneLineErrors(click.Group):
    """A group whose commands are the files of `commands/`, and fail with one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """A command for each file."""
        return sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of one command; the others stay unread."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        # A command keeps the help option of the first context that asks for it: let that be one that knows -h.
        command.get_help_option(click.Context(command, help_option_names=_HELP))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first. Raises click.UsageError with the nearest name for one that is not there."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            ctx.fail(f"there is no command '{args[0]}'{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command line as it was given, for reports."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

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
        came: list[int] = []
        try:
            with _unwinding_on_signals(came):
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except BaseException as error:
            if came or isinstance(error, KeyboardInterrupt):
                said, code = _STOPPED[came[0] if came else signal.SIGINT]
                _fail(ctx, str(error) or said if isinstance(error, KeyboardInterrupt) else said, code)
            _tell(ctx, error)


@contextlib.contextmanager
def _unwinding_on_signals(came: list[int]) -> Iterator[None]:
    """Ctrl-C and a polite kill unwind, so that what is half written is cleaned up; SIGTERM by default would not.

    They are added to `came`, for an import that one of them breaks off may fail with an error of its own. Only the main
    thread may set handlers; a signal that is ignored, as in the background, stays so.
    """

    def unwind(number: int, _: object) -> NoReturn:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPPED}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _tell(ctx: click.Context, error: BaseException) -> NoReturn:
    """Every failure but a stop."""
    if isinstance(error, OnnxpruneError):
        _fail(ctx, str(error), error.exit_code)
    if isinstance(error, MemoryError):
        _fail(ctx, "out of memory; end other programs or use a machine with more", 1)
    if isinstance(error, BrokenPipeError) or not isinstance(error, Exception):
        raise error  # click ends quietly when the reader of a pipe has closed it
    if ctx.meta.get(VERBOSE):
        traceback.print_exception(error)
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


def _print_versions(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from onnxprune.support.versions import versions

        for package, number in versions().items():
            click.echo(f"{package} {number}")
        ctx.exit()


@click.group(
    name="onnxprune",
    cls=_OneLineErrors,
    context_settings={"help_option_names": _HELP},
    epilog=examples("onnxprune inspect model.onnx", "onnxprune compress model.onnx small.onnx --data samples.npz"),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show the versions of onnxprune and of the packages that it uses, and exit.",
)
def main() -> None:
    """Structured pruning of ONNX files: any ONNX file in, a smaller one with the same interface out."""
