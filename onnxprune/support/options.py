"""Options: fields of dataclasses that carry their help, range and choices beside their default.

Everything else is made from the fields: options of the command line, keys of recipes, keywords in Python, pages of the
documentation, the record of a run and the ranges of a search. A value may be given as a person writes it (one text
where several are meant, a dict where pairs are meant); `taken` brings it into the form that the field declares.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from onnxprune.errors import UsageError, WrongTypeError
from onnxprune.support.messages import did_you_mean

_KEY = "option"


@dataclass(frozen=True)
class Declared:
    """The facts that an option's field states beside its type and default.

    Attributes:
        help: one sentence or two, for people.
        low: the least number that is allowed; None: any.
        high: the largest number, or the number below which it has to be, see `below`.
        below: `high` itself is not allowed.
        unit: of a number, like "seconds".
        choices: the names that are allowed, looked up when they are needed.
        offers: names that the shell completes, where others are allowed too.
        metavar: how the command line writes a value.
        flag: the name on the command line, where it is not the field's.
        section: under which heading `--help` lists it; empty: first, among those that most people need.
        function: a function of the user is taken too, or `module:function`.
        search: low and high end of a search over recipes.
        separator: between several values that the command line takes as one text.
        called: what a name of `choices` is called in messages; empty: the flag.
        recorded: it belongs into the record of a run, for it may change what comes out.
    """

    help: str
    low: float | None = None
    high: float | None = None
    below: bool = False
    unit: str = ""
    choices: Callable[[], Iterable[str]] | None = None
    offers: Callable[[], Iterable[str]] | None = None
    metavar: str | None = None
    flag: str | None = None
    section: str = ""
    function: bool = False
    search: tuple[float, float] | None = None
    separator: str = ""
    called: str = ""
    recorded: bool = True


@dataclass(frozen=True)
class Option:
    """An option as it was declared: the field's name, type and default, and the rest."""

    name: str
    type: Any
    default: Any
    declared: Declared

    @property
    def flag(self) -> str:
        """The name on the command line, without dashes in front: `round-to`."""
        return (self.declared.flag or self.name).replace("_", "-")

    @property
    def inner(self) -> Any:
        """The type without None."""
        if isinstance(self.type, UnionType):
            return next(each for each in typing.get_args(self.type) if each is not NoneType)
        return self.type

    @property
    def many(self) -> bool:
        """Several values: a tuple."""
        return typing.get_origin(self.inner) is tuple

    @property
    def pairs(self) -> bool:
        """Pairs of a name and a number: a table."""
        return self.many and typing.get_origin(typing.get_args(self.inner)[0]) is tuple

    @property
    def single(self) -> Any:
        """The type of one value."""
        return typing.get_args(self.inner)[0] if self.many else self.inner


def option(default: Any, help: str, **declared: Any) -> Any:  # noqa: A002
    """A field of a frozen dataclass that is an option; see `Declared` for the keywords."""
    return dataclasses.field(default=default, metadata={_KEY: Declared(help, **declared)})


_OPTIONS: dict[Any, dict[str, Option]] = {}


def options_of(kind: Any) -> Mapping[str, Option]:
    """The options that a dataclass declares, by the names of their fields, in their order."""
    if kind not in _OPTIONS:
        _OPTIONS[kind] = {
            field.name: Option(field.name, _type_of(kind, field), field.default, field.metadata[_KEY])
            for field in dataclasses.fields(kind)
            if _KEY in field.metadata
        }
    return _OPTIONS[kind]


def _type_of(kind: Any, field: dataclasses.Field[Any]) -> Any:
    """The type of an option's field; those of other fields may be known to type checkers alone."""
    home = next(base for base in kind.__mro__ if field.name in inspect.get_annotations(base))
    return eval(str(field.type), vars(sys.modules[home.__module__]))


def check_options(holder: Any) -> None:
    """Bring every option of a frozen dataclass into its declared form; for `__post_init__`.

    Raises UsageError for a value that is out of range, WrongTypeError for one of another type.
    """
    for name, each in options_of(type(holder)).items():
        object.__setattr__(holder, name, taken(each, getattr(holder, name)))


def find_option(kind: Any, name: str, others: Iterable[str] = ()) -> Option:
    """The option of a dataclass by its name, with dashes or underscores, or by its flag.

    Raises UsageError with the nearest name where there is none; `others` are names to suggest beside its own.
    """
    options = options_of(kind)
    wanted = name.replace("-", "_")
    for each in options.values():
        if wanted in (each.name, each.flag.replace("-", "_")):
            return each
    raise UsageError(f"unknown option '{name}'{did_you_mean(name, [*options, *others])}")


