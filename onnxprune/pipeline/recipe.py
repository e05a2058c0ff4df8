"""A recipe: the options of a compression in a TOML file, with ratios for single groups.

criterion = "l1"
scope = "uniform"
ratio = 0.5
skip = ["heads"]
target = ["macs=0.4"]

[groups]                  # kinds or patterns, as for --only; the last one that names a group decides
neurons = 0.6
"layer1.*" = 0.25
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.support.messages import did_you_mean, one_line

# What may be set, and the type of each; lists are of texts.
OPTIONS: dict[str, tuple[type, ...]] = {
    "criterion": (str,),
    "ratio": (int, float),
    "scope": (str,),
    "round-to": (int,),
    "max-ratio": (int, float),
    "min-units": (int,),
    "steps": (int,),
    "schedule": (str,),
    "recover": (str,),
    "metric": (str,),
    "seed": (int,),
    "only": (list,),
    "skip": (list,),
    "target": (list,),
}


@dataclass(frozen=True)
class Recipe:
    """Options by the names of `pipeline.compress`, and (pattern, ratio) pairs."""

    options: dict[str, Any] = field(default_factory=dict)
    ratios: tuple[tuple[str, float], ...] = ()


def read(path: str | Path) -> Recipe:
    """Read a recipe. Raises UsageError, naming the file and the entry, for what is none."""
    try:
        with Path(path).open("rb") as stream:
            data = tomllib.load(stream)
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} is not TOML: {one_line(error)}") from None
    groups = data.pop("groups", {})
    if not isinstance(groups, dict):
        raise UsageError(f"the recipe {path}: groups is a table of patterns and ratios, like neurons = 0.6")
    options = {name.replace("-", "_"): _option(path, name, value) for name, value in data.items()}
    return Recipe(options, tuple((pattern, _ratio(path, pattern, value)) for pattern, value in groups.items()))


def _option(path: str | Path, name: str, value: Any) -> Any:
    name = name.replace("_", "-")
    if name not in OPTIONS:
        raise UsageError(f"the recipe {path} sets '{name}'{did_you_mean(name, [*OPTIONS, 'groups'])}")
    if isinstance(value, str) and OPTIONS[name] == (list,):
        value = [value]
    fits = isinstance(value, OPTIONS[name]) and not isinstance(value, bool)
    if not fits or (isinstance(value, list) and not all(isinstance(each, str) for each in value)):
        kind = {str: "a text", int: "a whole number", list: "a list of texts", float: "a number"}[OPTIONS[name][-1]]
        raise UsageError(f"the recipe {path}: {name} is {kind}, not {value!r}")
    return value


def _ratio(path: str | Path, pattern: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UsageError(f"the recipe {path}: '{pattern}' in groups is a ratio in [0, 1), not {value!r}")
    return float(value)
