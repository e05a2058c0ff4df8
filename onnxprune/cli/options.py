"""Options of commands, made from the fields of steps, of the context and of data; see `support.options`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from onnxprune.errors import UsageError
from onnxprune.support.options import Option, options_of, taken

Command = TypeVar("Command", bound=Callable[..., Any])
_TYPES = {int: click.INT, float: click.FLOAT}
# The heading of options that belong to no section.
_FIRST = "Options"


class SectionOption(click.Option):
    """An option that `--help` lists under a heading of its own."""

    def __init__(self, *args: Any, section: str = "", **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help begins with the options that most people need; the others follow in named sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {_FIRST: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "") or _FIRST, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def fields(
    kind: Any,
    *names: str,
    but: Iterable[str] = (),
    section: str | None = None,
    alone: bool = False,
    optional: bool = False,
    several: Mapping[str, str] | None = None,
    called: Mapping[str, str] = {},
) -> Callable[[Command], Command]:
    """Decorator: add the options that a dataclass declares, all or those in `names`, in their order.

    Args:
        kind: the dataclass.
        names: of its fields; empty: all.
        but: names of fields to leave out.
        section: the heading for all of them, in place of their own.
        optional: what they say is done only where they are given, so no default is shown.
        several: fields, and under which names a command takes several values of each, to measure them side by side.
        alone: under the names of the fields, for the command that does nothing but this step.
        called: fields, and under which other names the command takes them.
    """
    names = tuple(several or names)
    found = [each for name, each in options_of(kind).items() if name not in set(but) and (not names or name in names)]

    def decorate(command: Command) -> Command:
        for each in reversed(found):
            each = replace(each, default=None) if optional else each
            name = several[each.name] if several else each.name if alone else each.flag
            command = _decorator(each, section, called.get(each.name, name), several=bool(several))(command)
        return command

    return decorate


def _decorator(each: Option, section: str | None, called: str, *, several: bool) -> Callable[[Command], Command]:
    declared = each.declared
    settings: dict[str, Any] = {
        "cls": SectionOption,
        "section": declared.section if section is None else section,
        "help": declared.help,
    }
    name, flag = called.replace("-", "_"), called.replace("_", "-")
    if each.single is bool:
        return click.option(f"--{flag}", name, is_flag=True, **settings)
    if each.default not in (None, (), ""):
        settings["show_default"] = True
        settings["default"] = declared.separator.join(each.default) if declared.separator else each.default
    if several:
        settings["callback"] = _joined if each.many else _in_range(replace(each, name=name))
        settings["default"] = (settings["default"],)
    names = declared.choices or declared.offers
    if names is not None:
        settings["shell_complete"] = _completing(names, declared.separator or "+")
    return click.option(
        f"--{flag}",
        name,
        multiple=several or (each.many and not declared.separator),
        type=_TYPES.get(each.single, click.STRING) if not each.pairs else click.STRING,
        metavar=declared.metavar,
        **settings,
    )


def _joined(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """`--providers cpu,cuda` is `--providers cpu --providers cuda`."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _in_range(each: Option) -> Callable[..., tuple[Any, ...]]:
    """Passes values on. Raises UsageError for one that the option does not allow."""
    return lambda _, __, values: tuple(taken(each, value) for value in values)


# Samples beside --data, which are read in the same way.
CALIBRATION = click.option(
    "--calibration",
    cls=SectionOption,
    section="Data",
    metavar="SPEC",
    help="Other samples for criteria and recovery, where --data is trained on.",
)
EVALUATION = click.option(
    "--evaluation",
    cls=SectionOption,
    section="Data",
    metavar="SPEC",
    help="Samples to measure drops and trainings on; by default some of --data are kept apart.",
)


# Fields of the context: on which inputs a model is compressed, and where it is run.
RUNNING = (
    "input_shape",
    "batch_axis",
    "carry",
    "memory",
    "resize_states",
    "providers",
    "custom_ops",
    "device",
    "jobs",
    "unverified",
)


def _completing(choices: Callable[[], Iterable[str]], between: str) -> Callable[..., list[CompletionItem]]:
    """Words that the shell offers: also behind the + of a combination, or a comma."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, plus, last = incomplete.rpartition(between)
        return [CompletionItem(before + plus + name) for name in choices() if name.startswith(last)]

    return complete


def tell_missing(settings: Mapping[str, Any]) -> None:
    """Say on standard error which execution providers that were asked for are not there."""
    if "providers" in settings:
        from onnxprune.runtime.providers import choose_providers

        for note in choose_providers(settings["providers"])[1]:
            click.echo(f"note: {note}", err=True)


def check_timed(settings: Mapping[str, Any], timed: bool, how: str) -> None:
    """Raises UsageError for options that say how latency is measured where nothing is `timed`; `how` it would be."""
    for name in ("threads", "latency_batch"):
        if name in settings and not timed:
            raise UsageError(
                f"--{name.replace('_', '-')} says how latency is measured, which nothing asks for; add {how}"
            )


def given(options: Mapping[str, Any], *kinds: Any) -> dict[str, Any]:
    """Those options of dataclasses that the command line names, by their flags, or fields, with underscores."""
    source = click.get_current_context().get_parameter_source
    found = {}
    for kind in kinds:
        for each in options_of(kind).values():
            name = each.flag.replace("-", "_")
            name = name if name in options else each.name
            if name in options and source(name) is not ParameterSource.DEFAULT:
                value = options[name]
                found[name] = value.split(each.declared.separator) if each.declared.separator else value
    return found
