"""A space of recipes: a recipe whose options may be ranges.

    [[step]]
    step = "prune"
    ratio = { low = 0.2, high = 0.8 }             # whole numbers stay whole; log = true, step = 8
    scope = { choose = ["auto", "knapsack"] }
    tilt = [{ search = true }, 0, { search = true }]    # the range that the option declares itself
    target = "macs={0.3..0.8}"                    # inside a text

    [[step]]
    step = "quantize"
    optional = true                               # with the step or without it

A range may be wherever a value may be: in a list, in a table of patterns. A parameter is called as its option, like
`prune.ratio`, `prune.tilt.0`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.pipeline.recipe import Recipe, find_step
from onnxprune.steps.base import steps
from onnxprune.support.messages import one_line
from onnxprune.support.options import Option, options_of

# The space where none is given: how much goes, by which rule, and how that is bent over the depth of the network.
DEFAULT_SPACE = """[[step]]
step = "prune"
ratio = { search = true }
scope = { choose = ["auto", "knapsack", "uniform"] }
tilt = [{ search = true }, { search = true }, { search = true }]

[[step]]
step = "recover"

[[step]]
step = "clean"
"""

_IN_TEXT = re.compile(r"\{(-?[0-9.]+?)\.\.(-?[0-9.]+)\}")
_KEYS = {"low", "high", "log", "step", "choose", "search"}
_DIGITS = 4  # of numbers in a recipe, so that people can read it

Value = str | int | float | bool


@dataclass(frozen=True)
class Parameter:
    """One number or choice that a search decides.

    Attributes:
        name: like `prune.ratio`.
        low, high: the ends of its range; None for a choice.
        choices: what is chosen from; empty for a range.
        whole: it is a whole number.
        log: it is drawn evenly in its logarithm.
        step: between two values; None: any number.
        start: where a search begins: the default of the option where that is in the range.
    """

    name: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()
    whole: bool = False
    log: bool = False
    step: float | None = None
    start: Value = 0.0

    def ends(self) -> tuple[Value, ...]:
        """Values that have to be allowed if all are."""
        return self.choices or (self._taken(self.low), self._taken(self.high))

    def _taken(self, value: Any) -> Value:
        return int(value) if self.whole else round(float(value), _DIGITS)

    def value(self, drawn: Any) -> Value:
        """A value as it was drawn, as the recipe has it."""
        return drawn if self.choices else self._taken(drawn)


class Space:
    """The recipes that a text describes; every end of every range is tried before any work.

    Raises UsageError for a text that is not a recipe with ranges.
    """

    def __init__(self, text: str, source: str = "the space") -> None:
        self.text = text
        self.source = source
        self.parameters: dict[str, Parameter] = {}
        try:
            self._data = tomllib.loads(text)
        except ValueError as error:
            raise UsageError(f"the space {source} is not TOML: {one_line(error)}") from None
        self._filled(lambda parameter: self.parameters.setdefault(parameter.name, parameter).start)
        if not self.parameters:
            raise UsageError(
                f"the space {source} leaves nothing to search: give a range, like ratio = {{ low = 0.2, high = 0.8 }}"
            )
        for parameter in self.parameters.values():
            for end in parameter.ends():
                self.recipe({parameter.name: end})

    @staticmethod
    def read(path: Path | None) -> Space:
        """The space of a file; None: the default one."""
        if path is None:
            return Space(DEFAULT_SPACE)
        try:
            return Space(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the space {path}: {one_line(error)}") from None

    def recipe(self, values: Mapping[str, Any] = {}) -> Recipe:
        """The recipe at these values of the parameters, by name; at the start of those that are not named.

        Raises UsageError, naming the parameters, for a recipe that there cannot be.
        """
        try:
            data = self._filled(lambda each: each.value(values.get(each.name, each.start)))
            return Recipe.of_table(data, self.source, self.text)
        except UsageError as error:
            at = ", ".join(f"{name}={value}" for name, value in values.items())
            raise UsageError(f"{error}{f' (at {at})' if at else ''}") from None

    @property
    def widest(self) -> Recipe:
        """The recipe with every step that may be left out."""
        return self.recipe({name: True for name, each in self.parameters.items() if each.choices == (True, False)})

    def _filled(self, fill: Callable[[Parameter], Value]) -> dict[str, Any]:
        """The data of the recipe with a value for every range."""
        data = dict(self._data)
        tables = data.pop("step", None)
        if tables is None:
            return {name: _SpaceWalk(fill, _declared(name), name).of(value) for name, value in data.items()}
        if not isinstance(tables, list):
            raise UsageError(f"the space {self.source}: steps are tables like [[step]]")
        return {**data, "step": list(_steps(tables, "", fill))}


def _declared(name: str) -> Option | None:
    """The option of `compress` that is called so."""
    try:
        return find_step(name)[1]
    except UsageError:
        return None


def _steps(tables: list[Any], before: str, fill: Callable[[Parameter], Value]) -> Iterator[dict[str, Any]]:
    """Tables of steps with a value for every range; steps that are left out are left out."""
    seen: dict[str, int] = {}
    for given in tables:
        table = dict(given)
        name = str(table.get("step"))
        seen[name] = seen.get(name, 0) + 1
        called = before + name + (f"-{seen[name]}" if seen[name] > 1 else "")
        if table.pop("optional", False) and not fill(Parameter(called, choices=(True, False), start=True)):
            continue
        known = options_of(steps[name]) if name in steps else {}
        inner = table.pop("steps", None)
        filled = {
            key: _SpaceWalk(fill, known.get(key.replace("-", "_")), f"{called}.{key}").of(value)
            for key, value in table.items()
        }
        yield {**filled, **({} if inner is None else {"steps": list(_steps(inner, f"{called}.", fill))})}


@dataclass(frozen=True)
class _SpaceWalk:
    """Replaces the ranges in the value of an option."""

    fill: Callable[[Parameter], Value]
    declared: Option | None
    name: str

    def of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [_SpaceWalk(self.fill, self.declared, f"{self.name}.{at}").of(each) for at, each in enumerate(value)]
        if isinstance(value, dict) and _is_range(value):
            return self.fill(self._parameter(value))
        if isinstance(value, dict):
            return {
                key: _SpaceWalk(self.fill, self.declared, f"{self.name}.{key}").of(each) for key, each in value.items()
            }
        if isinstance(value, str):
            return self._text(value)
        return value

    def _text(self, text: str) -> str:
        """A text with numbers for the ranges in it; they are called as the option, numbered where there are several."""
        found = _IN_TEXT.findall(text)
        for at, (low, high) in enumerate(found):
            name = self.name if len(found) == 1 else f"{self.name}.{at}"
            number = self.fill(self._parameter({"low": float(low), "high": float(high)}, name))
            text = _IN_TEXT.sub(f"{number:g}", text, count=1)
        return text

    def _parameter(self, table: Mapping[str, Any], name: str | None = None) -> Parameter:
        name, default = name or self.name, self._default()
        if set(table) - _KEYS:
            raise self._wrong(f"unknown keys {', '.join(sorted(set(table) - _KEYS))}")
        if "choose" in table:
            choices = tuple(table["choose"])
            if not choices or not all(isinstance(each, str | int | float | bool) for each in choices):
                raise self._wrong("choose is a list of texts or numbers")
            return Parameter(name, choices=choices, start=default if default in choices else choices[0])
        if "search" in table:
            return self._own(name, default)
        low, high = table["low"], table["high"]
        if not all(isinstance(each, int | float) for each in (low, high)) or not low < high:
            raise self._wrong("low has to be a number below high")
        whole = self.declared is not None and self.declared.single is int
        log, step = bool(table.get("log", False)), table.get("step")
        if log and (low <= 0 or step is not None):
            raise self._wrong("log takes a range above 0, and no step")
        inside = isinstance(default, int | float) and low <= default <= high
        middle = low if whole else (low + high) / 2
        return Parameter(name, low, high, (), whole, log, step, default if inside else middle)

    def _own(self, name: str, default: Any) -> Parameter:
        """The range that the option declares."""
        each = self.declared
        if each is not None and each.declared.search is not None:
            low, high = each.declared.search
            inside = isinstance(default, int | float) and low <= default <= high
            return Parameter(name, low, high, (), each.single is int, start=default if inside else (low + high) / 2)
        if each is not None and each.declared.choices is not None:
            choices = tuple(each.declared.choices())
            return Parameter(name, choices=choices, start=default if default in choices else choices[0])
        raise self._wrong("the option declares no range of its own; give low and high, or choose")

    def _default(self) -> Any:
        """Of the option; of one that takes several numbers, 0."""
        each = self.declared
        if each is None:
            return None
        return 0.0 if each.many and each.default == () else each.default

    def _wrong(self, said: str) -> UsageError:
        return UsageError(f"the range of {self.name}: {said}")


def _is_range(table: Mapping[str, Any]) -> bool:
    return {"low", "high"} <= set(table) or bool({"choose", "search"} & set(table))