def changed(holder: Any) -> dict[str, Any]:
    """The options of a dataclass that are not at their defaults, as plain data for JSON and TOML."""
    found = {}
    for name, each in options_of(type(holder)).items():
        value = getattr(holder, name)
        if value != each.default and each.declared.recorded:
            found[name] = plain(each, value)
    return found


def plain(each: Option, value: Any) -> Any:
    """A value as JSON and TOML write it."""
    if each.pairs:
        return dict(value)
    if each.many and value is not None:
        return list(value)
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return value


def taken(each: Option, value: Any) -> Any:
    """A value in the form that its option declares.

    Raises WrongTypeError for a value of another type, UsageError for one that is out of range or no choice.
    """
    if value is None and each.type is not each.inner:
        return None
    if each.declared.function and callable(value):
        return value
    if each.pairs:
        return _pairs(each, value)
    if each.many:
        given = [value] if isinstance(value, str | int | float | Path) else value
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            raise _wrong(each, value)
        return tuple(_one(each, entry) for entry in given)
    return _one(each, value)


def _pairs(each: Option, value: Any) -> tuple[tuple[str, float], ...]:
    """A table, or pairs, or texts like `heads=0.25`; of one name the last entry counts."""
    if isinstance(value, str):
        value = [value]
    entries = value.items() if isinstance(value, Mapping) else value
    if not isinstance(entries, Iterable):
        raise _wrong(each, value)
    found: dict[str, float] = {}
    for entry in entries:
        name, number = _pair(each, entry)
        found.pop(name, None)
        found[name] = _number(each, number, f"{each.name} of '{name}'")
    return tuple(found.items())


def _pair(each: Option, entry: Any) -> tuple[str, Any]:
    if isinstance(entry, str):
        name, _, text = entry.rpartition("=")
        try:
            return name.strip(), float(text)
        except ValueError:
            raise UsageError(f"{each.flag} '{entry}' is not a name and a number, like heads=0.25") from None
    if isinstance(entry, tuple | list) and len(entry) == 2 and isinstance(entry[0], str):
        return entry[0], entry[1]
    raise _wrong(each, entry)


def _one(each: Option, value: Any) -> Any:
    kind = each.single
    if kind in (int, float):
        return _number(each, value, each.name.replace("_", "-"))
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(each, value)
        return value
    if kind is Path:
        if not isinstance(value, str | Path):
            raise _wrong(each, value)
        return Path(value)
    if kind is str:
        if not isinstance(value, str):
            raise _wrong(each, value)
        declared = each.declared
        choices, free = declared.choices, declared.function and ":" in value
        if choices is not None and not free and value not in (known := list(choices())):
            raise UsageError(f"unknown {declared.called or each.flag} '{value}'{did_you_mean(value, known)}")
        return value
    return value


def _number(each: Option, value: Any, said: str) -> Any:
    whole = each.single is int
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        value = value.item() if hasattr(value, "item") else value  # a number of numpy
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise _wrong(each, value)
    declared = each.declared
    low, high = declared.low, declared.high
    inside = isfinite(value) and (low is None or value >= low)
    if not inside or (high is not None and (value > high or (declared.below and value == high))):
        raise UsageError(
            f"{said} {value:g} is outside {_range(declared)}: {declared.help[0].lower()}{declared.help[1:]}"
        )
    return value if whole else float(value)


def _range(declared: Declared) -> str:
    """`[0, 1)`, `1 or more`."""
    low, high = declared.low, declared.high
    if high is None:
        return "the numbers" if low is None else f"{low:g} or more"
    return f"{'(' if low is None else '['}{'' if low is None else f'{low:g}'}, {high:g}{')' if declared.below else ']'}"


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def accepted(each: Option) -> str:
    """Say in words which values an option takes."""
    if each.pairs:
        return "a table of names and numbers, like {'heads': 0.25}"
    word = _WORDS.get(each.single, "a value")
    word = f"a list of {word.split(' ', 1)[-1]}s" if each.many else word
    return f"{word}, or a function" if each.declared.function else word


def _wrong(each: Option, value: Any) -> WrongTypeError:
    return WrongTypeError(f"{each.name.replace('_', '-')} is {accepted(each)}, not {value!r}")
